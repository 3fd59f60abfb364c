import type { Census } from '../census/census.js';
import { type Holder, holdersOf } from '../census/holders.js';
import { interfacesOf } from '../census/interfaces.js';
import { usesOf } from '../checks/checks.js';
import { type Finding } from '../checks/finding.js';
import { type Capability, parseCapabilities, readConfig } from '../devices/capabilities.js';
import { type IommuGroup, readGroup } from '../devices/group.js';
import { classCode, classMatcher, className, idOf, listDevices, type PciDevice, pciDevices } from '../devices/pci.js';
import { PciNames } from '../devices/pciids.js';

/** A device as `vfio list` shows it. */
export interface DeviceRow {
  /** PCI address */
  bdf: string;
  /** class code, six hexadecimal digits */
  class: string;
  /** name of the class */
  className: string;
  /** vendor and device, such as `1b36:0010` */
  id: string;
  /** name of the vendor, from pci.ids */
  vendorName: string | undefined;
  /** name of the device, from pci.ids */
  deviceName: string | undefined;
  /** driver that has it; absent without a driver */
  driver: string | undefined;
  /** content of driver_override */
  override: string | undefined;
  /** number of its IOMMU group */
  group: number | undefined;
  /** the physical function of a virtual function, otherwise the bridge above it; absent on a root bus */
  parent: string | undefined;
  /** Bound to a VFIO driver. */
  vfio: boolean;
  /** a driver is stuck: it holds the device locked */
  busy: boolean;
  /** what the host uses it for: each entry names a check of vfio bind */
  uses: Finding[];
  /** processes that have it open */
  holders: Holder[];
}

/** A base address register, from sysfs. */
export interface Bar {
  index: number;
  /** Physical address. */
  start: bigint;
  size: number;
  kind: 'memory' | 'io';
  prefetchable: boolean;
  width: 32 | 64;
}

/** Everything about one device. */
export interface DeviceReport extends DeviceRow {
  /** vendor and device of the subsystem, such as `1af4:1100` */
  subsystem: string;
  /** revision of the device */
  revision: number;
  /** alias by which the kernel finds drivers for it */
  modalias: string;
  /** NUMA node; absent if the host has none */
  numaNode: number | undefined;
  /** PCI address of its physical function, for a virtual function */
  physfn: string | undefined;
  /** PCI addresses of its virtual functions */
  vfs: string[];
  /** number of virtual functions that it supports */
  vfsTotal: number;
  /** PCI power state, such as D0 */
  powerState: string | undefined;
  /** Runtime power management: `on` keeps the device awake, `auto` lets it sleep. */
  powerControl: string | undefined;
  /** state of runtime power management, such as `active` or `suspended` */
  runtimeStatus: string | undefined;
  /** the device may be powered off while it is suspended */
  d3coldAllowed: boolean | undefined;
  /** reset methods of the kernel, the preferred one first */
  resetMethods: string[];
  /** The VFIO driver that suits it best. */
  vfioDriver: string;
  /** its IOMMU group: members, viability, reserved ranges */
  iommuGroup: IommuGroup | undefined;
  /** base address registers: number, address, size, kind */
  bars: Bar[];
  /** INTx, and the numbers of MSI and MSI-X vectors */
  interrupts: { intx: boolean; msi: number; msix: number };
  /** PCI capabilities; empty if the configuration space cannot be read */
  capabilities: Capability[];
  /** block devices that it provides */
  blockDevices: string[];
  /** network interfaces that it provides */
  interfaces: string[];
  /** Processes whose descriptors could not be read: holders may be missing. */
  hiddenProcesses: number;
}

export interface ListFilter {
  driver?: string | undefined;
  class?: string | undefined;
  unused?: boolean | undefined;
  group?: number | undefined;
  /** Also the bridges and physical functions that lead to what passes the filter. */
  parents?: boolean | undefined;
}

function row(census: Census, names: PciNames, device: PciDevice, brief: boolean): DeviceRow {
  const { vendor, device: model } = names.lookup(device);
  const vfio = census.isVfio(device.driver);
  return {
    bdf: device.bdf,
    class: classCode(device),
    className: className(device),
    id: idOf(device),
    vendorName: vendor,
    deviceName: model,
    driver: device.driver,
    override: device.override,
    group: device.group,
    parent: device.physfn ?? device.upstream,
    vfio,
    busy: device.busy,
    uses: usesOf(census, device, { brief }),
    holders: vfio ? holdersOf(census.root, census.processes, device) : [],
  };
}

/** The devices that pass the filter, by address. `unused`: endpoints that nothing uses and no process holds. @throws usage errors */
export function inventory(census: Census, filter: ListFilter = {}): DeviceRow[] {
  const inClass = filter.class === undefined ? () => true : classMatcher(filter.class);
  const names = new PciNames(census.root);
  const all = listDevices(census.root);
  const found = all
    .filter((device) => inClass(device) && (filter.group === undefined || device.group === filter.group))
    .filter((device) => filter.driver === undefined || (device.driver ?? 'none') === filter.driver)
    .map((device) => row(census, names, device, true))
    .filter((found) => !filter.unused || (found.uses.length === 0 && found.holders.length === 0 && !found.busy));
  if (!filter.parents) return found;
  const rows = new Map(found.map((one) => [one.bdf, one]));
  const devices = new Map(all.map((device) => [device.bdf, device]));
  for (const one of found)
    for (let at = one.parent; at !== undefined && !rows.has(at); at = rows.get(at)?.parent) {
      const device = devices.get(at);
      if (!device) break;
      rows.set(at, row(census, names, device, true));
    }
  return [...rows.values()].sort((a, b) => (a.bdf < b.bdf ? -1 : 1));
}

/** Regions of sysfs' `resource` file: start, end, flags (include/linux/ioport.h) per line; lines 0-5 are the BARs. */
export function parseResource(text: string): Bar[] {
  const IORESOURCE_IO = 0x100n;
  const IORESOURCE_MEM = 0x200n;
  const IORESOURCE_PREFETCH = 0x2000n;
  const IORESOURCE_MEM_64 = 0x100000n;
  return text
    .split('\n')
    .slice(0, 6)
    .flatMap((line, index): Bar[] => {
      const fields = line.trim().split(' ');
      if (fields.length !== 3 || fields.some((field) => !/^0x[0-9a-f]{1,16}$/.test(field))) return [];
      const [start, end, flags] = fields.map((field) => BigInt(field)) as [bigint, bigint, bigint];
      if (!(flags & (IORESOURCE_IO | IORESOURCE_MEM)) || end < start) return [];
      return [
        {
          index,
          start,
          size: Number(end - start + 1n),
          kind: flags & IORESOURCE_IO ? 'io' : 'memory',
          prefetchable: (flags & IORESOURCE_PREFETCH) !== 0n,
          width: flags & IORESOURCE_MEM_64 ? 64 : 32,
        },
      ];
    });
}

const vectors = (caps: Capability[], id: number): number =>
  Number(/^(\d+) vectors/.exec(caps.find((cap) => !cap.extended && cap.id === id)?.detail ?? '0 vectors')?.[1] ?? 0);

/** Everything about a device that can be known without opening it. */
export function report(census: Census, device: PciDevice): DeviceReport {
  const { root, modules } = census;
  const dir = `${pciDevices}/${device.bdf}`;
  const config = readConfig(root, device.bdf);
  const capabilities = parseCapabilities(config);
  return {
    ...row(census, new PciNames(root), device, false),
    subsystem: idOf({ vendor: device.subsystemVendor, device: device.subsystemDevice }),
    revision: device.revision,
    modalias: device.modalias,
    numaNode: device.numaNode,
    physfn: device.physfn,
    vfs: device.vfs,
    vfsTotal: device.vfsTotal,
    powerState: root.attr(`${dir}/power_state`),
    powerControl: root.attr(`${dir}/power/control`),
    runtimeStatus: root.attr(`${dir}/power/runtime_status`),
    d3coldAllowed: { '0': false, '1': true }[root.attr(`${dir}/d3cold_allowed`) ?? ''],
    resetMethods: (root.attr(`${dir}/reset_method`) ?? '').split(/\s+/).filter((word) => word !== ''),
    vfioDriver: modules.bestVfio(device.modalias),
    iommuGroup: device.group === undefined ? undefined : readGroup(root, modules, device.group),
    bars: parseResource(root.attr(`${dir}/resource`) ?? ''),
    interrupts: { intx: (config[0x3d] ?? 0) > 0, msi: vectors(capabilities, 5), msix: vectors(capabilities, 0x11) },
    capabilities,
    blockDevices: census.blocks.tree(device.bdf).map((block) => block.name),
    interfaces: interfacesOf(root, device.bdf),
    hiddenProcesses: census.processes.hidden,
  };
}
