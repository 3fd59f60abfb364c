import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { codeOf, Exit, usage, VioError, wrap } from '../../common/errors.js';

/**
 * Shows a manual page of the package with man(1), which pages on a terminal and prints elsewhere.
 * @param words of the command; none: vioctl(1)
 * @returns the exit status of man
 * @throws VioError 127 if man is not installed
 */
export function showManual(words: readonly string[], home: string): number {
  const name = ['vioctl', ...words].join('-');
  const file = path.resolve(home, 'man', `${name}.1`);
  if (!existsSync(file)) throw usage(`no manual page: ${name}`, `vioctl ${words[0] ?? ''} --help`.replace('  ', ' '));
  const { error, status } = spawnSync('man', [file], { stdio: 'inherit' });
  if (error && codeOf(error) === 'ENOENT')
    throw new VioError('man is not installed', { code: 'ENOENT', exit: Exit.notFound, hint: `vioctl ${words.join(' ')} --help` });
  if (error) throw wrap('man', error);
  return status ?? Exit.failed;
}
