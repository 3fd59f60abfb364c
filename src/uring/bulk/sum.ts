import { createHash, getHashes } from 'node:crypto';
import { native } from '../../native/index.js';
import { type BulkOptions, openReader, warnOfTmpfs } from './engine.js';
import type { Name } from './name.js';
import type { Sink } from './reader.js';
import { overWindow } from './window.js';

/** A checksum in the making. */
interface Hash {
  update(bytes: Buffer): unknown;
  digest(): string;
}

const crc32c = (): Hash => {
  const { common } = native();
  let crc = 0;
  return {
    update: (bytes) => {
      crc = common.crc32c(bytes, crc);
    },
    digest: () => crc.toString(16).padStart(8, '0'),
  };
};

/** Algorithms by name, with the tag of coreutils' --tag lines. All but crc32c are OpenSSL's, in Node. */
export const algorithms: Readonly<Record<string, { tag: string; create: () => Hash }>> = {
  crc32c: { tag: 'CRC32C', create: crc32c },
  ...Object.fromEntries(
    (
      [
        ['md5', 'MD5'],
        ['sha1', 'SHA1'],
        ['sha224', 'SHA224'],
        ['sha256', 'SHA256'],
        ['sha384', 'SHA384'],
        ['sha512', 'SHA512'],
        ['blake2b512', 'BLAKE2b'],
      ] as const
    )
      .filter(([name]) => getHashes().includes(name))
      .map(([name, tag]) => [
        name,
        {
          tag,
          create: () => {
            const hash = createHash(name);
            return { update: (bytes: Buffer) => hash.update(bytes), digest: () => hash.digest('hex') };
          },
        },
      ]),
  ),
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

/** Checksums of many files, in batches as they come; a file that fails is a result like any other. */
export async function* sumFiles(names: AsyncIterable<Name[]>, options: SumOptions): AsyncGenerator<SumResult[]> {
  const { create } = algorithms[options.algorithm]!;
  const reader = openReader(options);
  try {
    yield* overWindow<Name, SumResult>({
      source: reader.name === 'uring' ? warnOfTmpfs(names, options.note) : names,
      limit: reader.depth,
      backlog: reader.depth * 32,
      ordered: options.ordered,
      signal: options.signal,
      submit: () => reader.submit(),
      start: (name, done) => {
        const hash = create();
        const sink: Sink = {
          chunk: (bytes) => {
            hash.update(bytes);
            return undefined;
          },
        };
        reader.read(name, sink, (error, size) => done({ name, size, digest: error === undefined ? hash.digest() : undefined, error }));
      },
    });
  } finally {
    reader.close();
  }
}

/**
 * A line as coreutils' checksum programs print and read it: `digest  name`. A name with a newline, carriage return or
 * backslash is escaped and the line begins with a backslash.
 * @param zero NUL-terminated, nothing escaped
 * @param tag the BSD form: `SHA256 (name) = digest`
 */
export function sumLine(name: Name, digest: string, form: { zero: boolean; tag: string | undefined }): Buffer {
  const bytes = typeof name === 'string' ? Buffer.from(name) : name;
  const special = !form.zero && bytes.some((byte) => byte === 0x0a || byte === 0x0d || byte === 0x5c);
  const shown = special
    ? Buffer.from(
        bytes.toString('latin1').replace(/[\\\n\r]/g, (c) => (c === '\\' ? '\\\\' : c === '\n' ? '\\n' : '\\r')),
        'latin1',
      )
    : bytes;
  const [before, behind] = form.tag === undefined ? [`${digest}  `, ''] : [`${form.tag} (`, `) = ${digest}`];
  return Buffer.concat([Buffer.from(`${special ? '\\' : ''}${before}`), shown, Buffer.from(`${behind}${form.zero ? '\0' : '\n'}`)]);
}
