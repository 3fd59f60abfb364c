import type { Group } from './types.js';

const group: Group = {
  summary: 'registered files and bulk file work on io_uring',
  verbs: {
    probe: { summary: 'what the io_uring of this kernel can do, and why not', load: () => import('../commands/uring/probe.js') },
    register: { summary: 'register a file table, prove and report every entry', load: () => import('../commands/uring/register.js') },
    list: { summary: 'list the io_urings of running processes', load: () => import('../commands/uring/list.js') },
    inspect: { summary: 'show the rings and registered files of one process', load: () => import('../commands/uring/inspect.js') },
    cat: { summary: 'write many files to stdout, reading ahead of the one that goes out', load: () => import('../commands/uring/cat.js') },
    sum: { summary: 'print checksums of many files', load: () => import('../commands/uring/sum.js') },
    bench: { summary: 'measure what registered files, buffers and ring save here', load: () => import('../commands/uring/bench.js') },
    sync: { summary: 'make many files durable', load: () => import('../commands/uring/sync.js') },
  },
};
export default group;
