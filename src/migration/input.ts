/** Opening what a user named: a file or stdin; containers are recognised and unwrapped. */
import fs from 'node:fs';
import { usage, VioError, wrap } from '../common/errors.js';
import { native } from '../native/index.js';
import { StreamReader } from './reader.js';

export interface InputOptions {
  /** start inside the file */
  offset?: number;
}

/** An opened stream; close it. */
export interface Input {
  reader: StreamReader;
  /** bytes in all, 0 where that is not known: for progress */
  size: number;
  close(): void;
}

/** Opens a migration stream. @throws VioError */
export function openInput(file: string, options: InputOptions = {}): Input {
  const start = options.offset ?? 0;
  let fd = 0;
  if (file !== '-') {
    try {
      fd = fs.openSync(file, 'r');
    } catch (err) {
      throw wrap(`open ${file}`, err);
    }
  }
  const close = () => {
    if (fd > 0) fs.closeSync(fd);
  };
  try {
    const stat = fs.fstatSync(fd);
    if (stat.isDirectory()) throw new VioError(`open ${file}: EISDIR (Is a directory)`, { code: 'EISDIR' });
    const seekable = stat.isFile() || stat.isBlockDevice();
    if (!seekable && start > 0) throw usage('--offset needs a file, not a pipe');
    const source = native().migration.openSource({ fd, kind: seekable ? 'file' : 'pipe', start });
    const reader = new StreamReader(source, seekable ? fd : -1);
    return { reader, size: reader.size, close };
  } catch (err) {
    close();
    throw wrap(`open ${file}`, err);
  }
}
