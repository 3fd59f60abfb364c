import { setTimeout as sleep } from 'node:timers/promises';
import { type ExitStatus, VioError } from '../../common/errors.js';

/** Milliseconds that a run waits for another one that changes the same device, unless told otherwise. */
export const raceWait = 10_000;
/** Milliseconds between two looks. */
const lookAgain = 50;

/** Does work again while another run holds one of its devices (BUSY), for a time. @throws what the work throws */
export async function whileBusy<T>(wait: number, signal: AbortSignal | undefined, work: (again: boolean) => Promise<T>): Promise<T> {
  const deadline = performance.now() + wait;
  for (let again = false; ; again = true) {
    try {
      return await work(again);
    } catch (err) {
      const left = deadline - performance.now();
      if (!(err instanceof VioError) || err.code !== 'BUSY' || left <= 0) throw err;
      await sleep(Math.min(lookAgain, left), undefined, signal === undefined ? {} : { signal });
    }
  }
}

/** An item of a batch that failed; the others went on. */
export interface Failure {
  bdf: string;
  code: string;
  message: string;
  hint: string | undefined;
  exit: ExitStatus;
}

/** Works on items one by one; what fails does not keep the others from being done. @throws the signal's reason at once */
export async function oneByOne<T>(
  bdfs: readonly string[],
  signal: AbortSignal | undefined,
  work: (bdf: string) => Promise<T>,
): Promise<{ done: T[]; failed: Failure[] }> {
  const done: T[] = [];
  const failed: Failure[] = [];
  for (const bdf of bdfs) {
    signal?.throwIfAborted();
    try {
      done.push(await work(bdf));
    } catch (err) {
      if (!(err instanceof VioError) || signal?.aborted) throw err;
      failed.push({ bdf, code: err.code, message: err.message, hint: err.hint, exit: err.exit });
    }
  }
  return { done, failed };
}

/** The error of a batch of which items failed: their own status if they agree, 8 if one could not be restored, else 1. */
export function batchError(failed: readonly Failure[], count: number): VioError {
  const exits = new Set(failed.map(({ exit }) => exit));
  const exit = exits.has(8) ? 8 : exits.size === 1 ? [...exits][0]! : 1;
  const [first] = failed;
  const more = failed.length > 1 ? failed.map(({ message }) => message).join('; ') : first!.message;
  return new VioError(count === 1 ? more : `${failed.length} of ${count} devices failed: ${more}`, {
    code: failed.length === 1 ? first!.code : 'SOME_FAILED',
    exit,
    hint: first!.hint,
    details: { failed: failed.map(({ bdf, code, message }) => ({ bdf, code, message })) },
  });
}
