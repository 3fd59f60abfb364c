import type { Group } from './types.js';

const group: Group = {
  summary: 'bind PCI devices to VFIO, inspect and drive them',
  verbs: {
    list: { summary: 'list PCI devices with driver, IOMMU group and users', load: () => import('../commands/vfio/list.js') },
    show: { summary: 'show everything about one device', load: () => import('../commands/vfio/show.js') },
    bind: { summary: 'bind devices to VFIO, with checks, journal and rollback', load: () => import('../commands/vfio/bind.js') },
    unbind: { summary: 'give devices back to their earlier drivers', load: () => import('../commands/vfio/unbind.js') },
    sriov: { summary: 'show and set the virtual functions of a device', load: () => import('../commands/vfio/sriov.js') },
    apply: { summary: 'bring devices to the state that a file declares', load: () => import('../commands/vfio/apply.js') },
    restore: { summary: 'roll back interrupted runs', load: () => import('../commands/vfio/restore.js') },
    doctor: { summary: 'check whether this host is ready for VFIO', load: () => import('../commands/vfio/doctor.js') },
    exec: { summary: 'run a program with devices and mapped memory', load: () => import('../commands/vfio/exec.js') },
    reset: { summary: 'reset a device, alone or with its slot', load: () => import('../commands/vfio/reset.js') },
    config: { summary: 'read and write the configuration space', load: () => import('../commands/vfio/config.js') },
    bar: { summary: 'read, write and dump BARs', load: () => import('../commands/vfio/bar.js') },
    irq: { summary: 'list interrupts and wait for them', load: () => import('../commands/vfio/irq.js') },
    selftest: { summary: 'test DMA in both directions and one interrupt', load: () => import('../commands/vfio/selftest.js') },
  },
};
export default group;
