import { spawnSync } from 'node:child_process';
import { plainEnv, program } from './cli.js';

const quoted = (word: string) => `'${word.replaceAll("'", "'\\''")}'`;

/** Runs the program on a terminal of `columns` (script(1) makes it) and returns what appeared there, line by line and without colours. */
export function onTerminal(args: string[], columns: number, env: Record<string, string> = {}): string[] {
  const command = `stty cols ${columns} rows 40; ${[process.execPath, program, ...args].map(quoted).join(' ')}`;
  const { COLUMNS: _c, LC_ALL: _a, LC_CTYPE: _t, LANG: _l, ...rest } = plainEnv();
  const { stdout, error } = spawnSync('script', ['-qec', command, '/dev/null'], {
    encoding: 'utf8',
    env: { ...rest, TERM: 'xterm', LC_ALL: 'C.UTF-8', ...env },
    timeout: 90_000,
    input: '',
  });
  if (error) throw error;
  return stdout
    .replace(/\x1b\[[0-9;?]*[a-zA-Z]/g, '')
    .replaceAll('\r', '')
    .trimEnd()
    .split('\n');
}
