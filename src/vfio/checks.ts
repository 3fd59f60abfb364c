import fs from 'node:fs';
import { codeOf } from '../common/errors.js';
import { printable } from '../common/escape.js';
import type { BlockDevice } from './blocks.js';
import type { Census } from './census.js';
import { chipsetRole } from './chipset.js';
import { mountFindings, serversOf, shareFindings } from './filesystems.js';
import { readGroup } from './group.js';
import { foreignInterfaces, interfacesOf, isDefault, isUp, kindOf, routesTo, uppersOf } from './net.js';
import { PCI_DEVICES, type PciDevice } from './pci.js';

/** The safety checks of bind, each of which can be allowed by its name, and what it keeps from happening. */
export const CHECKS = {
  mounted: 'a file system on it, or one that is reached through it, is mounted, in any mount namespace',
  swap: 'the device holds active swap',
  holder: 'LVM, dm-crypt, MD, bcache, ZFS, btrfs, a loop device or a storage target uses it',
  open: 'a process has a device node of it open',
  route: 'a default route, or the route to the peer of this ssh session, leads out of it',
  address: 'an interface of it is up and has an address or a route',
  upper: 'a bond, bridge, VLAN, VRF or Open vSwitch is stacked on its interface',
  console: 'it is the console graphics adapter',
  'pf-with-vfs': 'it is a physical function with virtual functions, which would vanish',
  bridge: 'it is a PCI bridge',
  chipset: 'the machine runs on it: host or ISA bridge, SMBus, IOMMU, timer, event collector, performance counters, …',
  'boot-disk': 'it carries /, /boot, /usr or another folder the system runs from',
  'group-member': 'another member of its IOMMU group is on a host driver, so VFIO could not use the group',
} as const;
export type CheckName = keyof typeof CHECKS;
export const CHECK_NAMES = Object.keys(CHECKS) as CheckName[];

/** One reason why a device should not be taken from its driver. */
export interface Finding {
  check: CheckName;
  /** The device node, interface or PCI address it is about. */
  subject: string;
  /** A few words for a table: `mounted /srv`. */
  brief: string;
  /** A sentence: `/dev/nvme0n1p2 is mounted on /srv`. */
  message: string;
  /** The command that takes the reason away. */
  fix: string | undefined;
}

function blockFindings(census: Census, device: PciDevice, claim: boolean): Finding[] {
  const found: Finding[] = [];
  const tree = census.blocks.tree(device.bdf);
  if (tree.length === 0) return found;
  const users = census.blocks.kernelUsers;
  const path = (block: BlockDevice) => `/dev/${block.name}`;
  const chain = (block: BlockDevice): string => {
    const parts: string[] = [path(block)];
    for (let at = block; at.below !== undefined; ) {
      const below = tree.find((other) => other.name === at.below);
      if (!below) break;
      if (at.kind !== undefined) parts.push(path(below));
      at = below;
    }
    return parts.join(' on ');
  };
  for (const block of tree) {
    const dm = census.root.attr(`/sys/class/block/${block.name}/dm/name`);
    const names = [path(block), ...(dm === undefined ? [] : [`/dev/mapper/${dm}`])];
    // btrfs and others mount an anonymous device: their source tells
    for (const mount of census.mounts.all.filter((m) => (block.dev !== '' && m.dev === block.dev) || names.includes(m.source)))
      found.push(...mountFindings(census, path(block), chain(block), mount));
    if (census.swaps.some((swap) => names.includes(swap)))
      found.push({
        check: 'swap',
        subject: path(block),
        brief: 'swap',
        message: `${chain(block)} is active swap`,
        fix: `swapoff ${path(block)}`,
      });
    if (block.kind !== undefined) {
      const kind = printable(block.kind);
      const below = block.below === undefined ? '' : `/dev/${block.below}`;
      found.push({ check: 'holder', subject: below, brief: kind, message: `${below} is held by ${kind}`, fix: `deactivate ${kind}` });
    }
    for (const user of users.filter((u) => names.includes(u.path))) {
      const what = printable(user.what);
      found.push({ check: 'holder', subject: path(block), brief: what, message: `${path(block)} is used by ${what}`, fix: `stop ${what}` });
    }
  }
  const block = claim && found.length === 0 ? tree.find((entry) => claimed(census, path(entry))) : undefined;
  if (block) {
    const zfs = census.root.exists('/proc/spl');
    found.push({
      check: 'holder',
      subject: path(block),
      brief: 'claimed by the kernel',
      message: `${path(block)} is claimed exclusively (EBUSY): ${zfs ? 'probably by a ZFS pool' : 'by a kernel user that shows no holder'}`,
      fix: zfs ? 'zpool status; zpool export' : undefined,
    });
  }
  return found;
}

/** True when an exclusive open fails: somebody in the kernel claims the block device (ZFS leaves no other trace). */
function claimed(census: Census, path: string): boolean {
  const { O_RDONLY, O_EXCL, O_NONBLOCK } = fs.constants;
  try {
    fs.closeSync(fs.openSync(census.root.path(path), O_RDONLY | O_EXCL | O_NONBLOCK));
    return false;
  } catch (err) {
    return codeOf(err) === 'EBUSY';
  }
}

/** Numbers and names of the device nodes below a PCI device: NVMe, DRM, sound, UIO, and its disks. */
function deviceNodes(census: Census, device: PciDevice): { rdevs: Set<string>; paths: Set<string> } {
  const { root } = census;
  const rdevs = new Set<string>();
  const paths = new Set<string>();
  const add = (kind: 'b' | 'c', number: string) => {
    const dir = `/sys/dev/${kind === 'b' ? 'block' : 'char'}/${number}`;
    rdevs.add(`${kind}${number}`);
    const name = /^DEVNAME=(\S+)$/m.exec(root.attr(`${dir}/uevent`) ?? '')?.[1];
    if (name !== undefined) paths.add(`/dev/${name}`);
  };
  for (const number of root.list('/sys/dev/char')) {
    const link = root.readlink(`/sys/dev/char/${number}`);
    if (link?.includes(`/${device.bdf}/`) && !link.includes('/vfio-dev/')) add('c', number);
  }
  for (const block of census.blocks.tree(device.bdf)) {
    if (block.dev !== '') add('b', block.dev);
    paths.add(`/dev/${block.name}`);
    // the generic character device of an NVMe namespace under multipath hangs below the subsystem too
    const generic = root.attr(`/sys/class/nvme-generic/${block.name.replace(/^nvme/, 'ng')}/dev`);
    if (generic !== undefined) add('c', generic);
  }
  return { rdevs, paths };
}

function openFindings(census: Census, device: PciDevice): Finding[] {
  const { rdevs, paths } = deviceNodes(census, device);
  if (rdevs.size === 0 && paths.size === 0) return [];
  const seen = new Set<string>();
  return census.processes.files.flatMap((file): Finding[] => {
    // where the number of the node is known it decides: the path may be of another namespace
    const ours = file.rdev === undefined ? paths.has(file.path) : rdevs.has(file.rdev);
    const key = `${file.pid} ${file.path}`;
    if (!ours || seen.has(key)) return [];
    seen.add(key);
    const who = `${printable(census.processes.comm(file.pid))} (pid ${file.pid})`;
    const subject = printable(file.path);
    return [{ check: 'open', subject, brief: `open by ${who}`, message: `${subject} is open in ${who}`, fix: `end process ${file.pid}` }];
  });
}

/** Network file systems whose server is reached through an interface or what is stacked on it. */
function remoteFindings(census: Census, name: string, stack: ReadonlySet<string>): Finding[] {
  return census.mounts.all.flatMap((mount): Finding[] => {
    const server = serversOf(mount).find((address) => routesTo(census.routes, address).some((route) => stack.has(route.device)));
    if (server === undefined) return [];
    return mountFindings(census, name, `the ${mount.fstype} file system ${printable(mount.source)}, reached through ${name},`, mount);
  });
}

/** An interface that is up and has addresses or routes of its own: storage and cluster networks. Link-local ones come by themselves. */
function addressFindings(census: Census, name: string): Finding[] {
  if (!isUp(census.root, name)) return [];
  const own = [
    ...(census.addresses.get(name) ?? []),
    ...census.routes.filter((r) => r.device === name && !isDefault(r)).map((r) => `a route to ${r.destination}`),
  ].filter((text) => !/\bfe80:/i.test(text));
  if (own.length === 0) return [];
  const message = `interface ${name} is up and has ${own.slice(0, 3).join(', ')}${own.length > 3 ? ', …' : ''}`;
  return [{ check: 'address', subject: name, brief: `${name} has an address`, message, fix: `ip link set ${name} down` }];
}

function netFindings(census: Census, device: PciDevice): Finding[] {
  const { root } = census;
  const found: Finding[] = [];
  for (const name of interfacesOf(root, device.bdf)) {
    const uppers = uppersOf(root, name);
    for (const upper of uppers) {
      const kind = kindOf(root, upper);
      found.push({
        check: 'upper',
        subject: name,
        brief: `${name} in ${kind} ${upper}`,
        message: `interface ${name} is part of ${kind} ${upper}`,
        fix: `ip link set ${name} nomaster, or remove ${upper}`,
      });
    }
    const stack = new Set([name, ...uppers]);
    const via = (egress: string) => (egress === name ? name : `${egress} over ${name}`);
    for (const route of census.routes.filter((r) => isDefault(r) && stack.has(r.device))) {
      const table = route.table === 'main' ? '' : ` (table ${route.table})`;
      found.push({
        check: 'route',
        subject: name,
        brief: `default route via ${route.device}`,
        message: `the IPv${route.family} default route${table} leads out of ${via(route.device)}`,
        fix: `ip -${route.family} route del default dev ${route.device}`,
      });
    }
    const { peer } = census;
    const hit = peer === undefined ? undefined : routesTo(census.routes, peer).find((r) => stack.has(r.device));
    if (hit)
      found.push({
        check: 'route',
        subject: name,
        brief: `ssh peer ${peer}`,
        message: `this ssh session from ${peer} comes in by ${via(hit.device)}`,
        fix: undefined,
      });
    found.push(...remoteFindings(census, name, stack), ...addressFindings(census, name));
  }
  // an interface that was moved into another network namespace does not show here
  if (found.length === 0 && device.class >> 16 === 0x02 && device.driver !== undefined && !census.modules.isVfio(device.driver)) {
    for (const { pid, ns } of census.processes.namespaces('net', root.readlink('/proc/self/ns/net'))) {
      for (const name of foreignInterfaces(root, device.bdf, pid)) {
        const who = `${printable(census.processes.comm(pid))} (pid ${pid})`;
        const message = `its interface ${name} is in the network namespace of ${who}, ${ns}`;
        found.push({
          check: 'route',
          subject: name,
          brief: `${name} in another netns`,
          message,
          fix: `nsenter -t ${pid} -n ip link set ${name} netns 1`,
        });
      }
    }
    const named = root.list('/run/netns');
    if (found.length === 0 && named.length > 0 && interfacesOf(root, device.bdf).length === 0) {
      const message = `it has no interface here; there are other network namespaces (${named.map(printable).join(', ')}) that may have it`;
      found.push({ check: 'route', subject: device.bdf, brief: 'in another netns', message, fix: `ip -n ${named[0]} link` });
    }
  }
  return found;
}

/** Names under which /proc/iomem shows a frame buffer that firmware set up. */
const FIRMWARE_FB = /BOOTFB|efifb|vesafb|simplefb|simple-framebuffer/;

function consoleFindings(census: Census, device: PciDevice): Finding[] {
  if (device.class >> 16 !== 0x03 || census.modules.isVfio(device.driver)) return [];
  const { root } = census;
  const fb = root
    .list('/sys/class/graphics')
    .find((name) => name.startsWith('fb') && root.readlink(`/sys/class/graphics/${name}`)?.includes(`/${device.bdf}/`));
  const bars = (root.attr(`${PCI_DEVICES}/${device.bdf}/resource`) ?? '').split('\n').map((line) => line.split(' ').map(Number));
  const firmware = (root.attr('/proc/iomem') ?? '').split('\n').some((line) => {
    const match = /^\s*([0-9a-f]+)-([0-9a-f]+) : (.*)$/.exec(line);
    if (!match || !FIRMWARE_FB.test(match[3]!)) return false;
    const start = Number.parseInt(match[1]!, 16);
    return bars.some(([from = 0, to = 0]) => to > 0 && start >= from && start <= to);
  });
  if (!device.bootVga && fb === undefined && !firmware) return [];
  const why =
    fb !== undefined
      ? `it drives the console frame buffer ${fb}`
      : firmware
        ? "the firmware's frame buffer is in its memory"
        : 'firmware used it as the console (boot_vga)';
  return [
    {
      check: 'console',
      subject: device.bdf,
      brief: 'console',
      message: `${device.bdf} is the console graphics adapter: ${why}`,
      fix: 'move the console to another adapter or to a serial line',
    },
  ];
}

/** Members of the device's group on host drivers. @param taken addresses that the same run binds too */
function groupFindings(census: Census, device: PciDevice, taken: ReadonlySet<string>): Finding[] {
  if (device.group === undefined) return [];
  return readGroup(census.root, census.modules, device.group)
    .members.filter((member) => member.blocks && member.bdf !== device.bdf && !taken.has(member.bdf))
    .map((member) => ({
      check: 'group-member' as const,
      subject: member.bdf,
      brief: `group shared with ${member.bdf} (${member.driver})`,
      message: `${member.bdf} in the same IOMMU group ${device.group} is on driver ${member.driver}, so VFIO could not use the group`,
      fix: `vioctl vfio bind ${device.bdf} --group`,
    }));
}

/** What uses the device now, as far as the host's own drivers are concerned. @param options.claim also try exclusive opens (bind) */
export function usesOf(census: Census, device: PciDevice, options: { claim?: boolean } = {}): Finding[] {
  const found: Finding[] = [];
  if (device.bridge)
    return [
      {
        check: 'bridge',
        subject: device.bdf,
        brief: 'PCI bridge',
        message: `${device.bdf} is a PCI bridge: VFIO takes endpoints only`,
        fix: undefined,
      },
    ];
  const role = chipsetRole(census, device);
  if (role !== undefined)
    return [
      {
        check: 'chipset',
        subject: device.bdf,
        brief: role,
        message: `${device.bdf} is part of the machine (${role})`,
        fix: undefined,
      },
    ];
  found.push(...blockFindings(census, device, options.claim ?? false), ...openFindings(census, device));
  found.push(...shareFindings(census, device), ...netFindings(census, device), ...consoleFindings(census, device));
  if (device.vfs.length > 0)
    found.push({
      check: 'pf-with-vfs',
      subject: device.bdf,
      brief: `${device.vfs.length} VFs`,
      message: `${device.bdf} has ${device.vfs.length} virtual functions (${device.vfs.join(', ')}) that would vanish`,
      fix: `echo 0 > ${PCI_DEVICES}/${device.bdf}/sriov_numvfs`,
    });
  return found;
}

/** All findings that bind has to consider for a device. */
export function checkDevice(census: Census, device: PciDevice, taken: ReadonlySet<string>): Finding[] {
  return [...usesOf(census, device, { claim: true }), ...groupFindings(census, device, taken)];
}
