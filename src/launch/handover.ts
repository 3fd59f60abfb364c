/** Programs that take over descriptors: their environment (sd_listen_fds(3)), and becoming one of them. */
import { native } from '../native/index.js';
import { cannotRun } from './program.js';

/** First descriptor that a program gets (SD_LISTEN_FDS_START). */
export const firstFd = 3;

/** What a program that takes over descriptors gets: its words, its environment, its descriptors in order. */
export interface HandOver {
  argv: string[];
  env: Record<string, string>;
  fds: number[];
}

/** The environment that names the descriptors of a program, in order from firstFd on. */
export const listenEnvironment = (names: readonly string[]): { LISTEN_FDS: string; LISTEN_FDNAMES: string } => ({
  LISTEN_FDS: String(names.length),
  LISTEN_FDNAMES: names.join(':'),
});

/**
 * Becomes the program: same process, no clean-up afterwards.
 * @throws VioError with what execve says: status 127 if there is no such program, 126 if it cannot be run
 */
export function execReplacing({ argv, env, fds }: HandOver, base: NodeJS.ProcessEnv, user?: { uid: number; gid: number }): never {
  const all = Object.entries({ ...base, ...env }).flatMap(([name, value]) =>
    value === undefined || name === 'LISTEN_PID' ? [] : [`${name}=${value}`],
  );
  try {
    return native().vfio.exec(argv[0]!, argv, all, fds, user);
  } catch (err) {
    throw cannotRun(argv[0]!, err);
  }
}
