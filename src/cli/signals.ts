import os from 'node:os';
import { end } from './exit.js';

type Undo = () => void | Promise<void>;

/**
 * The life of one command: whoever needs an orderly end asks for `signal` or `defer`s a clean-up; only then are SIGINT,
 * SIGTERM and SIGHUP caught. The first signal aborts, clean-ups run in reverse order, and the program ends as by
 * that signal; a second one ends it at once.
 */
export class Lifetime {
  readonly #server: boolean;
  readonly #undos: Undo[] = [];
  #aborter: AbortController | undefined;
  #caught: NodeJS.Signals | undefined;
  #listening = false;

  constructor(server: boolean) {
    this.#server = server;
  }

  get #abort(): AbortController {
    this.#aborter ??= new AbortController(); // when somebody asks: Node loads what it needs for one then
    return this.#aborter;
  }

  /** Aborted by the first SIGINT, SIGTERM or SIGHUP. */
  get signal(): AbortSignal {
    this.#listen();
    return this.#abort.signal;
  }

  /** Runs `undo` at the end of the command: normal, failed, or by a signal. */
  defer(undo: Undo): void {
    this.#listen();
    this.#undos.push(undo);
  }

  /** As defer, for what the kernel undoes as well when a process dies (descriptors): signals are not caught for it. */
  release(undo: Undo): void {
    this.#undos.push(undo);
  }

  /** Ends the command as a signal would, from inside (a server told to stop by its control socket). */
  stop(): void {
    this.#abort.abort(new Error('stopped'));
  }

  /** Resolves when the command is told to end. */
  ended(): Promise<void> {
    const { signal } = this;
    if (signal.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      const keep = setInterval(() => {}, 1 << 30); // a signal listener alone does not keep the loop alive
      signal.addEventListener(
        'abort',
        () => {
          clearInterval(keep);
          resolve();
        },
        { once: true },
      );
    });
  }

  /** Runs the clean-ups, last first; every one runs, the first failure is thrown. */
  async end(): Promise<void> {
    let failure: unknown;
    for (let undo = this.#undos.pop(); undo; undo = this.#undos.pop()) {
      try {
        await undo();
      } catch (err) {
        failure ??= err;
      }
    }
    if (failure !== undefined) throw failure;
  }

  /** Exit status that the caught signal asks for; undefined where none came or a server was asked to end. */
  get status(): number | undefined {
    return this.#caught === undefined || this.#server ? undefined : 128 + os.constants.signals[this.#caught];
  }

  get interrupted(): boolean {
    return this.#caught !== undefined;
  }

  #listen(): void {
    if (this.#listening) return;
    this.#listening = true;
    for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
      process.on(name, () => {
        if (this.#caught !== undefined) end(128 + os.constants.signals[name], true);
        this.#caught = name;
        this.#abort.abort(new Error(name));
      });
    }
  }
}
