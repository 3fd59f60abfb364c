/** A ring of the addon; closed by close() or, at the latest, when it is collected. */
export type RingHandle = { readonly __ring: unique symbol };

/** Threads that work on files; ended by bulkClose() or, at the latest, when it is collected. */
export type BulkHandle = { readonly __bulk: unique symbol };

export interface BulkOpenOptions {
  /** BulkWork */
  work: number;
  /** Of sums. */
  algorithm?: string;
  /** No rings: each thread works with system calls. */
  plain?: boolean;
  threads: number;
  /** Files under way at once, over all threads. */
  depth: number;
}

/** A checksum under way, of one stream. */
export type DigestHandle = { readonly __digest: unique symbol };

// The numbers of this file are generated for C++: native/uring/shared.h.

/** Error of a result: a thread without a ring might wait for this file for ever. */
export const elsewhereError = -4097;

/** Error of a result: the file was longer when its reading began than what could be read. */
export const truncatedError = -4096;

/** Bytes of a result (number u32, error i32, size u64, digest), and where its digest begins. */
export const bulkResult = { size: 80, digestAt: 16 } as const;

/** Opcode of an entry that reads a whole file; the addon makes the kernel's requests of it. */
export const opReadWhole = 0xf0;
/** Bit in the flags of its completion: the buffer is full, and the file is still open. */
export const readWholeOpen = 1 << 15;

/** Work of bulkOpen(). */
export const BulkWork = { sum: 0, sync: 1, dataSync: 2 } as const;

/** Options of open(); numbers are the kernel's flag words. */
export interface RingOpenOptions {
  /** Entries of the submission queue. */
  entries: number;
  /** Entries of the completion queue; 0 or absent: twice as many. */
  cqEntries?: number;
  /** Set-up flags to use where the kernel offers them. */
  prefer?: number;
  /** Set-up flags without which opening fails. */
  require?: number;
  /** Idle time of the SQPOLL thread in milliseconds. */
  idle?: number;
  /** Entries of the shared arrays: the most that one submit() carries. */
  batch?: number;
  /** 0: do not enter through a registered ring descriptor. */
  registered?: 0 | 1;
}

export interface RingInfo {
  /** Owned by the ring: never close it. */
  fd: number;
  sqEntries: number;
  cqEntries: number;
  /** Set-up flags in use. */
  flags: number;
  features: number;
  /** Whether the kernel is entered through a registered ring descriptor. */
  registered: boolean;
  /** struct io_uring_params as the kernel returned it: 120 bytes. */
  params: Buffer;
  /** Shared: 64-byte SQEs, 16-byte CQEs, status words. */
  sqes: ArrayBuffer;
  cqes: ArrayBuffer;
  status: ArrayBuffer;
}

/** Words of the shared status array after submit(). With `again` the eventfd is silent: submit() has to come again, in the next turn of the loop. */
export const Status = { taken: 0, error: 1, more: 2, overflows: 3, inFlight: 4, enters: 5, again: 6 } as const;

/** Calls of io_uring_enter(2), and how many of them found completions that had not fitted into their queue. */
export interface RingStats {
  enters: number;
  overflows: number;
}

/** Answers of checkFds(). */
export const FdFault = { none: 0, closed: 1, ring: 2, path: 3, negative: 4 } as const;

/** The same of the threads of bulkOpen(), and the bytes that they have read so far. */
export interface BulkStats extends RingStats {
  bytes: number;
}

/** native/uring */
export interface UringNative {
  /** A new ring of the calling thread. @throws EPERM, ENOSYS, ENOMEM, EINVAL, EMFILE */
  open(options: RingOpenOptions): RingHandle;
  info(ring: RingHandle): RingInfo;
  /**
   * Submits `count` entries of the shared array, waits for `want` completions at most `timeoutMs`, and copies what has
   * completed to the shared array. Errors are in the status words.
   * @returns number of completions copied
   */
  submit(ring: RingHandle, count: number, want: number, timeoutMs?: number): number;
  /** Watches the ring in the event loop: calls back with the number of completions copied to the shared array. */
  watch(ring: RingHandle, callback: (completions: number) => void): void;
  /** io_uring_register(2). @returns result or -errno */
  register(ring: RingHandle, opcode: number, arg: Uint8Array | null, nr: number): number;
  /** Starts a ring that was opened with R_DISABLED. @returns 0 or -errno */
  enable(ring: RingHandle): number;
  /** Cancels what is under way, unregisters files, then closes. Idempotent. */
  close(ring: RingHandle): void;
  /** Opens a ring and closes it again. @returns its feature word or -errno */
  setup(entries: number, cqEntries: number, flags: number): number;
  /** io_uring_register(2) on any descriptor. @returns result or -errno */
  registerRaw(fd: number, opcode: number, arg: Uint8Array | null, nr: number): number;
  /** Where memory begins, shared or not. It stays there until its buffer is collected, transferred or resized. */
  addressOf(bytes: Uint8Array): number;
  /** Why each descriptor could not be registered (FdFault). */
  checkFds(fds: Int32Array): Uint8Array;
  /** syncfs(2) */
  syncfs(fd: number): void;
  /**
   * Moves up to `limit` bytes of a file, from `offset` on, to another descriptor; waits while that is full.
   * @returns bytes moved, 0 at the end of the file. @throws the errno, with `syscall` "read" or "write"
   */
  pour(from: number, to: number, offset: number, limit: number): Promise<number>;
  /** Bytes of an algorithm's digest; 0 where the addon does not compute it (no OpenSSL 3 in this Node, FIPS). */
  digestSize(algorithm: string): number;
  /** Begins a checksum. @throws EOPNOTSUPP if the addon does not compute it */
  digestNew(algorithm: string): DigestHandle;
  digestUpdate(digest: DigestHandle, bytes: Uint8Array): void;
  /** The digest of what was given; the next one begins. */
  digestFinish(digest: DigestHandle): Buffer;
  /**
   * Starts threads, each with a ring of its own, that work on files. `ready` is called in the event loop when there are
   * results.
   * @throws EPERM, ENOSYS, ENOMEM (io_uring_setup), EMFILE (file table)
   */
  bulkOpen(options: BulkOpenOptions, ready: () => void): BulkHandle;
  /** Hands over names with their NULs (copied); their results carry the numbers first, first + 1, … */
  bulkPush(bulk: BulkHandle, names: Uint8Array, first: number): void;
  /**
   * Moves results that are there into `to`, bulkResult.size bytes each: number (u32), 0 or -errno or truncatedError (i32), bytes read (u64), digest.
   * @returns how many. @throws the errno of io_uring_enter(2) where a ring has failed
   */
  bulkTake(bulk: BulkHandle, to: Uint8Array): number;
  bulkStats(bulk: BulkHandle): BulkStats;
  /** Cancels what is under way and ends the threads. Idempotent. */
  bulkClose(bulk: BulkHandle): void;
}

export const uringExports = [
  'open',
  'info',
  'submit',
  'watch',
  'register',
  'enable',
  'close',
  'setup',
  'registerRaw',
  'addressOf',
  'checkFds',
  'syncfs',
  'pour',
  'digestSize',
  'digestNew',
  'digestUpdate',
  'digestFinish',
  'bulkOpen',
  'bulkPush',
  'bulkTake',
  'bulkStats',
  'bulkClose',
] as const satisfies (keyof UringNative)[];
