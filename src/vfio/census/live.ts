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

/** Peers of WireGuard interfaces, if there are any. */
function wireguard(root: Sysroot): { name: string; peer: string }[] {
  const folder = '/sys/class/net';
  const names = root.list(folder).filter((name) => root.attr(`${folder}/${name}/uevent`)?.includes('DEVTYPE=wireguard'));
  return names.length === 0 ? [] : tried(() => native().sysfs.wireguardPeers(names));
}

const liveNetwork = (root: Sysroot): LiveNetwork => ({
  xdpPrograms: () => tried(() => native().sysfs.xdpPrograms()),
  xdpSockets: () => tried(() => native().sysfs.xdpSockets()),
  wireguard: () => wireguard(root),
});

/** The census of a command: of the running system with all that it tells, or of a tree of files. @param pid our own */
export const systemCensus = (root: Sysroot, pid: number): Census =>
  new Census(root, root.root === '/' ? { pid, routes: allRoutes, live: liveNetwork(root) } : { pid });
