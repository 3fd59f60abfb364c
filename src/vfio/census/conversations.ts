import { isIP } from 'node:net';
import os from 'node:os';
import type { Sysroot } from '../../common/sysroot.js';
import { placeText } from '../../common/text/place.js';
import { counted } from '../../common/units.js';

/** Something that runs over the network and would break with the interface below it. Addresses are text without a scope. */
export interface Conversation {
  kind: 'tcp' | 'listen' | 'session' | 'target' | 'packet' | 'xdp';
  /** As a sentence begins: `the iSCSI session iqn.2003-01.org.x`. */
  what: string;
  local?: string | undefined;
  peer?: string | undefined;
  /** The interface, where the kernel names it. */
  device?: string | undefined;
}

/** What only the running kernel or a program tells; a tree of files has none of it. */
export interface LiveNetwork {
  /** Interfaces with an XDP program. */
  xdpPrograms(): string[];
  /** Interfaces with an AF_XDP socket, and its queue. */
  xdpSockets(): { device: string; queue: number }[];
  /** Peers of WireGuard interfaces: `10.0.0.5`. */
  wireguard(): { name: string; peer: string }[];
}

/** States of /proc/net/tcp (net/tcp_states.h) that are no connection any more. */
const over = new Set(['06', '07']);
const listening = '0A';

/** An address of /proc/net/tcp: 32-bit words in the CPU's byte order. */
function addressOf(hex: string): string {
  const words = hex.match(/.{8}/g) ?? [];
  const bytes = words.flatMap((word) => {
    const four = [...Buffer.from(word, 'hex')];
    return os.endianness() === 'LE' ? four.reverse() : four;
  });
  const v4 = bytes.length === 16 && bytes.slice(0, 10).every((b) => b === 0) && bytes[10] === 0xff && bytes[11] === 0xff;
  if (bytes.length === 4 || v4) return bytes.slice(-4).join('.');
  return canonical((Buffer.from(bytes).toString('hex').match(/.{4}/g) ?? []).join(':'));
}

/** One spelling for every address, so that texts can be compared. */
export function canonical(text: string): string {
  const bare = text.replace(/^\[(.*)\]$/, '$1').replace(/%.*$/, '');
  if (isIP(bare) !== 6) return bare;
  return new URL(`http://[${bare}]`).hostname.slice(1, -1);
}

const anywhere = (address: string): boolean => address === '0.0.0.0' || address === '::';
const loopback = (address: string): boolean => address.startsWith('127.') || address === '::1';

/** Lines of /proc/net/tcp and tcp6: connections, and listeners on one address. */
export function parseTcp(text: string): Conversation[] {
  return text.split('\n').flatMap((line): Conversation[] => {
    const [, from, to, state] = line.trim().split(/\s+/);
    const [localHex, localPort] = (from ?? '').split(':');
    const [peerHex, peerPort] = (to ?? '').split(':');
    if (!localHex || !localPort || !peerHex || !peerPort || state === undefined || !/^[0-9A-F]{2}$/.test(state) || over.has(state))
      return [];
    const local = addressOf(localHex);
    const peer = addressOf(peerHex);
    if (loopback(local) || loopback(peer)) return [];
    const at = (address: string, port: string) => placeText({ address, port: Number.parseInt(port, 16) });
    if (state === listening) return anywhere(local) ? [] : [{ kind: 'listen', what: at(local, localPort), local }];
    return [{ kind: 'tcp', what: `${at(local, localPort)} to ${at(peer, peerPort)}`, local, peer }];
  });
}

/** iSCSI sessions of the kernel (/sys/class/iscsi_connection). */
function iscsi(root: Sysroot): Conversation[] {
  const folder = '/sys/class/iscsi_connection';
  return root.list(folder).flatMap((name): Conversation[] => {
    const attr = (key: string) => root.attr(`${folder}/${name}/${key}`);
    const peer = attr('address') ?? attr('persistent_address');
    const session = /^connection(\d+):/.exec(name)?.[1];
    const target = root.attr(`/sys/class/iscsi_session/session${session}/targetname`) ?? name;
    return peer === undefined ? [] : [{ kind: 'session', what: `the iSCSI session ${target}`, peer: canonical(peer) }];
  });
}

/** NVMe controllers over a network (`address`: `traddr=10.0.0.5,trsvcid=4420,src_addr=10.0.0.1`). */
function nvmeFabrics(root: Sysroot): Conversation[] {
  const folder = '/sys/class/nvme';
  return root.list(folder).flatMap((name): Conversation[] => {
    const transport = root.attr(`${folder}/${name}/transport`) ?? '';
    if (!['tcp', 'rdma'].includes(transport)) return [];
    const fields = new Map((root.attr(`${folder}/${name}/address`) ?? '').split(',').map((part) => part.split('=', 2) as [string, string]));
    const address = (key: string) => (fields.get(key) === undefined ? undefined : canonical(fields.get(key)!));
    const nqn = root.attr(`${folder}/${name}/subsysnqn`);
    return [
      {
        kind: 'session',
        what: `the NVMe/${transport.toUpperCase()} controller ${name}${nqn === undefined ? '' : ` (${nqn})`}`,
        local: address('src_addr') ?? address('host_traddr'),
        peer: address('traddr'),
        device: fields.get('host_iface'),
      },
    ];
  });
}

/** NBD devices in use: the client program that waits in the kernel names the server in its words. */
function nbd(root: Sysroot): Conversation[] {
  return root.list('/sys/class/block').flatMap((name): Conversation[] => {
    if (!/^nbd\d+$/.test(name)) return [];
    const pid = root.attr(`/sys/class/block/${name}/pid`);
    if (pid === undefined || !/^\d+$/.test(pid)) return [];
    const peer = (root.attr(`/proc/${pid}/cmdline`) ?? '').split(/[\0 ]/).find((word) => isIP(canonical(word)) !== 0);
    return peer === undefined ? [] : [{ kind: 'session', what: `the network block device ${name}`, peer: canonical(peer) }];
  });
}

/** Addresses that the kernel's targets listen on: ports of nvmet that export something, portals of LIO's iSCSI. */
function targets(root: Sysroot): Conversation[] {
  const found: Conversation[] = [];
  const ports = '/sys/kernel/config/nvmet/ports';
  for (const port of root.list(ports)) {
    const attr = (key: string) => root.attr(`${ports}/${port}/${key}`) ?? '';
    if (!['tcp', 'rdma'].includes(attr('addr_trtype')) || root.list(`${ports}/${port}/subsystems`).length === 0) continue;
    found.push({ kind: 'target', what: `port ${port} of the NVMe target`, local: canonical(attr('addr_traddr')) });
  }
  const iscsiTarget = '/sys/kernel/config/target/iscsi';
  for (const iqn of root.list(iscsiTarget))
    for (const group of root.list(`${iscsiTarget}/${iqn}`).filter((name) => name.startsWith('tpgt_')))
      for (const portal of root.list(`${iscsiTarget}/${iqn}/${group}/np`)) {
        const local = canonical(portal.replace(/:\d+$/, ''));
        if (root.attr(`${iscsiTarget}/${iqn}/${group}/enable`) !== '0')
          found.push({ kind: 'target', what: `the iSCSI target ${iqn}`, local });
      }
  return found.filter(({ local }) => local !== undefined && local !== '' && !anywhere(local));
}

/** Packet sockets of one interface (/proc/net/packet): DHCP clients, captures, LLDP, packet drivers of DPDK. */
function packets(root: Sysroot): Conversation[] {
  const counts = new Map<string, number>();
  for (const line of (root.attr('/proc/net/packet') ?? '').split('\n').slice(1)) {
    const index = line.trim().split(/\s+/)[4];
    if (index !== undefined && index !== '0') counts.set(index, (counts.get(index) ?? 0) + 1);
  }
  if (counts.size === 0) return [];
  return root.list('/sys/class/net').flatMap((device): Conversation[] => {
    const count = counts.get(root.attr(`/sys/class/net/${device}/ifindex`) ?? '');
    return count === undefined ? [] : [{ kind: 'packet', what: counted(count, 'packet socket'), device }];
  });
}

/** What runs over the network now, in this network namespace. */
export function readConversations(root: Sysroot, live: LiveNetwork | undefined): Conversation[] {
  const tcp = ['tcp', 'tcp6'].flatMap((file) => parseTcp(root.attr(`/proc/net/${file}`) ?? ''));
  const wireguard = (live?.wireguard() ?? []).map(
    ({ name, peer }): Conversation => ({ kind: 'session', what: `a WireGuard peer of ${name}`, peer: canonical(peer) }),
  );
  const xdp = [
    ...(live?.xdpSockets() ?? []).map(
      ({ device, queue }): Conversation => ({ kind: 'xdp', what: `an AF_XDP socket on queue ${queue}`, device }),
    ),
    ...(live?.xdpPrograms() ?? []).map((device): Conversation => ({ kind: 'xdp', what: 'an XDP program', device })),
  ];
  return [...tcp, ...iscsi(root), ...nvmeFabrics(root), ...nbd(root), ...targets(root), ...packets(root), ...wireguard, ...xdp];
}

/** Interfaces by their addresses. */
export function ownersOf(addresses: ReadonlyMap<string, readonly string[]>): Map<string, string[]> {
  const owners = new Map<string, string[]>();
  for (const [name, list] of addresses)
    for (const text of list) owners.set(canonical(text), [...(owners.get(canonical(text)) ?? []), name]);
  return owners;
}
