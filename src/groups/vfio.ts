import type { Group } from './types.js';

const group: Group = {
  summary: 'bind PCI devices to VFIO, inspect and drive them',
  verbs: {},
};
export default group;
