/** Milliseconds of a clock that never goes back; `performance` would load perf_hooks into every command that asks. */
export const now = (): number => Number(process.hrtime.bigint()) / 1e6;
