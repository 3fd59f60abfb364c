import { execFileSync, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { plainEnv, program } from '../support/cli.js';
import { skip, which } from '../support/skip.js';

/**
 * Start-up is kept short by opening few files (the bundle, the addon, a code cache); that is what this test counts, since
 * times on a shared machine tell little. The times themselves: test/bench/startup.ts.
 */
const root = path.resolve(program, '..', '..');

/** Project files that a run opens (Node's own and the system's left out). */
function opened(args: string[]): string[] {
  const log = path.join(fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-strace-')), 'log');
  const env = plainEnv({ XDG_CACHE_HOME: path.dirname(log) });
  for (const _ of [1, 2])
    execFileSync('strace', ['-f', '-e', 'trace=open,openat', '-o', log, process.execPath, program, ...args], { env, stdio: 'ignore' });
  const files = [...fs.readFileSync(log, 'utf8').matchAll(/open(?:at)?\((?:AT_FDCWD, )?"([^"]+)".* = \d+/g)].map((m) => m[1]!);
  fs.rmSync(path.dirname(log), { recursive: true });
  return files.filter((file) => file.startsWith(root));
}

test.each([
  ['--version', ['--version'], 3],
  ['--help', ['--help'], 4],
  ['a --json command with the addon', ['uring', 'probe', '--json'], 6],
])('%s opens few files', (_name, args, most) => {
  if (!which('strace')) return skip('start-up files', 'strace is missing');
  const files = opened(args);
  expect(files.length).toBeGreaterThan(0);
  expect({ files, tooMany: files.length > most }).toEqual({ files, tooMany: false });
});

const dist = path.join(root, 'dist');
test.each(fs.readdirSync(dist).filter((name) => /^vioctl.*\.cjs$/.test(name)))(
  '%s holds one group at most and nothing that no command runs',
  (name) => {
    const bundle = fs.readFileSync(path.join(dist, name), 'utf8');
    for (const unused of ['node_modules/ejs/', 'node_modules/debug/', 'node_modules/semver/', 'node_modules/ansis/'])
      expect(bundle.includes(`"${unused}`)).toBe(false);
    const held = new Set([...bundle.matchAll(/"src\/commands\/([^/]+)\//g)].map((m) => m[1]));
    const group = /^vioctl-(.*)\.cjs$/.exec(name)?.[1];
    expect([...held]).toEqual(group === undefined || group === 'zstd-worker' ? [] : [group]);
    expect(spawnSync(process.execPath, ['--check', path.join(dist, name)]).status).toBe(0);
  },
);
