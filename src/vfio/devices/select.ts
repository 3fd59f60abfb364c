import { usage, VioError } from '../../common/errors.js';
import { printable } from '../../common/escape.js';
import { glob } from '../../common/glob.js';
import type { Sysroot } from '../../common/sysroot.js';
import { type Names, Store } from '../transaction/journal.js';
import { readConfig } from './capabilities.js';
import {
  classMatcher,
  functionsIn,
  idOf,
  listDevices,
  noDevice,
  type PciDevice,
  parseBdf,
  pciDevices,
  readDevice,
  readDevices,
} from './pci.js';

/** How a device can be named besides its address. */
const selectors = ['net', 'block', 'id', 'class', 'serial', 'mac', 'slot'] as const;
type Selector = (typeof selectors)[number];

export const selectorHelp =
  'addresses are 0000:01:00.0 or 01:00.0; selectors net:eth0, block:nvme0n1, id:8086:10fb, class:nvme, serial:…, mac:…, slot:…, or a glob';

/** The last PCI function in a path of sysfs: the one that a device hangs on. */
const functionIn = (link: string | undefined): string | undefined => functionsIn(link ?? '').at(-1);

/** Addresses behind a block device: itself, or the paths of an NVMe namespace under multipath (`nvmeScCnN`). */
function ofBlock(root: Sysroot, name: string): string[] {
  const folder = '/sys/class/block';
  const link = root.readlink(`${folder}/${name}`);
  const direct = functionIn(link);
  if (direct !== undefined || link === undefined) return direct === undefined ? [] : [direct];
  const namespace = /^nvme(\d+)n(\d+)/.exec(name);
  if (!namespace) return [];
  const path = new RegExp(`^nvme${namespace[1]}c\\d+n${namespace[2]}$`);
  return root.list(folder).flatMap((other) => (path.test(other) ? (functionIn(root.readlink(`${folder}/${other}`)) ?? []) : []));
}

/** Devices that vioctl bound in this boot and that were called so before: VFIO shows neither serial numbers nor interfaces. */
function formerly(root: Sysroot, has: (names: Names) => boolean): PciDevice[] {
  const records = new Store(root).records().filter(({ names }) => names !== undefined && has(names));
  return readDevices(
    root,
    records.map(({ bdf }) => bdf),
  ).filter((device) => records.some((one) => one.bdf === device.bdf && one.vendor === device.vendor && one.device === device.device));
}

/** Block devices on a PCI device, now. */
export const liveBlocks = (root: Sysroot, bdf: string): string[] =>
  root.list('/sys/class/block').filter((name) => root.readlink(`/sys/class/block/${name}`)?.includes(`/${bdf}/`));

/** Permanent MAC addresses of the interfaces of a device (addr_assign_type 0 is NET_ADDR_PERM; small trees have none). */
export function liveMacs(root: Sysroot, bdf: string): string[] {
  const dir = `${pciDevices}/${bdf}/net`;
  return root.list(dir).flatMap((name) => {
    const mac = root.attr(`${dir}/${name}/address`)?.toLowerCase();
    const permanent = (root.attr(`${dir}/${name}/addr_assign_type`) ?? '0') === '0';
    return mac !== undefined && permanent && /^([0-9a-f]{2}:){5}[0-9a-f]{2}$/.test(mac) && mac !== '00:00:00:00:00:00' ? [mac] : [];
  });
}

/** Serial numbers of a device, now: that of an NVMe controller, and the one in PCI Express config space. */
export function liveSerials(root: Sysroot, bdf: string): string[] {
  const dir = `${pciDevices}/${bdf}`;
  const found = root.list(`${dir}/nvme`).map((name) => root.attr(`${dir}/nvme/${name}/serial`));
  // Device Serial Number (PCI Express Base, extended capability 3): as lspci prints it
  const config = readConfig(root, bdf);
  for (let at = 0x100, n = 0; at >= 0x100 && at + 12 <= config.length && n < 1024; n++) {
    const header = config.readUInt32LE(at);
    if (header === 0 || header === 0xffff_ffff) break;
    if ((header & 0xffff) === 3) {
      found.push(
        Buffer.from(config.subarray(at + 4, at + 12))
          .reverse()
          .toString('hex')
          .replace(/..(?=.)/g, '$&-'),
      );
      break;
    }
    at = (header >>> 20) & 0xffc;
  }
  return found.flatMap((serial) => (serial === undefined || serial.trim() === '' ? [] : [serial.trim()]));
}

/** Names of the slots that a device is in (/sys/bus/pci/slots, its `address` lacks the function). */
export function slotsOf(root: Sysroot, bdf: string): string[] {
  const folder = '/sys/bus/pci/slots';
  return root.list(folder).filter((name) => root.attr(`${folder}/${name}/address`) === bdf.replace(/\.[0-7]$/, ''));
}

function matches(root: Sysroot, kind: Selector, value: string): PciDevice[] {
  switch (kind) {
    case 'net': {
      const bdf = functionIn(root.readlink(`/sys/class/net/${value}`));
      return bdf === undefined ? formerly(root, ({ nets }) => nets.includes(value)) : readDevices(root, [bdf]);
    }
    case 'block': {
      const name = value.replace(/^\/dev\//, '');
      const found = ofBlock(root, name);
      return found.length === 0 ? formerly(root, ({ blocks }) => blocks.includes(name)) : readDevices(root, found);
    }
    case 'id': {
      if (!/^(?:0x)?[0-9a-f]{4}:(?:0x)?[0-9a-f]{4}$/i.test(value))
        throw usage(`not a vendor:device pair: "${printable(value)}"`, 'such as id:1b36:0010');
      const id = value.toLowerCase().replaceAll('0x', '');
      return listDevices(root).filter((device) => idOf(device) === id);
    }
    case 'class':
      return listDevices(root).filter(classMatcher(value));
    case 'serial':
    case 'mac': {
      const text = value.toLowerCase();
      const wanted = kind === 'mac' ? text.replaceAll('-', ':') : text;
      const has = (list: readonly string[]) => list.some((one) => one.toLowerCase() === wanted);
      const live = kind === 'mac' ? liveMacs : liveSerials;
      const now = listDevices(root).filter(({ bdf }) => has(live(root, bdf)));
      const former = formerly(root, (names) => has(kind === 'mac' ? names.macs : names.serials));
      return [...new Map([...now, ...former].map((device) => [device.bdf, device])).values()];
    }
    case 'slot':
      return listDevices(root).filter(({ bdf }) => slotsOf(root, bdf).includes(value));
  }
}

/** True for a word that names devices by something else than one address. */
export const isSelector = (text: string): boolean => /^(?:net|block|id|class|serial|mac|slot):./s.test(text) || /[*?[]/.test(text);

/**
 * The devices that a word names: an address, a selector or a glob over addresses.
 * @throws VioError: usage (2); ENODEV (1) if nothing matches
 */
export function select(root: Sysroot, text: string): PciDevice[] {
  const selector = /^(net|block|id|class|serial|mac|slot):(.+)$/s.exec(text);
  let found: PciDevice[];
  if (selector) found = matches(root, selector[1] as Selector, selector[2]!);
  else if (/[*?[]/.test(text)) {
    if (/\[[^\]]*$/.test(text)) throw usage(`not a pattern: "${printable(text)}"`, selectorHelp); // no address has a [
    const matching = glob(text, { ignoreCase: true });
    const fits = (bdf: string) => matching(bdf) || (bdf.startsWith('0000:') && matching(bdf.slice(5)));
    found = readDevices(root, root.list(pciDevices).filter(fits));
  } else {
    const bdf = parseBdf(text);
    const device = readDevice(root, bdf);
    if (!device) throw noDevice(root, bdf);
    found = [device];
  }
  if (found.length === 0)
    throw new VioError(`no PCI device matches ${printable(text)}: ENODEV (No such device)`, { code: 'ENODEV', hint: 'vioctl vfio list' });
  return found;
}

/** The one device that a word names. @throws VioError: as select(); usage (2) if there are several */
export function findDevice(root: Sysroot, text: string): PciDevice {
  const found = select(root, text);
  if (found.length > 1) throw ambiguous(text, found);
  return found[0]!;
}

function ambiguous(text: string, found: readonly PciDevice[], hint?: string): VioError {
  const shown = found.slice(0, 8).map(({ bdf }) => bdf);
  return usage(
    `${printable(text)} matches ${found.length} devices: ${shown.join(', ')}${found.length > shown.length ? ', …' : ''}`,
    hint ?? 'name one of them',
  );
}

/**
 * The addresses that words name, each once, in the order of the words. An address need not be there: what needs the device
 * says so.
 * @param all a selector may match several
 * @throws VioError as select(); usage (2) where a selector matches several without `all`
 */
export function expand(root: Sysroot, texts: readonly string[], all = false): string[] {
  const bdfs = texts.flatMap((text) => {
    if (!isSelector(text)) return [parseBdf(text)];
    const found = select(root, text);
    if (found.length > 1 && !all) throw ambiguous(text, found, '--all takes them all');
    return found.map(({ bdf }) => bdf);
  });
  return [...new Set(bdfs)];
}
