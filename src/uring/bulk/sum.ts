import { availableParallelism } from 'node:os';
import { codeOf } from '../../common/errors.js';
import { native } from '../../native/index.js';
import { type BulkOptions, depthOf, openReader, orFallBack, warnOfTmpfs } from './engine/engine.js';
import { overPool } from './engine/pool.js';
import { type Reader, SyncReader } from './engine/reader.js';
import { overWindow } from './engine/window.js';
import { newHasher } from './hashers.js';
import type { Name } from './name.js';

/** The checksum of one file, or why there is none. */
export interface SumResult {
  name: Name;
  /** Bytes read. */
  size: number;
  digest: string | undefined;
  /** errno name */
  error: string | undefined;
}

export interface SumOptions extends BulkOptions {
  algorithm: string;
  ordered: boolean;
  /** Called with what tells the bytes read so far, for progress within files; once for each algorithm. */
  live?: (bytes: () => number) => void;
}

/** Threads that read and sum: all processors, up to where one disk and one JavaScript thread keep up with them. */
const threads = Math.min(4, availableParallelism());
/** Without rings at least two: one that waits for the disk does not sum. */
const plainThreads = Math.max(2, threads);

/**
 * Checksums of many files, in batches as they come; a file that fails is a result like any other. The addon's threads
 * compute them beside the reading; what a Node without OpenSSL 3 does not have there is computed here.
 */
export function sumFiles(names: AsyncIterable<Name[]>, options: SumOptions): AsyncGenerator<SumResult[]> {
  const { algorithm, ordered, signal, note, spent, live } = options;
  const depth = depthOf(options);
  if (native().uring.digestSize(algorithm) === 0) return sumHere(openReader(options), names, options);
  const waiting = new Elsewhere(algorithm);
  const common = { work: 'sum', algorithm, depth, backlog: depth * 8, ordered, signal, live, elsewhere: waiting } as const;
  return orFallBack<AsyncGenerator<SumResult[]>>(
    options,
    () => overPool(warnOfTmpfs(names, note), { ...common, threads: threads, spent }),
    () => {
      try {
        return overPool(names, { ...common, plain: true, threads: plainThreads });
      } catch (err) {
        if (codeOf(err) !== 'EAGAIN') throw err;
        return sumHere(new SyncReader(), names, options); // not even one thread
      }
    },
  );
}

/**
 * The checksum of data that comes in pieces, such as standard input.
 * @param read gives the next bytes, 0 at the end; throws the system's error
 * @param signal its abort is thrown, and no result
 */
export async function sumStream(
  name: Name,
  algorithm: string,
  read: (into: Buffer) => Promise<number>,
  signal: AbortSignal,
): Promise<SumResult> {
  const hasher = newHasher(algorithm);
  const chunk = Buffer.allocUnsafe(256 * 1024);
  let size = 0;
  try {
    for (let n = await read(chunk); n > 0; n = await read(chunk)) {
      hasher.update(chunk.subarray(0, n));
      size += n;
    }
  } catch (err) {
    const error = codeOf(err);
    if (error === undefined || signal.aborted) throw err;
    return { name, size, digest: undefined, error };
  }
  return { name, size, digest: hasher.digest(), error: undefined };
}

/** Sums of what a thread must not wait for: FIFOs, terminals, devices. One after the other. */
class Elsewhere {
  readonly #algorithm: string;
  readonly #reader = new SyncReader();
  #last: Promise<void> = Promise.resolve();

  constructor(algorithm: string) {
    this.#algorithm = algorithm;
  }

  read(name: Name, done: (result: SumResult) => void): void {
    this.#last = this.#last.then(
      () =>
        new Promise((resolve) => {
          sumOne(this.#reader, name, this.#algorithm, (result) => {
            done(result);
            resolve();
          });
        }),
    );
  }

  close(): void {
    this.#reader.close();
  }
}

function sumOne(reader: Reader, name: Name, algorithm: string, done: (result: SumResult) => void, read?: (bytes: number) => void): void {
  const hasher = newHasher(algorithm);
  const chunk = (bytes: Buffer): undefined => {
    hasher.update(bytes);
    read?.(bytes.length);
    return undefined;
  };
  reader.read(name, { chunk }, (error, size) => done({ name, size, digest: error === undefined ? hasher.digest() : undefined, error }));
}

async function* sumHere(reader: Reader, names: AsyncIterable<Name[]>, options: SumOptions): AsyncGenerator<SumResult[]> {
  let bytes = 0;
  const read = (size: number): void => {
    bytes += size;
  };
  options.live?.(() => bytes);
  try {
    yield* overWindow<Name, SumResult>({
      source: reader.name === 'uring' ? warnOfTmpfs(names, options.note) : names,
      limit: reader.depth,
      backlog: reader.depth * 32,
      ordered: options.ordered,
      signal: options.signal,
      submit: () => reader.submit(),
      start: (name, done) => sumOne(reader, name, options.algorithm, done, read),
    });
  } finally {
    reader.close();
  }
}
