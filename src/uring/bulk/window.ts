/** What runs over a window. */
export interface WindowOptions<I, R> {
  /** Items in batches; a batch is asked for before the one before it is used up. */
  source: AsyncIterable<I[]>;
  /** Most items under way at once. */
  limit: number;
  /** Most items started whose results were not taken yet: bounds memory when one item is slow and order is kept. */
  backlog: number;
  /** Results in the order of the items. */
  ordered: boolean;
  /** Begins an item; `done` may be called at once or later, exactly once. */
  start: (item: I, done: (result: R) => void) => void;
  /** Ends the work: what is under way is left to whoever owns it. */
  signal?: AbortSignal | undefined;
  /** Called after a batch of starts. */
  submit?: () => void;
}

/** Milliseconds of work after which the event loop gets a turn (signals, timers). */
const TURN = 20;

/**
 * Runs items concurrently, in constant memory, and yields their results in batches. Finished items are replaced from
 * inside their completion, so the pipeline stays full while the consumer is slow, up to the backlog.
 */
export async function* overWindow<I, R>(options: WindowOptions<I, R>): AsyncGenerator<R[]> {
  const { limit, backlog, ordered, start, submit } = options;
  const source = options.source[Symbol.asyncIterator]();
  const batches: I[][] = [];
  const waiting = new Map<number, R>();
  let ready: R[] = [];
  let at = 0;
  let started = 0;
  let taken = 0;
  let next = 0; // the next to leave, where order is kept
  let active = 0;
  let loading = false;
  let ended = false;
  let pumping = false;
  let failure: { err: unknown } | undefined;
  let wake: (() => void) | undefined;

  const fail = (err: unknown): void => {
    failure ??= { err };
    wake?.();
  };
  const load = (): void => {
    if (loading || ended || batches.length > 1) return;
    loading = true;
    source.next().then(({ done, value }) => {
      loading = false;
      if (done) ended = true;
      else if (value.length > 0) batches.push(value);
      pump();
      wake?.();
    }, fail);
  };
  const finished = (number: number, result: R): void => {
    active--;
    if (!ordered) ready.push(result);
    else {
      waiting.set(number, result);
      for (let found = waiting.get(next); found !== undefined; found = waiting.get(next)) {
        waiting.delete(next++);
        ready.push(found);
      }
    }
    if (ready.length > 0) wake?.();
    pump();
  };
  const pump = (): void => {
    if (pumping || failure) return;
    pumping = true;
    try {
      while (active < limit && started - taken < backlog) {
        const batch = batches[0];
        if (!batch) break;
        const number = started++;
        active++;
        start(batch[at++]!, (result) => finished(number, result));
        if (at === batch.length) {
          batches.shift();
          at = 0;
        }
      }
      load();
      submit?.();
    } catch (err) {
      fail(err);
    } finally {
      pumping = false;
    }
  };

  const aborted = (): void => fail(options.signal!.reason);
  let turned = performance.now();
  try {
    options.signal?.throwIfAborted();
    options.signal?.addEventListener('abort', aborted, { once: true });
    for (;;) {
      pump();
      if (failure) throw failure.err;
      if (ready.length > 0) {
        const results = ready;
        ready = [];
        taken += results.length;
        yield results;
      } else if (ended && batches.length === 0 && active === 0) {
        return;
      } else {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
        wake = undefined;
      }
      if (performance.now() - turned > TURN) {
        await new Promise((resolve) => setImmediate(resolve));
        turned = performance.now();
      }
    }
  } finally {
    options.signal?.removeEventListener('abort', aborted);
    if (!loading) await source.return?.(); // a read of stdin that has not ended cannot be waited for
  }
}
