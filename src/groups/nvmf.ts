import type { Group } from './types.js';

const group: Group = {
  summary: 'serve and use NVMe over TCP',
  verbs: {},
};
export default group;
