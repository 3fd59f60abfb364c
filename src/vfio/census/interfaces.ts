import net from 'node:net';
import os from 'node:os';
import type { Sysroot } from '../../common/sysroot.js';

const netFolder = '/sys/class/net';

/** A route that leads out of an interface. */
export interface Route {
  family: 4 | 6;
  /** `default`, or `10.0.0.0/8` */
  destination: string;
  prefix: number;
  device: string;
  /** Routing table: `main`, or the number of another (VRF). */
  table: string;
}

/** The default route of either family. */
export const isDefault = (route: Route): boolean => route.prefix === 0;

/** /proc/net/route: the main table of IPv4, numbers in the CPU's (little-endian) byte order. */
export function parseRoute4(text: string): Route[] {
  return text
    .split('\n')
    .slice(1)
    .flatMap((line): Route[] => {
      const [device, destination, , flags, , , , mask] = line.split('\t').map((field) => field.trim());
      if (device === undefined || destination === undefined || mask === undefined || !(Number(`0x${flags}`) & 1)) return [];
      const bytes = [...Buffer.from(destination, 'hex')].reverse();
      const prefix = [...Buffer.from(mask, 'hex')].reduce((n, byte) => n + byte.toString(2).replaceAll('0', '').length, 0);
      return [{ family: 4, destination: `${bytes.join('.')}/${prefix}`, prefix, device, table: 'main' }];
    });
}

/** /proc/net/ipv6_route: all tables; rejecting routes and local addresses (interface lo) lead nowhere. */
export function parseRoute6(text: string): Route[] {
  return text.split('\n').flatMap((line): Route[] => {
    const [destination, length, , , , , , , flags, device] = line.trim().split(/\s+/);
    if (destination?.length !== 32 || device === undefined || device === 'lo') return [];
    const RTF_REJECT = 0x200;
    if (!(Number(`0x${flags}`) & 1) || Number(`0x${flags}`) & RTF_REJECT) return [];
    const prefix = Number.parseInt(length!, 16);
    return [{ family: 6, destination: `${destination.match(/..../g)!.join(':')}/${prefix}`, prefix, device, table: 'main' }];
  });
}

/** Routes that /proc shows: of IPv4 the main table only, and only the first next hop of each. */
export function procRoutes(root: Sysroot): Route[] {
  return [...parseRoute4(root.attr('/proc/net/route') ?? ''), ...parseRoute6(root.attr('/proc/net/ipv6_route') ?? '')];
}

/** The interfaces that packets to `peer` may leave by: the longest match of every table. */
export function routesTo(routes: Route[], peer: string): Route[] {
  const family = net.isIPv6(peer) ? 6 : 4;
  const best = new Map<string, Route[]>();
  for (const route of routes) {
    if (route.family !== family) continue;
    const block = new net.BlockList();
    block.addSubnet(route.destination.split('/')[0]!, route.prefix, family === 6 ? 'ipv6' : 'ipv4');
    if (!block.check(peer, family === 6 ? 'ipv6' : 'ipv4')) continue;
    const held = best.get(route.table);
    if (!held || held[0]!.prefix < route.prefix) best.set(route.table, [route]);
    else if (held[0]!.prefix === route.prefix) held.push(route);
  }
  return [...best.values()].flat();
}

/** Interfaces of a PCI device that this network namespace sees. */
export function interfacesOf(root: Sysroot, bdf: string): string[] {
  return root.list(netFolder).filter((name) => root.readlink(`${netFolder}/${name}`)?.includes(`/${bdf}/`));
}

/** True if an interface is up (IFF_UP, linux/if.h). */
export const isUp = (root: Sysroot, name: string): boolean => (Number(root.attr(`${netFolder}/${name}/flags`) ?? 0) & 1) !== 0;

/** The local IPv4 addresses of /proc/net/fib_trie: a leaf `|-- 10.0.0.1` with `/32 host LOCAL` below. */
export function localAddresses4(trie: string): string[] {
  const found = new Set<string>();
  let leaf = '';
  for (const line of trie.split('\n')) {
    leaf = /\|-- (\d+\.\d+\.\d+\.\d+)$/.exec(line)?.[1] ?? leaf;
    if (/\/32 host LOCAL/.test(line) && !leaf.startsWith('127.')) found.add(leaf);
  }
  return [...found];
}

/** Addresses of every interface: as the system tells them; in a tree of files those of /proc, IPv4 ones by the routes around them. */
export function addressesOf(root: Sysroot): Map<string, string[]> {
  const found = new Map<string, string[]>();
  const add = (name: string, address: string) => found.set(name, [...(found.get(name) ?? []), address]);
  if (root.root === '/') {
    for (const [name, list] of Object.entries(os.networkInterfaces())) for (const { address } of list ?? []) add(name, address);
    return found;
  }
  for (const line of (root.attr('/proc/net/if_inet6') ?? '').split('\n')) {
    const [digits, , , , , name] = line.trim().split(/\s+/);
    if (name !== undefined && digits?.length === 32) add(name, digits.match(/..../g)!.join(':'));
  }
  const routes = procRoutes(root).filter((route) => !isDefault(route));
  for (const address of localAddresses4(root.attr('/proc/net/fib_trie') ?? ''))
    for (const { device } of routesTo(routes, address)) add(device, address);
  return found;
}

/** What kind of device an upper one is. */
export function kindOf(root: Sysroot, name: string): string {
  if (root.exists(`${netFolder}/${name}/bonding`)) return 'bond';
  if (root.exists(`${netFolder}/${name}/bridge`)) return 'bridge';
  if (name === 'ovs-system') return 'Open vSwitch';
  return /^DEVTYPE=(\S+)$/m.exec(root.attr(`${netFolder}/${name}/uevent`) ?? '')?.[1] ?? 'upper device';
}

/** Devices stacked on an interface, directly or not: bonds, bridges, VLANs, VRFs, Open vSwitch, macvlans. */
export function uppersOf(root: Sysroot, name: string): string[] {
  const found = new Set<string>();
  const visit = (at: string) => {
    const entries = root.list(`${netFolder}/${at}`);
    const uppers = entries.flatMap((entry) => (entry.startsWith('upper_') ? [entry.slice(6)] : []));
    const master = entries.includes('master') ? root.readlink(`${netFolder}/${at}/master`)?.split('/').pop() : undefined;
    for (const upper of master === undefined ? uppers : [...uppers, master]) {
      if (found.has(upper)) continue;
      found.add(upper);
      visit(upper);
    }
  };
  visit(name);
  return [...found];
}

/** Interfaces of a PCI device in another namespace's own sysfs, as a process living there sees it. */
export function foreignInterfaces(root: Sysroot, bdf: string, pid: number): string[] {
  const base = `/proc/${pid}/root${netFolder}`;
  return root.list(base).filter((name) => root.readlink(`${base}/${name}`)?.includes(`/${bdf}/`));
}
