/** native/sysfs */
export interface SysfsNative {
  /**
   * Writes to a file with one write(2) in a process of its own that may block for ever. The returned pipe, which the caller
   * closes, gives two 32-bit numbers: the process id at once, then 0 or the errno.
   */
  startWrite(path: string, data: string): number;
  /**
   * Reads small attributes (at most 4000 bytes), each in at most `timeout` milliseconds, in processes that may block for ever.
   * null: cannot be read; false: did not come back in time.
   */
  readAll(paths: string[], timeout: number): (string | null | false)[];
  /**
   * Reads many folders: of each the names in it (`/class/config/`), its target if it is a link, then the contents of the files, the
   * targets of the links and the first 64 bytes of the headers. null: absent, or not to be read.
   * @param base folder of the folders
   * @param names of the folders; the others are names in each of them
   */
  readFolders(base: string, names: string[], files: string[], links: string[], headers: string[]): (string | Uint8Array | null)[];
  /**
   * Unicast routes of all tables of this network namespace (rtnetlink(7)), one entry per next hop. `table`: 254 is main.
   * @throws the system's error, where a filter of system calls forbids netlink
   */
  routes(): { family: 4 | 6; destination: string; prefix: number; device: string; table: number }[];
  /** Interfaces of this network namespace that have an XDP program. @throws the system's error */
  xdpPrograms(): string[];
  /** AF_XDP sockets of this network namespace. @throws ENOENT where the kernel does not tell */
  xdpSockets(): { device: string; queue: number }[];
  /** Addresses of the peers of WireGuard interfaces. @throws ENOENT where the kernel has no WireGuard, EPERM without CAP_NET_ADMIN */
  wireguardPeers(names: string[]): { name: string; peer: string }[];
  /**
   * Descriptors of all processes that are device nodes or have "vfio" in their name. `rdev`: `b259:0` or `c10:196`.
   * `hidden`: processes that may not be read.
   */
  descriptors(): { found: { pid: number; fd: number; path: string; rdev: string | undefined }[]; hidden: number };
}

/** Names of the exports, for the test that compares this interface with the addon. */
export const sysfsExports = [
  'startWrite',
  'readAll',
  'readFolders',
  'routes',
  'xdpPrograms',
  'xdpSockets',
  'wireguardPeers',
  'descriptors',
] as const satisfies (keyof SysfsNative)[];
