import { reason } from '../common/errors.js';
import { printable } from '../common/escape.js';
import { native } from '../native/index.js';
import { Health } from './health.js';
import type { Source } from './open.js';

/** How often a served source is looked at, in milliseconds. */
export const watchPeriod = 1000;

export interface WatchHooks {
  log(text: string): void;
  /**
   * The source has another size: tell those who use it.
   * @returns the size that they see now; undefined if it is the one that they saw
   */
  resized(bytes: number): number | undefined;
}

/** Looks at a served source: tells the log of failures, and its users of another size. The same for every server. */
export class SourceWatch {
  readonly #source: Source;
  readonly #hooks: WatchHooks;
  readonly #health: Health;
  #size: number;
  #unsized = false;
  #asked = false;
  #closed = false;

  constructor(source: Source, hooks: WatchHooks) {
    this.#source = source;
    this.#hooks = hooks;
    this.#health = new Health(source, hooks.log);
    this.#size = native().storage.size(source.store);
  }

  /** To be called every watchPeriod. */
  tick(): void {
    this.look();
    void this.measure();
  }

  /** Tells what has failed since the last look. @param last the end: what was held back is told */
  look(last = false): void {
    this.#health.look(last);
  }

  /** Asks the source for its size. One that has not answered yet hangs: it is not asked again meanwhile, and nobody waits for it. */
  async measure(): Promise<void> {
    if (this.#asked || this.#closed) return;
    this.#asked = true;
    const name = printable(this.#source.name);
    try {
      const bytes = await native().storage.measure(this.#source.store);
      if (this.#closed) return;
      this.#unsized = false;
      if (bytes === this.#size) return;
      this.#size = bytes;
      const seen = this.#hooks.resized(bytes);
      if (seen !== undefined) this.#hooks.log(`${name} has ${seen} bytes now`);
    } catch (err) {
      // a device that is gone keeps its last size: requests fail, and say so
      if (!this.#unsized && !this.#closed) this.#hooks.log(`${name}: its size cannot be read: ${reason(err)}`);
      this.#unsized = true;
    } finally {
      this.#asked = false;
    }
  }

  close(): void {
    this.#closed = true;
  }
}
