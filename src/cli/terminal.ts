import fs from 'node:fs';
import { isatty } from 'node:tty';

const MEMORY_DEVICES = 1; // major number of /dev/null and its like

/** Whether a descriptor is a terminal. Pipes, files and /dev/null are told by fstat(2), without loading node:tty. */
export function isTerminal(fd: number): boolean {
  try {
    const stat = fs.fstatSync(fd);
    return stat.isCharacterDevice() && stat.rdev >> 8 !== MEMORY_DEVICES && isatty(fd);
  } catch {
    return false; // closed
  }
}

const NARROWEST = 40;

/** Columns of the terminal on stdout: COLUMNS where it is set, else its own width, else 80; never below 40. */
export function terminalWidth(env: NodeJS.ProcessEnv): number {
  return Math.max(NARROWEST, Number(env.COLUMNS) || process.stdout.columns || 80);
}
