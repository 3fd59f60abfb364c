/** Who may use what: hosts of a subsystem, hosts of a namespace, associations that are ended. */
import { VioError } from '../../../common/errors.js';
import type { ControllerState, Namespace } from '../model.js';
import { checkHostNqn } from '../names.js';
import type { Subsystem } from '../subsystem.js';
import type { Target } from '../target.js';
import { type Change, nothing } from './change.js';

const unique = (hosts: readonly string[]): string[] => [...new Set(hosts)].map(checkHostNqn);

/** Adds hosts to the list of a subsystem. Associations go on; while any host may use it, the list has no effect yet. @throws usage error */
export function addHosts(target: Target, subsystem: Subsystem, hosts: readonly string[]): Change {
  const fresh = unique(hosts).filter((host) => !subsystem.access.hosts.has(host));
  if (fresh.length === 0) return nothing;
  return { todo: [`let ${fresh.join(', ')} use ${subsystem.nqn}`], apply: () => target.allow(subsystem, fresh) };
}

/** Takes hosts off the list of a subsystem, and ends their associations with it. @throws usage error */
export function removeHosts(target: Target, subsystem: Subsystem, hosts: readonly string[]): Change {
  const gone = unique(hosts).filter((host) => subsystem.access.hosts.has(host));
  if (gone.length === 0) return nothing;
  return { todo: [`no longer let ${gone.join(', ')} use ${subsystem.nqn}`], apply: () => target.disallow(subsystem, gone) };
}

/** Lets any host use a subsystem, or the hosts of its list alone; the associations of all others end then. */
export function setAnyHost(target: Target, subsystem: Subsystem, any: boolean): Change {
  if (subsystem.access.any === any) return nothing;
  const what = any ? `let any host use ${subsystem.nqn}` : `let only the hosts of its list use ${subsystem.nqn}`;
  return { todo: [what], apply: () => target.allowAny(subsystem, any) };
}

/** The namespace of a number. @throws VioError (ENOENT) */
export function namespaceOf(subsystem: Subsystem, nsid: number): Namespace {
  const namespace = subsystem.namespaces.get(nsid);
  if (!namespace) throw new VioError(`${subsystem.nqn} has no namespace ${nsid}`, { code: 'ENOENT' });
  return namespace;
}

/**
 * Says which hosts see a namespace; undefined: all that may use the subsystem. Only hosts for which that changes something are told.
 * @throws usage error; VioError (ENOENT)
 */
export function setMask(target: Target, subsystem: Subsystem, nsid: number, hosts: readonly string[] | undefined): Change {
  const namespace = namespaceOf(subsystem, nsid);
  const wanted = hosts && new Set(unique(hosts));
  const now = namespace.hosts;
  const same =
    wanted === undefined || now === undefined ? wanted === now : wanted.size === now.size && [...wanted].every((host) => now.has(host));
  if (same) return nothing;
  const who = wanted === undefined ? 'all hosts of the subsystem' : [...wanted].join(', ') || 'no host';
  return {
    todo: [`show namespace ${nsid} of ${subsystem.nqn} to ${who}`],
    apply: () => target.setMask(subsystem, namespace, wanted),
  };
}

/** Ends associations: of a host, of a controller, of a subsystem, or of what all of these have in common. They may come back. */
export function kick(
  target: Target,
  which: { host?: string | undefined; cntlid?: number | undefined; nqn?: string | undefined },
): Change & { found: number } {
  const { host, cntlid, nqn } = which;
  const match = (c: ControllerState): boolean =>
    (cntlid === undefined || c.cntlid === cntlid) && (host === undefined || c.hostnqn === host) && (nqn === undefined || c.subnqn === nqn);
  const found = target.controllers().filter(match);
  return {
    found: found.length,
    todo: found.map((c) => `end controller ${c.cntlid} of host ${c.hostnqn}`),
    apply: () => {
      target.kick(match);
    },
  };
}

/** For people: whose keys are others, as KeyRing names them. */
export const newKeys = (hosts: readonly string[]): string[] =>
  hosts.map((host) => `use the new keys of ${host === '*' ? 'every host' : `host ${host}`}`);

/**
 * Reads the files of all keys again. Associations go on; the next authentication or handshake uses the new keys.
 * @throws VioError for a file that cannot be used; then no key changes
 */
export function rotateKeys(target: Target): Change & { hosts: string[] } {
  const hosts = target.keys.check();
  return {
    hosts,
    todo: newKeys(hosts),
    apply: () => {
      target.keys.rotate();
    },
  };
}
