/** What a running target serves, in the form of a configuration: what `save` writes and a reload compares with. */

import { type Place, placeText } from '../../../common/text/place.js';
import { native } from '../../../native/index.js';
import { sourceEntry } from '../../../storage/config/checks.js';
import { withoutOff } from '../../../storage/source.js';
import { groupNames } from '../../auth/groups.js';
import { hashNames } from '../../auth/keys.js';
import { anaStateNames } from '../../wire/index.js';
import { defaultLimits } from '../admission/limits.js';
import { type Listener, ofDiscoveryPort } from '../discovery.js';
import { serialOf, uuidText } from '../identity.js';
import type { Namespace } from '../model.js';
import { lastCntlid } from '../names.js';
import type { TlsChoice } from '../security/tls.js';
import type { NumberedNamespace, SubsystemConfig, TargetConfig } from '../serve/config.js';
import { parseListen } from '../serve/listen.js';
import { defaultModel, type Subsystem } from '../subsystem.js';
import type { Target } from '../target.js';
import type { AnaEntry, ConfigFile, HostLimitEntry, NamespaceEntry, SubsystemEntry } from './description.js';

/** A place of `listen` in one spelling. */
export const askedText = (place: Place, { advertise, tls }: { advertise?: Place | undefined; tls?: TlsChoice | undefined }): string =>
  `${placeText(place)}${advertise ? `,advertise=${placeText(advertise)}` : ''}${tls ? `,tls=${tls}` : ''}`;

/** What a listener was asked for by: several of one name are one. */
export const askedOf = ({ asked, address, port, advertise, askedTls: tls }: Listener): string =>
  asked ?? askedText({ address, port }, { advertise, tls });

/** Whether a listener was asked for with any free port. */
const anyPort = ({ asked, discoveryOnly }: Listener): boolean =>
  asked !== undefined && discoveryOnly !== true && parseListen(asked).port === 0;

/**
 * What a configuration calls a listener: its address and port; port 0 if any free port was asked for, since the next start may get another.
 * Of several with a free port on one address, each is called by the port that it has.
 */
export function anaPlace(target: Target, listener: Listener): string {
  const alike = (one: Listener): boolean => one.address === listener.address && anyPort(one);
  const { address, port } = listener;
  return placeText({ address, port: anyPort(listener) && target.listeners.filter(alike).length === 1 ? 0 : port });
}

/** Options without those that say what is the default anyway. */
function namespaceOf({ nsid, options, store, hosts }: Namespace): NumberedNamespace {
  const { iops: _iops, bps: _bps, later: _later, hosts: _hosts, group = 1, ids, ...rest } = options;
  const limits = native().storage.limits(store);
  return {
    ...withoutOff(rest),
    nsid,
    ...(group !== 1 && { group }),
    ...(ids && Object.keys(ids).length > 0 && { ids }),
    ...(hosts && { hosts: [...hosts] }),
    ...(limits.iops && { iops: limits.iops }),
    ...(limits.bps && { bps: limits.bps }),
  };
}

function subsystemOf(target: Target, subsystem: Subsystem): SubsystemConfig {
  const { nqn, serial, model, cntlids, access } = subsystem;
  const ana = [
    ...subsystem.ana.common().map(([group, state]) => ({ group, state })),
    ...target.listeners.flatMap((listener) =>
      subsystem.ana.own(listener.id).map(([group, state]) => ({ group, state, listener: anaPlace(target, listener) })),
    ),
  ];
  return {
    nqn,
    ...(serial !== serialOf(nqn) && { serial }),
    ...(model !== defaultModel && { model }),
    ...((cntlids[0] !== 1 || cntlids[1] !== lastCntlid) && { cntlids }),
    ...((!access.any || access.hosts.size > 0) && { allowHosts: [...access.hosts] }),
    ...(access.any && access.hosts.size > 0 && { anyHost: true }),
    ...(ana.length > 0 && { ana: ana.sort((a, b) => a.group - b.group) }),
    namespaces: [...subsystem.namespaces.values()].sort((a, b) => a.nsid - b.nsid).map(namespaceOf),
  };
}

/**
 * The configuration of a target as it is now, changes by `nvmf ctl` included.
 * @param settings what it was started with, for all that cannot change while it runs
 */
export function liveConfig(target: Target, settings: TargetConfig): TargetConfig {
  const { notes: _notes, maxControllers, maxConnections, maxQueues, hostLimits: _h, listenDiscovery: _d, ...fixed } = settings;
  const { controllers, connections, queues } = target.limits;
  // a limit that was set once is written even if it is the default now: a reload would take the command line's
  const limit = <K extends string>(key: K, now: number, usual: number, set: number | undefined) =>
    (now !== usual || set !== undefined ? { [key]: now } : {}) as { [_ in K]?: number };
  const asked = (only: boolean) => [
    ...new Set(target.listeners.filter((one) => (one.discoveryOnly ?? false) === only && !ofDiscoveryPort(one)).map(askedOf)),
  ];
  const discovery = asked(true);
  const hostLimits = [...target.hostLimits].map(([host, limits]) => ({ host, ...limits }));
  return {
    ...fixed,
    listen: asked(false),
    ...(discovery.length > 0 && { listenDiscovery: discovery }),
    // their port stays one that may be done without, if nobody asked for it
    ...(target.listenersChanged &&
      settings.discoveryPort !== 'none' && {
        discoveryAddresses: target.listeners.filter(ofDiscoveryPort).map(({ address }) => address),
      }),
    ...limit('maxControllers', controllers, defaultLimits.controllers, maxControllers),
    ...limit('maxConnections', connections, defaultLimits.connections, maxConnections),
    ...limit('maxQueues', queues, defaultLimits.queues, maxQueues),
    ...(hostLimits.length > 0 && { hostLimits }),
    referrals: target.referrals.map((one) => ({ ...one })),
    subsystems: [...target.subsystems.values()].map((one) => subsystemOf(target, one)),
  };
}

function namespaceEntry(options: NumberedNamespace): NamespaceEntry {
  const { nsid, group, hosts, ids = {}, ...rest } = options;
  return {
    nsid,
    ...sourceEntry(rest),
    ...(group !== undefined && { group }),
    ...(hosts !== undefined && { hosts: [...hosts] }),
    ...(ids.nguid !== undefined && { nguid: ids.nguid }),
    ...(ids.eui64 !== undefined && { eui64: ids.eui64 }),
    ...(ids.uuid !== undefined && { uuid: uuidText(Buffer.from(ids.uuid.replaceAll('-', ''), 'hex')) }),
  };
}

function subsystemEntry({ cntlids, ana, namespaces, ...rest }: SubsystemConfig): SubsystemEntry {
  return {
    ...rest,
    ...(cntlids && { cntlids: cntlids.join('-') }),
    ...(ana && { ana: ana.map((one) => ({ ...one, state: anaStateNames.get(one.state) as AnaEntry['state'] })) }),
    namespaces: namespaces.map(namespaceEntry),
  };
}

const namesOf = (numbers: readonly number[], names: ReadonlyMap<number, string>): string[] => numbers.map((one) => names.get(one)!);

/** A configuration as a file that --config reads. Secrets are not in it: a file of keys is named, and what was read from it is not kept. */
export function fileOf(config: TargetConfig): ConfigFile {
  const { notes: _notes, listen, listenDiscovery, referrals, subsystems, hostLimits, keys, chapPolicy, ...rest } = config;
  return {
    ...(listen && { listen }), // an empty list too: a file without one means the default
    ...(listenDiscovery && { listenDiscovery }),
    ...rest,
    ...(keys && { keys: keys.map(({ nqn, ...from }) => ({ ...(nqn !== undefined && { host: nqn }), ...from })) }),
    ...(chapPolicy && {
      dhchapHashes: namesOf(chapPolicy.hashes, hashNames) as NonNullable<ConfigFile['dhchapHashes']>,
      dhchapGroups: namesOf(chapPolicy.groups, groupNames) as NonNullable<ConfigFile['dhchapGroups']>,
    }),
    ...(hostLimits && { hostLimits: hostLimits as HostLimitEntry[] }), // limits that are undefined are not written
    ...(referrals.length > 0 && { referrals }),
    subsystems: subsystems.map(subsystemEntry),
  };
}
