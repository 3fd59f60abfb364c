import fs from 'node:fs';
import path from 'node:path';
import { codeOf } from './errors.js';

/** Makes a folder and those above it. Node's own recursive mkdir says ENOENT for a read-only file system. */
export function makeFolder(dir: string): void {
  try {
    fs.mkdirSync(dir, 0o755);
  } catch (err) {
    if (codeOf(err) === 'EEXIST') return;
    if (codeOf(err) !== 'ENOENT' || path.dirname(dir) === dir) throw err;
    makeFolder(path.dirname(dir));
    makeFolder(dir);
  }
}

/** Flushes a file or folder to disk. */
export function syncFile(file: string): void {
  const fd = fs.openSync(file, 'r');
  try {
    fs.fsyncSync(fd);
  } finally {
    fs.closeSync(fd);
  }
}

/**
 * Writes a file so that its name has the old or the new content, whatever ends the program or the machine: a temporary file, fsync,
 * rename, fsync of the folder. Of several writers at a time, only one may write a file. @throws the system's error
 */
export function writeDurably(target: string, content: string): void {
  const temporary = `${target}.new`;
  makeFolder(path.dirname(target));
  const fd = fs.openSync(temporary, 'w', 0o644);
  try {
    fs.writeFileSync(fd, content);
    fs.fsyncSync(fd);
  } catch (err) {
    fs.rmSync(temporary, { force: true });
    throw err;
  } finally {
    fs.closeSync(fd);
  }
  fs.renameSync(temporary, target);
  syncFile(path.dirname(target));
}
