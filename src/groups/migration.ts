import type { Group } from './types.js';

const group: Group = {
  summary: 'read QEMU migration and save files',
  verbs: {
    dump: { summary: 'every record, section and field of a stream', load: () => import('../commands/migration/dump.js') },
    ram: { summary: 'write guest memory: raw, sparse, ELF core or LiME', load: () => import('../commands/migration/ram.js') },
    verify: { summary: 'is a stream complete, truncated or damaged', load: () => import('../commands/migration/verify.js') },
  },
};
export default group;
