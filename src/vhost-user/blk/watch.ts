import { reason } from '../../common/errors.js';
import { printable } from '../../common/escape.js';
import { native } from '../../native/index.js';
import { Health } from '../../storage/health.js';
import type { Source } from '../../storage/open.js';
import type { BackEndSession, SessionHooks } from '../backend/session.js';

/** How often a source is looked at, in milliseconds. */
const PERIOD = 1000;

/** Looks at a served source: front-ends are told of a new size, the log of a new size and of a failed sync, each once. */
export class SourceWatch {
  readonly #source: Source;
  readonly #log: (text: string) => void;
  readonly #sessions = new Set<BackEndSession>();
  /** Sessions that have not heard of the last change: a back-end says nothing while its device is stopped. */
  readonly #untold = new Set<BackEndSession>();
  readonly #health: Health;
  readonly #timer: NodeJS.Timeout;
  #size: number;
  #unsized = false;
  #asked = false;
  #closed = false;

  constructor(source: Source, log: (text: string) => void) {
    this.#source = source;
    this.#log = log;
    this.#health = new Health(source, log);
    this.#size = native().storage.size(source.store);
    this.#timer = setInterval(() => {
      this.look();
      void this.measure();
    }, PERIOD);
    this.#timer.unref();
  }

  /** For ServeOptions.onSession. */
  join(session: BackEndSession): SessionHooks {
    this.#sessions.add(session);
    return {
      onRunning: (running) => {
        if (running && this.#untold.has(session)) this.#tell(session);
      },
      onClose: () => {
        this.#sessions.delete(session);
        this.#untold.delete(session);
      },
    };
  }

  /** @param last the end: what was held back is told */
  look(last = false): void {
    this.#health.look(last);
  }

  /** Asks the source for its size. One that has not answered yet hangs: it is not asked again meanwhile. */
  async measure(): Promise<void> {
    if (this.#asked) return;
    this.#asked = true;
    try {
      const size = await native().storage.measure(this.#source.store);
      if (this.#closed) return;
      if (size !== this.#size) this.#resized(size);
      this.#unsized = false;
    } catch (err) {
      // a device that is gone keeps its last size: requests fail, and say so
      if (!this.#unsized && !this.#closed) this.#log(`${printable(this.#source.name)}: its size cannot be read: ${reason(err)}`);
      this.#unsized = true;
    } finally {
      this.#asked = false;
    }
  }

  #resized(size: number): void {
    this.#size = size;
    this.#log(`${printable(this.#source.name)} has ${size} bytes now`);
    for (const session of this.#sessions) this.#tell(session);
  }

  #tell(session: BackEndSession): void {
    if (!session.running) {
      this.#untold.add(session);
      return;
    }
    this.#untold.delete(session);
    if (!session.back || session.back.closed || !session.has('CONFIG')) return;
    session.back.request('BACKEND_CONFIG_CHANGE_MSG', {}).then(
      (status) => status !== 0n && this.#log(`the front-end refuses the new size: status ${status}`),
      (err: Error) => this.#log(`the front-end is not told of the new size: ${err.message}`),
    );
  }

  close(): void {
    this.#closed = true;
    clearInterval(this.#timer);
  }
}
