import { reason, wrap } from '../common/errors.js';
import { printable } from '../common/escape.js';
import { native } from '../native/index.js';
import { Health } from './health.js';
import { reopenSource, type Source } from './open.js';

/** How often a served source is looked at, in milliseconds. */
export const watchPeriod = 1000;

export interface WatchHooks {
  log(text: string): void;
  /**
   * The source has another size: tell those who use it.
   * @returns the size that they see now; undefined if it is the one that they saw
   */
  resized(bytes: number): number | undefined;
  /** What to do if the source cannot be opened anew because another file has its name. */
  readonly otherwise: string;
}

/** A question whose answer may take long, for many who want one that is as new as their asking. */
class Newest<T> {
  readonly #question: () => Promise<T>;
  /** The question that has no answer yet, and the one that is put after it. */
  #asking: Promise<T> | undefined;
  #following: Promise<T> | undefined;

  constructor(question: () => Promise<T>) {
    this.#question = question;
  }

  get busy(): boolean {
    return this.#asking !== undefined;
  }

  /** However many ask, one question waits behind the one that is under way. */
  ask(): Promise<T> {
    if (!this.#asking) return this.#put();
    this.#following ??= this.#asking
      .catch(() => {})
      .then(() => {
        this.#following = undefined;
        return this.#put();
      });
    return this.#following;
  }

  #put(): Promise<T> {
    this.#asking ??= this.#question().finally(() => {
      this.#asking = undefined;
    });
    return this.#asking;
  }
}

/** Looks at a served source: tells the log of failures, and its users of another size. The same for every server. */
export class SourceWatch {
  readonly #source: Source;
  readonly #hooks: WatchHooks;
  readonly #health: Health;
  #size: number;
  #unsized = false;
  readonly #asking: Newest<number>;
  readonly #opening: Newest<void>;
  #closed = false;

  constructor(source: Source, hooks: WatchHooks) {
    this.#source = source;
    this.#hooks = hooks;
    this.#health = new Health(source, hooks.log);
    this.#size = native().storage.size(source.store);
    this.#asking = new Newest(async () => {
      try {
        return await native().storage.measure(source.store);
      } catch (err) {
        throw wrap(`size of ${printable(source.name)}`, err);
      }
    });
    this.#opening = new Newest(() => this.#reopen());
  }

  /** The size that its users know of, in bytes. */
  get size(): number {
    return this.#size;
  }

  /** To be called every watchPeriod. A source that has not answered yet hangs: it is not asked again, and nobody waits for it. */
  tick(): void {
    this.look();
    if (!this.#asking.busy) void this.measure();
  }

  /** Tells what has failed since the last look. @param last the end: what was held back is told */
  look(last = false): void {
    this.#health.look(last);
  }

  /**
   * The size of the source in bytes, as new as the call. However many ask a source that hangs, one question waits behind the one that
   * it has not answered. @throws VioError
   */
  ask(): Promise<number> {
    return this.#asking.ask();
  }

  /** Takes a size over that ask() has given, and tells the users of the source. */
  take(bytes: number): void {
    if (this.#closed || bytes === this.#size) return;
    this.#size = bytes;
    const seen = this.#hooks.resized(bytes);
    if (seen !== undefined) this.#hooks.log(`${printable(this.#source.name)} has ${seen} bytes now`);
  }

  /** Asks the source for its size and takes it over. One that cannot be read is told, once. */
  async measure(): Promise<void> {
    if (this.#closed) return;
    try {
      const bytes = await this.ask();
      this.#unsized = false;
      this.take(bytes);
    } catch (err) {
      // a device that is gone keeps its last size: requests fail, and say so
      if (!this.#unsized && !this.#closed) this.#hooks.log(`${printable(this.#source.name)}: its size cannot be read: ${reason(err)}`);
      this.#unsized = true;
    }
  }

  /** Opens the source anew: its flushes can succeed again, although what was lost is lost. @throws VioError */
  reopen(): Promise<void> {
    return this.#opening.ask();
  }

  async #reopen(): Promise<void> {
    this.look(true); // what has failed is told before it is forgotten
    await reopenSource(this.#source, this.#hooks.otherwise);
    if (this.#closed) return;
    this.#health.opened();
    this.#hooks.log(`${printable(this.#source.name)} was opened anew`);
    await this.measure();
  }

  /** The source is served no longer: what has failed since the last look is told. Call it before its store is closed. */
  close(): void {
    if (this.#closed) return;
    this.look(true);
    this.#closed = true;
  }
}
