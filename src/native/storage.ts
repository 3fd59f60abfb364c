declare const kind: unique symbol;
/** A source of blocks: a file, a block device, memory. Freed by the garbage collector, closed by close(). */
export type Store = { readonly [kind]: 'store' };

export interface StoreOptions {
  readonly?: boolean;
  /** Other writers that say the same may use it too. */
  shared?: boolean;
  /** Although somebody else uses it. */
  force?: boolean;
  /** Past the page cache (O_DIRECT). */
  direct?: boolean;
  /** Lock it at once (true). */
  claim?: boolean;
  /** io_uring may do its I/O (true). */
  ring?: boolean;
  /** Writes of zeroes: holes stay holes unless given; `unmap` makes holes, `off` writes. */
  zero?: 'unmap' | 'off' | undefined;
}

/** A file to open off the event loop. */
export interface OpenedLater {
  path: string;
  options: StoreOptions;
  /** What to look at of it. */
  parts: readonly Part[];
}

/** An export of an NBD server (native/storage/remote/nbd.h). */
export interface NbdOptions {
  uri: string;
  /** What it is called wherever it is opened; the URI unless given. */
  name?: string;
  readonly?: boolean;
  shared?: boolean;
  zero?: 'unmap' | 'off' | undefined;
  /** Milliseconds. */
  timeout: number;
}

/** An image of Ceph (native/storage/remote/rbd.h). */
export interface RbdOptions {
  pool: string;
  namespace?: string;
  image: string;
  snapshot?: string | undefined;
  conf?: string | undefined;
  /** Name of the client, without `client.`. */
  id?: string | undefined;
  keyring?: string | undefined;
  readonly?: boolean;
  shared?: boolean;
  force?: boolean;
  /** Leave its lock to others until claim(). */
  later?: boolean;
  zero?: 'unmap' | 'off' | undefined;
  /** Milliseconds. */
  timeout: number;
}

/** What a source is made of (native/storage/geometry.h). Bytes; 0 where the source does not say. */
export interface Geometry {
  /** Smallest unit of addressing. */
  logical: number;
  /** Smallest unit that is written without reading first. */
  physical: number;
  minimumIo: number;
  optimalIo: number;
  /** Of the first physical block. */
  alignmentOffset: number;
  /** Alignments for O_DIRECT; 0: it is not supported. */
  directMemory: number;
  directOffset: number;
  rotational: boolean;
  /** A block device, not a file. */
  device: boolean;
  readonly: boolean;
  /** The kind of file system that io_uring must not be used on; undefined where it may be. */
  withoutRing?: string;
}

/** What tells a file or block device apart, whatever its name and contents are. */
export interface FileIdentity {
  /** A block device. */
  block: boolean;
  /** st_rdev of a block device, st_dev of a file. */
  device: bigint;
  inode: bigint;
  /** statfs(2) */
  fsid: bigint;
  /** UUID of the file system as 32 digits, from Linux 6.9 on. */
  filesystem?: string;
  /** Tells a file from an earlier one with the same inode number. */
  generation?: number;
  /** When it came to be, in nanoseconds since 1970, of a file without a generation. */
  born?: bigint;
}

/** What a path leads to, as stat(2) says it. */
export interface Inode {
  mode: bigint;
  dev: bigint;
  ino: bigint;
  rdev: bigint;
}

/** What is looked at of a source: where it begins, from the end if that is negative, and how many bytes it has, up to 1 MiB. */
export type Part = readonly [at: number, length: number];
/** What was found there. */
export type Peeked = readonly (Buffer | undefined)[];

/** A rate in units per second; after idle time, `burst` units per second for `seconds` (0: no burst). */
export interface Rate {
  average: number;
  burst: number;
  seconds: number;
}

/** Limits of a source (native/storage/throttle.h). Undefined: none. */
export interface Limits {
  iops?: Rate | undefined;
  bps?: Rate | undefined;
}

/** native/storage: what every served disk is stored in. */
export interface StorageNative {
  /**
   * Opens and locks a regular file or a block device.
   * @throws the system's error; ENOTSUP for other kinds of file; EBUSY of `lock` or `open` if somebody else uses it
   */
  open(path: string, options: StoreOptions): Store;
  /**
   * The same of several files one after the other, with peek(), off the event loop: a file system can hang. Few calls may hang at a time,
   * and the rest waits for them. It also waits for this process to let go of a file, where it has just closed it.
   * @returns the error of each that cannot be opened
   */
  openLater(files: readonly OpenedLater[]): Promise<({ store: Store; parts: Peeked } | Error)[]>;
  /** Looks paths up off the event loop, one after the other. @returns the system's error of each that stat(2) fails for */
  reach(paths: readonly string[]): Promise<(Inode | Error)[]>;
  /**
   * Connects to an export of an NBD server, off the event loop.
   * @throws the system's error; ELIBACC or ELIBBAD for a library that is missing or too old; EACCES for an export that is read-only
   */
  openNbd(options: NbdOptions): Promise<Store>;
  /**
   * Opens an image of Ceph, off the event loop.
   * @throws as openNbd() does; EBUSY if another client has the image for itself
   */
  openRbd(options: RbdOptions): Promise<Store>;
  /** Zeroed memory. */
  ram(size: number): Store;
  /** Bytes. */
  size(store: Store): number;
  geometry(store: Store): Geometry;
  /** Undefined for memory. */
  identity(store: Store): FileIdentity | undefined;
  /** Looks at the file's size again. */
  refresh(store: Store): number;
  /** The same off the event loop, behind other requests of the source: a device can hang. @throws the system's error */
  measure(store: Store): Promise<number>;
  /** The bytes of each part, less at the end; undefined for a hole. For a look at headers: it waits for the device. */
  peek(store: Store, parts: readonly Part[]): Peeked;
  /** The same off the event loop, as measure() does it. */
  peekLater(store: Store, parts: readonly Part[]): Promise<Peeked>;
  /** What has happened to a remote source since the last call: a word of src/storage/remote/news.ts, and an errno name or ''. */
  news(store: Store): { what: string; error: string }[];
  /** What a remote source is called wherever it is opened; empty for files and memory. */
  lastingName(store: Store): string;
  /** Everything written before reaches stable storage; waits as measure() does. @throws the first error of any sync */
  flush(store: Store): Promise<void>;
  /** The first refusal of io_uring that an engine of this process met; tries a ring if there was none so far. */
  ringRefusal(): { code: string; syscall: string } | undefined;
  /** Errno name of io_uring_register(2) that did not register the buffers of an engine: the kernel pins them for each request then. */
  bufferRefusal(): string | undefined;
  /** Errno name of the sync that failed: all later ones fail too, until the source is opened anew. */
  syncError(store: Store): string | undefined;
  /** Requests and syncs that have failed so far, and the errno name of the last one. */
  failures(store: Store): { count: number; error: string };
  /** New limits hold at once, for requests that wait too. @throws EINVAL for a rate of 0 or a burst below it */
  setLimits(store: Store, limits: Limits): void;
  /** Its limits, the requests that wait for their turn now, and those that have waited so far. */
  limits(store: Store): Limits & { waiting: number; delayed: number };
  /**
   * Locks a source that is not locked. This, release() and reopen() run off the event loop, one after the other.
   * @throws EBUSY if somebody else uses it; ESTALE if the name leads to another one by now
   */
  claim(store: Store): Promise<void>;
  /** Gives the lock up: nothing is under way, and what was written is durable. @throws the system's error; then it stays locked */
  release(store: Store): Promise<void>;
  /**
   * Opens the source anew and forgets the sync that failed; requests under way end on the old file.
   * @throws ESTALE if the name leads to another file by now; EBUSY if the device cannot be claimed again
   */
  reopen(store: Store): Promise<void>;
  /**
   * The handle is void from now on; the file is closed, and its lock given up, when no command uses it any more. What closing a remote
   * source, a device or a file over a network waits for is done off the event loop.
   */
  close(store: Store): void;
  /**
   * Waits for sources that are closing now, so many milliseconds at most. The end of the process waits for them too.
   * @returns false: some are not closed yet
   */
  farewells(most: number): Promise<boolean>;
}

/** Names of the exports, for the test that compares this interface with the addon. */
export const storageExports = [
  'open',
  'openLater',
  'reach',
  'openNbd',
  'openRbd',
  'ram',
  'size',
  'geometry',
  'identity',
  'refresh',
  'measure',
  'peek',
  'peekLater',
  'news',
  'lastingName',
  'flush',
  'ringRefusal',
  'bufferRefusal',
  'syncError',
  'failures',
  'claim',
  'release',
  'setLimits',
  'limits',
  'reopen',
  'close',
  'farewells',
] as const satisfies (keyof StorageNative)[];
