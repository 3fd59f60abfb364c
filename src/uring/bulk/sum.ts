import { availableParallelism } from 'node:os';
import { native } from '../../native/index.js';
import { type BulkOptions, depthOf, openReader, orFallBack, warnOfTmpfs } from './engine.js';
import type { Name } from './name.js';
import { overPool } from './pool.js';
import { type Reader, type Sink, SyncReader } from './reader.js';
import { overWindow } from './window.js';

interface Algorithm {
  /** The name in coreutils' --tag lines. */
  tag: string;
  /** Who computes it; the addon's threads have all but BLAKE3. */
  by: 'addon' | 'openssl' | 'noble';
}

/** Algorithms by name. */
export const algorithms: Readonly<Record<string, Algorithm>> = {
  crc32c: { tag: 'CRC32C', by: 'addon' },
  md5: { tag: 'MD5', by: 'openssl' },
  sha1: { tag: 'SHA1', by: 'openssl' },
  sha224: { tag: 'SHA224', by: 'openssl' },
  sha256: { tag: 'SHA256', by: 'openssl' },
  sha384: { tag: 'SHA384', by: 'openssl' },
  sha512: { tag: 'SHA512', by: 'openssl' },
  blake2b512: { tag: 'BLAKE2b', by: 'openssl' },
  blake3: { tag: 'BLAKE3', by: 'noble' },
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

/**
 * Checksums of many files, in batches as they come; a file that fails is a result like any other. Algorithms that the
 * addon has are computed by its threads, beside the reading; the others here.
 */
export function sumFiles(names: AsyncIterable<Name[]>, options: SumOptions): AsyncGenerator<SumResult[]> {
  const { algorithm, ordered, signal, note, spent } = options;
  const depth = depthOf(options);
  if (native().uring.digestSize(algorithm) === 0) return sumHere(openReader(options), names, options);
  return orFallBack<AsyncGenerator<SumResult[]>>(
    options,
    () =>
      overPool(warnOfTmpfs(names, note), { work: 'sum', algorithm, threads: THREADS, depth, backlog: depth * 8, ordered, signal, spent }),
    () => sumHere(new SyncReader(), names, options),
  );
}

async function* sumHere(reader: Reader, names: AsyncIterable<Name[]>, options: SumOptions): AsyncGenerator<SumResult[]> {
  try {
    const { create, once } = (await import('./hashers.js')).hashers[algorithms[options.algorithm]!.by](options.algorithm);
    yield* overWindow<Name, SumResult>({
      source: reader.name === 'uring' ? warnOfTmpfs(names, options.note) : names,
      limit: reader.depth,
      backlog: reader.depth * 32,
      ordered: options.ordered,
      signal: options.signal,
      submit: () => reader.submit(),
      start: (name, done) => {
        let state: ReturnType<typeof create> | undefined;
        let digest: string | undefined;
        const sink: Sink = {
          chunk: (bytes) => {
            state ??= create();
            state.update(bytes);
            return undefined;
          },
          whole: (bytes) => {
            digest = once(bytes);
          },
        };
        reader.read(name, sink, (error, size) => {
          if (error === undefined) digest ??= (state ?? create()).digest();
          done({ name, size, digest, error });
        });
      },
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
export function sumLine(name: Name, digest: string, form: { zero: boolean; tag: string | undefined }): Name {
  const [before, behind] = form.tag === undefined ? [`${digest}  `, ''] : [`${form.tag} (`, `) = ${digest}`];
  const end = `${behind}${form.zero ? '\0' : '\n'}`;
  // Only ASCII is looked for and put in, so bytes that are not UTF-8 may pass as Latin-1.
  const text = typeof name === 'string' ? name : name.toString('latin1');
  const special = !form.zero && SPECIAL.test(text);
  const shown = special ? text.replace(/[\\\n\r]/g, (c) => (c === '\\' ? '\\\\' : c === '\n' ? '\\n' : '\\r')) : text;
  const line = `${special ? '\\' : ''}${before}${shown}${end}`;
  return typeof name === 'string' ? line : Buffer.from(line, 'latin1');
}
