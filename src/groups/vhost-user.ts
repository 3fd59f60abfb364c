import type { Group } from './types.js';

const group: Group = {
  summary: 'look into and serve vhost-user back-ends',
  verbs: {
    list: { summary: 'who serves and who uses vhost-user sockets here', load: () => import('../commands/vhost-user/list.js') },
    probe: { summary: 'what a back-end offers', load: () => import('../commands/vhost-user/probe.js') },
    trace: { summary: 'decode what a VMM and a back-end say to each other', load: () => import('../commands/vhost-user/trace.js') },
    check: { summary: 'conformance of a back-end, as table, TAP or JSON', load: () => import('../commands/vhost-user/check.js') },
    ctl: { summary: 'show and change the disks of serve blk', load: () => import('../commands/vhost-user/ctl.js') },
    'shmem serve': {
      summary: 'serve files into the shared memory regions of a VM',
      load: () => import('../commands/vhost-user/shmem/serve.js'),
    },
    'shmem map': { summary: 'map a file into a served region', load: () => import('../commands/vhost-user/shmem/map.js') },
    'shmem unmap': { summary: 'take a mapping out of a served region', load: () => import('../commands/vhost-user/shmem/unmap.js') },
    'shmem window': {
      summary: 'act as the front-end of a back-end that maps shared memory',
      load: () => import('../commands/vhost-user/shmem/window.js'),
    },
    'serve blk': { summary: 'serve a disk image as a vhost-user-blk back-end', load: () => import('../commands/vhost-user/serve/blk.js') },
    'shmem list': { summary: 'the mappings of a running server', load: () => import('../commands/vhost-user/shmem/list.js') },
  },
};
export default group;
