import os from 'node:os';
import { codeOf, Interrupted } from '../common/errors.js';
import { native } from '../native/index.js';
import { end } from './exit.js';
import { hurryOutput, writeInBackground } from './output/stdio.js';

type Undo = () => void | Promise<void>;

/** Milliseconds that a command has to end by itself after the first signal. */
const grace = 300;

/**
 * The life of one command: whoever needs an orderly end asks for `signal` or `defer`s a clean-up; only then are SIGINT,
 * SIGTERM and SIGHUP caught. The first signal aborts, clean-ups run in reverse order, and the program ends as by
 * that signal; a second one ends it at once. SIGHUP never ends a server: it comes when a terminal goes, and from
 * `systemctl reload`.
 */
export class Lifetime {
  readonly #server: boolean;
  readonly #undos: Undo[] = [];
  #aborter: AbortController | undefined;
  #caught: NodeJS.Signals | undefined;
  #listening = false;
  #overdue: (() => void) | undefined;
  readonly #words = { text: '', file: '' };

  constructor(server: boolean) {
    this.#server = server;
    if (!server) return;
    process.on('SIGHUP', () => {});
    writeInBackground();
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

  /**
   * What remains to be done if a signal ends the program while JavaScript cannot run, or a second one comes: `text` goes to
   * stderr and `file` is removed. An empty string takes either back.
   */
  lastWords(words: { text?: string; file?: string }): void {
    Object.assign(this.#words, words);
    native().common.lastWords(this.#words.text, this.#words.file, this.#listening);
  }

  /** Ends the command as a signal would, from inside (a server told to stop by its control socket). */
  stop(): void {
    this.#tell(new Interrupted('stopped'));
  }

  /**
   * Resolves when a command that was told to end has had its time to do so: what it waits for, a peer or the kernel, may
   * never come. Does not make signals be caught.
   */
  overdue(): Promise<undefined> {
    return new Promise((resolve) => {
      this.#overdue = () => setTimeout(() => resolve(undefined), grace);
    });
  }

  /** Calls back for each SIGHUP that a server gets: its configuration may have changed. */
  onHangup(callback: () => void): void {
    process.on('SIGHUP', callback);
    this.#undos.push(() => void process.removeListener('SIGHUP', callback));
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

  /** Whether `err` is but the consequence of the signal, or of stop(): an operation that was cut short by it. */
  cutShort(err: unknown): boolean {
    if (this.#aborter === undefined || !this.#aborter.signal.aborted || !(err instanceof Error)) return false;
    // Node's own functions throw an AbortError with the reason as its cause; the addon's requests end with ECANCELED.
    return err instanceof Interrupted || err.name === 'AbortError' || codeOf(err) === 'ECANCELED';
  }

  #listen(): void {
    if (this.#listening) return;
    this.#listening = true;
    writeInBackground();
    for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
      if (name === 'SIGHUP' && this.#server) continue;
      process.on(name, () => {
        if (this.#caught !== undefined) end(128 + os.constants.signals[name], true);
        this.#caught = name;
        this.#tell(new Interrupted(name));
      });
    }
  }

  #tell(reason: Interrupted): void {
    hurryOutput();
    this.#abort.abort(reason);
    this.#overdue?.();
  }
}
