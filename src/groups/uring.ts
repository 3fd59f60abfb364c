import type { Group } from './types.js';

const group: Group = {
  summary: 'registered files and bulk file work on io_uring',
  verbs: {
    cat: { summary: 'write many files to stdout, reading ahead of the one that goes out', load: () => import('../commands/uring/cat.js') },
    sum: { summary: 'print checksums of many files', load: () => import('../commands/uring/sum.js') },
    sync: { summary: 'make many files durable', load: () => import('../commands/uring/sync.js') },
  },
};
export default group;
