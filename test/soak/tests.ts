/** Every test, and all that each of them can do: `npm run soak -- tests [arguments of jest]`, for example a file's name. */
import { spawnSync } from 'node:child_process';

const { status } = spawnSync('npm', ['test', '--', ...process.argv.slice(1)], {
  stdio: 'inherit',
  env: { ...process.env, VIOCTL_WHOLE: '1' },
});
process.exitCode = status ?? 1;
