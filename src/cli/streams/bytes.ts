/** Bulk bytes of commands that are part of a pipeline: descriptors of stdin, stdout or a file, for native code to use. */
import fs from 'node:fs';
import { wrap } from '../../common/errors.js';
import { printable } from '../../common/escape.js';
import type { Lifetime } from '../signals.js';
import { partFile } from './part-file.js';

/** Where bytes go. */
export interface ByteOutput {
  fd: number;
  /** All of it is there: the file gets its name. */
  finish(): void;
}

/** @param file a path, which has its earlier content until the end, or `-` for stdout. @throws VioError when it cannot be opened */
export function byteOutput(file: string, life: Lifetime): ByteOutput {
  let fd = 1;
  const output = partFile(file, life);
  if (file !== '-') {
    try {
      fd = fs.openSync(output?.part ?? file, 'w');
    } catch (err) {
      throw wrap(printable(file), err);
    }
    life.release(() => {
      if (fd > 1) fs.closeSync(fd);
    });
  }
  return {
    fd,
    finish() {
      if (fd > 1) fs.closeSync(fd);
      fd = -1;
      output?.finish();
    },
  };
}

/** Where bytes come from. */
export interface ByteInput {
  fd: number;
  /** Size of a regular file from its current position on; undefined for pipes. */
  size: number | undefined;
}

/** Where a descriptor stands in its file: proc_pid_fdinfo(5). */
const position = (fd: number): number => Number(/^pos:\s*(\d+)/m.exec(fs.readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1'))?.[1] ?? 0);

/** @param file a path, or `-` for stdin. @throws VioError when it cannot be opened */
export function byteInput(file: string, life: Lifetime): ByteInput {
  let fd = 0;
  if (file !== '-') {
    try {
      fd = fs.openSync(file, 'r');
    } catch (err) {
      throw wrap(printable(file), err);
    }
    life.release(() => fs.closeSync(fd));
  }
  try {
    const stat = fs.fstatSync(fd);
    // stdin may have been read from already
    return { fd, size: stat.isFile() ? Math.max(0, stat.size - position(fd)) : undefined };
  } catch (err) {
    throw wrap(file === '-' ? 'stdin' : printable(file), err);
  }
}
