import { spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { plainEnv, program } from '../support/cli.js';
import { bundleFixture } from '../support/fixture.js';

const fixture = bundleFixture('spam');
afterAll(() => fixture.done());

/** Runs a shell pipeline in which `$V` is the program; prints each part's status through PIPESTATUS where asked. */
const sh = (script: string, env: Record<string, string> = {}) =>
  spawnSync('bash', ['-c', script], {
    encoding: 'utf8',
    env: plainEnv({ V: `${process.execPath} ${fixture.file} t`, ...env }),
    maxBuffer: 1 << 28,
    timeout: 60000,
  });

test('| head -1 ends the command at once with 141 and nothing on stderr', () => {
  const started = Date.now();
  for (const format of ['', '--ndjson', '--json']) {
    const lines = sh(`{ $V lines 50000000 ${format} | head -1; echo "\${PIPESTATUS[0]}"; } 2>&1`).stdout.trim().split('\n');
    expect(lines).toHaveLength(2);
    expect(lines[1]).toBe('141');
  }
  expect(Date.now() - started).toBeLessThan(20000);
});

test('a reader that sleeps 13 s gets every line', () => {
  expect(sh('$V lines 200000 2>/dev/null | (sleep 13; wc -l)').stdout.trim()).toBe('200001');
});

test('a million lines into a pipe, with flat memory', () => {
  const r = sh('$V lines 1000000 --ndjson | (sleep 1; wc -l)');
  expect(r.stdout.trim()).toBe('1000000');
  expect(Number(/rss (\d+)/.exec(r.stderr)![1])).toBeLessThan(160);
});

test('a million rows as one JSON document, also with flat memory', () => {
  const r = sh('$V lines 1000000 --json | tail -c 100');
  expect(r.stdout.trimEnd().endsWith(']}')).toBe(true);
  expect(Number(/rss (\d+)/.exec(r.stderr)![1])).toBeLessThan(160);
  expect(JSON.parse(sh('$V lines 3 --json').stdout)).toEqual({
    rows: [0, 1, 2].map((i) => ({ index: i, text: 'x'.repeat(60), address: `0x${(BigInt(i) << 40n).toString(16)}` })),
  });
  expect(JSON.parse(sh('$V lines 0 --json').stdout)).toEqual({ rows: [] });
});

test('/dev/full is one line and status 1', () => {
  const r = sh('$V lines 10 --quiet >/dev/full');
  expect(r).toMatchObject({ status: 1, stderr: 'vioctl: t lines: write error: ENOSPC (No space left on device)\n' });
});

test('closed stdin, closed stdout, closed stderr, C locale, no HOME, a folder that is gone', () => {
  expect(sh('$V lines 1 --quiet <&-').status).toBe(0);
  // started by node itself, which opens /dev/null in its place
  expect(sh('$V lines 1 --quiet >&-')).toMatchObject({ status: 0, stderr: '' });
  expect(sh('$V fail x 2>&-').status).toBe(3);
  expect(sh('LANG=C LC_ALL=C $V lines 1 --quiet').status).toBe(0);
  expect(sh('env -u HOME -u XDG_CACHE_HOME $V lines 1 --quiet').status).toBe(0);
  expect(sh('d=$(mktemp -d); cd "$d"; rmdir "$d"; $V lines 1 --quiet').status).toBe(0);
});

describe('a closed stdout of the installed program is a write error, as of cat(1)', () => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-closed-'));
  const file = path.join(dir, 'file');
  fs.writeFileSync(file, 'text\n');
  const link = path.join(dir, 'vioctl'); // as npm installs it
  fs.symlinkSync(program, link);
  afterAll(() => fs.rmSync(dir, { recursive: true, force: true }));
  const env = { V: link, F: file, PATH: `${path.dirname(process.execPath)}:${process.env.PATH}` };
  const commands = [
    ...['--version', '--help', 'uring probe --json', 'vhost-user list --json'],
    ...['uring sum "$F"', 'uring sum --json --engine sync "$F"', 'uring cat "$F"', 'uring cat --engine sync "$F"'],
  ];
  test.each(commands)('%s', (command) => {
    expect(sh(`exec "$V" ${command} >&-`, env)).toMatchObject({
      status: 1,
      stdout: '',
      stderr: expect.stringMatching(/write error: (EBADF|Bad file descriptor)/),
    });
    expect(sh(`exec "$V" ${command} >&- 2>&-`, env).status).toBe(1);
    // One that was given stays one, however it was opened.
    for (const open of ['>', '1<>']) expect(sh(`exec "$V" ${command} ${open}/dev/null`, env)).toMatchObject({ status: 0, stderr: '' });
    expect(fs.readFileSync(file, 'utf8')).toBe('text\n');
  });
  test('nothing to write is no error', () => {
    expect(sh('exec "$V" uring sync "$F" --quiet >&-', env)).toMatchObject({ status: 0, stderr: '' });
  });
  test.each(['sh', 'dash', 'bash', 'bash --posix', 'busybox sh', 'zsh'])('started by %s', (shell) => {
    if (sh(`command -v ${shell.split(' ')[0]}`).status !== 0) return;
    expect(sh(`exec ${shell} "$V" --version >&-`, env).status).toBe(1);
    expect(sh(`exec ${shell} "$V" uring sum --algorithm crc32c -- "$F" 'no such'`, env)).toMatchObject({
      status: 1,
      stdout: expect.stringContaining(file),
    });
  });
});

test('tables: aligned without box drawing in a pipe, headings can go', () => {
  expect(sh('$V lines 2').stdout).toBe(`INDEX  TEXT\n    0  ${'x'.repeat(60)}\n    1  ${'x'.repeat(60)}\n`);
  expect(sh('$V lines 1 --no-headings').stdout).toBe(`0  ${'x'.repeat(60)}\n`);
});

test('tables on a terminal have a frame and, unless NO_COLOR, bold headings', () => {
  const inTty = (env: string) => sh(`script -qec "env ${env} $V lines 1 --quiet" /dev/null </dev/null`).stdout;
  expect(inTty('TERM=xterm')).toMatch(/┌.*\x1b\[1mINDEX/s);
  expect(inTty('TERM=xterm NO_COLOR=1')).not.toContain('\x1b[');
  expect(inTty('TERM=dumb')).not.toContain('\x1b[');
});

test('lists from stdin: lines, NUL, a last item without separator, names with newlines, late input', () => {
  expect(sh("printf 'a b\\n\\nc' | $V echo").stdout).toBe('"a b"\n"c"\n');
  expect(sh("printf 'a\\nb\\0c\\0' | $V echo -0").stdout).toBe('"a\\nb"\n"c"\n');
  expect(sh("(sleep 1; printf 'late\\n') | $V echo").stdout).toBe('"late"\n');
});

test('arguments: -- passes words through, repeatable flags take one value each, two-word verbs', () => {
  expect(JSON.parse(sh('$V echo --tag a w1 --tag b - -- --json -h').stdout)).toEqual({
    words: ['w1', '-'],
    tag: ['a', 'b'],
    rest: ['--json', '-h'],
  });
  expect(JSON.parse(sh('$V two words w').stdout)).toEqual({ words: ['w'] });
  expect(sh('$V two').stdout).toContain('two words');
  expect(sh('$V two wrods')).toMatchObject({ status: 2, stderr: 'vioctl: no such verb: "two wrods"\nhint: did you mean "two words"?\n' });
});

test('errors: text with hint, JSON, errno, bug', () => {
  expect(sh('$V fail x')).toMatchObject({ status: 3, stdout: '', stderr: 'vioctl: t fail: refused: \\x1b[31mno\nhint: umount it\n' });
  expect(JSON.parse(sh('$V fail x --json').stderr)).toEqual({
    error: { code: 'MOUNTED', message: 'refused: \u001b[31mno', hint: 'umount it', details: { at: '0x1000000000000000' } },
  });
  expect(sh('$V fail errno')).toMatchObject({ status: 6, stderr: 'vioctl: t fail: EACCES (Permission denied)\n' });
  expect(sh('$V fail bug').stderr).not.toContain('    at ');
  expect(sh('VIOCTL_DEBUG=1 $V fail bug').stderr).toContain('    at ');
  expect(sh('$V fail late')).toMatchObject({ status: 3, stdout: 'partial\n' });
  expect(sh('$V fail undo')).toMatchObject({ status: 3, stderr: expect.stringMatching(/^undone\n/) });
  expect(sh('$V fail')).toMatchObject({ status: 2, stderr: 'vioctl: t fail: missing argument: HOW\nhint: vioctl t fail --help\n' });
  expect(sh('$V lines 1 --jsno')).toMatchObject({ status: 2, stderr: expect.stringContaining('hint: did you mean "--json"?') });
});

/** Starts the fixture, waits for its ready line, sends signals, returns how it ended. */
async function signalled(args: string[], signals: NodeJS.Signals[]) {
  const child = spawn(process.execPath, [fixture.file, 't', ...args], { env: plainEnv(), stdio: ['ignore', 'pipe', 'pipe'] });
  let stderr = '';
  child.stderr.on('data', (d) => (stderr += d));
  const end = new Promise<{ code: number | null; signal: string | null }>((resolve) =>
    child.on('close', (code, signal) => resolve({ code, signal })),
  );
  await new Promise((resolve) => child.stdout.once('data', resolve));
  for (const signal of signals) {
    child.kill(signal);
    await new Promise((resolve) => setTimeout(resolve, 150));
  }
  return { ...(await end), stderr };
}

test('signals: clean-ups run in reverse, the status tells the signal, servers end with 0, the second ends at once', async () => {
  expect(await signalled(['wait'], ['SIGINT'])).toEqual({ code: 130, signal: null, stderr: 'undone 2\nundone 1\n' });
  expect(await signalled(['wait'], ['SIGTERM'])).toMatchObject({ code: 143 });
  expect(await signalled(['serve'], ['SIGTERM'])).toEqual({ code: 0, signal: null, stderr: 'undone 2\nundone 1\n' });
  expect(await signalled(['serve'], ['SIGINT'])).toMatchObject({ code: 0 });
  expect(await signalled(['wait', '--slow'], ['SIGINT', 'SIGINT'])).toMatchObject({ code: 130, stderr: '' });
  const bad = await signalled(['serve', '--bad'], ['SIGTERM']);
  expect(bad).toMatchObject({ code: 8, stderr: 'undone 1\nvioctl: t serve: left: device 1\n' });
});

test('progress is for terminals only', () => {
  const log = path.join(fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-')), 'log');
  expect(sh(`$V lines 1 2>${log}; cat ${log}`).stdout).not.toContain('\r');
  fs.rmSync(path.dirname(log), { recursive: true });
});
