import type { Group } from './types.js';

const group: Group = {
  summary: 'look into and serve vhost-user back-ends',
  verbs: {
    list: { summary: 'who serves and who uses vhost-user sockets here', load: () => import('../commands/vhost-user/list.js') },
    probe: { summary: 'what a back-end offers', load: () => import('../commands/vhost-user/probe.js') },
    trace: { summary: 'decode what a VMM and a back-end say to each other', load: () => import('../commands/vhost-user/trace.js') },
  },
};
export default group;
