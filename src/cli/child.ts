import { type ChildProcess, spawn } from 'node:child_process';
import { constants } from 'node:os';
import { codeOf, Exit, VioError, wrap } from '../common/errors.js';

/** What a child gets besides stdin, stdout and stderr. */
export interface ChildOptions {
  /** Descriptors that it inherits as 3, 4, … */
  fds: number[];
  env: NodeJS.ProcessEnv;
  /** Aborted by the signal that ends us: the child gets SIGTERM, and is waited for. */
  signal: AbortSignal;
}

/**
 * Runs a command with our stdin, stdout and stderr and further descriptors, and waits for its end.
 * @returns its exit status, 128 + N where signal N ended it
 * @throws ENOENT (127 in a shell; 1 here), EACCES
 */
export async function runChild(words: readonly string[], options: ChildOptions): Promise<number> {
  const [command, ...args] = words;
  if (command === undefined) throw new VioError('no command behind --', { code: 'USAGE', exit: Exit.usage });
  const child: ChildProcess = spawn(command, args, { stdio: ['inherit', 'inherit', 'inherit', ...options.fds], env: options.env });
  const stop = (): void => {
    child.kill('SIGTERM');
  };
  options.signal.addEventListener('abort', stop, { once: true });
  try {
    return await new Promise<number>((resolve, reject) => {
      child.once('error', (err) => reject(wrap(`run ${command}`, err, { ...(codeOf(err) === 'ENOENT' && { hint: 'is it in PATH?' }) })));
      child.once('exit', (code, signal) => resolve(code ?? 128 + (signal === null ? 0 : constants.signals[signal])));
    });
  } finally {
    options.signal.removeEventListener('abort', stop);
  }
}
