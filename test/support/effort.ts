/**
 * How much a long test does: a slice with all the other tests, everything with VIOCTL_WHOLE=1, which is what
 * `npm run soak -- tests` sets.
 */
export const effort = (slice: number, everything: number): number => (process.env.VIOCTL_WHOLE === '1' ? everything : slice);
