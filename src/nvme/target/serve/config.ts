import type { Engine } from '../../../common/engines.js';
import { usage } from '../../../common/errors.js';
import type { Sysroot } from '../../../common/sysroot.js';
import { machineName } from '../../../storage/identity.js';
import { decimal, parseSourceText, type SourceOption } from '../../../storage/source.js';
import type { ChapPolicy } from '../../auth/controller.js';
import type { HostLimits } from '../admission/limits.js';
import { parseId, uuidOf, uuidText } from '../identity.js';
import { maxNamespaces, type NamespaceOptions } from '../model.js';
import type { CntlidRange } from '../names.js';
import type { KeySources } from '../security/keyring.js';
import type { TlsChoice } from '../security/tls.js';

/** Everything that `nvmf serve` is told: by its command line or by a file. */
export interface TargetConfig {
  /** `ADDRESS:PORT`, `[ADDRESS]:PORT`, `:PORT`; defaultListen when left out, nowhere when empty */
  listen?: string[];
  subsystems: SubsystemConfig[];
  referrals: { address: string; port: number; nqn?: string }[];
  /** Addresses for discovery alone. */
  listenDiscovery?: string[];
  hostLimits?: ({ host: string } & HostLimits)[];
  /** Port for discovery alone on every address that is listened on; 8009 where free and not asked for. */
  discoveryPort?: number | 'none';
  /** Addresses that have this port, if not those that are listened on. */
  discoveryAddresses?: string[];
  /** Path of the control socket. */
  control?: string;
  /** Where the names of sources are kept. */
  stateDir?: string;
  threads?: number;
  spinMicroseconds?: number;
  /** Limits of the target (src/nvme/target/limits.ts). */
  maxControllers?: number;
  maxConnections?: number;
  maxQueues?: number;
  /** NQN of the discovery service besides the well-known one. */
  discoveryNqn?: string;
  /** Who does the I/O that waits for a device; auto: threads. */
  engine?: Engine;
  headerDigest?: boolean;
  dataDigest?: boolean;
  /** Patterns of the sources that `nvmf ctl` may open; every source when left out. */
  sources?: string[];
  /** Where metrics are served: see metrics.ts. */
  metrics?: string;
  /** Keys of hosts: see KeyRing. */
  keys?: KeySources[];
  chapPolicy?: ChapPolicy;
  /** TLS of listeners that do not say it; required if there are keys for it. */
  tls?: TlsChoice;
  /** What was left out of a file of another program, for the log. */
  notes?: string[];
}

export interface SubsystemConfig {
  nqn: string;
  serial?: string;
  model?: string;
  /** Identifiers for its controllers. */
  cntlids?: CntlidRange;
  /** Host NQNs; every host when left out. */
  allowHosts?: string[];
  /** Every host, whatever the list says. */
  anyHost?: boolean;
  /** ANA states of groups: on all ports, or on the one of a listener (placeText). */
  ana?: { group: number; state: number; listener?: string }[];
  namespaces: NumberedNamespace[];
}

/** What to serve as a namespace, with its number. */
export type NumberedNamespace = NamespaceOptions & { nsid: number };

/** Gives namespaces without a number the lowest free ones, in their order. @throws usage error if there is none */
export function numbered(namespaces: readonly NamespaceOptions[]): NumberedNamespace[] {
  const taken = new Set(namespaces.map(({ nsid }) => nsid));
  let free = 1;
  return namespaces.map((namespace) => {
    if (namespace.nsid !== undefined) return namespace as NumberedNamespace;
    while (taken.has(free)) free++;
    if (free > maxNamespaces) throw usage(`more than ${maxNamespaces} namespaces`);
    return { ...namespace, nsid: free++ };
  });
}

/** Port for discovery alone, or `none`. @throws usage error */
export function parseDiscoveryPort(text: string): number | 'none' {
  if (text === 'none') return text;
  if (/^\d{1,5}$/.test(text) && Number(text) <= 65535) return Number(text);
  throw usage(`not a port: "${text}"`, '--discovery-port 8009, 0 for a free one, or none');
}

/** Options of a source that only namespaces have. */
const namespaceOptions: Readonly<Record<string, SourceOption<NamespaceOptions>>> = {
  nsid: (o, value) => {
    o.nsid = decimal(value, 'nsid');
  },
  group: (o, value) => {
    o.group = decimal(value, 'group');
  },
  uuid: (o, value) => {
    o.ids = { ...o.ids, uuid: parseId('uuid', value) };
  },
  nguid: (o, value) => {
    o.ids = { ...o.ids, nguid: parseId('nguid', value) };
  },
};

/**
 * What to serve, as the command line has it: `FILE`, `ram:SIZE`, each with `,ro`, `,bs=4096`, `,nsid=N`, `,group=N` behind it.
 * @param defaults of the whole command line
 * @throws usage error
 */
export const parseSource = (text: string, defaults: Partial<NamespaceOptions> = {}): NamespaceOptions =>
  parseSourceText(text, defaults, namespaceOptions);

/** The NQN of a target that was given none: the same for the same machine and sources. */
export function defaultNqn(sysroot: Sysroot, sources: readonly string[]): string {
  return `nqn.2014-08.org.nvmexpress:uuid:${uuidText(uuidOf([machineName(sysroot), ...sources].join('\0')))}`;
}
