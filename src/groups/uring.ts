import type { Group } from './types.js';

const group: Group = {
  summary: 'registered files and bulk file work on io_uring',
  verbs: {},
};
export default group;
