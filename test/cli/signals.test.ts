import { spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { plainEnv, program } from '../support/cli.js';
import { bundleFixture } from '../support/fixture.js';
import { serveTarget } from '../support/nvme-target.js';

const addon = path.resolve(program, '../../build/native/release/vioctl.node'); // also for the fixture, which lies elsewhere
const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-signals-'));
afterAll(() => fs.rmSync(dir, { recursive: true }));

/** Starts a command whose stdin is a pipe that stays open, signals it once it waits, and tells how it ended. */
async function interrupted(args: string[], signal: NodeJS.Signals, stdin = '', file = program) {
  const child = spawn(process.execPath, [file, ...args], {
    env: plainEnv({ VIOCTL_ADDON: addon }),
    stdio: ['pipe', 'pipe', 'pipe'],
    cwd: dir,
  });
  let stderr = '';
  child.stderr.on('data', (text) => (stderr += text));
  child.stdout.resume();
  const end = new Promise<number>((resolve) =>
    child.on('exit', (code, by) => resolve(code ?? 128 + (by === null ? 0 : os.constants.signals[by]))),
  );
  child.stdin.on('error', () => {});
  if (stdin !== '') child.stdin.write(stdin);
  await asleep(child.pid!);
  const started = performance.now();
  child.kill(signal);
  const late = setTimeout(() => child.kill('SIGKILL'), 10000);
  const status = await end;
  clearTimeout(late);
  return { status, stderr, quick: performance.now() - started < 5000 };
}

/** Waits until a thread of the process sleeps in the read of its stdin, or in a poll of one descriptor, as nvmf write does. */
async function asleep(pid: number): Promise<void> {
  for (let tries = 0; tries < 400; tries++) {
    for (const task of fs.readdirSync(`/proc/${pid}/task`)) {
      const call = fs.readFileSync(`/proc/${pid}/task/${task}/syscall`, 'utf8').split(' ');
      const read = { x64: '0', arm64: '63' }[process.arch as 'x64'];
      const poll = { x64: '7', arm64: '73' }[process.arch as 'x64'];
      if ((call[0] === read && call[1] === '0x0') || (call[0] === poll && call[2] === '0x1')) return;
    }
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  throw new Error(`process ${pid} does not read its stdin`);
}

test.each([
  ['uring sum', ['uring', 'sum'], 'part of a na'],
  ['uring cat', ['uring', 'cat', '-0'], ''],
  ['migration dump -', ['migration', 'dump', '-'], 'QEVM\0\0\0\x03\x07'],
  ['migration ram -', ['migration', 'ram', '-', '-o', '-'], ''],
  ['migration convert -', ['migration', 'convert', '-', '--to', 'mapped-ram', '-o', 'out'], 'QEVM\0\0\0\x03'],
  ['dma plan --reserved -', ['dma', 'plan', '--reserved', '-', 'a=4K'], '0x0 0x1 msi'],
])('%s that waits for its stdin ends by the first signal, without a word', async (_name, args, stdin) => {
  expect(await interrupted(args, 'SIGINT', stdin)).toEqual({ status: 130, stderr: '', quick: true });
  expect(await interrupted(args, 'SIGTERM', stdin)).toEqual({ status: 143, stderr: '', quick: true });
  expect(fs.readdirSync(dir).filter((name) => name.startsWith('out'))).toEqual([]);
});

test('nvmf write that waits for its stdin disconnects and ends by the first signal', async () => {
  const target = await serveTarget(['ram:4M']);
  try {
    const args = ['nvmf', 'write', '-s', String(target.port), '-n', target.nqn];
    expect(await interrupted(args, 'SIGINT', 'x'.repeat(9000))).toEqual({ status: 130, stderr: '', quick: true });
  } finally {
    expect(await target.stop()).toBe(0);
  }
});

test('a server that watches its stdin, as dma map does, ends cleanly by a signal', async () => {
  const fixture = bundleFixture('spam');
  try {
    expect(await interrupted(['t', 'serve', '--stdin'], 'SIGTERM', '', fixture.file)).toEqual({
      status: 0,
      stderr: 'undone 2\nundone 1\n',
      quick: true,
    });
  } finally {
    fixture.done();
  }
});

test('uring bench, which reads in the main thread, ends between two of its measurements', async () => {
  fs.writeFileSync(path.join(dir, 'data'), Buffer.alloc(1 << 20, 1));
  const child = spawn(process.execPath, [program, 'uring', 'bench', 'data', '--rounds', '1000'], { env: plainEnv(), cwd: dir });
  const end = new Promise((resolve) => child.on('exit', (code, by) => resolve(by ?? code)));
  const read = () => Number(/^rchar: (\d+)/m.exec(fs.readFileSync(`/proc/${child.pid}/io`, 'utf8'))?.[1]);
  while (child.exitCode === null && read() < 50 << 20) await new Promise((resolve) => setTimeout(resolve, 25));
  child.kill('SIGINT');
  const late = setTimeout(() => child.kill('SIGKILL'), 5000);
  expect([130, 7]).toContain(await end); // 7: no io_uring here
  clearTimeout(late);
});
