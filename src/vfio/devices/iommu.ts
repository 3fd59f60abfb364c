import { Exit, VioError } from '../../common/errors.js';
import type { Sysroot } from '../../common/sysroot.js';

/** Whether DMA of devices goes through an IOMMU, and if not, why and what to do. */
export interface IommuState {
  present: boolean;
  /** Names in /sys/class/iommu: `dmar0`, `ivhd0`, `smmu3.0x…`. */
  units: string[];
  groups: number;
  /** VFIO runs in no-IOMMU mode (devices are unprotected). */
  noiommu: boolean;
  why: string | undefined;
  fix: string | undefined;
}

/** Value of a kernel parameter, `''` for a bare word, the last one wins. */
export function kernelParameter(cmdline: string, name: string): string | undefined {
  let value: string | undefined;
  for (const word of cmdline.trim().split(/\s+/)) {
    const [key, ...rest] = word.split('=');
    if (key === name) value = rest.join('=');
  }
  return value;
}

/** Reads the IOMMU's state from sysfs, the kernel command line and the ACPI tables that describe IOMMUs. */
export function readIommu(root: Sysroot): IommuState {
  const units = root.list('/sys/class/iommu');
  const groups = root.list('/sys/kernel/iommu_groups').length;
  const noiommu = root.attr('/sys/module/vfio/parameters/enable_unsafe_noiommu_mode') === 'Y';
  const present = groups > 0;
  const state = { present, units, groups, noiommu };
  if (present) return { ...state, why: undefined, fix: undefined };
  const cmdline = root.attr('/proc/cmdline') ?? '';
  const cpu = root.attr('/proc/cpuinfo') ?? '';
  const tables = root.list('/sys/firmware/acpi/tables');
  const intel = /GenuineIntel/.test(cpu) || tables.includes('DMAR');
  const amd = /AuthenticAMD|HygonGenuine/.test(cpu) && !tables.includes('DMAR');
  const hypervisor = /^flags\s*:.*\bhypervisor\b/m.test(cpu);
  const vm = hypervisor ? '; in a QEMU machine: -device intel-iommu,intremap=on (or virtio-iommu-pci)' : '';
  const off = ['iommu', 'intel_iommu', 'amd_iommu'].find((name) => kernelParameter(cmdline, name)?.split(',').includes('off'));
  if (!root.exists('/sys/bus/pci/devices'))
    return { ...state, why: 'this system has no PCI bus (/sys/bus/pci is missing)', fix: undefined };
  if (off !== undefined)
    return { ...state, why: `the kernel command line has ${off}=off`, fix: `remove ${off}=off from the kernel command line and reboot` };
  if (intel && !tables.includes('DMAR'))
    return {
      ...state,
      why: 'the firmware offers none (no ACPI table DMAR)',
      fix: `enable VT-d in the firmware set-up, and intel_iommu=on on the kernel command line${vm}`,
    };
  if (intel)
    return {
      ...state,
      why: 'the machine has one (ACPI table DMAR) but the kernel does not use it: no intel_iommu=on on its command line',
      fix: 'add intel_iommu=on to the kernel command line and reboot',
    };
  if (amd && !tables.includes('IVRS'))
    return { ...state, why: 'the firmware offers none (no ACPI table IVRS)', fix: `enable AMD-Vi (IOMMU) in the firmware set-up${vm}` };
  return {
    ...state,
    why: '/sys/kernel/iommu_groups is empty',
    fix: `enable the IOMMU in the firmware set-up and on the kernel command line${vm}`,
  };
}

/** The error of everything that needs an IOMMU (exit 7). */
export function noIommu(state: IommuState): VioError {
  return new VioError(`no IOMMU: ${state.why ?? 'unknown reason'}`, {
    code: 'NO_IOMMU',
    exit: Exit.unsupported,
    hint: state.fix ?? 'vioctl vfio doctor',
  });
}
