// The rules for commit messages, on messages that keep and that break each of them.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

const script = path.resolve('scripts/check-commits.mjs');

/** Runs the check over a repository that holds one commit with this message. */
function check(message: string) {
  const dir = mkdtempSync(path.join(tmpdir(), 'vioctl-commits-'));
  const git = (...args: string[]) =>
    spawnSync('git', ['-c', 'user.name=t', '-c', 'user.email=t@example.org', ...args], { cwd: dir, encoding: 'utf8' });
  try {
    expect(git('init', '-q').status).toBe(0);
    expect(git('commit', '-q', '--allow-empty', '--cleanup=verbatim', '-m', message).status).toBe(0);
    return spawnSync(process.execPath, [script, 'HEAD'], { cwd: dir, encoding: 'utf8' });
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

test.each([
  'nvmf: refuse images that are in use',
  'Add a check of commit messages',
  'nvmf, vhost-user: latch sync errors\n\nLinux reports a lost write-back once.',
  'Embed the schema',
])('%j is good', (message) => {
  expect(check(message)).toMatchObject({ status: 0, stderr: '' });
});

test.each([
  [`nvmf: ${'x'.repeat(55)}`, /61 characters/],
  ['nvmf: refuse this; allow that', /joins several/],
  ['Fixed the parser', /"Fixed": use the imperative/],
  ['uring: adding a promise form', /"adding": use the imperative/],
  ['Refuse it.', /full stop/],
  ['Refuse it\nbecause', /not blank/],
  [`Refuse it\n\n${'long '.repeat(30)}`, /line of the body/],
  ['fixup! Refuse it', /unfinished/],
  ['x', /does not say/],
])('%j is refused', (message, reason) => {
  const { status, stderr } = check(message);
  expect(status).toBe(1);
  expect(stderr).toMatch(reason);
});

test('a checkout without the history is left alone, and it says so', () => {
  const dir = mkdtempSync(path.join(tmpdir(), 'vioctl-commits-'));
  try {
    spawnSync('git', ['init', '-q'], { cwd: dir });
    expect(spawnSync(process.execPath, [script], { cwd: dir, encoding: 'utf8' })).toMatchObject({
      status: 0,
      stderr: expect.stringContaining('skipped'),
    });
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
});
