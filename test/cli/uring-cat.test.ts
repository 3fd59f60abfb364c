import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import { plainEnv, program } from '../support/cli.js';
import { Workspace } from '../support/uring.js';

// Large files leave from descriptor to descriptor: to every kind of output, the same bytes as cat(1).
const work = new Workspace();
afterAll(() => work.end());
const large = (seed: number, size: number): Buffer => Buffer.alloc(size, `${seed} of a large file, `);
const inputs: [string, Buffer][] = [
  ['small', Buffer.from('small\n')],
  ['a', large(1, 5_000_003)],
  ['empty', Buffer.alloc(0)],
  ['border', large(2, 65_536)],
  ['b', large(3, 300_000)],
  ['c', large(4, 65_537)],
];
const whole = Buffer.concat(inputs.map(([, bytes]) => bytes));
beforeAll(() => {
  for (const [name, bytes] of inputs) fs.writeFileSync(work.path(name), bytes);
});
const names = inputs.map(([name]) => name);
const run = (script: string) =>
  spawnSync('bash', ['-c', script], {
    cwd: work.dir,
    env: plainEnv({ V: `${process.execPath} ${program} uring cat` }),
    maxBuffer: 1 << 28,
  });

describe.each(['uring', 'sync'])('--engine %s', (engine) => {
  const cat = (rest: string) => run(`$V --engine ${engine} ${names.join(' ')} ${rest}`);

  test('to a pipe, a slow one, a file, the end of a file, /dev/null', () => {
    const piped = cat('');
    expect([piped.status, piped.stdout.equals(whole), String(piped.stderr)]).toEqual([0, true, '']);
    const slow = cat('| (sleep 0.2; cat)');
    expect([slow.status, slow.stdout.equals(whole)]).toEqual([0, true]);
    expect(cat('>out').status).toBe(0);
    expect(fs.readFileSync(work.path('out')).equals(whole)).toBe(true);
    expect(cat('>>out').status).toBe(0);
    expect(fs.readFileSync(work.path('out')).equals(Buffer.concat([whole, whole]))).toBe(true);
    fs.writeFileSync(work.path('middle'), Buffer.alloc(whole.length + 10, '-'));
    expect(cat('1<>middle').status).toBe(0);
    expect(fs.readFileSync(work.path('middle')).equals(Buffer.concat([whole, Buffer.alloc(10, '-')]))).toBe(true);
    expect(cat('>/dev/null').status).toBe(0);
  });

  test('a non-blocking pipe, whose reader rests', async () => {
    const [reader, writer] = work.pipe();
    const child = spawn(process.execPath, [program, 'uring', 'cat', '--engine', engine, ...names], {
      cwd: work.dir,
      env: plainEnv(),
      stdio: ['ignore', work.open(`/proc/self/fd/${writer}`, fs.constants.O_WRONLY | fs.constants.O_NONBLOCK), 'inherit'],
    });
    const ended = once(child, 'exit');
    await new Promise((resolve) => setTimeout(resolve, 100));
    const got: Buffer[] = [];
    for (let size = 0; size < whole.length; size += got.at(-1)!.length)
      got.push(
        await new Promise<Buffer>((resolve, reject) => {
          const bytes = Buffer.alloc(1 << 20);
          fs.read(reader, bytes, 0, bytes.length, null, (err, n) => (err ? reject(err) : resolve(bytes.subarray(0, n))));
        }),
      );
    expect([(await ended)[0], Buffer.concat(got).equals(whole)]).toEqual([0, true]);
  });

  test('an output that fails: a closed pipe is 141, a full device 1 with its errno', () => {
    expect(String(run(`$V --engine ${engine} a a a | head -c 10 >/dev/null; echo \${PIPESTATUS[0]}`).stdout)).toBe('141\n');
    const full = cat('>/dev/full');
    expect([full.status, String(full.stderr)]).toEqual([1, expect.stringContaining('ENOSPC')]);
  });

  test('a signal ends it while its reader rests', async () => {
    const child = spawn(process.execPath, [program, 'uring', 'cat', '--engine', engine, 'a'], {
      cwd: work.dir,
      env: plainEnv(),
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await once(child.stdout!, 'readable');
    child.kill('SIGTERM');
    expect(await once(child, 'exit')).toEqual([143, null]);
  });

  test('without order, files are not mixed', () => {
    const { status, stdout } = run(`$V --engine ${engine} --no-ordered a b a b`);
    const [, a] = inputs[1]!;
    const [, b] = inputs[4]!;
    const orders = [[a, b, a, b], [a, a, b, b], [b, b, a, a], [a, b, b, a], [b, a, a, b], [b, a, b, a]]; // biome-ignore format: a list
    expect([status, orders.some((order) => stdout.equals(Buffer.concat(order)))]).toEqual([0, true]);
  });
});
