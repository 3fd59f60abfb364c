import { spawnSync } from 'node:child_process';

/**
 * Whether tests do everything: loops of full length, tables with the rows that repeat a rule with more memory or one more
 * build, every kernel. `npm run soak -- tests` and `npm run soak -- lab` set it; else long tests do a slice.
 */
export const everything = process.env.VIOCTL_WHOLE === '1';

/** How often a long test does its work. */
export const effort = (slice: number, most: number): number => (everything ? most : slice);

/** Runs a script of package.json that runs tests, so that they do everything, with the arguments of this process. */
export function everythingOf(script: string): void {
  const { status } = spawnSync('npm', ['run', '-s', script, '--', ...process.argv.slice(1)], {
    stdio: 'inherit',
    env: { ...process.env, VIOCTL_WHOLE: '1' },
  });
  process.exitCode = status ?? 1;
}
