import { createHash, hash } from 'node:crypto';
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

interface Algorithm {
  /** The name in coreutils' --tag lines. */
  tag: string;
  create: () => Hash;
  /** The checksum of bytes that are there at once. */
  once: (bytes: Buffer) => string;
}

const crcText = (crc: number): string => crc.toString(16).padStart(8, '0');
const crc32c: Algorithm = {
  tag: 'CRC32C',
  create: () => {
    const { common } = native();
    let crc = 0;
    return {
      update: (bytes) => {
        crc = common.crc32c(bytes, crc);
      },
      digest: () => crcText(crc),
    };
  },
  once: (bytes) => crcText(native().common.crc32c(bytes)),
};

const openssl = (name: string, tag: string): Algorithm => ({
  tag,
  create: () => {
    const state = createHash(name);
    return { update: (bytes: Buffer) => state.update(bytes), digest: () => state.digest('hex') };
  },
  once: (bytes) => hash(name, bytes, 'hex'),
});

/** Algorithms by name. All but crc32c are OpenSSL's, in Node. */
export const algorithms: Readonly<Record<string, Algorithm>> = {
  crc32c,
  md5: openssl('md5', 'MD5'),
  sha1: openssl('sha1', 'SHA1'),
  sha224: openssl('sha224', 'SHA224'),
  sha256: openssl('sha256', 'SHA256'),
  sha384: openssl('sha384', 'SHA384'),
  sha512: openssl('sha512', 'SHA512'),
  blake2b512: openssl('blake2b512', 'BLAKE2b'),
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
  const { create, once } = algorithms[options.algorithm]!;
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
        let state: Hash | undefined;
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
