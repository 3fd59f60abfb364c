import type { Group } from './types.js';

const group: Group = {
  summary: 'registered files and bulk file work on io_uring',
  verbs: {
    probe: { summary: 'show what io_uring supports on this kernel', load: () => import('../commands/uring/probe.js') },
    register: { summary: 'register files with io_uring and verify each entry', load: () => import('../commands/uring/register.js') },
    list: { summary: 'list the io_urings of running processes', load: () => import('../commands/uring/list.js') },
    inspect: { summary: 'show the rings and registered files of one process', load: () => import('../commands/uring/inspect.js') },
    cat: { summary: 'write many files to stdout with read-ahead', load: () => import('../commands/uring/cat.js') },
    sum: { summary: 'print checksums of many files', load: () => import('../commands/uring/sum.js') },
    bench: { summary: 'measure the gain of registered files and buffers', load: () => import('../commands/uring/bench.js') },
    sync: { summary: 'make many files durable', load: () => import('../commands/uring/sync.js') },
  },
};
export default group;
