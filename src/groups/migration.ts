import type { Group } from './types.js';

const group: Group = {
  summary: 'read QEMU migration and save files',
  verbs: {
    dump: { summary: 'every record, section and field of a stream', load: () => import('../commands/migration/dump.js') },
    ram: { summary: 'write guest memory: raw, sparse, ELF core or LiME', load: () => import('../commands/migration/ram.js') },
    verify: { summary: 'is a stream complete, truncated or damaged', load: () => import('../commands/migration/verify.js') },
    stat: { summary: 'where the bytes of a stream go', load: () => import('../commands/migration/stat.js') },
    diff: { summary: 'what changed between two streams', load: () => import('../commands/migration/diff.js') },
    convert: { summary: 'rewrite a stream so that QEMU loads it faster', load: () => import('../commands/migration/convert.js') },
  },
};
export default group;
