import { spawn } from 'node:child_process';
import { VioError, wrap } from '../common/errors.js';

/**
 * Runs a command of the user's in a shell and waits for its end. What it prints goes to our stderr.
 * @throws VioError when it cannot be started or does not end with 0
 */
export function shell(command: string, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn('sh', ['-c', command], { stdio: ['ignore', 2, 2], signal });
    child.once('error', (err) => reject(wrap(`run "${command}"`, err)));
    child.once('exit', (status, by) => {
      if (status === 0) resolve();
      else reject(new VioError(`"${command}" ended with ${by ?? status}`, { code: 'ECHILD' }));
    });
  });
}
