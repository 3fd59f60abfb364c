/** native/sysfs */
export interface SysfsNative {
  /**
   * Writes to a file with one write(2) in a process of its own that may block for ever. The returned pipe, which the caller
   * closes, gives two 32-bit numbers: the process id at once, then 0 or the errno.
   */
  startWrite(path: string, data: string): number;
}

/** Names of the exports, for the test that compares this interface with the addon. */
export const sysfsExports = ['startWrite'] as const satisfies (keyof SysfsNative)[];
