import fs from 'node:fs';
import type { Name } from './name.js';

/** Error of a file that is the output: what is written would be read again, without an end. */
export const inputIsOutput = 'INPUT_IS_OUTPUT';

/**
 * Tells whether an input is the output, under whatever name, and would grow by what is read from it. As in cat(1), a file
 * that is written over in place from its beginning is none.
 * @param fd the output
 * @returns undefined if the output is no file or block device: nothing can be read from there again
 */
export function outputGuard(fd: number): ((name: Name, written: number) => boolean) | undefined {
  const output = fs.fstatSync(fd, { bigint: true });
  if (!output.isFile() && !output.isBlockDevice()) return undefined;
  const info = fs.readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1');
  const append = (Number.parseInt(/^flags:\s*(\d+)/m.exec(info)?.[1] ?? '0', 8) & fs.constants.O_APPEND) !== 0;
  const position = Number(/^pos:\s*(\d+)/m.exec(info)?.[1] ?? 0);
  return (name, written) => {
    const input = fs.statSync(name, { bigint: true, throwIfNoEntry: false });
    if (input === undefined) return false;
    const same = output.isBlockDevice()
      ? input.isBlockDevice() && input.rdev === output.rdev
      : input.dev === output.dev && input.ino === output.ino;
    return same && (append || position + written > 0);
  };
}
