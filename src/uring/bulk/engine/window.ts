import { Flow, type FlowOptions } from './flow.js';

/** What runs over a window. */
export interface WindowOptions<I, R> extends FlowOptions<I> {
  /** Most items under way at once. */
  limit: number;
  /** Begins an item; `done` may be called at once or later, exactly once. */
  start: (item: I, done: (result: R) => void) => void;
  /** Called after a batch of starts. */
  submit?: () => void;
}

/**
 * Runs items concurrently, in constant memory, and yields their results in batches. Finished items are replaced from
 * inside their completion, so the pipeline stays full while the consumer is slow, up to the backlog.
 */
export function overWindow<I, R>(options: WindowOptions<I, R>): AsyncGenerator<R[]> {
  const { limit, start, submit } = options;
  const flow = new Flow<I, R>(options);
  let active = 0;
  let pumping = false;
  const begin = (item: I, number: number): void => {
    active++;
    start(item, (result) => {
      active--;
      flow.put(number, result);
      pump();
    });
  };
  const pump = (): void => {
    if (pumping) return;
    pumping = true;
    try {
      for (let part = flow.take(limit - active); part.items.length > 0; part = flow.take(limit - active))
        for (let i = 0; i < part.items.length; i++) begin(part.items[i]!, (part.first + i) >>> 0);
      submit?.();
    } catch (err) {
      flow.fail(err);
    } finally {
      pumping = false;
    }
  };
  return flow.results(pump);
}
