import type { Store } from './storage.js';

/** A watch on a descriptor in the event loop. */
export interface ReadWatch {
  close(): void;
  /** Whether it keeps the process alive. */
  ref(keep: boolean): void;
}

/** A region of SET_MEM_TABLE: guest-physical address, size, front-end virtual address, offset in its file. */
export interface NativeRegion {
  gpa: bigint;
  size: bigint;
  uva: bigint;
  offset: bigint;
}

/** Guest memory, mapped behind a SIGBUS guard. Rings keep it mapped after close(). */
export interface NativeMemory {
  close(): void;
  /** Whether pages were lost because the peer cut a file short. */
  broken(): boolean;
  contains(address: bigint, size: bigint, physical: boolean): boolean;
}

/** In-flight regions of a device's queues (GET_INFLIGHT_FD), mapped. Rings keep them mapped after close(). */
export interface NativeInflight {
  close(): void;
}

/** The dirty log of a migration, mapped. Rings keep it mapped after close(). */
export interface NativeDirtyLog {
  close(): void;
}

/** Where a ring lies. Addresses are front-end virtual, guest-physical with `physical`. */
export interface RingLayout {
  num: number;
  desc: bigint;
  avail: bigint;
  used: bigint;
  /** As SET_VRING_BASE gives it. */
  base: number;
  features: bigint;
  physical: boolean;
  /** Of the queue in its device. */
  index?: number;
  inflight?: NativeInflight | undefined;
  log?: NativeDirtyLog | undefined;
  /** VHOST_VRING_F_LOG: writes of the used ring are logged, at this guest-physical address. */
  logUsed?: boolean;
  logAddress?: bigint;
}

// Generated for C++: native/vhost_user/shared.h.

/** Bytes of a chain's readable part that take() gives. */
export const maxCopied = 4096;
/** Chains that a queue has taken and that are not answered. */
export const maxTaken = 64;

/** A virtqueue that JavaScript serves: for few requests. */
export interface NativeQueue {
  /**
   * The chains that are available now: the first maxCopied bytes that the driver wrote and how much it takes back. The queue holds at
   * most maxTaken unanswered chains: call again after answers. @throws EPROTO
   */
  take(): { head: number; out: Buffer; inSize: number }[];
  /** Completes a chain. @returns whether the driver wants its call eventfd signalled */
  answer(head: number, data: Uint8Array): boolean;
  /** Goes on over another memory table; the size of the ring stays. @throws EFAULT */
  setMemory(memory: NativeMemory, layout: RingLayout): void;
  /** Index for GET_VRING_BASE. */
  base(): number;
  close(): void;
}

/** What a virtio-blk queue has done. */
export interface BlkStats {
  reads: number;
  writes: number;
  flushes: number;
  others: number;
  errors: number;
  bytesRead: number;
  bytesWritten: number;
}

/** What a virtio-blk queue has to know of its device. */
export interface NativeBlkOptions {
  kick: number;
  call: number;
  /** Answer to GET_ID, at most 20 bytes. */
  serial: string;
  ioUring: boolean;
  /** A queue with nothing to do looks for chains so long before it sleeps, in µs. */
  spinUs: number;
  /** As the configuration space offers them: data segments of a request, sectors and ranges of a discard. */
  segMax: number;
  maxSectors: number;
  maxRanges: number;
  /** Queues that share what the device may hold. */
  queues: number;
  /** The writeback field of the configuration space: false writes through, if the driver may write the field. */
  writeback: boolean;
}

/** A virtio-blk queue in a thread of its own. */
export interface NativeBlkQueue {
  /** Readable when the thread has ended: after stop(), or because the driver broke the ring. */
  endedFd(): number;
  /** Why it ended; '' for stop(). Valid once endedFd() is readable. */
  error(): string;
  stats(): BlkStats;
  usesIoUring(): boolean;
  /** @throws EFAULT; then the old memory stays */
  remap(memory: NativeMemory, layout: RingLayout): void;
  /** Takes the descriptor; -1 is none. */
  setCall(fd: number): void;
  /** The driver has written the writeback field of the configuration space. */
  setWriteback(on: boolean): void;
  stop(): void;
  /** Waits for the thread. @returns the index for GET_VRING_BASE */
  close(): number;
}

/** One UNIX socket of the network namespace. */
export interface UnixSocket {
  inode: number;
  /** Inode of the connected other end; 0 for none. */
  peer: number;
  /** SOCK_STREAM 1, SOCK_DGRAM 2, SOCK_SEQPACKET 5 */
  type: number;
  /** 1 connected, 10 listening */
  state: number;
  /** Inode of the bound file, its low 32 bits; 0 for none. */
  fileInode: number;
  /** Bound path; `@name` is abstract; '' for none. */
  name: string;
}

/** native/vhost_user. Sockets are non-blocking; every descriptor is close-on-exec and owned by the caller. */
export interface VhostUserNative {
  connect(path: string): number;
  /** @param mode of the socket file, whatever the umask is @param uid @param gid of it; 2^32 - 1 keeps them */
  listen(path: string, backlog: number, mode: number, uid: number, gid: number): number;
  /** -1 when nobody waits. */
  accept(fd: number): number;
  socketPair(): [number, number];
  /** Where a UNIX socket listens, '' without a file; undefined for any other descriptor. */
  listenerPath(fd: number): string | undefined;
  peer(fd: number): { pid: number; uid: number; gid: number };
  /** Bytes taken, -1 when the socket is full. The descriptors travel with the first byte. */
  send(fd: number, data: Uint8Array, fds: readonly number[]): number;
  /** Bytes received into `data`, 0 at the end, -1 when there are none. Descriptors that came are appended to `fds`. */
  receive(fd: number, data: Uint8Array, fds: number[]): number;
  watchReadable(fd: number, callback: () => void): ReadWatch;
  unixSockets(): UnixSocket[];
  memfd(name: string, size: number, seals: number): number;
  /** F_SEAL_* bits; -1 for a file that cannot have any. */
  seals(fd: number): number;
  addSeals(fd: number, seals: number): void;
  /** F_GETFL */
  fdFlags(fd: number): number;
  dup(fd: number): number;
  /** Maps and unmaps at once: proves that a mapping of this kind would succeed. @throws its error */
  tryMap(fd: number, offset: bigint, size: bigint, writable: boolean): void;
  /** flock(2) without waiting; false where somebody else holds it. */
  lock(fd: number, exclusive: boolean): boolean;
  /** Adds one to a peer's eventfd; never blocks. */
  signal(fd: number): void;
  guestMemory(regions: NativeRegion[], fds: number[]): NativeMemory;
  /** Bytes of a queue's part of an in-flight region. */
  inflightBytes(queueSize: number): number;
  /** @throws EINVAL for a region that its file does not hold */
  inflightRegion(fd: number, bytes: bigint, offset: bigint, queues: number, queueSize: number): NativeInflight;
  dirtyLog(fd: number, bytes: bigint, offset: bigint): NativeDirtyLog;
  virtqueue(memory: NativeMemory, layout: RingLayout): NativeQueue;
  /** @param options kick stays the caller's and open until close(); call becomes the queue's, -1 is none */
  blkQueue(store: Store, memory: NativeMemory, layout: RingLayout, options: NativeBlkOptions): NativeBlkQueue;
}

/** F_SEAL_* (linux/fcntl.h). */
export const Seal = { seal: 1, shrink: 2, grow: 4, write: 8, futureWrite: 16 } as const;

/** Names of the exports, for the test that compares this interface with the addon. */
export const vhostUserExports = [
  'connect',
  'listen',
  'accept',
  'socketPair',
  'listenerPath',
  'peer',
  'send',
  'receive',
  'watchReadable',
  'unixSockets',
  'memfd',
  'seals',
  'addSeals',
  'fdFlags',
  'dup',
  'tryMap',
  'lock',
  'signal',
  'guestMemory',
  'inflightBytes',
  'inflightRegion',
  'dirtyLog',
  'virtqueue',
  'blkQueue',
] as const satisfies (keyof VhostUserNative)[];
