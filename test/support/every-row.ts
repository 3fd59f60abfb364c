/**
 * Whether a table runs whole. `npm test` runs the rows that each show a rule of their own; `npm run soak -- peers`, which sets
 * this, also those that repeat a rule with gigabytes of memory or with one more build.
 */
export const everyRow = process.env.VIOCTL_EVERY_ROW === '1';
