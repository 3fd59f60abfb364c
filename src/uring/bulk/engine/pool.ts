import { errnoName } from '../../../common/errno.js';
import { codeOf } from '../../../common/errors.js';
import { native } from '../../../native/index.js';
import {
  type BulkHandle,
  type BulkStats,
  BulkWork,
  bulkResult,
  elsewhereError,
  type RingStats,
  truncatedError,
} from '../../../native/uring.js';
import { EnterError } from '../../ring/errno.js';
import { type Name, pathError } from '../name.js';
import { Flow, type FlowOptions } from './flow.js';

/** How the addon's threads ended one file. */
export interface PoolResult {
  name: Name;
  /** Bytes read. */
  size: number;
  /** The checksum in hexadecimal; undefined where the work is not a sum, or failed. */
  digest: string | undefined;
  /** errno name, or TRUNCATED: the file shrank while it was read */
  error: string | undefined;
}

export interface PoolOptions {
  work: keyof typeof BulkWork;
  /** Of sums: an algorithm that the addon computes (digestSize). */
  algorithm?: string;
  /** Without rings: each thread works with system calls. */
  plain?: boolean;
  /** Threads, each with a ring unless `plain`. */
  threads: number;
  /** Files under way at once, over all threads. */
  depth: number;
}

/** Results taken in one crossing. */
const batch = 512;

/**
 * Files worked on by threads of the addon. A file costs JavaScript no crossing and no callback: names go over in blocks,
 * results come back in batches, in the order in which files end.
 */
class Pool {
  readonly #native = native().uring;
  readonly #handle: BulkHandle;
  readonly #records = Buffer.alloc(batch * bulkResult.size);
  readonly #digestEnd: number;
  /** Names of the files under way, by number. */
  readonly #names = new Map<number, Name>();

  constructor(options: PoolOptions, ready: () => void) {
    const { work, ...rest } = options;
    this.#handle = this.#native.bulkOpen({ ...rest, work: BulkWork[work] }, ready);
    this.#digestEnd = bulkResult.digestAt + (work === 'sum' ? this.#native.digestSize(options.algorithm!) : 0);
  }

  /** Hands over files with their numbers, first, first + 1, … What open(2) could not be given is refused at once. */
  push(names: readonly Name[], first: number, refused: (number: number, result: PoolResult) => void): void {
    let run: Name[] = [];
    let next = first;
    const flush = (): void => {
      if (run.length === 0) return;
      const block = run.every((name) => typeof name === 'string')
        ? Buffer.from(`${run.join('\0')}\0`)
        : Buffer.concat(run.flatMap((name) => [typeof name === 'string' ? Buffer.from(name) : name, Buffer.of(0)]));
      this.#native.bulkPush(this.#handle, block, (next - run.length) >>> 0);
      run = [];
    };
    for (const name of names) {
      const error = pathError(name);
      if (error !== undefined) flush();
      else {
        this.#names.set(next, name);
        run.push(name);
      }
      if (error !== undefined) refused(next, { name, size: 0, digest: undefined, error });
      next = (next + 1) >>> 0;
    }
    flush();
  }

  /** Results that are there, at most `batch`. @returns how many. @throws the errno of a ring that has failed */
  take(each: (number: number, result: PoolResult) => void): number {
    const records = this.#records;
    const count = this.#take();
    for (let i = 0, at = 0; i < count; i++, at += bulkResult.size) {
      const number = records.readUInt32LE(at);
      const result = records.readInt32LE(at + 4);
      each(number, {
        name: this.#names.get(number)!,
        size: records.readUInt32LE(at + 8) + records.readUInt32LE(at + 12) * 0x1_0000_0000,
        digest:
          result < 0 || this.#digestEnd === bulkResult.digestAt
            ? undefined
            : records.toString('hex', at + bulkResult.digestAt, at + this.#digestEnd),
        error:
          result === truncatedError ? 'TRUNCATED' : result === elsewhereError ? 'ELSEWHERE' : result < 0 ? errnoName(result) : undefined,
      });
      this.#names.delete(number);
    }
    return count;
  }

  #take(): number {
    try {
      return this.#native.bulkTake(this.#handle, this.#records);
    } catch (err) {
      throw new EnterError(codeOf(err) ?? 'EIO');
    }
  }

  get stats(): BulkStats {
    return this.#native.bulkStats(this.#handle);
  }

  /** Cancels what is under way. Idempotent. */
  close(): void {
    this.#native.bulkClose(this.#handle);
  }
}

export type OverPoolOptions = PoolOptions &
  Omit<FlowOptions<Name>, 'source'> & {
    /** Called at the end. */
    spent?: ((stats: RingStats) => void) | undefined;
    /** Called at the beginning with what tells the bytes read so far. */
    live?: ((bytes: () => number) => void) | undefined;
    /** Reads what a thread must not wait for. */
    elsewhere?: { read(name: Name, done: (result: PoolResult) => void): void; close(): void };
  };

/**
 * Works on the files of a list with threads of the addon, in constant memory.
 * @returns results in batches
 * @throws at once (not from the generator) the errno of io_uring_setup(2), EMFILE
 */
export function overPool(source: AsyncIterable<Name[]>, options: OverPoolOptions): AsyncGenerator<PoolResult[]> {
  const { backlog, ordered, signal, spent, live, elsewhere, ...rest } = options;
  const flow = new Flow<Name, PoolResult>({ source, backlog, ordered, signal });
  const pool = new Pool(rest, () => flow.wake());
  let last: BulkStats | undefined;
  live?.(() => (last ?? pool.stats).bytes);
  const put = (number: number, result: PoolResult): void => {
    if (elsewhere && result.error === 'ELSEWHERE') elsewhere.read(result.name, (read) => flow.put(number, read));
    else flow.put(number, result);
  };
  const step = (): void => {
    for (let part = flow.take(Infinity); part.items.length > 0; part = flow.take(Infinity)) pool.push(part.items, part.first, put);
    while (pool.take(put) === batch);
  };
  return (async function* () {
    try {
      yield* flow.results(step);
    } finally {
      elsewhere?.close();
      last = pool.stats;
      if (!rest.plain) spent?.({ enters: last.enters, overflows: last.overflows });
      pool.close();
    }
  })();
}
