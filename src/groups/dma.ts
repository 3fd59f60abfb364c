import type { Group } from './types.js';

const group: Group = {
  summary: "map memory for a device's DMA",
  verbs: {
    plan: { summary: 'show the layout that dma map would choose', load: () => import('../commands/dma/plan.js') },
  },
};
export default group;
