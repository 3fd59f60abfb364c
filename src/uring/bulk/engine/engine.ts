import fs from 'node:fs';
import type { Engine } from '../../../common/engines.js';
import { codeOf } from '../../../common/errors.js';
import type { Sysroot } from '../../../common/sysroot.js';
import type { RingStats } from '../../../native/uring.js';
import { explain, limitOf, unavailable } from '../../host/unavailable.js';
import type { Name } from '../name.js';
import { type Reader, SyncReader, UringReader } from './reader.js';

/** Descriptors left to everything else that runs meanwhile. */
const spareDescriptors = 8;

/** What bulk work needs from the outside. */
export interface BulkOptions {
  engine: Engine;
  /** Files under way at once. */
  depth: number;
  sysroot: Sysroot;
  /** Ends the work early. */
  signal?: AbortSignal;
  /** Tells the user what he should know: a fall-back, files on tmpfs. */
  note: (message: string) => void;
  /** Called at the end where a ring did the work. */
  spent?: (stats: RingStats) => void;
}

/** Whether an error of opening a ring means that io_uring is not there (and not that something else is wrong). */
const absent = (err: unknown): boolean => ['EPERM', 'EACCES', 'ENOSYS', 'ENOMEM', 'EMFILE', 'EAGAIN', 'EINVAL'].includes(codeOf(err) ?? '');

/**
 * Opens something on a ring, or falls back as the user chose.
 * @throws UNAVAILABLE (7) with the reason where `uring` was asked for
 */
export function orFallBack<T>(options: BulkOptions, onRing: () => T, plain: () => T): T {
  if (options.engine === 'sync') return plain();
  try {
    return onRing();
  } catch (err) {
    if (!absent(err)) throw err;
    if (options.engine === 'uring') throw unavailable(err, options.sysroot);
    options.note(`io_uring is not available (${explain(codeOf(err), options.sysroot).why}): plain system calls are used`);
    return plain();
  }
}

/** Files that may be opened before the process is at its limit, at least one. */
export function descriptorsLeft({ sysroot }: BulkOptions): number {
  const limit = limitOf(sysroot, 'Max open files')?.soft ?? Number.POSITIVE_INFINITY;
  return Math.max(1, limit - sysroot.list('/proc/self/fd').length - spareDescriptors);
}

/** Files under way at once that a file table may have slots for: the kernel refuses one above the limit of open files. */
export function depthOf({ depth, sysroot }: BulkOptions): number {
  return Math.max(1, Math.min(depth, limitOf(sysroot, 'Max open files')?.soft ?? depth));
}

/** The reader that the user chose. */
export const openReader = (options: BulkOptions): Reader =>
  orFallBack<Reader>(
    options,
    () => new UringReader(depthOf(options), options.spent),
    () => new SyncReader(),
  );

const TMPFS_MAGIC = 0x01021994;

/** Passes batches of names through and notes, once, that files lie on tmpfs: io_uring hands their reads to kernel threads. */
export async function* warnOfTmpfs(names: AsyncIterable<Name[]>, note: (message: string) => void): AsyncGenerator<Name[]> {
  let told = false;
  for await (const batch of names) {
    if (!told && batch[0] !== undefined && onTmpfs(batch[0])) {
      told = true;
      note('files are on tmpfs, where io_uring costs more than it gains: --engine sync is faster there');
    }
    yield batch;
  }
}

/** Whether a file lies on tmpfs. */
export function onTmpfs(name: Name): boolean {
  try {
    return fs.statfsSync(name).type === TMPFS_MAGIC;
  } catch {
    return false; // the file itself will be reported
  }
}
