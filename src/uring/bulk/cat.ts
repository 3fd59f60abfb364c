import { native } from '../../native/index.js';
import { type BulkOptions, openReader, warnOfTmpfs } from './engine/engine.js';
import { overWindow } from './engine/window.js';
import { inputIsOutput } from './itself.js';
import type { Name } from './name.js';

/** Bytes that go out in one call: the event loop sees signals in between. */
const pourSize = 16 << 20;

/** How one file went out. */
export interface CatResult {
  name: Name;
  /** Bytes written. */
  size: number;
  /** errno name */
  error: string | undefined;
}

export interface CatOptions extends BulkOptions {
  /** In the order of the names; otherwise the file that has data first goes first. Files are never mixed. */
  ordered: boolean;
  /** Takes bytes; they may be overwritten when it returns or its promise resolves. */
  write: (bytes: Buffer) => Promise<void> | undefined;
  /**
   * Lets `run` write to the output's descriptor itself, behind what was written, and resolves with its bytes. Large files go that way; without it,
   * through `write`.
   */
  direct?: (run: (output: number) => Promise<number>) => Promise<number>;
  /** Whether a file is the output (outputGuard). @param written bytes before it */
  isOutput?: ((name: Name, written: number) => boolean) | undefined;
}

/** One file at a time may write: in the order of the numbers, or as they come. */
class Turns {
  readonly #ordered: boolean;
  readonly #waiting = new Map<number, () => void>();
  readonly #over = new Set<number>();
  #holder: number | undefined;
  #next = 0;

  constructor(ordered: boolean) {
    this.#ordered = ordered;
  }

  /** Resolves when it is this file's turn; undefined if it is already. */
  take(number: number): Promise<void> | undefined {
    if (this.#holder === number) return undefined;
    if (this.#holder === undefined && (!this.#ordered || this.#next === number)) {
      this.#holder = number;
      return undefined;
    }
    return new Promise((resolve) => this.#waiting.set(number, resolve));
  }

  /** The file is through, whether it ever had its turn or not. */
  leave(number: number): void {
    this.#over.add(number);
    while (this.#over.delete(this.#next)) this.#next++;
    if (this.#holder === number) this.#holder = undefined;
    if (this.#holder !== undefined) return;
    const number_ = this.#ordered ? this.#next : this.#waiting.keys().next().value;
    const resolve = number_ === undefined ? undefined : this.#waiting.get(number_);
    if (number_ === undefined || !resolve) return;
    this.#waiting.delete(number_);
    this.#holder = number_;
    resolve();
  }
}

/** Writes many files out one behind the other, reading the next ones meanwhile. Yields how each went. */
export async function* catFiles(names: AsyncIterable<Name[]>, options: CatOptions): AsyncGenerator<CatResult[]> {
  const reader = openReader(options);
  const turns = new Turns(options.ordered);
  let count = 0;
  let failure: { err: unknown } | undefined; // of writing: ends everything
  let written = 0;
  const write = async (number: number, name: Name, first: boolean, bytes: Buffer): Promise<void> => {
    await turns.take(number);
    if (failure) throw failure.err;
    if (first && options.isOutput?.(name, written)) throw Object.assign(new Error(inputIsOutput), { code: inputIsOutput });
    written += bytes.length;
    try {
      await options.write(bytes);
    } catch (err) {
      failure ??= { err };
      throw err;
    }
  };
  const { direct, signal } = options;
  const pour = async (number: number, fd: number, offset: number): Promise<number> => {
    await turns.take(number);
    if (failure) throw failure.err;
    try {
      for (let size = 0; ; ) {
        signal?.throwIfAborted();
        const moved = await direct!((output) => native().uring.pour(fd, output, offset + size, pourSize));
        if (moved === 0) return size;
        size += moved;
        written += moved;
      }
    } catch (err) {
      if ((err as NodeJS.ErrnoException).syscall !== 'read') failure ??= { err };
      throw err;
    }
  };
  try {
    const window = overWindow<Name, CatResult>({
      source: reader.name === 'uring' ? warnOfTmpfs(names, options.note) : names,
      limit: reader.depth,
      backlog: reader.depth * 2,
      ordered: true,
      signal: options.signal,
      submit: () => reader.submit(),
      start: (name, done) => {
        const number = count++;
        let first = true;
        const chunk = (bytes: Buffer) => {
          const begins = first;
          first = false;
          return write(number, name, begins, bytes);
        };
        const rest = direct && ((fd: number, offset: number) => pour(number, fd, offset));
        reader.read(name, { chunk, pour: rest }, (error, size) => {
          turns.leave(number);
          done({ name, size, error });
        });
      },
    });
    for await (const results of window) {
      if (failure) throw failure.err;
      yield results;
    }
    if (failure) throw (failure as { err: unknown }).err;
  } finally {
    reader.close();
  }
}
