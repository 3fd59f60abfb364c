import { type Expected, parseLine } from './lines.js';
import type { Name } from './name.js';
import { type SumOptions, sumFiles } from './sum.js';

/** How one line of a list of checksums came out. */
export interface Checked {
  name: Name;
  algorithm: string;
  expected: string;
  /** What the file has now. */
  digest: string | undefined;
  /** Bytes read. */
  size: number;
  /** errno name: the file could not be read. */
  error: string | undefined;
}

/** Lines of a list, counted. */
export interface ListCount {
  /** Lines with a checksum. */
  proper: number;
  /** Lines of no known form. */
  malformed: number;
}

export interface CheckOptions extends Omit<SumOptions, 'algorithm' | 'ordered'> {
  /** Told from each line unless given. */
  algorithm: string | undefined;
  /** Lines end with NUL and nothing is escaped. */
  zero: boolean;
  /** Called for a line of no known form, its number from 1. */
  malformed?: (line: number) => void;
}

/** Lines read ahead of the sums. */
const lines = 1024;

/**
 * Sums the files of a list of checksums, many at once, and tells how each came out, in the order of the lines.
 * @param chunks the list in pieces, as they come
 * @param count is filled while the list is read
 */
export async function* checkList(chunks: AsyncIterable<Buffer>, count: ListCount, options: CheckOptions): AsyncGenerator<Checked[]> {
  const entries = new Peekable(expectedLines(chunks, count, options));
  for (let first = await entries.peek(); first !== undefined; first = await entries.peek()) {
    // A run of lines with one algorithm is one work for the threads.
    const { algorithm } = first;
    const waiting: Expected[] = [];
    const names = (async function* () {
      for (let next = await entries.peek(); next?.algorithm === algorithm; next = await entries.peek()) {
        const batch = entries.take(lines, (entry) => entry.algorithm === algorithm);
        waiting.push(...batch);
        yield batch.map(({ name }) => (name === '-' ? '/dev/stdin' : name));
      }
    })();
    let at = 0;
    for await (const results of sumFiles(names, { ...options, algorithm, ordered: true })) {
      const checked = results.map(({ digest, size, error }): Checked => {
        const { name, digest: expected } = waiting[at++]!;
        return { name, algorithm, expected, digest, size, error };
      });
      waiting.splice(0, at);
      at = 0;
      yield checked;
    }
  }
}

/** The batches of a generator, looked at before they are taken. */
class Peekable {
  readonly #source: AsyncIterator<Expected[]>;
  #batch: Expected[] = [];

  constructor(source: AsyncIterable<Expected[]>) {
    this.#source = source[Symbol.asyncIterator]();
  }

  async peek(): Promise<Expected | undefined> {
    while (this.#batch.length === 0) {
      const { done, value } = await this.#source.next();
      if (done) return undefined;
      this.#batch = value;
    }
    return this.#batch[0];
  }

  /** The entries at the front that fit, at most `limit`. */
  take(limit: number, fits: (entry: Expected) => boolean): Expected[] {
    let count = 0;
    while (count < limit && count < this.#batch.length && fits(this.#batch[count]!)) count++;
    return this.#batch.splice(0, count);
  }
}

async function* expectedLines(chunks: AsyncIterable<Buffer>, count: ListCount, options: CheckOptions): AsyncGenerator<Expected[]> {
  const { algorithm, zero } = options;
  let line = 0;
  let rest: Buffer = Buffer.alloc(0);
  const entries = (block: Buffer): Expected[] => {
    const found: Expected[] = [];
    for (let at = 0; at < block.length; ) {
      const end = block.indexOf(zero ? 0 : 10, at);
      const stop = end < 0 ? block.length : end;
      line++;
      const entry = parseLine(block.subarray(at, stop), algorithm, zero);
      at = stop + 1;
      if (entry === 'blank') continue;
      if (entry === undefined) {
        count.malformed++;
        options.malformed?.(line);
      } else {
        count.proper++;
        found.push(entry);
      }
    }
    return found;
  };
  for await (const chunk of chunks) {
    const data = rest.length > 0 ? Buffer.concat([rest, chunk]) : chunk;
    const last = data.lastIndexOf(zero ? 0 : 10) + 1;
    rest = Buffer.from(data.subarray(last));
    if (rest.length > maxLine) {
      // No name is that long: this is no list of checksums.
      line++;
      count.malformed++;
      options.malformed?.(line);
      return;
    }
    const found = entries(data.subarray(0, last));
    if (found.length > 0) yield found;
  }
  const found = entries(rest);
  if (found.length > 0) yield found;
}

/** Bytes of a line: a name of PATH_MAX bytes, all escaped, and its digest, with room. */
const maxLine = 16 * 1024;
