import type { Sysroot } from '../../common/sysroot.js';
import type { Census } from '../census/census.js';
import { type PciDevice, pciDevices } from '../devices/pci.js';

/** Where a class of functions counts as part of the machine. */
type Where =
  /** wherever it is */
  | 'anywhere'
  /** directly below a host bridge: behind a bridge it is a card */
  | 'root bus'
  /** on the root bus, from a maker of chipsets: others build endpoints of the same class (ivshmem, FPGA boards) */
  | 'chipset';

/**
 * Classes of functions that a machine runs on, by prefix of the class code; the longest prefix wins (PCI Code and ID
 * Assignment Specification). Endpoints that guests use (storage, network, display, audio, USB, accelerators) are not here.
 */
const classes: readonly (readonly [prefix: string, where: Where, what: string])[] = [
  ['0500', 'chipset', 'memory controller'],
  ['0580', 'chipset', 'memory controller'],
  ['0600', 'anywhere', 'host bridge'],
  ['0601', 'anywhere', 'ISA bridge'],
  ['0602', 'anywhere', 'EISA bridge'],
  ['0603', 'anywhere', 'MicroChannel bridge'],
  ['0605', 'anywhere', 'PCMCIA bridge'],
  ['0606', 'anywhere', 'NuBus bridge'],
  ['0608', 'anywhere', 'RACEway bridge'],
  ['060a', 'anywhere', 'InfiniBand bridge'],
  ['060b', 'anywhere', 'switching bridge'],
  ['0680', 'root bus', 'bridge of the chipset'],
  ['0780', 'chipset', 'management interface of the chipset'],
  ['0800', 'anywhere', 'interrupt controller'],
  ['0801', 'root bus', 'DMA controller of the chipset'],
  ['0802', 'anywhere', 'system timer'],
  ['0803', 'anywhere', 'real-time clock'],
  ['0804', 'anywhere', 'hot-plug controller'],
  ['0806', 'anywhere', 'IOMMU'],
  ['0807', 'anywhere', 'root complex event collector'],
  ['0880', 'chipset', 'system peripheral of the chipset'],
  ['0c05', 'anywhere', 'SMBus controller'],
  ['0c80', 'chipset', 'serial bus of the chipset'],
  ['1100', 'chipset', 'signal processing controller of the chipset'],
  ['1101', 'anywhere', 'performance counters'],
  ['1180', 'chipset', 'signal processing controller of the chipset'],
  ['13', 'anywhere', 'instrumentation of the chipset'],
];

/** Vendors of processors and chipsets: AMD, ATI, Intel, VIA, NVIDIA, SiS, ALi, ServerWorks, Zhaoxin, Hygon. */
const makers = new Set([0x1022, 0x1002, 0x8086, 0x1106, 0x10de, 0x1039, 0x10b9, 0x1166, 0x1d17, 0x1d94]);

/** Drivers of DMA engines, which have the class of system peripherals (0880) and are made to be given away. */
const engines = new Set(['idxd', 'ioatdma', 'ptdma', 'ae4dma']);

/** True for a function directly below a host bridge: its folder is in that of a `pciDDDD:BB`. */
function onRootBus(root: Sysroot, bdf: string): boolean {
  return /(?:^|\/)pci[0-9a-f]+:[0-9a-f]{2}\/[^/]+$/.test(root.readlink(`${pciDevices}/${bdf}`) ?? '');
}

/** True if the function has a base address register, without which a guest has nothing to talk to. */
function hasBars(root: Sysroot, bdf: string): boolean {
  const lines = (root.attr(`${pciDevices}/${bdf}/resource`) ?? '').split('\n', 6);
  return lines.some((line) => /0x0*[1-9a-f]/i.test(line));
}

/** True for the function of an IOMMU that its class does not tell (virtio-iommu). */
function isIommu(census: Census, device: PciDevice): boolean {
  const VIRTIO = 0x1af4;
  const VIRTIO_IOMMU = 0x1057;
  if (device.vendor === VIRTIO && device.device === VIRTIO_IOMMU) return true;
  return census.iommus.some((link) => link.includes(`/${device.bdf}/`));
}

const entries = new Map<number, (typeof classes)[number] | undefined>();

/** What the table says of a class; each class is looked for once. */
function classEntry(code: number): (typeof classes)[number] | undefined {
  if (!entries.has(code)) {
    const digits = code.toString(16).padStart(6, '0');
    entries.set(code, classes.filter(([prefix]) => digits.startsWith(prefix)).at(-1));
  }
  return entries.get(code);
}

/** What an endpoint function does for the machine itself, undefined for a device that can be given away. */
export function chipsetRole(census: Census, device: PciDevice): string | undefined {
  const { root } = census;
  const [, where, what] = classEntry(device.class) ?? [];
  if (where === undefined) return isIommu(census, device) ? 'IOMMU' : undefined;
  if (where === 'anywhere') return what;
  if (!onRootBus(root, device.bdf)) return undefined;
  if (where === 'root bus') return what;
  if (!makers.has(device.vendor)) return undefined;
  // Data-movement engines share the class of the chipset's register files; they have registers in memory, or their driver.
  const engine = device.class >> 8 === 0x0880 && (hasBars(root, device.bdf) || engines.has(device.driver ?? ''));
  return engine ? undefined : what;
}
