import type { Group } from './types.js';

const group: Group = {
  summary: "map memory for a device's DMA",
  verbs: {},
};
export default group;
