import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { bundleFixture } from '../../support/fixture.js';
import { eventually } from '../../support/wait.js';

let fixture: ReturnType<typeof bundleFixture>;
let dir: string;
beforeAll(() => {
  fixture = bundleFixture('supervise');
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-supervise-'));
});
afterAll(() => {
  fixture.done();
  fs.rmSync(dir, { recursive: true });
});

/** Runs a program under supervision to its end. */
const run = (argv: string[], env: Record<string, string> = {}) =>
  spawnSync(process.execPath, [fixture.file, ...argv], { encoding: 'utf8', env: { ...process.env, ...env }, timeout: 90_000 });

/** Starts one that says "up"; resolves then. */
async function start(script: string): Promise<{ child: ChildProcess; out: () => string; ended: Promise<number | null> }> {
  const child = spawn(process.execPath, [fixture.file, 'sh', '-c', script], { stdio: ['ignore', 'pipe', 'pipe'] });
  let out = '';
  child.stderr!.resume();
  const ended = new Promise<number | null>((resolve) => child.once('close', (code) => resolve(code)));
  await new Promise<void>((resolve, reject) => {
    child.stdout!.on('data', (data: Buffer) => {
      out += data.toString();
      if (out.includes('up\n')) resolve();
    });
    child.once('exit', (code) => reject(new Error(`ended with ${code}`)));
  });
  return { child, out: () => out, ended };
}

test.each([
  ['exit 0', 0],
  ['exit 42', 42],
  ['exit 255', 255],
  ['kill -TERM $$', 143],
  ['kill -KILL $$', 137],
  ['kill -SEGV $$', 139],
])('the status of "%s" is %i', (script, status) => {
  expect(run(['sh', '-c', script])).toMatchObject({ status, stderr: `status ${status}\n` });
});

test('127 for a program that is not there, 126 for one that may not be run', () => {
  const missing = run(['no-such-program']);
  expect(missing).toMatchObject({ status: 127, stderr: 'failed run no-such-program: ENOENT (No such file or directory)\n' });
  const file = path.join(dir, 'plain');
  fs.writeFileSync(file, 'text');
  const plain = run([file]);
  expect(plain).toMatchObject({ status: 126, stderr: `failed run ${file}: EACCES (Permission denied)\n` });
  expect(run([dir])).toMatchObject({ status: 126 });
  // A script without "#!" starts as a shell starts it: the search must not be stricter than the shell.
  fs.writeFileSync(path.join(dir, 'script'), 'exit 5', { mode: 0o755 });
  expect(run(['script'], { PATH: `/nosuch:${dir}:${process.env.PATH}` })).toMatchObject({ status: 5 });
});

test('words arrive as they are', () => {
  const words = ['a b', '', '$HOME', '`id`', "it's", '-c', 'über\n2'];
  const { status, stdout } = run([process.execPath, '-e', 'console.log(JSON.stringify(process.argv.slice(1)))', '--', ...words]);
  expect(status).toBe(0);
  expect(JSON.parse(stdout)).toEqual(words);
});

test("the program's own LISTEN_PID, the descriptor as number 3, and default signals", () => {
  const file = path.join(dir, 'passed');
  fs.writeFileSync(file, 'passed on');
  const script = 'echo $LISTEN_PID $$; cat <&3; echo; grep -E "Sig(Blk|Ign)" /proc/self/status';
  const { status, stdout } = run(['sh', '-c', script], { FDS: file, LISTEN_PID: '1' });
  expect(status).toBe(0);
  const [pids, text, ...signals] = stdout.trim().split('\n');
  expect(new Set(pids!.split(' ')).size).toBe(1);
  expect(text).toBe('passed on');
  expect(signals).toEqual([`SigBlk:\t${'0'.repeat(16)}`, `SigIgn:\t${'0'.repeat(16)}`]);
});

test.each(['SIGHUP', 'SIGINT', 'SIGTERM', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2'] as const)('%s goes to the program', async (signal) => {
  const name = signal.slice(3);
  const { child, out, ended } = await start(`trap 'echo got ${name}; exit 9' ${name}; echo up; while :; do sleep 0.05; done`);
  child.kill(signal);
  expect(await ended).toBe(9);
  expect(out()).toBe(`up\ngot ${name}\n`);
});

test('a program that a forwarded signal ends gives 128 + N; one that ignores it goes on', async () => {
  const dies = await start('echo up; exec sleep 100');
  dies.child.kill('SIGTERM');
  expect(await dies.ended).toBe(143);
  const stays = await start("trap '' TERM; echo up; sleep 0.5; exit 3");
  stays.child.kill('SIGTERM');
  expect(await stays.ended).toBe(3);
});

test('a signal before the program has started is not lost', async () => {
  // sent as soon as the supervisor has its handlers: the program is started in the same turn
  const child = spawn(process.execPath, [fixture.file, 'sh', '-c', 'exec sleep 100'], { stdio: 'ignore' });
  const caught = () => {
    const mask = /^SigCgt:\t([0-9a-f]+)$/m.exec(fs.readFileSync(`/proc/${child.pid}/status`, 'utf8'))?.[1] ?? '0';
    return (BigInt(`0x${mask}`) >> BigInt(os.constants.signals.SIGHUP - 1)) & 1n;
  };
  const ended = new Promise((resolve) => child.once('exit', (code, signal) => resolve(code ?? signal)));
  await eventually(() => caught() !== 0n);
  child.kill('SIGHUP'); // SIGTERM is caught by Node itself, which would not tell
  expect(await ended).toBe(129);
});
