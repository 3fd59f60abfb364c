import fs from 'node:fs';
import path from 'node:path';
import { codeOf, usage, wrap } from '../../common/errors.js';
import { printable } from '../../common/escape.js';
import type { Lifetime } from '../signals.js';

/** An output file that is written under another name. */
export interface PartFile {
  /** Where to write; it exists. */
  part: string;
  /** Gives it its name, in place of what had that name before. @throws VioError */
  finish(): void;
}

/** Names to try, where another run of the same process number left one. */
const names = 100;

/**
 * A file that appears under its name only when it is whole. An error or a signal removes what there is of it, and the name
 * keeps its earlier content. After SIGKILL, or without power, NAME.PID.part may remain. Links are followed. A new file takes
 * over the mode of the old one.
 * @param options.inputs files that must not be the output @param options.mode of a new file, before umask
 * @returns undefined for `-` and for what is no regular file: write there directly
 * @throws usage if it is one of `inputs`; VioError if it cannot be made
 */
export function partFile(
  output: string,
  life: Lifetime,
  options: { inputs?: readonly string[]; mode?: number } = {},
): PartFile | undefined {
  if (output === '-') return undefined;
  const there = fs.statSync(output, { throwIfNoEntry: false });
  if (there && !there.isFile()) return undefined;
  for (const input of options.inputs ?? []) {
    const source = input === '-' ? fs.fstatSync(0) : fs.statSync(input, { throwIfNoEntry: false });
    if (there && source && there.ino === source.ino && there.dev === source.dev) throw usage('output and input are the same file');
  }
  const name = there ? fs.realpathSync(output) : path.resolve(output);
  const part = create(name, output, options.mode ?? 0o666, there, life);
  let finished = false;
  life.release(() => {
    if (!finished) fs.rmSync(part, { force: true });
    life.lastWords({ file: '' });
  });
  return {
    part,
    finish: () => {
      try {
        fs.renameSync(part, name);
      } catch (err) {
        throw wrap(`rename ${printable(part)} to ${printable(output)}`, err);
      }
      finished = true;
      life.lastWords({ file: '' });
    },
  };
}

/**
 * Makes an empty file beside `name`, which a signal removes from its first moment on.
 * @param output as the user wrote it @param like the file that it replaces
 */
function create(name: string, output: string, mode: number, like: fs.Stats | undefined, life: Lifetime): string {
  for (let i = 0; ; i++) {
    const part = `${name}.${process.pid}${i === 0 ? '' : `-${i}`}.part`;
    let fd: number;
    try {
      // One of another run stays, whatever signal comes.
      if (i < names && fs.lstatSync(part, { throwIfNoEntry: false })) continue;
      life.lastWords({ file: part });
      fd = fs.openSync(part, 'wx', mode);
    } catch (err) {
      life.lastWords({ file: '' });
      if (codeOf(err) !== 'EEXIST' || i === names) throw wrap(printable(output), err);
      continue;
    }
    try {
      if (like) inherit(fd, like);
    } finally {
      fs.closeSync(fd);
    }
    return part;
  }
}

/** Owner, if we may give files away, and mode of an earlier file. */
function inherit(fd: number, { uid, gid, mode }: fs.Stats): void {
  try {
    fs.fchownSync(fd, uid, gid);
  } catch (err) {
    if (codeOf(err) !== 'EPERM') throw err;
  }
  fs.fchmodSync(fd, mode & 0o7777);
}
