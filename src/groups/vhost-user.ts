import type { Group } from './types.js';

const group: Group = {
  summary: 'look into and serve vhost-user back-ends',
  verbs: {},
};
export default group;
