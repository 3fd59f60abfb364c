import type { Store } from './storage.js';

/** What to run: see native/nvme/host/load.h. It has an association of its own, with the first address. */
export interface LoadOptions extends HostOptions {
  threads: number;
  /** Commands outstanding on each queue; less than `entries`. */
  depth: number;
  blockSize: number;
  ioBlocks: number;
  first: bigint;
  blocks: bigint;
  readPercent: number;
  random: boolean;
  durationMs: number;
  warmupMs: number;
  spinUs: number;
  seed: number;
}

/** What was measured. */
export interface LoadResult {
  /** I/O queues that the controller granted. */
  queues: number;
  reads: number;
  writes: number;
  errors: number;
  /** Status field of the first failed command. */
  firstError: number;
  seconds: number;
  minNs: number;
  meanNs: number;
  maxNs: number;
  /** 50, 90, 95, 99, 99.9 and 99.99 % */
  percentilesNs: Float64Array;
  /** for each bucket with samples: where it begins, where it ends, how many */
  histogramNs: Float64Array;
}

declare const kind: unique symbol;
/** A namespace of a remote subsystem (native/nvme/host/host.h). */
export type RemoteNamespace = { readonly [kind]: 'remote namespace' };

/** Authenticates queues while they are connected (native/binding/nvme/authenticator.h). */
export type AuthenticatorHandle = { readonly [kind]: 'authenticator' };

/** A queue that waits behind its Connect. */
export interface ExchangeHandle {
  qid: number;
  /** AUTHREQ of Connect. */
  authreq: number;
  /** Runs a command on the queue; CID and SGL are filled in. Resolves with its status and data. */
  run(sqe: Buffer, data: Buffer, toHost: boolean): Promise<{ status: number; data: Buffer }>;
  /** Lets the connection go on (0), or fail with an errno. */
  end(errno: number): void;
}

/** A connection with one queue (native/nvme/host/lone_queue.h). */
export type QueueHandle = { readonly [kind]: 'queue' };

/** A key of TLS. A host that has several tries them in this order until the target takes one, and begins with that one from then on. */
export interface TlsKey {
  identity: string;
  psk: Uint8Array;
}

/** How to connect a queue. Times in milliseconds. */
export interface QueueOptions {
  host: string;
  port: number;
  qid: number;
  entries: number;
  headerDigest: boolean;
  dataDigest: boolean;
  /** Of connecting. */
  timeoutMs: number;
  tls?: readonly TlsKey[] | undefined;
}

/** A command of a queue. Times in milliseconds. */
export interface QueueCommand {
  /** 64 bytes; CID, PSDT and SGL are filled in. */
  sqe: Uint8Array;
  /** Data for the controller. */
  out?: Uint8Array | undefined;
  /** Bytes of data for the host; 0 with `out`. */
  size: number;
  /** 0: none */
  timeoutMs: number;
  /** Bytes of data that the capsule of this command takes. */
  inCapsule: number;
}

/** What the controller answered. */
export interface QueueCompletion {
  /** With the phase bit. */
  status: number;
  dw0: number;
  dw1: number;
  sqhd: number;
  /** From the submission to the completion. */
  nanoseconds: number;
  /** Of a command with `size`: what came. */
  data?: Buffer;
}

/** How to reach a namespace. Times in milliseconds. */
export interface HostOptions {
  /** Of one subsystem: its paths. */
  addresses: { host: string; port: number }[];
  /** More of them, which hostPaths() changes. */
  found?: { host: string; port: number }[];
  hostnqn: string;
  subnqn: string;
  /** 16 bytes */
  hostid: Uint8Array;
  /** 0: the only one that there is. */
  nsid: number;
  queues: number;
  /** Of each I/O queue. */
  entries: number;
  /** 0: none */
  keepAliveMs: number;
  /** Of connecting, and of each command. */
  timeoutMs: number;
  /** Requests fail when no path was usable for so long; 0: at once, and nothing is connected again. */
  lossMs: number;
  headerDigest: boolean;
  dataDigest: boolean;
  flowControl: boolean;
  /** Writes that a volatile cache may have lost with its target are written again. */
  replay: boolean;
  /** Who authenticates queues; without it, a target that asks for it is EACCES. Closed with the last host that has it. */
  authenticator?: AuthenticatorHandle | undefined;
  tls?: readonly TlsKey[] | undefined;
}

/** What was found when it was opened. */
export interface HostFacts {
  nsid: number;
  /** Bytes, now. */
  size: bigint;
  blockSize: number;
  readonly: boolean;
  volatileCache: boolean;
  /** Bytes of one command. */
  maxTransfer: number;
  /** I/O queues granted, and commands that each takes. */
  queues: number;
  depth: number;
  canZero: boolean;
  nguid: Buffer;
  uuid: Buffer;
  eui64: Buffer;
  /** Associations now, and those that were made again. */
  paths: number;
  reconnects: number;
}

/** What to copy: see native/nvme/host/copy.h. */
export interface CopyOptions {
  fd: number;
  /** Into the namespace, else out of it. */
  write: boolean;
  /** Bytes of the namespace. */
  offset: bigint;
  length: bigint;
  chunk: number;
  depth: number;
  fua: boolean;
  deallocate: boolean;
}

/** How far a copy came. */
export interface CopyResult {
  bytes: bigint;
  /** Of a write: bytes that survive a power failure of the target. */
  durable: bigint;
  mergedBlocks: number;
  /** The input is longer than the range. */
  overlong: boolean;
  /** Errno name; '' for success. */
  error: string;
  /** 'cut': the input became shorter while it was sent. */
  where: 'none' | 'namespace' | 'input' | 'cut' | 'output';
  /** Status of the last command that failed, without its phase bit; 0: none did. */
  status: number;
  /** Errno name of the connection that was lost; '' for none. */
  lost: string;
  /** Text of that error, maybe empty. */
  lostWhy: string;
}

declare const tls: unique symbol;
/** One end of a TLS 1.3 connection without a socket. */
export type NativeTls = { readonly [tls]: 'tls' };

/** native/nvme, the host's side */
export interface NvmeHostNative {
  authenticatorNew(): AuthenticatorHandle;
  /** The next queue to authenticate; undefined once it is closed. One call at a time. */
  authenticatorNext(of: AuthenticatorHandle): Promise<ExchangeHandle | undefined>;
  authenticatorClose(of: AuthenticatorHandle): void;
  /** Connects and negotiates, off the event loop. Rejects with a system error. */
  queueOpen(options: QueueOptions): Promise<QueueHandle>;
  /** Runs a command. Rejects with EBADMSG (data with a wrong digest), or with what ended the connection (ETIMEDOUT of this command: with a detail). */
  queueRun(queue: QueueHandle, command: QueueCommand): Promise<QueueCompletion>;
  /** Rejects when the connection is over. */
  queueOver(queue: QueueHandle): Promise<never>;
  /** Ends the connection: commands that are under way fail with ECANCELED. */
  queueClose(queue: QueueHandle): void;
  /** Connects, off the event loop; `stop` ends that. Rejects with a system error, which has `status` if a command was refused. */
  hostOpen(options: HostOptions): { done: Promise<RemoteNamespace>; stop: () => void };
  /** A namespace as a source of blocks. Rejects as hostOpen() does. */
  hostSource(options: HostOptions & { readonly: boolean; unmap: boolean }): Promise<Store>;
  /** Bytes that tell the targets of this process, for the vendor specific part of Identify Controller. hostSource() refuses one that has them (ELOOP). */
  hostStamp(): Buffer;
  /** Bytes for the vendor specific part of Identify Namespace: the targets that requests for a source pass (native/nvme/host/stamp.h). */
  hostHops(store: Store): Buffer;
  /**
   * Paths of a store of hostSource(): those with an association, and all.
   * @param found takes the place of `found` of its options
   */
  hostPaths(store: Store, found?: { host: string; port: number }[]): { live: number; all: number };
  hostFacts(host: RemoteNamespace): HostFacts;
  /** Copies in threads of its own; `stop` ends it early with ECANCELED. `progress` gives the bytes so far. */
  hostCopy(host: RemoteNamespace, options: CopyOptions): { done: Promise<CopyResult>; stop: () => void; progress: () => number };
  /** Shuts its controllers down. */
  hostClose(host: RemoteNamespace): Promise<void>;
  /** The client's end. @param key PSK of 32 (SHA-256) or 48 bytes (SHA-384) @throws ENOTSUP without OpenSSL's functions */
  tlsClient(identity: string, key: Uint8Array): NativeTls;
  /** The server's end for one key: what tests speak to. */
  tlsServer(identity: string, key: Uint8Array): NativeTls;
  /** Takes bytes of the peer; without bytes, begins. @returns plaintext, and bytes for the peer @throws EPROTO */
  tlsTake(connection: NativeTls, bytes: Uint8Array): { plain: Buffer; out: Buffer; established: boolean; ended: boolean };
  /** Plaintext into bytes for the peer. @throws ENOTCONN before it is established, EPROTO */
  tlsPut(connection: NativeTls, bytes: Uint8Array): Buffer;
  /** Starts the load in threads of its own. Rejects with a system error; `stop` ends it early with what there is. */
  loadRun(options: LoadOptions): { done: Promise<LoadResult>; stop: () => void };
}

export const nvmeHostExports = [
  ...(['loadRun', 'authenticatorNew', 'authenticatorNext', 'authenticatorClose'] as const),
  ...(['hostOpen', 'hostSource', 'hostStamp', 'hostHops', 'hostPaths', 'hostFacts', 'hostCopy', 'hostClose'] as const),
  ...(['queueOpen', 'queueRun', 'queueOver', 'queueClose'] as const),
  ...(['tlsClient', 'tlsServer', 'tlsTake', 'tlsPut'] as const),
] as const satisfies (keyof NvmeHostNative)[];
