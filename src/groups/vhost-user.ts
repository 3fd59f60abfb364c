import type { Group } from './types.js';

const group: Group = {
  summary: 'inspect and serve vhost-user back-ends',
  verbs: {
    list: { summary: 'list vhost-user sockets and their users', load: () => import('../commands/vhost-user/list.js') },
    probe: { summary: 'show what a back-end offers', load: () => import('../commands/vhost-user/probe.js') },
    trace: { summary: 'decode the messages between a VMM and a back-end', load: () => import('../commands/vhost-user/trace.js') },
    check: { summary: 'test whether a back-end follows the specification', load: () => import('../commands/vhost-user/check.js') },
    ctl: { summary: 'show and change the disks of serve blk', load: () => import('../commands/vhost-user/ctl.js') },
    'shmem serve': {
      summary: 'serve files into the shared memory regions of a VM',
      load: () => import('../commands/vhost-user/shmem/serve.js'),
    },
    'shmem map': { summary: 'map a file into a served region', load: () => import('../commands/vhost-user/shmem/map.js') },
    'shmem unmap': { summary: 'remove a mapping from a served region', load: () => import('../commands/vhost-user/shmem/unmap.js') },
    'shmem window': {
      summary: 'act as the front-end of a back-end that maps shared memory',
      load: () => import('../commands/vhost-user/shmem/window.js'),
    },
    'serve blk': { summary: 'serve a disk image as a vhost-user-blk back-end', load: () => import('../commands/vhost-user/serve/blk.js') },
    'shmem list': { summary: 'list the mappings of a running server', load: () => import('../commands/vhost-user/shmem/list.js') },
  },
};
export default group;
