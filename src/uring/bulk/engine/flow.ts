import { now } from '../../../common/clock.js';
export interface FlowOptions<I> {
  /** Items in batches; a batch is asked for before the one before it is used up. */
  source: AsyncIterable<I[]>;
  /** Most items taken whose results have not left yet: bounds memory when one item is slow and order is kept. */
  backlog: number;
  /** Results in the order of the items. */
  ordered: boolean;
  /** Ends the work: what is under way is left to whoever owns it. */
  signal?: AbortSignal | undefined;
}

/** Milliseconds of work after which the event loop gets a turn (signals, timers). */
export const turn = 20;

/**
 * The two ends of work on a long list, in constant memory: items come in batches and get numbers (32 bits, which wrap),
 * results leave in batches, in the order of the numbers where asked.
 */
export class Flow<I, R> {
  readonly #options: FlowOptions<I>;
  readonly #source: AsyncIterator<I[]>;
  readonly #batches: I[][] = [];
  readonly #waiting = new Map<number, R>();
  #ready: R[] = [];
  #at = 0; // in the first batch
  #number = 0; // of the item there
  #next = 0; // the next to leave, where order is kept
  #active = 0; // taken, without a result
  #held = 0; // taken, not left
  #loading = false;
  #over = false;
  #failure: { err: unknown } | undefined;
  #step = (): void => {};
  #wake = (): void => {};

  constructor(options: FlowOptions<I>) {
    this.#options = options;
    this.#source = options.source[Symbol.asyncIterator]();
  }

  /** Items to begin, at most `limit`; none where none are there or too many results have not left. */
  take(limit: number): { first: number; items: I[] } {
    const batch = this.#batches[0];
    const first = this.#number;
    const count = Math.min(limit, this.#options.backlog - this.#held, (batch?.length ?? 0) - this.#at);
    if (batch === undefined || count <= 0 || this.#failure) {
      this.#load();
      return { first, items: [] };
    }
    const items = count === batch.length ? batch : batch.slice(this.#at, this.#at + count);
    this.#at += count;
    this.#number = (first + count) >>> 0;
    this.#active += count;
    this.#held += count;
    if (this.#at === batch.length) {
      this.#batches.shift();
      this.#at = 0;
    }
    return { first, items };
  }

  /** The result of an item, once for each. */
  put(number: number, result: R): void {
    this.#active--;
    if (!this.#options.ordered) this.#ready.push(result);
    else {
      this.#waiting.set(number, result);
      for (let found = this.#waiting.get(this.#next); found !== undefined; found = this.#waiting.get(this.#next)) {
        this.#waiting.delete(this.#next);
        this.#next = (this.#next + 1) >>> 0;
        this.#ready.push(found);
      }
    }
    if (this.#ready.length > 0) this.#wake();
  }

  /** Ends the work with an error. */
  fail(err: unknown): void {
    this.#failure ??= { err };
    this.#wake();
  }

  /** There is something to do for `step`. */
  wake(): void {
    this.#wake();
  }

  /** Yields results. @param step takes what can be begun and puts what has ended; runs whenever one of both may be there */
  async *results(step: () => void): AsyncGenerator<R[]> {
    const { signal } = this.#options;
    const aborted = (): void => this.fail(signal!.reason);
    let turned = now();
    this.#step = step;
    try {
      signal?.throwIfAborted();
      signal?.addEventListener('abort', aborted, { once: true });
      for (;;) {
        const woken = new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
        step();
        if (this.#failure) throw this.#failure.err;
        if (this.#ready.length > 0) {
          const results = this.#ready;
          this.#ready = [];
          this.#held -= results.length;
          yield results;
        } else if (this.#over && this.#batches.length === 0 && this.#active === 0) {
          return;
        } else {
          await woken;
        }
        if (now() - turned > turn) {
          await new Promise((resolve) => setImmediate(resolve));
          turned = now();
        }
      }
    } finally {
      signal?.removeEventListener('abort', aborted);
      if (!this.#loading) await this.#source.return?.(); // a read of stdin that has not ended cannot be waited for
    }
  }

  #load(): void {
    if (this.#loading || this.#over || this.#batches.length > 1) return;
    this.#loading = true;
    const loaded = ({ done, value }: IteratorResult<I[]>): void => {
      this.#loading = false;
      if (done) this.#over = true;
      else if (value.length > 0) this.#batches.push(value);
      this.#step();
      this.#wake();
    };
    this.#source
      .next()
      .then(loaded)
      .catch((err) => this.fail(err));
  }
}
