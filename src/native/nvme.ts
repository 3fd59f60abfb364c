import type { Store } from './storage.js';

declare const kind: unique symbol;
/** Handles of the addon: opaque, freed by the garbage collector. */
export type NativeNamespace = { readonly [kind]: 'namespace' };
export type NativeController = { readonly [kind]: 'controller' };
export type NativeBudget = { readonly [kind]: 'budget' };
export type NativeTarget = { readonly [kind]: 'target' };

/** Options of the engine; all have defaults (native/nvme/target.h). */
export interface TargetOptions {
  /** Threads that serve connections. */
  threads?: number;
  /** How long a thread looks for more work before it sleeps. */
  spinMicroseconds?: number;
  maxConnections?: number;
  /** Who does I/O that may wait for a device: threads with plain system calls (sync, the default) or io_uring. */
  engine?: 'sync' | 'uring';
  /** Time from accept to a completed CONNECT. */
  handshakeMs?: number;
  /** Whether header and data digests are granted to hosts that ask. */
  headerDigest?: boolean;
  dataDigest?: boolean;
}

/** TLS 1.3 with pre-shared keys: 0 never, 1 if the host begins with it, 2 always. */
export type TlsUse = 0 | 1 | 2;

/** What the engine tells, in batches. */
export type TargetEvent =
  | {
      kind: 'opened';
      connection: number /** `address port address port`: the host's, ours */;
      peer: string /** counted from 0 in the order of targetListen */;
      listener: number;
    }
  | { kind: 'command'; connection: number; tag: number /** 64 bytes */; sqe: Buffer; data: Buffer }
  | { kind: 'key'; connection: number /** that a host offers for TLS: answer with targetKey() */; identities: Buffer[] }
  | { kind: 'closed'; connection: number /** empty after a protocol error */; reason: string }
  | { kind: 'error'; connection: number; fes: number; fei: number }
  | { kind: 'error'; connection: number; fes?: undefined /** of a failed I/O command */; sqe: Buffer; status: number };

/** What the queues of a controller have done since it was made. */
export interface QueueCounters {
  queues: number;
  reads: number;
  writes: number;
  readBytes: number;
  writtenBytes: number;
  flushes: number;
  others: number;
  errors: number;
  /** Commands that are under way, of queues that are there. */
  outstanding: number;
}

/** Bucket i has what took less than 2^(first + i) ns; the last one has the rest (native/nvme/usage.h). */
export interface LatencyHistogram {
  buckets: Float64Array;
  first: number;
  /** Sum of all times, in ns. */
  ns: number;
}

/** What hosts have done with a namespace: commands that succeeded, by kind, and those that failed. */
export interface NamespaceUsage {
  readBytes: number;
  writtenBytes: number;
  flushes: number;
  errors: number;
  /** Times from the arrival of a command to its answer; reads have the compares too. */
  read: LatencyHistogram;
  write: LatencyHistogram;
  /** Flushes, discards, writes of zeroes. */
  other: LatencyHistogram;
}

/** One answer: connection, tag, status (SCT << 8 | SC, bit 14 DNR), dwords 0 and 1 of the CQE, data. */
export type Completion = [connection: number, tag: number, status: number, result: number | bigint, data?: Uint8Array];

/** native/nvme */
export interface NvmeNative {
  /** The handle is void from now on; its store is closed when no command uses it any more. Idempotent. */
  namespaceRelease(ns: NativeNamespace): void;
  /** @param shift log2 of the block size */
  namespaceNew(store: Store, shift: number, readonly: boolean): NativeNamespace;
  namespaceResize(ns: NativeNamespace, blocks: number): void;
  namespaceUsage(ns: NativeNamespace): NamespaceUsage;
  controllerNew(): NativeController;
  /** Gives a controller the budget of its host, once and before it has a queue. */
  controllerBudget(controller: NativeController, budget: NativeBudget): void;
  /** Bytes of data that commands of one host hold at a time, without a limit at first. */
  budgetNew(): NativeBudget;
  /** @param bytes 0: no limit */
  budgetLimit(budget: NativeBudget, bytes: number): void;
  /** I/O commands are refused until it is ready. */
  controllerReady(controller: NativeController, ready: boolean): void;
  /** Off: every write that comes from now on is durable before it is answered. */
  controllerWriteCache(controller: NativeController, on: boolean): void;
  /** Replaces the table of namespaces; gate is the status of all commands while a namespace is not accessible. */
  controllerNamespaces(controller: NativeController, table: [nsid: number, ns: NativeNamespace, gate: number][]): void;
  /** Milliseconds since the last command on any queue. */
  controllerIdle(controller: NativeController): number;
  /** I/O commands that are being done, on any of its queues. */
  controllerRunning(controller: NativeController): number;
  controllerStats(controller: NativeController): QueueCounters;
  /** Counters of each I/O queue that is there. */
  controllerQueues(controller: NativeController): (Omit<QueueCounters, 'queues'> & { qid: number })[];
  targetStart(options: TargetOptions, events: (batch: TargetEvent[]) => void): NativeTarget;
  /** @returns the port, chosen by the system where 0 was asked */
  targetListen(target: NativeTarget, address: string, port: number, ipv6: boolean): number;
  /** Stops listening. @param listener as targetListen counts them. Resolves when its port is free. */
  targetUnlisten(target: NativeTarget, listener: number): Promise<void>;
  /** Connections from now on, those without a CONNECT included. */
  targetMaxConnections(target: NativeTarget, connections: number): void;
  /** Takes connections of a listening TCP socket too; the descriptor stays the caller's. @throws ENOTSUP without OpenSSL's functions for TLS */
  targetListenFd(target: NativeTarget, fd: number, tls: TlsUse): void;
  /** TLS of the connections that come through a listener from now on. @throws as targetListenFd() */
  targetTls(target: NativeTarget, listener: number, tls: TlsUse): void;
  /**
   * Makes a connection a queue; call it before the CONNECT is completed.
   * @param size entries, 2 to 1024
   * @param locked only authentication passes until targetUnlock(); other commands are answered with Authentication Required
   */
  targetSetup(
    target: NativeTarget,
    connection: number,
    qid: number,
    size: number,
    flowControl: boolean,
    controller: NativeController,
    locked: boolean,
  ): void;
  /** Answers a `key` event. @param key PSK of 32 (SHA-256) or 48 bytes (SHA-384); none if no identity is known */
  targetKey(target: NativeTarget, connection: number, identity: string, key: Uint8Array): void;
  /** The host of a locked connection is authenticated: all commands pass. */
  targetUnlock(target: NativeTarget, connection: number): void;
  targetComplete(target: NativeTarget, batch: Completion[]): void;
  /** Ends a connection after what was queued for it. */
  targetClose(target: NativeTarget, connection: number): void;
  targetConnections(target: NativeTarget): number;
  /** The engine in use: sync where io_uring was asked for and is missing. */
  targetEngine(target: NativeTarget): 'sync' | 'uring';
  /**
   * Tells all queues that tables of namespaces have changed. Then none keeps the source of a namespace that was released,
   * other than for a command that is being done.
   */
  targetRenew(target: NativeTarget): Promise<void>;
  /** Closes all connections at once. Resolves when the commands under way have ended: a source that hangs keeps it waiting. */
  targetStop(target: NativeTarget): Promise<void>;
  /** base ^ exponent mod modulus, big-endian, by a thread of libuv's pool. @throws EINVAL, ENOTSUP without OpenSSL's functions */
  dhPower(base: Uint8Array, exponent: Uint8Array, modulus: Uint8Array): Promise<Buffer>;
}

/** Names of the exports, for the test that compares this interface with the addon. */
export const nvmeExports = [
  'namespaceRelease',
  'namespaceNew',
  'namespaceResize',
  'namespaceUsage',
  'controllerNew',
  'controllerBudget',
  'budgetNew',
  'budgetLimit',
  'controllerReady',
  'controllerWriteCache',
  'controllerNamespaces',
  'controllerRunning',
  'controllerIdle',
  'controllerStats',
  'controllerQueues',
  'targetStart',
  'targetListen',
  'targetUnlisten',
  'targetMaxConnections',
  'targetListenFd',
  'targetTls',
  'targetSetup',
  'targetComplete',
  'targetClose',
  'targetConnections',
  'targetEngine',
  'targetRenew',
  'targetStop',
  'targetKey',
  'targetUnlock',
  'dhPower',
] as const satisfies (keyof NvmeNative)[];
