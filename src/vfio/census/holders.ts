import type { Sysroot } from '../../common/sysroot.js';
import { type PciDevice, pciDevices } from '../devices/pci.js';
import type { Processes } from './processes.js';

/** A process that keeps a VFIO device open. */
export interface Holder {
  /** 0 when the process cannot be seen from here (another PID namespace, a descriptor in flight). */
  pid: number;
  comm: string;
  /** group: /dev/vfio/N; device: a device descriptor; cdev: /dev/vfio/devices/vfioN; mapping: a mapped BAR; unseen: nobody found */
  how: 'group' | 'device' | 'cdev' | 'mapping' | 'unseen';
  fd: number | undefined;
  /** False where the kernel (before `vfio-device-syspath` in fdinfo) does not tell which device a descriptor is of. */
  certain: boolean;
}

const anonymous = 'anon_inode:[vfio-device]';

/** A mapping of a VFIO device in /proc/PID/maps. The offset holds the region's index (VFIO_PCI_OFFSET_SHIFT, 40). */
interface Mapped {
  size: number;
  region: number;
  path: string;
}

/** Mappings of VFIO devices in the text of /proc/PID/maps. */
export function vfioMappings(maps: string): Mapped[] {
  const found: Mapped[] = [];
  for (const line of maps.split('\n')) {
    if (!line.includes('vfio')) continue;
    const match = /^([0-9a-f]+)-([0-9a-f]+) \S+ ([0-9a-f]+) \S+ \d+\s+(anon_inode:\[vfio-device\]|\/dev\/vfio\/devices\/vfio\d+)/.exec(
      line,
    );
    if (!match) continue;
    found.push({
      size: Number(BigInt(`0x${match[2]}`) - BigInt(`0x${match[1]}`)),
      region: Number(BigInt(`0x${match[3]}`) >> 40n),
      path: match[4]!,
    });
  }
  return found;
}

/** Sizes of a device's regions 0-6 (`resource`: start, end, flags per line); mappings are rounded up to pages. */
export function resourceSizes(text: string): number[] {
  return text.split('\n').map((line) => {
    const [start, end] = line.split(' ');
    if (start === undefined || end === undefined || Number(end) === 0) return 0;
    return Number(BigInt(end) - BigInt(start) + 1n);
  });
}

/** The PCI address at the end of fdinfo's `vfio-device-syspath`. */
export function syspathBdf(fdinfo: string): string | undefined {
  return /^vfio-device-syspath:\s*\S*\/([0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])\s*$/m.exec(fdinfo)?.[1];
}

/** How often the device is enabled: VFIO enables a device while it is open, so 0 means that nobody holds it. */
export function enableCount(root: Sysroot, bdf: string): number | undefined {
  const text = root.attr(`${pciDevices}/${bdf}/enable`);
  return text === undefined ? undefined : Number(text);
}

/**
 * Who holds a device that is bound to a VFIO driver: by descriptors, and by BAR mappings whose descriptors are closed.
 * Descriptors of the group node alone do not keep a device bound, but are told (`how: 'group'`).
 */
export function holdersOf(root: Sysroot, processes: Processes, device: PciDevice): Holder[] {
  const holders: Holder[] = [];
  const groupPaths = device.group === undefined ? [] : [`/dev/vfio/${device.group}`, `/dev/vfio/noiommu-${device.group}`];
  const cdev = device.vfioDevice === undefined ? undefined : `/dev/vfio/devices/${device.vfioDevice}`;
  const sizes = resourceSizes(root.attr(`${pciDevices}/${device.bdf}/resource`) ?? '');
  const open = enableCount(root, device.bdf) !== 0;
  const vfio = processes.files.filter((file) => file.path.includes('vfio'));
  const add = (pid: number, how: Holder['how'], fd: number | undefined, certain: boolean) =>
    holders.push({ pid, comm: processes.comm(pid), how, fd, certain });

  for (const { pid, fd, path } of vfio) {
    if (groupPaths.includes(path)) add(pid, 'group', fd, true);
    else if (path === cdev) add(pid, 'cdev', fd, true);
    else if (path === anonymous && open) {
      const owner = syspathBdf(root.attr(`/proc/${pid}/fdinfo/${fd}`) ?? '');
      if (owner !== undefined) {
        if (owner === device.bdf) add(pid, 'device', fd, true);
        continue;
      }
      // an older kernel: a process that holds group nodes has devices of those groups; one without any may have any device
      const groups = vfio.filter((other) => other.pid === pid && /^\/dev\/vfio\/(noiommu-)?\d+$/.test(other.path));
      if (groups.length === 0 || groups.some((other) => groupPaths.includes(other.path))) add(pid, 'device', fd, groups.length > 0);
    }
  }
  if (open) {
    for (const pid of processes.pids) {
      if (holders.some((holder) => holder.pid === pid && holder.how !== 'group')) continue;
      // descriptors of other VFIO devices explain mappings that could be theirs
      if (vfio.some((file) => file.pid === pid && file.path === anonymous)) continue;
      const maps = root.attr(`/proc/${pid}/maps`) ?? '';
      const fits = vfioMappings(maps).some(({ path, region, size }) =>
        path === anonymous
          ? size <= Math.max(4096, Math.ceil((sizes[region] ?? 0) / 4096) * 4096) && (sizes[region] ?? 0) > 0
          : path === cdev,
      );
      if (fits) add(pid, 'mapping', undefined, false);
    }
    const direct = holders.filter((holder) => holder.how !== 'group');
    // the kernel says it is open: a single candidate is the one
    if (direct.length === 1) direct[0]!.certain = true;
    if (direct.length === 0 && enableCount(root, device.bdf) !== undefined) add(0, 'unseen', undefined, false);
  }
  return holders;
}

/** Holders that keep the device from being unbound (all but those of the group node). */
export const blocking = (holders: Holder[]): Holder[] => holders.filter((holder) => holder.how !== 'group');

/** `qemu (pid 412, descriptor 9)`, `dd (pid 7, a mapped BAR)` */
export function describeHolder(holder: Holder): string {
  if (holder.how === 'unseen') return 'a process that is not visible here';
  const how =
    holder.how === 'mapping' ? 'a mapped BAR' : holder.how === 'group' ? `descriptor ${holder.fd} of the group` : `descriptor ${holder.fd}`;
  return `${holder.comm} (pid ${holder.pid}, ${how}${holder.certain ? '' : ', probably'})`;
}
