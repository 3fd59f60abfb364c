import type { RingOpenOptions } from '../../native/uring.js';
import { checkOptions, integer } from '../request/request.js';

export interface RingOptions {
  /** Entries of the submission queue, and the most that one batch carries. Default 256. */
  entries?: number;
  /** Entries of the completion queue; twice `entries` unless given. */
  cqEntries?: number;
  /** Set-up flags (Setup.*) without which the ring is not opened: IOPOLL, SQPOLL, R_DISABLED. */
  require?: number;
  /** Set-up flags to use if offered [SINGLE_ISSUER, DEFER_TASKRUN, TASKRUN_FLAG, SUBMIT_ALL and CLAMP]. */
  prefer?: number;
  /** Milliseconds without requests after which the thread of SQPOLL sleeps [1000, the kernel's default]. */
  idle?: number;
  /** Watch completions in the event loop (default). Without it, poll with submit() or wait(). */
  watch?: boolean;
  /** Enter through a registered ring descriptor if possible (default). */
  registered?: boolean;
}

/** The kernel's bound (IORING_MAX_ENTRIES, io_uring/io_uring.h). */
const maxEntries = 32768;
const maxU32 = 0xffff_ffff;
const knownOptions = ['entries', 'cqEntries', 'require', 'prefer', 'idle', 'watch', 'registered'] as const satisfies (keyof RingOptions)[];

/** The options as the addon takes them. @throws EINVAL for one that does not exist or does not fit */
export function openOptions(options: RingOptions): RingOpenOptions {
  checkOptions(options, knownOptions);
  const given: RingOpenOptions = { entries: integer('entries', options.entries ?? 256, 1, maxEntries) };
  given.batch = given.entries;
  if (options.cqEntries !== undefined) given.cqEntries = integer('cqEntries', options.cqEntries, 1, 2 * maxEntries);
  for (const key of ['require', 'prefer', 'idle'] as const)
    if (options[key] !== undefined) given[key] = integer(key, options[key], 0, maxU32);
  if (options.registered === false) given.registered = 0;
  return given;
}
