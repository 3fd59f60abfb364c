// Files that commands write: a name has its earlier content until the new one is whole, and nothing else remains.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { plainEnv, program, vioctl } from '../support/cli.js';
import * as m from '../support/migration.js';
import { serveTarget } from '../support/nvme-target.js';

let dir: string;
beforeEach(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-output-'));
});
afterEach(() => fs.rmSync(dir, { recursive: true }));
const at = (name: string) => path.join(dir, name);

/** The same words with the whole stream in a file elsewhere. */
const input = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-input-'));
afterAll(() => fs.rmSync(input, { recursive: true }));
const fromFile = (args: readonly string[]): string[] => args.map((word) => (word === '-' ? path.join(input, 'whole') : word));

const size = 64 * m.PAGE;
const pages = (from: number, to: number) =>
  Buffer.concat([
    ...Array.from({ length: to - from }, (_, i) => m.page((from + i) * m.PAGE, m.pattern(from + i), i === 0 ? 'pc.ram' : undefined)),
    m.EOS,
  ]);
const head = Buffer.concat([m.header(), m.configuration(), m.start(2, 'ram', 4, Buffer.concat([m.blockList(['pc.ram', size]), m.EOS]))]);
const half = Buffer.concat([head, m.part(2, pages(0, 32))]);
const whole = Buffer.concat([half, m.part(2, pages(32, 64)), m.end(2, m.EOS), m.eof]);
beforeAll(() => fs.writeFileSync(path.join(input, 'whole'), whole));

/** Ends a program that has begun to write, and tells how it ended and what it said. */
async function cut(child: ChildProcess, signal: NodeJS.Signals, before = () => {}): Promise<{ status: number; stderr: string }> {
  let stderr = '';
  child.stderr!.on('data', (text) => (stderr += text));
  const end = new Promise<number>((resolve) => child.on('close', (code, by) => resolve(code ?? 128 + os.constants.signals[by!])));
  const begun = () => fs.readdirSync(dir).some((name) => name.endsWith('.part') && fs.statSync(at(name)).size > 0);
  for (let tries = 0; !begun(); tries++) {
    if (tries > 800 || child.exitCode !== null) throw new Error(`nothing is written: ${stderr}`);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  before();
  child.kill(signal);
  return { status: await end, stderr };
}

describe.each([
  ['migration ram', ['migration', 'ram', '-', '-o', 'out']],
  ['migration convert', ['migration', 'convert', '-', '--to', 'mapped-ram', '-o', 'out']],
])('%s', (_name, args) => {
  const stalled = () => {
    const child = spawn(process.execPath, [program, ...args], { cwd: dir, env: plainEnv(), stdio: ['pipe', 'ignore', 'pipe'] });
    child.stdin.on('error', () => {});
    child.stdin.write(half);
    return child;
  };

  test.each([
    ['SIGINT', 130],
    ['SIGTERM', 143],
    ['SIGHUP', 129],
  ] as const)('%s leaves the earlier file and nothing else', async (signal, status) => {
    expect(await cut(stalled(), signal)).toEqual({ status, stderr: '' });
    expect(fs.readdirSync(dir)).toEqual([]);
    fs.writeFileSync(at('out'), 'earlier');
    expect((await cut(stalled(), signal)).status).toBe(status);
    expect(fs.readdirSync(dir)).toEqual(['out']);
    expect(fs.readFileSync(at('out'), 'utf8')).toBe('earlier');
  });

  test('a signal leaves nothing from the moment on in which there is a file', async () => {
    for (let i = 0; i < 10; i++) {
      const watcher = fs.watch(dir);
      const appears = once(watcher, 'change');
      const child = stalled();
      await appears;
      child.kill('SIGINT');
      watcher.close();
      await once(child, 'close');
      expect(fs.readdirSync(dir)).toEqual([]);
    }
  });

  test('SIGKILL leaves the earlier file, and a part that the next run does not mind', async () => {
    fs.writeFileSync(at('out'), 'earlier');
    await cut(stalled(), 'SIGKILL');
    expect(fs.readFileSync(at('out'), 'utf8')).toBe('earlier');
    expect(fs.readdirSync(dir).filter((name) => /^out\.\d+\.part$/.test(name))).toHaveLength(1);
    expect(vioctl(fromFile(args), { cwd: dir }).status).toBe(0);
    expect(fs.readFileSync(at('out')).length).toBeGreaterThan(size - 1);
  });

  test('a new file takes the place of an old one behind a link, with its mode', () => {
    fs.mkdirSync(at('there'));
    fs.writeFileSync(at('there/real'), 'earlier');
    fs.chmodSync(at('there/real'), 0o604);
    fs.symlinkSync('there/real', at('out'));
    expect(vioctl(fromFile(args), { cwd: dir })).toMatchObject({ status: 0, stderr: expect.not.stringContaining('error') });
    expect(fs.lstatSync(at('out')).isSymbolicLink()).toBe(true);
    expect(fs.statSync(at('there/real'))).toMatchObject({ mode: 0o100604 });
    expect(fs.readdirSync(at('there'))).toEqual(['real']);
    expect(fs.statSync(at('out')).size).toBeGreaterThanOrEqual(size);
  });

  test('memory of a guest is for its owner alone', () => {
    expect(vioctl(fromFile(args), { cwd: dir }).status).toBe(0);
    expect(fs.statSync(at('out')).mode & 0o777).toBe(0o600);
  });

  test('a folder that cannot be written is one error that names the output', () => {
    const { status, stderr } = vioctl(fromFile([...args.slice(0, -1), 'none/out']), { cwd: dir });
    expect({ status, stderr }).toEqual({ status: 1, stderr: expect.stringMatching(/^vioctl: migration \w+: none\/out: ENOENT .*\n$/) });
  });
});

test('what a damaged stream still has gets its name in ram, and not in convert', () => {
  fs.writeFileSync(at('out'), 'earlier');
  expect(vioctl(['migration', 'convert', '-', '--to', 'mapped-ram', '-o', 'out'], { cwd: dir, input: half }).status).toBe(5);
  expect(fs.readFileSync(at('out'), 'utf8')).toBe('earlier');
  expect(vioctl(['migration', 'ram', '-', '-o', 'out'], { cwd: dir, input: half }).status).toBe(5);
  expect(fs.readFileSync(at('out')).subarray(0, 8)).toEqual(m.pattern(0).subarray(0, 8));
  expect(fs.readdirSync(dir)).toEqual(['out']);
});

test.each([
  ['SIGINT', 130, 'data', 1],
  ['SIGTERM', 143, 'data', 1],
  ['SIGINT', 130, 'zeroes, which are holes,', 0],
] as const)('nvmf read --data ended by %s (%i) amid %s leaves the earlier file and nothing else', async (signal, status, _what, byte) => {
  const served = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-served-'));
  fs.writeFileSync(path.join(served, 'disk'), Buffer.alloc(64 << 20, byte));
  const target = await serveTarget([`${path.join(served, 'disk')},bps=4M`]);
  try {
    fs.writeFileSync(at('out'), 'earlier');
    const args = ['nvmf', 'read', '-s', String(target.port), '-n', target.nqn, '-d', 'out'];
    const child = spawn(process.execPath, [program, ...args], { cwd: dir, env: plainEnv(), stdio: ['ignore', 'ignore', 'pipe'] });
    // The target rests: reading does not end before the signal comes.
    expect(await cut(child, signal, () => target.child.kill('SIGSTOP'))).toMatchObject({ status });
    expect(fs.readdirSync(dir)).toEqual(['out']);
    expect(fs.readFileSync(at('out'), 'utf8')).toBe('earlier');
  } finally {
    await target.stop('SIGKILL');
    fs.rmSync(served, { recursive: true });
  }
});

test('nvmf read --data gives a whole file its name', async () => {
  const target = await serveTarget(['ram:1M']);
  try {
    const args = ['nvmf', 'read', '-s', String(target.port), '-n', target.nqn];
    expect(vioctl([...args, '-d', 'out'], { cwd: dir })).toMatchObject({ status: 0, stderr: '' });
    expect(fs.readdirSync(dir)).toEqual(['out']);
    expect(fs.statSync(at('out')).size).toBe(1 << 20);
    expect(vioctl([...args, '--data', '/dev/null'], { cwd: dir })).toMatchObject({ status: 0, stderr: '' });
  } finally {
    await target.stop();
  }
});
