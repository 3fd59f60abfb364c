import fs from 'node:fs';
import { codeOf, VioError } from '../../common/errors.js';
import { native } from '../../native/index.js';
import { explain } from '../host/unavailable.js';
import { type BulkOptions, depthOf, descriptorsLeft, orFallBack } from './engine/engine.js';
import { overPool } from './engine/pool.js';
import type { Name } from './name.js';

/** How one file was made durable. */
export interface SyncResult {
  name: Name;
  /** errno name */
  error: string | undefined;
}

export interface SyncOptions extends BulkOptions {
  /** fdatasync(2): data and what is needed to read it back, no times. */
  data: boolean;
  ordered: boolean;
}

const { O_RDONLY, O_WRONLY, O_NONBLOCK, O_NOCTTY } = fs.constants;

/** A descriptor for reading or, if that is not allowed, for writing: as good for syncfs(2). */
function openAny(name: Name): number {
  try {
    return fs.openSync(name, O_RDONLY | O_NONBLOCK | O_NOCTTY);
  } catch (err) {
    if (codeOf(err) !== 'EACCES') throw err;
    return fs.openSync(name, O_WRONLY | O_NONBLOCK | O_NOCTTY);
  }
}

/** fsyncs in the kernel at once: those that come while the journal commits share the next commit and its flush of the disk. */
const atOnce = 64;

/**
 * fsync(2) of many files. On a ring each file is one chain (open → fsync → close), for which the kernel has threads;
 * without one the addon has the threads.
 */
export function syncFiles(names: AsyncIterable<Name[]>, options: SyncOptions): AsyncGenerator<SyncResult[]> {
  const { data, ordered, signal, spent } = options;
  const depth = depthOf(options);
  const common = { work: data ? 'dataSync' : 'sync', depth, backlog: depth * 8, ordered, signal } as const;
  return orFallBack<AsyncGenerator<SyncResult[]>>(
    options,
    () => overPool(names, { ...common, threads: 1, spent }),
    () => {
      try {
        return overPool(names, { ...common, plain: true, threads: Math.min(atOnce, depth, descriptorsLeft(options)) });
      } catch (err) {
        if (codeOf(err) !== 'EAGAIN') throw err;
        const { why, hint } = explain('EAGAIN', options.sysroot);
        throw new VioError(why, { hint, cause: err });
      }
    },
  );
}

/**
 * syncfs(2) once for every file system that one of the files is on: often faster than one fsync per file, but it writes
 * what others left dirty there as well. A file's result is that of its file system.
 */
export async function* syncFileSystems(names: AsyncIterable<Name[]>): AsyncGenerator<SyncResult[]> {
  const done = new Map<number, string | undefined>();
  for await (const batch of names) {
    yield batch.map((name) => {
      let fd: number | undefined;
      try {
        const { dev } = fs.statSync(name);
        if (!done.has(dev)) {
          fd = openAny(name);
          native().uring.syncfs(fd);
          done.set(dev, undefined);
        }
        return { name, error: undefined };
      } catch (err) {
        return { name, error: codeOf(err) ?? 'EIO' };
      } finally {
        if (fd !== undefined) fs.closeSync(fd);
      }
    });
  }
}
