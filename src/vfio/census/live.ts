import { spawnSync } from 'node:child_process';
import type { Sysroot } from '../../common/sysroot.js';
import { native } from '../../native/index.js';
import { Census } from './census.js';
import type { LiveNetwork } from './conversations.js';
import { allRoutes } from './routes.js';

/** What the kernel does not tell, or not us, counts as nothing: the addresses of an interface are a finding of their own. */
function tried<T>(ask: () => T[]): T[] {
  try {
    return ask();
  } catch {
    return [];
  }
}

/** Lines of `wg show all endpoints`: interface, public key, address and port. */
export function parseEndpoints(text: string): { name: string; peer: string }[] {
  return text.split('\n').flatMap((line) => {
    const [name, , endpoint] = line.split('\t');
    const peer = endpoint?.replace(/:\d+$/, '').replace(/^\[(.*)\]$/, '$1');
    return name === undefined || peer === undefined || peer === '(none)' ? [] : [{ name, peer }];
  });
}

/** Peers of WireGuard interfaces, if there are any: only wg(8) tells them. */
function wireguard(root: Sysroot): { name: string; peer: string }[] {
  const folder = '/sys/class/net';
  if (!root.list(folder).some((name) => root.attr(`${folder}/${name}/uevent`)?.includes('DEVTYPE=wireguard'))) return [];
  const { stdout } = spawnSync('wg', ['show', 'all', 'endpoints'], {
    encoding: 'utf8',
    timeout: 5000,
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  return parseEndpoints(stdout ?? '');
}

const liveNetwork = (root: Sysroot): LiveNetwork => ({
  xdpPrograms: () => tried(() => native().sysfs.xdpPrograms()),
  xdpSockets: () => tried(() => native().sysfs.xdpSockets()),
  wireguard: () => wireguard(root),
});

/** The census of a command: of the running system with all that it tells, or of a tree of files. @param pid our own */
export const systemCensus = (root: Sysroot, pid: number): Census =>
  new Census(root, root.root === '/' ? { pid, routes: allRoutes, live: liveNetwork(root) } : { pid });
