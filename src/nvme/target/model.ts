/** What the parts of a target know of each other: subsystems of controllers, and whoever answers for a controller of it. */
import type { NativeController, NativeNamespace, QueueCounters } from '../../native/nvme.js';
import type { Source } from '../../storage/open.js';
import type { SourceOptions } from '../../storage/source.js';
import type { AnaStates } from './ana.js';
import type { NamespaceIds } from './identity.js';

/**
 * Largest number of namespaces of a subsystem, and so the largest NSID. Hosts read ANA logs with room for all of them (4
 * bytes each): they must fit MDTS.
 */
export const maxNamespaces = 16384;
/** ANA groups of a subsystem. */
export const maxGroups = 32;

/** What to serve as a namespace. */
export interface NamespaceOptions extends SourceOptions {
  /** 1 to maxNamespaces; the first free one unless given. */
  nsid?: number;
  /** ANA group, 1 unless given. */
  group?: number;
  /** Identifiers that it is to have, as hexadecimal digits. */
  ids?: Partial<Record<keyof NamespaceIds, string>>;
  /** Hosts that see it, by NQN; left out: all that may use the subsystem. */
  hosts?: readonly string[] | undefined;
}

/** A namespace of a subsystem and what it is stored in. */
export interface Namespace extends Source {
  readonly nsid: number;
  readonly source: string;
  readonly group: number;
  readonly ids: NamespaceIds;
  /** Hosts that see it, by NQN; undefined: all that may use the subsystem. */
  hosts: ReadonlySet<string> | undefined;
  readonly handle: NativeNamespace;
  /** What it was opened with. */
  options: NamespaceOptions;
  /** Size in bytes, whole blocks. */
  size: number;
}

/** One failed command, newest first in the log. */
export interface ErrorRecord {
  count: bigint;
  sqid: number;
  cid: number;
  /** SCT << 8 | SC, DNR in bit 14 */
  status: number;
  location: number | undefined;
  lba: bigint;
  nsid: number;
}

/** An answer to a command; undefined where it comes later. */
export type Answer = { result?: number | bigint; data?: Buffer } | undefined;

/** A subsystem, as its controllers see it. */
export interface SubsystemState {
  readonly nqn: string;
  readonly serial: string;
  readonly model: string;
  readonly started: number;
  readonly namespaces: ReadonlyMap<number, Namespace>;
  readonly controllers: ReadonlyMap<number, ControllerState>;
  readonly ana: AnaStates;
  counters(): QueueCounters;
  syncError(namespace: Namespace): string | undefined;
  retire(controller: ControllerState): void;
}

/** A controller, as its subsystem, the target and those who answer its commands see it: see Controller. */
export interface ControllerState {
  readonly cntlid: number;
  readonly subsystem: SubsystemState | undefined;
  readonly subnqn: string;
  readonly hostnqn: string;
  readonly hostid: Buffer;
  /** The port that the host has connected to. */
  readonly port: number;
  readonly admin: number;
  /** Address and port of the admin queue, for messages. */
  readonly peer: string;
  readonly handle: NativeController;
  readonly queues: Map<number, number>;
  /** Connections that become I/O queues once their host has proved who it is. */
  readonly joining: Set<number>;
  readonly features: { readonly queues: number; readonly retryDelays: boolean };
  /** I/O queues that the host may have at most. */
  readonly mostQueues: number;
  readonly errors: readonly ErrorRecord[];
  readonly errorCount: bigint;
  readonly mediaErrors: bigint;
  readonly changed: ReadonlySet<number>;
  /** Counts of the ANA log since the last reset: of the whole log, and of single groups. */
  readonly anaChanges: bigint;
  readonly groupChanges: ReadonlyMap<number, bigint>;
  readonly keepAlive: number;
  readonly writeCache: boolean;
  readonly ready: boolean;
  counters(): QueueCounters;
  /** A namespace that its host sees. */
  namespace(nsid: number): Namespace | undefined;
  /** NSIDs that its host sees, in order. */
  nsids(): number[];
  refreshTable(): void;
  expired(now: number): boolean;
  setKeepAlive(ms: number): void;
  setWriteCache(on: boolean): void;
  discoveryLog(): Buffer;
  checkBuffer(command: Buffer, length: number, exact: boolean): void;
  command(command: Buffer, data: Buffer, tag: number): Answer;
  failed(error: Omit<ErrorRecord, 'count'>): void;
  logRead(lid: number): void;
  /** @param group of a namespace that has come or gone: its list in the ANA log is another one */
  namespaceChanged(nsid: number, group?: number): void;
  anaChanged(groups: readonly number[]): void;
  discoveryChanged(): void;
  end(): void;
}
