import fs from 'node:fs';
import { isatty } from 'node:tty';

const memoryDevices = 1; // major number of /dev/null and its like

/** Whether a descriptor is a terminal. Pipes, files and /dev/null are told by fstat(2), without loading node:tty. */
export function isTerminal(fd: number): boolean {
  try {
    const stat = fs.fstatSync(fd);
    return stat.isCharacterDevice() && stat.rdev >> 8 !== memoryDevices && isatty(fd);
  } catch {
    return false; // closed
  }
}
