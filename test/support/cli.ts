import { type SpawnSyncReturns, spawnSync } from 'node:child_process';
import path from 'node:path';

/** The program as users start it: the bundle behind bin/run.js. */
export const program = path.resolve(__dirname, '..', '..', 'bin', 'run.js');

/** Environment of a plain script: nothing inherited that changes output or start-up. */
export const plainEnv = (extra: Record<string, string> = {}): NodeJS.ProcessEnv => {
  const { NODE_EXTRA_CA_CERTS: _c, FORCE_COLOR: _f, NO_COLOR: _n, VIOCTL_SYSROOT: _s, ...rest } = process.env;
  // script(1) runs its commands in $SHELL, and shells differ in what they say about jobs that end.
  return { ...rest, SHELL: '/bin/bash', ...extra };
};

/** Runs the real program and waits for its end. */
export function vioctl(
  args: string[],
  options: { env?: Record<string, string>; input?: string | Buffer; cwd?: string; timeout?: number } = {},
): SpawnSyncReturns<string> {
  return spawnSync(process.execPath, [program, ...args], {
    encoding: 'utf8',
    env: plainEnv(options.env),
    maxBuffer: 1 << 28,
    timeout: options.timeout ?? 90_000,
    ...(options.input !== undefined && { input: options.input }),
    ...(options.cwd !== undefined && { cwd: options.cwd }),
  });
}
