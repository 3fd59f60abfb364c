import { reason } from '../../common/errors.js';

/** One place that records go to. */
export interface Output<T> {
  /** For messages: `stdout`, a file. */
  name: string;
  /** @throws what the write failed with; the promise may reject with it too */
  write(record: T): Promise<void> | void;
}

/** Records that may wait for one slow output; more are left out. */
const maxWaiting = 10_000;

/**
 * Hands records to outputs. An output that fails is told of once and left out from then on; one that is slow loses records rather
 * than filling memory. Whoever makes the records is never held up.
 */
export class Recorder<T> {
  readonly #outputs: { output: Output<T>; waiting: number; lost: number; failed: boolean }[];
  /** What outputs have failed with. */
  readonly failures: unknown[] = [];
  readonly #onProblem: (text: string) => void;

  constructor(outputs: readonly Output<T>[], onProblem: (text: string) => void) {
    this.#outputs = outputs.map((output) => ({ output, waiting: 0, lost: 0, failed: false }));
    this.#onProblem = onProblem;
  }

  record(record: T): void {
    for (const state of this.#outputs) {
      if (state.failed) continue;
      if (state.waiting >= maxWaiting) {
        if (state.lost++ === 0) this.#onProblem(`${state.output.name} is read too slowly: records are lost`);
        continue;
      }
      state.waiting++;
      const fail = (err: unknown): void => {
        if (state.failed) return;
        state.failed = true;
        this.failures.push(err);
        this.#onProblem(`write ${state.output.name}: ${reason(err)}; messages still pass, but the record ends here`);
      };
      try {
        Promise.resolve(state.output.write(record))
          .catch(fail)
          .finally(() => state.waiting--);
      } catch (err) {
        state.waiting--;
        fail(err);
      }
    }
  }

  /** Records that slow outputs have lost. */
  get lost(): number {
    return this.#outputs.reduce((sum, o) => sum + o.lost, 0);
  }
}
