import fs from 'node:fs';
import path from 'node:path';
import { wrap } from '../../common/errors.js';
import type { Sysroot } from '../../common/sysroot.js';

/** How this program is started: the words before `vfio bind`, absolute. */
export type ProgramWords = readonly string[];

export const rules = '/etc/udev/rules.d';
export const units = '/etc/systemd/system';
export const configs = '/etc/vioctl/vfio.d';

/** A file that --persist writes. */
export interface PersistFile {
  path: string;
  mode: number;
  text: string;
}

/** A word of a unit's command line (systemd.service(5), COMMAND LINES). */
export const unitWord = (word: string): string =>
  /^[\w./:@+,=-]+$/.test(word) ? word : `"${word.replace(/["\\$%]/g, (c) => (c === '"' || c === '\\' ? `\\${c}` : c + c))}"`;

/** A file that was written, and what was there before; undefined for nothing. */
export interface WrittenFile {
  path: string;
  before: PersistFile | undefined;
}

/** Writes files, each at once (temporary file, rename). @returns those that differed @throws VioError; what was written is taken back */
export function writePersistent(root: Sysroot, files: readonly PersistFile[]): WrittenFile[] {
  const written: WrittenFile[] = [];
  try {
    for (const file of files) {
      const { path } = file;
      const before = root.exists(path) ? { path, mode: fs.statSync(root.path(path)).mode & 0o7777, text: root.read(path) } : undefined;
      if (before?.text === file.text) continue;
      replace(root, file);
      written.push({ path, before });
    }
  } catch (err) {
    takeBack(root, written);
    throw wrap('make the binding persistent', err, { hint: '/etc must be writable' });
  }
  return written;
}

/** Undoes writePersistent. Every file is tried. @throws VioError that names the files that could not be put back */
export function takeBack(root: Sysroot, written: readonly WrittenFile[]): void {
  const stuck: string[] = [];
  let cause: unknown;
  for (const { path, before } of written) {
    try {
      if (before === undefined) fs.rmSync(root.path(path), { force: true });
      else replace(root, before);
    } catch (err) {
      stuck.push(path);
      cause ??= err;
    }
  }
  if (stuck.length > 0) throw wrap(`put back ${stuck.join(', ')}`, cause);
}

function replace(root: Sysroot, file: PersistFile): void {
  const target = root.path(file.path);
  fs.mkdirSync(path.dirname(target), { recursive: true });
  fs.writeFileSync(`${target}.new`, file.text, { mode: file.mode });
  fs.chmodSync(`${target}.new`, file.mode);
  fs.renameSync(`${target}.new`, target);
}

/** Programs that take notice of changed files, where they are installed. */
export function reloadCommands(root: Sysroot, changed: readonly string[]): string[][] {
  const commands: string[][] = [];
  if (changed.some((file) => file.startsWith(units)) && root.exists('/run/systemd/system')) commands.push(['systemctl', 'daemon-reload']);
  if (changed.some((file) => file.startsWith(rules)) && root.exists('/run/udev/control')) commands.push(['udevadm', 'control', '--reload']);
  return commands;
}
