import fs from 'node:fs';
import path from 'node:path';
import { codeOf, Exit, VioError, wrap } from '../common/errors.js';

/** Why a program cannot be started: status 127 if there is no such program, else 126. @param err of a search or of execve */
export const cannotRun = (name: string, err: unknown): VioError =>
  wrap(`run ${name}`, err, { exit: codeOf(err) === 'ENOENT' ? Exit.notFound : Exit.notExecutable });

/**
 * Looks for a program as execvp(3) does, so that the error is ours and not that of a shell in between.
 * @param search the folders of PATH; without it there is no search, and the start itself will tell
 * @throws VioError, see cannotRun
 */
export function requireProgram(name: string, search: string | undefined): void {
  if (search === undefined && !name.includes('/')) return;
  const candidates = name.includes('/') ? [name] : search!.split(':').map((folder) => path.join(folder || '.', name));
  let denied: unknown;
  let missing: unknown;
  for (const file of candidates) {
    try {
      fs.accessSync(file, fs.constants.X_OK);
      if (fs.statSync(file).isFile()) return;
      denied ??= Object.assign(new Error(), { code: 'EACCES' }); // what execve says of a folder
    } catch (err) {
      if (codeOf(err) === 'EACCES') denied ??= err;
      else missing ??= err;
    }
  }
  throw cannotRun(name, denied ?? missing);
}
