import { codeOf } from '../../common/errors.js';
import { native } from '../../native/index.js';
import { type BulkHandle, BulkWork } from '../../native/uring.js';
import { errnoName } from '../errno.js';
import { enterError } from '../ring.js';
import { type Name, pathError } from './name.js';

/** How the addon's threads ended one file. */
export interface PoolResult {
  name: Name;
  /** Bytes read. */
  size: number;
  /** The checksum in hexadecimal; undefined where the work is not a sum, or failed. */
  digest: string | undefined;
  /** errno name */
  error: string | undefined;
}

export interface PoolOptions {
  work: keyof typeof BulkWork;
  /** Of sums: an algorithm that the addon computes (digestSize). */
  algorithm?: string;
  /** Of sync and dataSync: without rings, each thread makes one file after the other durable. */
  plain?: boolean;
  /** Threads, each with a ring unless `plain`. */
  threads: number;
  /** Files under way at once, over all threads. */
  depth: number;
}

/** struct BulkResult of native/uring/bulk.h: number u32, error i32, size u64, digest. */
const RECORD = 80;
const DIGEST_AT = 16;
/** Results taken in one crossing. */
const BATCH = 512;

/**
 * Files worked on by threads of the addon. A file costs JavaScript no crossing and no callback: names go over in blocks,
 * results come back in batches, in the order in which files end.
 */
class Pool {
  readonly #native = native().uring;
  readonly #handle: BulkHandle;
  readonly #records = Buffer.alloc(BATCH * RECORD);
  readonly #digestEnd: number;
  /** Names of the files under way, by number. */
  readonly #names = new Map<number, Name>();
  #next = 0;

  constructor(options: PoolOptions, ready: () => void) {
    const { work, ...rest } = options;
    this.#handle = this.#native.bulkOpen({ ...rest, work: BulkWork[work] }, ready);
    this.#digestEnd = DIGEST_AT + (work === 'sum' ? this.#native.digestSize(options.algorithm!) : 0);
  }

  /** Hands over files that get the next numbers. What open(2) could not be given is refused at once. */
  push(names: readonly Name[], refused: (number: number, result: PoolResult) => void): void {
    let run: Name[] = [];
    const flush = (): void => {
      if (run.length === 0) return;
      const block = run.every((name) => typeof name === 'string')
        ? Buffer.from(`${run.join('\0')}\0`)
        : Buffer.concat(run.flatMap((name) => [typeof name === 'string' ? Buffer.from(name) : name, Buffer.of(0)]));
      this.#native.bulkPush(this.#handle, block, (this.#next - run.length) >>> 0);
      run = [];
    };
    for (const name of names) {
      const error = pathError(name);
      if (error !== undefined) flush();
      else {
        this.#names.set(this.#next, name);
        run.push(name);
      }
      if (error !== undefined) refused(this.#next, { name, size: 0, digest: undefined, error });
      this.#next = (this.#next + 1) >>> 0;
    }
    flush();
  }

  /** Results that are there, at most BATCH. @returns how many. @throws the errno of a ring that has failed */
  take(each: (number: number, result: PoolResult) => void): number {
    const records = this.#records;
    const count = this.#take();
    for (let i = 0, at = 0; i < count; i++, at += RECORD) {
      const number = records.readUInt32LE(at);
      const result = records.readInt32LE(at + 4);
      each(number, {
        name: this.#names.get(number)!,
        size: records.readUInt32LE(at + 8) + records.readUInt32LE(at + 12) * 0x1_0000_0000,
        digest: result < 0 || this.#digestEnd === DIGEST_AT ? undefined : records.toString('hex', at + DIGEST_AT, at + this.#digestEnd),
        error: result < 0 ? errnoName(result) : undefined,
      });
      this.#names.delete(number);
    }
    return count;
  }

  #take(): number {
    try {
      return this.#native.bulkTake(this.#handle, this.#records);
    } catch (err) {
      throw enterError(codeOf(err) ?? 'EIO');
    }
  }

  /** Cancels what is under way. Idempotent. */
  close(): void {
    this.#native.bulkClose(this.#handle);
  }
}

export interface OverPoolOptions extends PoolOptions {
  /** Most files handed over whose results were not taken yet: bounds memory. */
  backlog: number;
  /** Results in the order of the names. */
  ordered: boolean;
  /** Ends the work early. */
  signal?: AbortSignal | undefined;
}

/** Milliseconds of work after which the event loop gets a turn (signals, timers). */
const TURN = 20;

/**
 * Works on the files of a list with threads of the addon, in constant memory.
 * @returns results in batches
 * @throws at once (not from the generator) the errno of io_uring_setup(2), EMFILE
 */
export function overPool(source: AsyncIterable<Name[]>, options: OverPoolOptions): AsyncGenerator<PoolResult[]> {
  const { backlog, ordered, signal, ...rest } = options;
  let wake: (() => void) | undefined;
  const pool = new Pool(rest, () => wake?.());
  return run();

  async function* run(): AsyncGenerator<PoolResult[]> {
    const names = source[Symbol.asyncIterator]();
    const waiting = new Map<number, PoolResult>();
    let ready: PoolResult[] = [];
    let batch: Name[] = [];
    let started = 0;
    let ended = 0;
    let taken = 0;
    let next = 0; // the next to leave, where order is kept
    let loading = false;
    let over = false;
    let failure: { err: unknown } | undefined;
    const load = (): void => {
      if (loading || over || batch.length > 0) return;
      loading = true;
      names.next().then(
        ({ done, value }) => {
          loading = false;
          if (done) over = true;
          else batch = value;
          wake?.();
        },
        (err) => {
          failure = { err };
          wake?.();
        },
      );
    };
    const finished = (number: number, result: PoolResult): void => {
      ended++;
      if (!ordered) ready.push(result);
      else {
        waiting.set(number, result);
        for (let found = waiting.get(next); found !== undefined; found = waiting.get(next)) {
          waiting.delete(next);
          next = (next + 1) >>> 0;
          ready.push(found);
        }
      }
    };
    const aborted = (): void => {
      failure ??= { err: signal!.reason };
      wake?.();
    };
    let turned = performance.now();
    try {
      signal?.throwIfAborted();
      signal?.addEventListener('abort', aborted, { once: true });
      for (;;) {
        const room = backlog - (started - taken);
        if (room > 0 && batch.length > 0) {
          const part = batch.length <= room ? batch : batch.slice(0, room);
          batch = batch.slice(part.length);
          started += part.length;
          pool.push(part, finished);
        }
        load();
        const woken = new Promise<void>((resolve) => {
          wake = resolve;
        });
        const count = pool.take(finished);
        if (failure) throw failure.err;
        if (ready.length > 0) {
          const results = ready;
          ready = [];
          taken += results.length;
          yield results;
        } else if (over && batch.length === 0 && ended === started) {
          return;
        } else if (count === 0 && (batch.length === 0 || started - taken >= backlog)) {
          await woken;
        }
        if (performance.now() - turned > TURN) {
          await new Promise((resolve) => setImmediate(resolve));
          turned = performance.now();
        }
      }
    } finally {
      signal?.removeEventListener('abort', aborted);
      pool.close();
      if (!loading) await names.return?.(); // a read of stdin that has not ended cannot be waited for
    }
  }
}
