import { type ChildProcess, spawn } from 'node:child_process';
import os from 'node:os';
import { Interrupted } from '../common/errors.js';
import { isTerminal } from '../common/terminal.js';
import { requireProgram } from './program.js';

/** A program to run under supervision. */
export interface Child {
  argv: readonly string[];
  env: NodeJS.ProcessEnv;
  /** Become 3, 4, … in the program. */
  fds: readonly number[];
  user?: { uid: number; gid: number } | undefined;
}

const forwarded = ['SIGHUP', 'SIGTERM', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2', 'SIGWINCH', 'SIGCONT'] as const;

const ending = ['SIGHUP', 'SIGINT', 'SIGTERM'] as const;

/**
 * Does work that the first SIGHUP, SIGINT or SIGTERM aborts; a second one ends the process. Afterwards signals are free again
 * for the program that is supervised next.
 * @returns what the work returns, or 128 + signal if the work ended because of one
 */
export async function interruptible<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T | number> {
  const control = new AbortController();
  let caught: NodeJS.Signals | undefined;
  const stop = () => {
    for (const name of ending) process.off(name, abort);
  };
  const abort = (name: NodeJS.Signals) => {
    stop();
    caught = name;
    control.abort(new Interrupted(name));
  };
  for (const name of ending) process.on(name, abort);
  try {
    return await work(control.signal);
  } catch (err) {
    // waits that the signal cut short end with Node's AbortError
    if (caught === undefined || !(err instanceof Interrupted || (err instanceof Error && err.name === 'AbortError'))) throw err;
    return 128 + os.constants.signals[caught];
  } finally {
    stop();
  }
}

/**
 * Runs a program and waits for its end. Signals that come meanwhile go to it; a terminal's own go to both anyway. A shell
 * in between sets LISTEN_PID, which only the program's own process knows (sd_listen_fds(3)), and is then replaced.
 * @returns its exit status, or 128 + signal
 * @throws VioError with status 127 if there is no such program, 126 if it cannot be run
 */
export async function supervise({ argv, env, fds, user }: Child): Promise<number> {
  requireProgram(argv[0]!, env.PATH);
  return new Promise((resolve, reject) => {
    const script = 'LISTEN_PID=$$; export LISTEN_PID; exec "$@"';
    // Before the start: a signal that comes while the program starts must not end us and leave it alone.
    let child: ChildProcess | undefined;
    const early: NodeJS.Signals[] = [];
    const forward = (signal: NodeJS.Signals) => (child ? child.kill(signal) : early.push(signal));
    // SIGINT of a terminal has reached the program too; one that was sent to us alone has not.
    const interrupt = isTerminal(0) ? () => {} : forward;
    for (const signal of forwarded) process.on(signal, forward);
    process.on('SIGINT', interrupt);
    const stop = () => {
      for (const signal of forwarded) process.off(signal, forward);
      process.off('SIGINT', interrupt);
    };
    child = spawn('/bin/sh', ['-c', script, 'sh', ...argv], { env, stdio: ['inherit', 'inherit', 'inherit', ...fds], ...user });
    for (const signal of early) child.kill(signal);
    child.on('error', (err) => {
      stop();
      reject(err);
    });
    child.on('exit', (code, signal) => {
      stop();
      resolve(code ?? 128 + (signal === null ? 0 : os.constants.signals[signal]));
    });
  });
}
