declare const kind: unique symbol;
/** A source of blocks: a file, a block device, memory. Freed by the garbage collector, closed by close(). */
export type Store = { readonly [kind]: 'store' };

export interface StoreOptions {
  readonly?: boolean;
  /** Other writers that say the same may use it too. */
  shared?: boolean;
  /** Although somebody else uses it. */
  force?: boolean;
}

/** native/storage: what every served disk is stored in. */
export interface StorageNative {
  /**
   * Opens and locks a regular file or a block device.
   * @throws the system's error; ENOTSUP for other kinds of file; EBUSY of `lock` or `open` if somebody else uses it
   */
  open(path: string, options: StoreOptions): Store;
  /** Zeroed memory. */
  ram(size: number): Store;
  /** Bytes. */
  size(store: Store): number;
  /** Looks at the file's size again. */
  refresh(store: Store): number;
  /** Up to 1 MiB; less at the end. For a look at a header: it waits for the device. */
  peek(store: Store, offset: number, length: number): Buffer;
  /** Everything written before reaches stable storage; waits off the event loop. @throws the first error of any sync */
  flush(store: Store): Promise<void>;
  /** Errno name of the sync that failed: all later ones fail too, until the source is opened anew. */
  syncError(store: Store): string | undefined;
  /** The handle is void from now on; the file is closed, and its lock given up, when no command uses it any more. */
  close(store: Store): void;
}

/** Names of the exports, for the test that compares this interface with the addon. */
export const storageExports = [
  'open',
  'ram',
  'size',
  'refresh',
  'peek',
  'flush',
  'syncError',
  'close',
] as const satisfies (keyof StorageNative)[];
