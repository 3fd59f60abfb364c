import fs from 'node:fs';
import { Exit, VioError } from '../../common/errors.js';
import { printable } from '../../common/escape.js';
import { Sysroot } from '../../common/sysroot.js';
import { native } from '../../native/index.js';

/** Where the kernel shows PCI devices and drivers (Documentation/ABI/testing/sysfs-bus-pci). */
export const pciDevices = '/sys/bus/pci/devices';
export const pciDrivers = '/sys/bus/pci/drivers';

/** A PCI function as sysfs shows it. Ids and class are the numbers of its config space. */
export interface PciDevice {
  /** `0000:01:00.0` */
  bdf: string;
  /** Names in its folder of sysfs. */
  entries: readonly string[];
  vendor: number;
  device: number;
  readonly subsystemVendor: number;
  readonly subsystemDevice: number;
  readonly revision: number;
  /** 24 bits: base class, sub-class, programming interface. */
  class: number;
  readonly modalias: string;
  driver: string | undefined;
  /** driver_override, undefined when it is not set. */
  override: string | undefined;
  /** Number of virtual functions that are switched on. */
  numVfs: number;
  /** The kernel holds the device locked: a driver is being unbound (or probed) and does not come back. */
  busy: boolean;
  /** Number of the IOMMU group; undefined without an IOMMU. */
  group: number | undefined;
  readonly numaNode: number | undefined;
  /** A PCI or CardBus bridge (header type 1 or 2): VFIO does not take it. */
  bridge: boolean;
  /** The adapter that firmware used for the console. */
  bootVga: boolean;
  /** The bridge that leads to it; undefined on a root bus. */
  upstream: string | undefined;
  /** The physical function of a virtual function. */
  physfn: string | undefined;
  /** Virtual functions that exist now. */
  vfs: string[];
  /** Virtual functions the device can have; 0 without SR-IOV. */
  vfsTotal: number;
  /** Virtual functions of it are offered to drivers (sriov_drivers_autoprobe); undefined without SR-IOV. */
  autoprobe: boolean | undefined;
  /** `vfio0`: name of its character device below /dev/vfio/devices (kernels with CONFIG_VFIO_DEVICE_CDEV). */
  vfioDevice: string | undefined;
}

const addressPattern = /^(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}):([01][0-9a-f])\.([0-7])$/i;
/** The name of a device in libvirt: `pci_0000_01_00_0`. */
const nodeName = /^pci_([0-9a-f]{4,8})_([0-9a-f]{2})_([01][0-9a-f])_([0-7])$/i;

/**
 * The canonical form of a PCI address. The domain may be left out, or be padded to eight digits as some tools do; Linux prints
 * four, and more only where it needs them (domains of VMD).
 * @throws VioError (usage)
 */
export function parseBdf(text: string): string {
  const match = addressPattern.exec(text) ?? nodeName.exec(text);
  if (!match) {
    throw new VioError(`not a PCI address: "${printable(text)}"`, {
      code: 'USAGE',
      exit: Exit.usage,
      hint: 'addresses are like 0000:01:00.0, names have a kind: net:eth0, block:nvme0n1; vioctl vfio list shows them',
    });
  }
  const [, domain = '0', bus, slot, fn] = match;
  return `${domain.replace(/^0+/, '').padStart(4, '0')}:${bus}:${slot}.${fn}`.toLowerCase();
}

const hexAttr = (root: Sysroot, path: string): number => numberIn(root.attr(path));

/** Addresses of the PCI functions on the way to the target of a link of sysfs, from the root bus on. */
export const functionsIn = (link: string): readonly string[] =>
  link.includes(':') ? (link.match(/[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7](?=\/)/g) ?? []) : [];

/** Last part of a symbolic link's target. */
export const linkName = (root: Sysroot, path: string): string | undefined => root.readlink(path)?.split('/').pop();

/** Classes of bridges with a header of their own (PCI, CardBus), for devices whose header cannot be read. */
const bridgeClasses = new Set([0x0604, 0x0607, 0x0609]);

/** Bytes of the header of a config space: what an unprivileged process may read. */
const headerSize = 64;

/** The first bytes of the config space, up to its header; empty where it cannot be read. */
function readHeader(root: Sysroot, bdf: string): Buffer {
  try {
    const fd = fs.openSync(root.path(`${pciDevices}/${bdf}/config`), 'r');
    try {
      const bytes = Buffer.alloc(headerSize);
      return bytes.subarray(0, fs.readSync(fd, bytes, 0, headerSize, 0));
    } finally {
      fs.closeSync(fd);
    }
  } catch {
    return Buffer.alloc(0); // small trees have none; a device that vanished has none either
  }
}

/** Header type (byte 0x0e without the multi-function bit), undefined if the device does not answer. */
function headerType(header: Uint8Array): number | undefined {
  const type = header[0x0e];
  return type === undefined || type === 0xff ? undefined : type & 0x7f;
}

/**
 * True if the device no longer answers: reads of a device that was removed, or that sleeps in D3cold, return all ones.
 * The ids alone do not tell: Vendor ID and Device ID of a virtual function always read FFFFh (PCI Express Base, SR-IOV,
 * configuration space of a VF), so there the whole header counts.
 */
export function isGone(root: Sysroot, device: Pick<PciDevice, 'bdf' | 'physfn'>): boolean {
  const header = readHeader(root, device.bdf);
  if (device.physfn === undefined) return header.length >= 4 && header.readUInt32LE(0) === 0xffff_ffff;
  return header.length === headerSize && header.every((byte) => byte === 0xff);
}

/** Milliseconds after which an attribute counts as locked. Reading one takes microseconds. */
const lockTimeout = 2000;

/** Attributes whose reading takes the lock of the device (drivers/pci: driver_override_show, sriov_numvfs_show). */
const lockingAttributes = ['driver_override', 'sriov_numvfs'] as const;

type Locking = Pick<PciDevice, 'override' | 'numVfs' | 'busy'>;

/**
 * The attributes of devices that need the device's lock. While a driver is stuck in unbind such a read would never return, so
 * they are read in a process of its own (native/sysfs); those of a tree of files cannot wait.
 */
function readLocking(root: Sysroot, folders: readonly Pick<Folder, 'bdf' | 'has' | 'text'>[]): Locking[] {
  // no need to ask for what the folder does not have
  const wanted = folders.flatMap(({ bdf, has }, i) =>
    lockingAttributes.filter(has).map((name) => ({ i, name, path: root.path(`${pciDevices}/${bdf}/${name}`) })),
  );
  const values =
    root.root === '/'
      ? native().sysfs.readAll(
          wanted.map(({ path }) => path),
          lockTimeout,
        )
      : wanted.map(({ i, name }) => folders[i]!.text(name) ?? null);
  const found = folders.map((): Locking => ({ override: undefined, numVfs: 0, busy: false }));
  for (const [at, { i, name }] of wanted.entries()) {
    const value = values[at];
    if (value === false) found[i]!.busy = true;
    if (typeof value !== 'string') continue;
    const text = value.trim();
    // the kernel shows an unset one as `(null)`
    if (name === 'driver_override') found[i]!.override = text === '' || text === '(null)' ? undefined : text;
    else found[i]!.numVfs = Number.isInteger(Number(text)) ? Number(text) : 0;
  }
  return found;
}

/** The value of driver_override. */
export const readOverride = (root: Sysroot, bdf: string): string | undefined => readDevice(root, bdf)?.override;

/** Reads one device. @returns undefined when there is no such device */
export const readDevice = (root: Sysroot, bdf: string): PciDevice | undefined => readDevices(root, [bdf])[0];

/** The folder of a device, as one look at it found it. */
interface Folder {
  bdf: string;
  /** The names in it, each between slashes: a list of thousands of devices asks for few of them. */
  names: string;
  /** Target of its link in /sys/bus/pci/devices. */
  target: string | undefined;
  has(this: void, name: string): boolean;
  /** Contents of a file, or target of a link, of those that are read; undefined if it is absent. */
  text(this: void, name: string): string | undefined;
  /** The first bytes of the config space. */
  config: Uint8Array;
}

const folderFiles = ['vendor', 'device', 'class', 'boot_vga', 'sriov_totalvfs', 'sriov_drivers_autoprobe'];
const folderLinks = ['driver', 'iommu_group', 'physfn'];
const nothing = new Uint8Array(0);

/** Looks at the folders of devices; those that are not there are left out. */
function readFolders(root: Sysroot, bdfs: readonly string[]): Folder[] {
  const files = root.root === '/' ? folderFiles : [...folderFiles, ...lockingAttributes];
  const keys = [...files, ...folderLinks];
  const values = native().sysfs.readFolders(root.path(pciDevices), [...bdfs], files, folderLinks, ['config']);
  const stride = keys.length + 3;
  return bdfs.flatMap((bdf, i): Folder[] => {
    const [names, target] = values.slice(i * stride, i * stride + 2) as (string | null)[];
    const has = (name: string) => names!.includes(`/${name}/`);
    if (typeof names !== 'string' || !has('vendor')) return [];
    const text = (name: string) => (values[i * stride + 2 + keys.indexOf(name)] as string | null) ?? undefined;
    const config = (values[(i + 1) * stride - 1] as Uint8Array | null) ?? nothing;
    return [{ bdf, names, target: target ?? undefined, has, text, config }];
  });
}

/** Reads devices; those that are not there are left out. */
export function readDevices(root: Sysroot, bdfs: readonly string[]): PciDevice[] {
  const folders = readFolders(root, bdfs);
  const locking = readLocking(root, folders);
  return folders.map((folder, i) => readUnlocked(root, folder, locking[i]!));
}

const numberIn = (text: string | undefined): number => {
  const value = Number(text ?? 0);
  return Number.isNaN(value) ? 0 : value;
};

/** The names in a device's folder tell what need not be read. */
function readUnlocked(root: Sysroot, folder: Folder, locking: Locking): PciDevice {
  const { bdf, names, text, has } = folder;
  const dir = `${pciDevices}/${bdf}`;
  const cls = numberIn(text('class'));
  const link = (name: string) => text(name)?.split('/').pop();
  const group = link('iommu_group');
  const header = headerType(folder.config);
  const autoprobe = text('sriov_drivers_autoprobe');
  let entries: readonly string[] | undefined;
  const vfs = names.includes('/virtfn') ? names.split('/').filter((name) => /^virtfn\d+$/.test(name)) : [];
  return {
    bdf,
    get entries() {
      return (entries ??= names.slice(1, -1).split('/'));
    },
    vendor: numberIn(text('vendor')),
    device: numberIn(text('device')),
    class: cls,
    // asked of single devices only: a list of thousands need not read them
    get subsystemVendor() {
      return hexAttr(root, `${dir}/subsystem_vendor`);
    },
    get subsystemDevice() {
      return hexAttr(root, `${dir}/subsystem_device`);
    },
    get revision() {
      return hexAttr(root, `${dir}/revision`);
    },
    get modalias() {
      return root.attr(`${dir}/modalias`) ?? '';
    },
    get numaNode() {
      const node = Number(root.attr(`${dir}/numa_node`) ?? -1);
      return Number.isInteger(node) && node >= 0 ? node : undefined;
    },
    driver: link('driver'),
    ...locking,
    group: group === undefined ? undefined : Number(group),
    bridge: header === undefined ? bridgeClasses.has(cls >> 8) : header !== 0,
    bootVga: text('boot_vga') === '1',
    upstream: /\/([0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])\/[^/]+$/.exec(folder.target ?? '')?.[1],
    physfn: link('physfn'),
    vfs: vfs.sort((a, b) => Number(a.slice(6)) - Number(b.slice(6))).flatMap((name) => linkName(root, `${dir}/${name}`) ?? []),
    vfsTotal: Number(text('sriov_totalvfs') ?? 0),
    autoprobe: autoprobe === undefined ? undefined : autoprobe === '1',
    vfioDevice: has('vfio-dev') ? root.list(`${dir}/vfio-dev`)[0] : undefined,
  };
}

/** All PCI devices, by address. */
export function listDevices(root: Sysroot): PciDevice[] {
  return readDevices(root, root.list(pciDevices));
}

/** Characters in which two addresses differ. */
const apart = (a: string, b: string): number => [...a].reduce((n, c, i) => n + (c === b[i] ? 0 : 1), Math.abs(a.length - b.length));

/** The error for an address without a device, with the nearest addresses. */
export function noDevice(root: Sysroot, bdf: string): VioError {
  const near = root
    .list(pciDevices)
    .map((other) => [apart(other, bdf), other] as const)
    .filter(([distance]) => distance <= 3)
    .sort((a, b) => a[0] - b[0])
    .slice(0, 3)
    .map(([, other]) => other);
  return new VioError(`no PCI device ${bdf}: ENODEV (No such device)`, {
    code: 'ENODEV',
    hint: `${near.length ? `there is ${near.join(', ')}; ` : ''}a device that was just plugged in: echo 1 > /sys/bus/pci/rescan`,
  });
}

const hex = (value: number, digits: number): string => value.toString(16).padStart(digits, '0');

/** vendor and device, such as `1b36:0010` */
export const idOf = (device: Pick<PciDevice, 'vendor' | 'device'>): string => `${hex(device.vendor, 4)}:${hex(device.device, 4)}`;

/** `010802` */
export const classCode = (device: Pick<PciDevice, 'class'>): string => hex(device.class, 6);

/** Names of PCI classes: prefix of the class code, word for --class. The longest prefix wins (PCI Code and ID Assignment, 1.x). */
const classWords: readonly (readonly [prefix: string, word: string])[] = [
  ['00', 'unclassified'],
  ['0100', 'scsi'],
  ['0101', 'ide'],
  ['0104', 'raid'],
  ['0106', 'sata'],
  ['0107', 'sas'],
  ['0108', 'nvme'],
  ['01', 'storage'],
  ['0200', 'ethernet'],
  ['0207', 'infiniband'],
  ['02', 'net'],
  ['0300', 'vga'],
  ['0302', '3d'],
  ['03', 'display'],
  ['0401', 'audio'],
  ['0403', 'audio'],
  ['04', 'multimedia'],
  ['05', 'memory'],
  ['0600', 'host-bridge'],
  ['0601', 'isa-bridge'],
  ['0604', 'pci-bridge'],
  ['06', 'bridge'],
  ['0700', 'serial'],
  ['07', 'communication'],
  ['08', 'system'],
  ['09', 'input'],
  ['0b', 'processor'],
  ['0c03', 'usb'],
  ['0c05', 'smbus'],
  ['0c', 'serial-bus'],
  ['0d', 'wireless'],
  ['10', 'crypto'],
  ['12', 'accelerator'],
  ['ff', 'unassigned'],
];

/** Words of the classes that were asked for: a host has thousands of devices, and few classes. */
const classNames = new Map<number, string>();

/** Word for a device's class: `nvme`, `ethernet`, `pci-bridge`; the code where it has none. */
export function className(device: Pick<PciDevice, 'class'>): string {
  let name = classNames.get(device.class);
  if (name === undefined) {
    const code = classCode(device);
    let best: readonly [string, string] | undefined;
    for (const entry of classWords) if (code.startsWith(entry[0]) && entry[0].length > (best?.[0].length ?? 0)) best = entry;
    classNames.set(device.class, (name = best?.[1] ?? code));
  }
  return name;
}

/** Matcher of a class given as a word (`nvme`, `net`) or as the first digits of its code (`0108`). @throws VioError (usage) */
export function classMatcher(text: string): (device: Pick<PciDevice, 'class'>) => boolean {
  const word = text.toLowerCase();
  const prefixes = classWords.filter(([, name]) => name === word).map(([prefix]) => prefix);
  if (prefixes.length === 0) {
    const digits = /^(?:0x)?((?:[0-9a-f]{2}){1,3})$/.exec(word)?.[1];
    if (digits === undefined) {
      throw new VioError(`no such PCI class: "${printable(text)}"`, {
        code: 'USAGE',
        exit: Exit.usage,
        hint: `classes are ${[...new Set(classWords.map(([, name]) => name))].join(', ')}, or hexadecimal digits such as 0108`,
      });
    }
    prefixes.push(digits);
  }
  return (device) => prefixes.some((prefix) => classCode(device).startsWith(prefix));
}
