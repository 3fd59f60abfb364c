import { printable } from '../../common/escape.js';
import { native } from '../../native/index.js';
import { lostText, type Source } from '../../storage/open.js';
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
  readonly #timer: NodeJS.Timeout;
  #size: number;
  #lost = false;
  #unsized = false;

  constructor(source: Source, log: (text: string) => void) {
    this.#source = source;
    this.#log = log;
    this.#size = native().storage.size(source.store);
    this.#timer = setInterval(() => this.look(), PERIOD);
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

  look(): void {
    const { store, name } = this.#source;
    const code = native().storage.syncError(store);
    if (code !== undefined && !this.#lost) this.#log(lostText(name, code));
    this.#lost = code !== undefined;
    try {
      const size = native().storage.refresh(store);
      if (size !== this.#size) this.#resized(size);
      this.#unsized = false;
    } catch (err) {
      // a device that is gone keeps its last size: requests fail, and say so
      if (!this.#unsized) this.#log(`${printable(name)}: its size cannot be read: ${(err as Error).message}`);
      this.#unsized = true;
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
    clearInterval(this.#timer);
  }
}
