import { Exit, VioError } from '../../common/errors.js';
import type { Session } from '../session/session.js';

/** One thing that a self-test proved. */
export interface Check {
  name: 'identity' | 'dma to device' | 'dma from device' | 'interrupt';
  ok: boolean;
  detail: string;
}

/** Waits until done() says so. @throws VioError (124) */
export async function until(what: string, milliseconds: number, done: () => boolean): Promise<void> {
  const deadline = performance.now() + milliseconds;
  while (!done()) {
    if (performance.now() > deadline)
      throw new VioError(`${what}: no answer in ${milliseconds / 1000} s`, { code: 'ETIMEDOUT', exit: Exit.timeout });
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

/** Counts interrupts; `next` resolves at the next one, or with false after a time. */
export class Interrupts {
  count = 0;
  readonly #listener: { close(): void };
  #wake: (() => void) | undefined;

  constructor(session: Session, index: number) {
    this.#listener = session.listen(index, 1, (_vector, times) => {
      this.count += times;
      this.#wake?.();
    });
  }

  async next(milliseconds: number): Promise<boolean> {
    if (this.count === 0) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, milliseconds);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
      this.#wake = undefined;
    }
    const came = this.count > 0;
    this.count = 0;
    return came;
  }

  close(): void {
    this.#listener.close();
  }
}
