/** An eventfd in the event loop. */
export interface EventWatch {
  close(): void;
  /** Whether it keeps the process alive. */
  ref(keep: boolean): void;
}

/** native/common */
export interface CommonNative {
  /** CRC-32C of bytes, continuing `start` (0 at first). */
  crc32c(bytes: Uint8Array, start?: number): number;
  /** The same by table: the reference that crc32c is tested against. */
  crc32cTable(bytes: Uint8Array, start?: number): number;
  /** The implementation that crc32c uses on this machine. */
  crc32cEngine(): 'sse4.2' | 'armv8' | 'table';
  /** A new non-blocking eventfd; the caller owns and closes it. */
  eventfd(): number;
  /** Adds to an eventfd's counter. */
  signalEventfd(fd: number, count: number): void;
  /** Calls back with the counter whenever the eventfd is signalled, and clears it. */
  watchEventfd(fd: number, callback: (count: number) => void): EventWatch;
  /** Sends one datagram to systemd's notification socket (sd_notify(3)), with descriptors; `@name` is abstract. */
  sdNotify(path: string, text: string, fds?: number[]): void;
  /** Listens at a numeric address; the caller owns and closes the descriptor. @param port 0 takes a free one */
  tcpListen(address: string, port: number, ipv6: boolean): { fd: number; port: number };
  /** Where a listening TCP socket that came from elsewhere listens, now close-on-exec and non-blocking; undefined for other descriptors. */
  tcpListener(fd: number): { address: string; port: number; ipv6: boolean } | undefined;
  /** A socket listens no more, whoever else has it open; its port is free. */
  tcpShutdown(fd: number): void;
  /** Bytes of a page of this kernel: 4096, on arm64 also 16384 or 65536; VIOCTL_TEST_PAGE_SIZE raises it. */
  pageSize(): number;
  /**
   * From now on SIGINT, SIGTERM and SIGHUP write `text` to stderr and remove the file `path` (empty: neither) before they end
   * the process, even while JavaScript does not run; so does exitNow(). Replaces what was set before.
   * @param caught the process handles these signals itself: then only exitNow() does it
   */
  lastWords(text: string, path: string, caught: boolean): void;
  /** Ends the process at once (_exit(2)), also while a thread of libuv's pool sleeps in a read or write. */
  exitNow(status: number): never;
  /** Zeroed memory for a secret of at most 128 bytes: not in core dumps, wiped when it is collected. */
  secret(size: number): Buffer;
}

/** Names of the exports, for the test that compares this interface with the addon. */
export const commonExports = [
  'crc32c',
  'crc32cTable',
  'crc32cEngine',
  'eventfd',
  'signalEventfd',
  'watchEventfd',
  'sdNotify',
  'tcpListen',
  'tcpListener',
  'tcpShutdown',
  'pageSize',
  'lastWords',
  'exitNow',
  'secret',
] as const satisfies (keyof CommonNative)[];
