import fs from 'node:fs';
import path from 'node:path';
import { usage, wrap } from '../../common/errors.js';

/**
 * A file that appears under its name only when it is whole, whatever ends the program before. Links are followed.
 * @returns where to write, and what gives it its name
 * @throws usage where `output` is no regular file, or the same as `input`
 */
export function partFile(output: string, input: string): { part: string; finish: () => void } {
  const regular = 'the output must be a regular file: it is not written in order';
  if (output === '-') throw usage(regular);
  const there = fs.statSync(output, { throwIfNoEntry: false });
  if (there && !there.isFile()) throw usage(regular);
  const source = input === '-' ? fs.fstatSync(0) : fs.statSync(input, { throwIfNoEntry: false });
  if (there && source && there.ino === source.ino && there.dev === source.dev) throw usage('output and input are the same file');
  const name = there ? fs.realpathSync(output) : path.resolve(output);
  return {
    part: `${name}.part`,
    finish: () => {
      try {
        fs.renameSync(`${name}.part`, name);
      } catch (err) {
        throw wrap(`rename ${name}.part`, err);
      }
    },
  };
}
