/** Checks of the configuration file of `nvmf serve`. */

import { isIP } from 'node:net';
import { maxSpin } from '../../../common/engines.js';
import { glob } from '../../../common/glob.js';
import { asNumber, bad, type Check, checked, distinct, flag, list, number, object, oneOf, text } from '../../../common/text/checks.js';
import { placeText } from '../../../common/text/place.js';
import { engineCheck, sourceChecks } from '../../../storage/config/checks.js';
import { groupNames } from '../../auth/groups.js';
import { hashNames } from '../../auth/keys.js';
import { anaStateNames } from '../../wire/index.js';
import { maxQueues } from '../admin/features.js';
import { parseId } from '../identity.js';
import { maxGroups, maxNamespaces } from '../model.js';
import { checkAscii, checkHostNqn, checkSubsystemNqn, lastCntlid, modelSize, parseCntlidRange, serialSize } from '../names.js';
import { tlsChoices } from '../security/tls.js';
import { parseAddress, parseListen, parseMetricsPlace } from '../serve/listen.js';
import type { AnaEntry, ConfigFile, HostLimitEntry, KeyEntry, NamespaceEntry, ReferralEntry, SubsystemEntry } from './description.js';

const portOrNone: Check<number | 'none'> = (v, place) => {
  const value = asNumber(v, place);
  if (value === 'none' || (Number.isInteger(value) && (value as number) >= 0 && (value as number) <= 65535))
    return value as number | 'none';
  throw bad(place, 'must be a port, or "none"');
};
const ipAddress: Check = (v, place) => {
  if (typeof v !== 'string' || isIP(v) === 0) throw bad(place, 'must be an IP address');
  return v;
};
const namespace = object<NamespaceEntry>(
  {
    ...sourceChecks,
    nsid: number(1, maxNamespaces),
    group: number(1, maxGroups),
    hosts: list(checked(checkHostNqn)),
    nguid: checked((v) => parseId('nguid', v)),
    eui64: checked((v) => parseId('eui64', v)),
    uuid: checked((v) => parseId('uuid', v)),
  },
  ['source'],
);

const place: Check = checked((v) => placeText(parseAddress(v)));
const ana = object<AnaEntry>(
  { group: number(1, maxGroups), listener: place, state: oneOf(...([...anaStateNames.values()] as AnaEntry['state'][])) },
  ['group', 'state'],
);

const subsystem = object<SubsystemEntry>(
  {
    nqn: checked(checkSubsystemNqn),
    serial: checked((v) => checkAscii(v, 'serial number', serialSize)),
    model: checked((v) => checkAscii(v, 'model', modelSize)),
    cntlids: checked(parseCntlidRange),
    allowHosts: list(checked(checkHostNqn)),
    anyHost: flag,
    ana: distinct(ana, 'group', ({ group, listener }) => [group, ...(listener === undefined ? [] : [listener])].join(' at ')),
    namespaces: distinct(namespace, 'nsid', (entry) => entry.nsid),
  },
  ['nqn', 'namespaces'],
);

const referral = object<ReferralEntry>({ address: text, port: number(1, 65535), nqn: checked(checkHostNqn) }, ['address', 'port']);

/** Some of the names, each once; as the numbers that go with them. */
const chosen =
  (names: ReadonlyMap<number, string>): Check<number[]> =>
  (v, place) => {
    const items = distinct(oneOf(...names.values()), 'the name', (one) => one)(v, place);
    if (items.length === 0) throw bad(place, 'must not be empty');
    return items.map((one) => [...names].find(([, name]) => name === one)![0]);
  };

const keys = object<KeyEntry>({ host: checked(checkHostNqn), dhchapSecretFile: text, dhchapCtrlSecretFile: text, tlsKeyFile: text }, []);

const hostLimit = object<HostLimitEntry>(
  {
    host: checked((v) => (v === 'any' || /^hostid:[0-9a-f]{32}$/.test(v) ? v : checkHostNqn(v))),
    connections: number(1, 65535),
    queues: number(1, maxQueues),
    bytes: number(4096, 2 ** 40),
  },
  ['host'],
);

const listen = distinct(
  checked((v) => {
    parseListen(v);
    return v;
  }),
  'address',
  (one) => one,
);

const file = object<ConfigFile>(
  {
    $schema: text,
    listen,
    listenDiscovery: listen,
    discoveryPort: portOrNone,
    discoveryAddresses: distinct(ipAddress, 'address', (one) => one),
    control: text,
    stateDir: text,
    metrics: checked((v) => {
      parseMetricsPlace(v);
      return v;
    }),
    threads: number(1, 64),
    spinMicroseconds: number(0, maxSpin),
    maxControllers: number(1, lastCntlid),
    maxConnections: number(1, 65535),
    maxQueues: number(1, maxQueues),
    discoveryNqn: checked(checkSubsystemNqn),
    engine: engineCheck,
    headerDigest: flag,
    dataDigest: flag,
    sources: list(
      checked((v) => {
        glob(v);
        return v;
      }),
    ),
    referrals: list(referral),
    hostLimits: distinct(hostLimit, 'host', (one) => one.host),
    keys: distinct(keys, 'the host', (one) => one.host ?? 'every host'),
    tls: oneOf(...tlsChoices),
    dhchapHashes: chosen(hashNames),
    dhchapGroups: chosen(groupNames),
    subsystems: distinct(subsystem, 'the NQN', (one) => one.nqn),
  },
  ['subsystems'],
);

/**
 * Checks a whole configuration. Texts that mean something else (rates, ranges, identifiers) come back as what they mean.
 * @param name of the file, for errors
 * @param texts whether numbers, true and false come as text
 * @throws VioError (2) naming the wrong key
 */
export const checkFile = (value: unknown, name: string, texts: boolean): ConfigFile => file(value, { at: name, texts });
