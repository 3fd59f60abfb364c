import fs from 'node:fs';
import { codeOf } from '../../common/errors.js';
import { native } from '../../native/index.js';
import { Op, SqeFlag } from '../abi.js';
import { errnoName } from '../errno.js';
import { Ring, Slot } from '../ring.js';
import { FileTable } from '../table.js';
import { type BulkOptions, orFallBack } from './engine.js';
import { type Name, PATH_MAX, pathError, putPath } from './name.js';
import { overWindow } from './window.js';

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

const { O_RDONLY, O_NONBLOCK, O_NOCTTY } = fs.constants;

/** Something that makes files durable one by one. */
interface Syncer {
  readonly depth: number;
  sync(name: Name, done: (error: string | undefined) => void): void;
  submit(): void;
  close(): void;
}

/** open → fsync → close in one chain per file; the kernel lets many wait for the same journal commit. */
class UringSyncer implements Syncer {
  readonly depth: number;
  readonly #ring: Ring;
  readonly #idle: { slot: Slot; path: Buffer }[] = [];
  readonly #data: boolean;

  constructor(depth: number, data: boolean) {
    this.depth = depth;
    this.#data = data;
    this.#ring = new Ring({ entries: Math.min(4096, depth * 4) });
    try {
      new FileTable(this.#ring).registerSparse(depth);
    } catch (err) {
      this.#ring.close();
      throw err;
    }
    for (let i = 0; i < depth; i++) this.#idle.push({ slot: new Slot(i), path: Buffer.alloc(PATH_MAX) });
  }

  sync(name: Name, done: (error: string | undefined) => void): void {
    const invalid = pathError(name);
    if (invalid !== undefined) {
      done(invalid);
      return;
    }
    const job = this.#idle.pop()!;
    putPath(job.path, name);
    let error: string | undefined;
    const note = (result: number): void => {
      if (result < 0) error ??= errnoName(result); // the first is the root, ECANCELED follows it
    };
    const ring = this.#ring;
    ring.reserve(3);
    ring.openSlot(job.path, O_RDONLY | O_NONBLOCK | O_NOCTTY, job.slot.index, SqeFlag.link, note);
    ring.push({ opcode: Op.fsync, fd: job.slot, opFlags: this.#data ? 1 : 0, flags: SqeFlag.hardlink }, note);
    ring.closeSlot(job.slot.index, (result) => {
      note(result);
      this.#idle.push(job);
      done(error);
    });
  }

  submit(): void {
    this.#ring.submit();
  }

  close(): void {
    this.#ring.close();
  }
}

class PlainSyncer implements Syncer {
  readonly depth = 1;
  readonly #data: boolean;
  constructor(data: boolean) {
    this.#data = data;
  }

  sync(name: Name, done: (error: string | undefined) => void): void {
    let fd: number | undefined;
    let error = pathError(name);
    try {
      fd = fs.openSync(name, O_RDONLY | O_NONBLOCK | O_NOCTTY);
      if (this.#data) fs.fdatasyncSync(fd);
      else fs.fsyncSync(fd);
    } catch (err) {
      error ??= codeOf(err) ?? 'EIO';
    }
    if (fd !== undefined) fs.closeSync(fd);
    queueMicrotask(() => done(error));
  }

  submit(): void {}
  close(): void {}
}

/** fsync(2) of many files. */
export async function* syncFiles(names: AsyncIterable<Name[]>, options: SyncOptions): AsyncGenerator<SyncResult[]> {
  const syncer = orFallBack<Syncer>(
    options,
    () => new UringSyncer(options.depth, options.data),
    () => new PlainSyncer(options.data),
  );
  try {
    yield* overWindow<Name, SyncResult>({
      source: names,
      limit: syncer.depth,
      backlog: syncer.depth * 32,
      ordered: options.ordered,
      signal: options.signal,
      submit: () => syncer.submit(),
      start: (name, done) => syncer.sync(name, (error) => done({ name, error })),
    });
  } finally {
    syncer.close();
  }
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
          fd = fs.openSync(name, O_RDONLY | O_NONBLOCK | O_NOCTTY);
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
