import { native } from '../native/index.js';

let sleeping = 0;

/** Counts a read or write that libuv's pool may sleep in for ever (a terminal, a pipe whose other end rests). */
export async function mayBlock<T>(operation: Promise<T>): Promise<T> {
  sleeping++;
  try {
    return await operation;
  } finally {
    sleeping--;
  }
}

/**
 * Ends the process. exit(3) joins the threads of libuv's pool, so that one that sleeps in read(2) would keep a finished
 * program alive until somebody types a line: then _exit(2) is taken. All output must have left.
 */
export function end(status: number, force = false): never {
  if (force || sleeping > 0) {
    try {
      native().common.exitNow(status);
    } catch {
      // no addon on this machine: the ordinary way
    }
  }
  process.exit(status);
}
