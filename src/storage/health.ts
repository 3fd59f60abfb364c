import { printable } from '../common/escape.js';
import { native } from '../native/index.js';
import { lostText, type Source } from './open.js';
import { newsText, takeNotes } from './remote/news.js';
import { isRemote } from './uri.js';

/** Requests that fail are told at most this often for a source, in milliseconds: a host can repeat one without end. */
const period = 60_000;

/** Tells the log what happens to a served source: a failed sync once, failed requests in sums. Look at it from time to time. */
export class Health {
  readonly #source: Source;
  readonly #log: (text: string) => void;
  readonly #now: () => number;
  #lost = false;
  #told = 0;
  #next = Number.NEGATIVE_INFINITY;

  constructor(source: Source, log: (text: string) => void, now: () => number = () => performance.now()) {
    this.#source = source;
    this.#log = log;
    this.#now = now;
  }

  /** The source was opened anew: a sync that fails from now on is told again. */
  opened(): void {
    this.#lost = false;
    this.look();
  }

  /** @param last nothing will be told later: what was held back is told now */
  look(last = false): void {
    const { store, name } = this.#source;
    if (isRemote(name)) {
      for (const { what, error } of native().storage.news(store)) this.#log(`${printable(name)}: ${newsText(what, error)}`);
      for (const line of takeNotes(store)) this.#log(`${printable(name)}: ${line}`);
    }
    const code = native().storage.syncError(store);
    if (code !== undefined && !this.#lost) this.#log(lostText(name, code));
    this.#lost = code !== undefined;
    const { count, error } = native().storage.failures(store);
    if (count === this.#told || (!last && this.#now() < this.#next)) return;
    const requests = count - this.#told === 1 ? 'a request has' : `${count - this.#told} requests have`;
    this.#log(`${printable(name)}: ${requests} failed: ${error}`);
    this.#told = count;
    this.#next = this.#now() + period;
  }
}
