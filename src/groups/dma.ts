import type { Group } from './types.js';

const group: Group = {
  summary: "map memory for a device's DMA",
  verbs: {
    plan: { summary: 'show the layout that dma map would choose', load: () => import('../commands/dma/plan.js') },
    map: { summary: 'map memory for a device and hold it', load: () => import('../commands/dma/map.js') },
    attach: { summary: 'run a program with the mappings of dma map', load: () => import('../commands/dma/attach.js') },
    list: { summary: 'list the mappings of a running dma map', load: () => import('../commands/dma/list.js') },
    unmap: { summary: 'unmap one mapping of a running dma map', load: () => import('../commands/dma/unmap.js') },
  },
};
export default group;
