/** A target under a service manager: the sockets that it hands over and keeps, and the line that it shows. */
import type { ActivatedListener } from '../../../launch/activation.js';
import type { GivenSocket } from '../config/listeners.js';
import type { Target } from '../target.js';

/** Names of kept sockets begin with it. The rest tells them apart. */
const keptPrefix = 'vioctl-listen-';
/** Sockets that are kept at most: FileDescriptorStoreMax= of vioctl-nvmf.service. */
const mostKept = 64;

/** Sockets that came with the start. */
export const givenSockets = (activated: readonly ActivatedListener[]): GivenSocket[] =>
  activated.map(({ fd, name, address, port }) => {
    const kept = name.startsWith(keptPrefix);
    return { address, port, name, socket: { fd, port, activated: !kept }, kept };
  });

/**
 * The listening sockets, for the service manager to keep: while the server restarts, connections of hosts wait in them instead of
 * being refused.
 */
export const keptSockets = ({ listeners }: Target): { name: string; fd: number }[] =>
  listeners
    .filter(({ socket, activated }) => socket.open && !activated)
    .slice(0, mostKept)
    .map(({ address, port, socket }) => ({ name: `${keptPrefix}${address.replaceAll(':', '_')}-${port}`, fd: socket.fd }));

const some = (count: number, what: string): string => `${count} ${what}${count === 1 ? '' : 's'}`;

/** What the target does, in one line for `systemctl status`. */
export function statusLine(target: Target): string {
  const subsystems = [...target.subsystems.values()];
  const namespaces = subsystems.flatMap((one) => [...one.namespaces.values()].map((namespace) => one.syncError(namespace)));
  const hosts = new Set(subsystems.flatMap((one) => [...one.controllers.values()].map(({ hostnqn }) => hostnqn)));
  const failed = namespaces.filter((error) => error !== undefined).length;
  const lost = failed > 0 ? `; flushes of ${some(failed, 'namespace')} fail` : '';
  return `${some(namespaces.length, 'namespace')} in ${some(subsystems.length, 'subsystem')}, ${some(hosts.size, 'host')} connected${lost}`;
}
