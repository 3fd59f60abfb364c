import type { Group } from './types.js';

const group: Group = {
  summary: 'read QEMU migration and save files',
  verbs: {
    dump: { summary: 'every record, section and field of a stream', load: () => import('../commands/migration/dump.js') },
  },
};
export default group;
