/** Who does the I/O of a file: io_uring, plain system calls, or `auto`, the better one that works here. The values of every `--engine`. */
export const engines = ['auto', 'uring', 'sync'] as const;
export type Engine = (typeof engines)[number];
/** Other spellings that are taken: the kernel's name. */
export const engineAliases: ReadonlyMap<string, Engine> = new Map([['io_uring', 'uring']]);

/** Busy-poll time of the threads of a server before they sleep, in µs: unless told otherwise, and at most. */
export const defaultSpin = 50;
export const maxSpin = 1_000_000;
