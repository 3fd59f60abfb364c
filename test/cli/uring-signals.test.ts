import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { constants } from 'node:os';
import { plainEnv, program, vioctl } from '../support/cli.js';
import { Workspace } from '../support/uring.js';

// Input that never ends, or is its own output: a signal ends every command, and nothing is read that was just written.
const work = new Workspace();
const children: ChildProcess[] = [];
afterAll(() => {
  for (const child of children) child.kill('SIGKILL');
  work.end();
});
const hole = work.path('hole');
fs.closeSync(fs.openSync(hole, 'w'));
fs.truncateSync(hole, 2 ** 40);
const fifo = work.path('fifo');
spawnSync('mkfifo', [fifo]);

const endless: [string, string[]][] = [
  ...['crc32c', 'md5', 'sha512', 'blake2b512', 'blake3'].map((a): [string, string[]] => [`sum ${a}`, ['sum', '-a', a, '/dev/zero', hole]]),
  ['sum of a file that is large', ['sum', hole]],
  ['sum of a FIFO that nobody writes to', ['sum', fifo]],
  ['sum that waits for names', ['sum']],
  ['cat of a device', ['cat', '/dev/zero']],
  ['cat of a file that is large', ['cat', hole]],
  ['cat of a FIFO', ['cat', '--no-ordered', fifo, hole]],
  ['cat that waits for names', ['cat']],
  ['sync that waits for names', ['sync']],
];
const all = (['uring', 'sync'] as const).flatMap((engine) => endless.map(([what, args]) => [what, engine, args] as const));

test.each(all)('%s, engine %s: SIGTERM and SIGINT', async (_, engine, [verb, ...args]) => {
  await Promise.all(
    (['SIGTERM', 'SIGINT'] as const).map(async (signal) => {
      const child = spawn(process.execPath, [program, 'uring', verb!, '--engine', engine, ...args], {
        env: plainEnv(),
        stdio: ['pipe', 'ignore', 'pipe'],
      });
      children.push(child);
      const ended = new Promise((resolve) => child.on('exit', (code, by) => resolve(by ?? code)));
      child.stderr.resume();
      await new Promise((resolve) => setTimeout(resolve, 700));
      expect(child.exitCode).toBe(null);
      child.kill(signal);
      expect([128 + constants.signals[signal], signal]).toContain(await ended); // by the signal itself: it has not begun
    }),
  );
});

describe.each(['uring', 'sync'])('cat into a file that is an input, engine %s', (engine) => {
  const lines = (count: number) => 'a line of a file that is read while it is written\n'.repeat(count);
  /** Runs `cat` with its output in a file opened like this, and other files around it. */
  const cat = (flags: string | number, names: string[], output: string) => {
    const fd = fs.openSync(output, flags);
    try {
      return spawnSync(process.execPath, [program, 'uring', 'cat', '--engine', engine, ...names], {
        cwd: work.dir,
        env: plainEnv(),
        stdio: ['ignore', fd, 'pipe', fd],
        encoding: 'utf8',
        timeout: 90_000,
      });
    } finally {
      fs.closeSync(fd);
    }
  };
  const o = work.path('o');
  const f = work.path('f');
  beforeEach(() => {
    fs.writeFileSync(o, 'other\n');
    fs.writeFileSync(f, lines(50_000));
    for (const name of ['hard', 'soft']) fs.rmSync(work.path(name), { force: true });
    fs.linkSync(f, work.path('hard'));
    fs.symlinkSync(f, work.path('soft'));
  });

  test.each([
    ['its name', () => f],
    ['a hard link', () => work.path('hard')],
    ['a symbolic link', () => work.path('soft')],
    ['a descriptor', () => '/proc/self/fd/1'],
    ['another descriptor', () => '/proc/self/fd/3'],
  ])('appending, the input under %s: said so, the other file goes out', (_, name) => {
    const before = fs.readFileSync(f, 'utf8');
    const { status, stderr } = cat('a', [name(), o], f);
    expect([status, fs.readFileSync(f, 'utf8') === `${before}other\n`]).toEqual([1, true]);
    expect(stderr).toMatch(/: input file is output file\n/);
  });

  test('behind another file, without O_APPEND', () => {
    const { status, stderr } = cat('r+', [o, f], f);
    expect([status, fs.readFileSync(f, 'utf8')]).toEqual([1, `other\n${lines(50_000).slice(6)}`]);
    expect(stderr).toMatch(/input file is output file/);
  });

  test('what cat(1) allows: an empty file, and one that is written over in place', () => {
    expect(cat('r+', [f], f).status).toBe(0);
    expect(fs.readFileSync(f, 'utf8')).toBe(lines(50_000));
    fs.truncateSync(f);
    expect(cat('a', [f], f).status).toBe(0);
    expect(fs.statSync(f).size).toBe(0);
  });
});

test('cat into a pipe and to /dev/null looks at no output', () => {
  fs.writeFileSync(work.path('g'), 'text');
  expect(vioctl(['uring', 'cat', work.path('g')])).toMatchObject({ status: 0, stdout: 'text' });
});
