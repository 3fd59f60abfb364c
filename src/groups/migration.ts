import type { Group } from './types.js';

const group: Group = {
  summary: 'read QEMU migration and save files',
  verbs: {
    dump: { summary: 'print the records, sections and fields of a stream', load: () => import('../commands/migration/dump.js') },
    ram: { summary: 'write guest memory: raw, sparse, ELF core or LiME', load: () => import('../commands/migration/ram.js') },
    verify: { summary: 'check whether a stream is complete and loadable', load: () => import('../commands/migration/verify.js') },
    stat: { summary: 'show what takes space in a stream', load: () => import('../commands/migration/stat.js') },
    diff: { summary: 'compare two streams', load: () => import('../commands/migration/diff.js') },
    convert: { summary: 'rewrite a stream so that QEMU loads it faster', load: () => import('../commands/migration/convert.js') },
  },
};
export default group;
