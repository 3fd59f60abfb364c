import { availableParallelism } from 'node:os';
import { codeOf } from '../../common/errors.js';
import { native } from '../../native/index.js';
import { type BulkOptions, depthOf, openReader, orFallBack, warnOfTmpfs } from './engine.js';
import { newHasher } from './hashers.js';
import type { Name } from './name.js';
import { overPool } from './pool.js';
import { type Reader, SyncReader } from './reader.js';
import { overWindow } from './window.js';

interface Algorithm {
  /** The name in BSD lines (--tag). */
  tag: string;
  /** What stands before the digest in plain lines. */
  prefix?: string;
}

/** Algorithms by name. */
export const algorithms: Readonly<Record<string, Algorithm>> = {
  crc32c: { tag: 'CRC32C' },
  md5: { tag: 'MD5' },
  sha1: { tag: 'SHA1' },
  sha224: { tag: 'SHA224' },
  sha256: { tag: 'SHA256' },
  sha384: { tag: 'SHA384' },
  sha512: { tag: 'SHA512' },
  blake2b512: { tag: 'BLAKE2b' },
  blake3: { tag: 'BLAKE3' },
  xxh32: { tag: 'XXH32' },
  xxh64: { tag: 'XXH64' },
  xxh128: { tag: 'XXH128' },
  xxh3: { tag: 'XXH3', prefix: 'XXH3_' },
};

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
}

/** Threads that read and sum: all processors, up to where one disk and one JavaScript thread keep up with them. */
const THREADS = Math.min(4, availableParallelism());
/** Without rings at least two: one that waits for the disk does not sum. */
const PLAIN_THREADS = Math.max(2, THREADS);

/**
 * Checksums of many files, in batches as they come; a file that fails is a result like any other. The addon's threads
 * compute them beside the reading; what a Node without OpenSSL 3 does not have there is computed here.
 */
export function sumFiles(names: AsyncIterable<Name[]>, options: SumOptions): AsyncGenerator<SumResult[]> {
  const { algorithm, ordered, signal, note, spent } = options;
  const depth = depthOf(options);
  if (native().uring.digestSize(algorithm) === 0) return sumHere(openReader(options), names, options);
  const waiting = new Elsewhere(algorithm);
  const common = { work: 'sum', algorithm, depth, backlog: depth * 8, ordered, signal, elsewhere: waiting } as const;
  return orFallBack<AsyncGenerator<SumResult[]>>(
    options,
    () => overPool(warnOfTmpfs(names, note), { ...common, threads: THREADS, spent }),
    () => {
      try {
        return overPool(names, { ...common, plain: true, threads: PLAIN_THREADS });
      } catch (err) {
        if (codeOf(err) !== 'EAGAIN') throw err;
        return sumHere(new SyncReader(), names, options); // not even one thread
      }
    },
  );
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

function sumOne(reader: Reader, name: Name, algorithm: string, done: (result: SumResult) => void): void {
  const hasher = newHasher(algorithm);
  const chunk = (bytes: Buffer): undefined => {
    hasher.update(bytes);
    return undefined;
  };
  reader.read(name, { chunk }, (error, size) => done({ name, size, digest: error === undefined ? hasher.digest() : undefined, error }));
}

async function* sumHere(reader: Reader, names: AsyncIterable<Name[]>, options: SumOptions): AsyncGenerator<SumResult[]> {
  try {
    yield* overWindow<Name, SumResult>({
      source: reader.name === 'uring' ? warnOfTmpfs(names, options.note) : names,
      limit: reader.depth,
      backlog: reader.depth * 32,
      ordered: options.ordered,
      signal: options.signal,
      submit: () => reader.submit(),
      start: (name, done) => sumOne(reader, name, options.algorithm, done),
    });
  } finally {
    reader.close();
  }
}

const SPECIAL = /[\\\n\r]/;

/**
 * A line as coreutils' checksum programs print and read it: `digest  name`. A name with a newline, carriage return or
 * backslash is escaped and the line begins with a backslash.
 * @param zero NUL-terminated, nothing escaped
 * @param tag the BSD form: `SHA256 (name) = digest`
 */
export function sumLine(name: Name, digest: string, form: { zero: boolean; tag: boolean; algorithm: string }): Name {
  const { tag, prefix = '' } = algorithms[form.algorithm]!;
  const [before, behind] = form.tag ? [`${tag} (`, `) = ${digest}`] : [`${prefix}${digest}  `, ''];
  const end = `${behind}${form.zero ? '\0' : '\n'}`;
  // Only ASCII is looked for and put in, so bytes that are not UTF-8 may pass as Latin-1.
  const text = typeof name === 'string' ? name : name.toString('latin1');
  const special = !form.zero && SPECIAL.test(text);
  const shown = special ? text.replace(/[\\\n\r]/g, (c) => (c === '\\' ? '\\\\' : c === '\n' ? '\\n' : '\\r')) : text;
  const line = `${special ? '\\' : ''}${before}${shown}${end}`;
  return typeof name === 'string' ? line : Buffer.from(line, 'latin1');
}
