/** What limits the data of a host's commands: one budget for all its controllers. */
import type { NativeBudget, NvmeNative } from '../../../native/nvme.js';

export class Budgets {
  readonly #native: NvmeNative;
  readonly #limitOf: (host: string) => number | undefined;
  /** By host: hostKey(). */
  readonly #known = new Map<string, { budget: NativeBudget; controllers: number }>();

  /** @param limitOf bytes that commands of a host may hold; undefined: no limit */
  constructor(native: NvmeNative, limitOf: (host: string) => number | undefined) {
    this.#native = native;
    this.#limitOf = limitOf;
  }

  /** The budget of a host, for one more controller: release() it when that is gone. */
  take(host: string): NativeBudget {
    const known = this.#known.get(host) ?? { budget: this.#native.budgetNew(), controllers: 0 };
    if (known.controllers++ === 0) this.#native.budgetLimit(known.budget, this.#limitOf(host) ?? 0);
    this.#known.set(host, known);
    return known.budget;
  }

  /** A controller of a host is gone; with the last one, its budget is forgotten. */
  release(host: string): void {
    const known = this.#known.get(host);
    if (known && --known.controllers === 0) this.#known.delete(host);
  }

  /** Limits have changed. */
  refresh(): void {
    for (const [host, { budget }] of this.#known) this.#native.budgetLimit(budget, this.#limitOf(host) ?? 0);
  }
}
