import { CqeFlag } from '../abi.js';
import type { Request } from '../request/request.js';
import type { Ring } from './ring.js';

/** One completion of a multishot request. */
export interface Shot {
  /** Bytes, a descriptor, or -errno. */
  result: number;
  /** CqeFlag.* */
  flags: number;
}

/** A request that completes again and again, as a queue that one reader empties. */
export class Multishot {
  readonly #ring: Ring;
  readonly #token: number;
  readonly #signal: AbortSignal | undefined;
  #shots: Shot[] = [];
  #ended = false;
  #wake = (): void => {};

  /** Queues the request. @param arrived is told of each completion before it waits to be taken @throws as Ring.push() */
  constructor(ring: Ring, request: Request, signal?: AbortSignal, arrived?: (shot: Shot) => void) {
    signal?.throwIfAborted();
    this.#ring = ring;
    this.#signal = signal;
    this.#token = ring.push(request, (result, flags) => {
      const shot = { result, flags };
      arrived?.(shot);
      this.#shots.push(shot);
      if (!(flags & CqeFlag.more)) {
        this.#ended = true;
        signal?.removeEventListener('abort', this.#cancel);
      }
      this.#wake();
    });
    signal?.addEventListener('abort', this.#cancel, { once: true });
  }

  readonly #cancel = (): void => this.#ring.cancel(this.#token);

  /** The next completion; undefined behind the last. @throws the reason of the signal, once everything that came before has been taken */
  async next(): Promise<Shot | undefined> {
    for (;;) {
      const shot = this.#shots.shift();
      if (shot !== undefined && !(this.#signal?.aborted && shot.result === -125)) return shot;
      if (shot === undefined && this.#ended) {
        this.#signal?.throwIfAborted();
        return undefined;
      }
      if (shot === undefined)
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
    }
  }

  /** Ends the request if it has not, and returns the completions that nobody took. */
  async stop(): Promise<Shot[]> {
    if (!this.#ended) this.#cancel();
    while (!this.#ended)
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    const left = this.#shots;
    this.#shots = [];
    return left;
  }
}
