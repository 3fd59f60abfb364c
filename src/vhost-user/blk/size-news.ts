import type { BackEndSession, SessionHooks } from '../backend/session.js';

/** Tells the front-ends of a disk that it has another size. A back-end says nothing while its device is stopped. */
export class SizeNews {
  readonly #log: (text: string) => void;
  readonly #sessions = new Set<BackEndSession>();
  /** Sessions that have not heard of the last change. */
  readonly #untold = new Set<BackEndSession>();

  constructor(log: (text: string) => void) {
    this.#log = log;
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

  /** All front-ends, each as soon as its device runs. */
  tell(): void {
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
}
