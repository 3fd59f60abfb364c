import type { Group } from './types.js';

const group: Group = {
  summary: 'read QEMU migration and save files',
  verbs: {},
};
export default group;
