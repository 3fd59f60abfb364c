import type { Group } from './types.js';

const group: Group = {
  summary: 'bind PCI devices to VFIO, inspect and drive them',
  verbs: {
    list: { summary: 'list PCI devices with driver, IOMMU group and users', load: () => import('../commands/vfio/list.js') },
    show: { summary: 'show everything about one device', load: () => import('../commands/vfio/show.js') },
  },
};
export default group;
