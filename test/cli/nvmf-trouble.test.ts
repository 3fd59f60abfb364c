/** Full disks, limits, signals and closed pipes: the target tells the truth and ends as it should. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { NvmOpcode, rwCmd, sqe } from '../../src/nvme/wire/index.js';
import { plainEnv, program, vioctl } from '../support/cli.js';
import { connectHost, nvmf, serveTarget } from '../support/nvme-target.js';
import { skip } from '../support/skip.js';
import { eventually } from '../support/wait.js';

let dir: string;
const children: ChildProcess[] = [];
beforeEach(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'nvmf-'));
});
afterEach(() => {
  for (const child of children.splice(0)) if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL');
  fs.rmSync(dir, { recursive: true, force: true });
});
const sparse = (name: string, size: number): string => {
  const file = path.join(dir, name);
  fs.writeFileSync(file, '');
  fs.truncateSync(file, size);
  return file;
};
const block = (opcode: number, slba: number, blocks: number, fua = 0): Buffer =>
  rwCmd.encode({ slba: BigInt(slba), nlb: blocks - 1, fua }, sqe.encode({ opcode, nsid: 1 }));

/** `nvmf serve` below a command of a shell, which ends with `exec "$@"`. */
async function serveBelow(script: string, source: string, ...args: string[]) {
  const child = spawn(
    'unshare',
    [
      '-rm',
      'sh',
      '-c',
      `${script}; exec "$@"`,
      'sh',
      process.execPath,
      program,
      'nvmf',
      'serve',
      source,
      '--listen',
      ':0',
      '--json',
      ...args,
    ],
    { env: plainEnv(), stdio: ['ignore', 'pipe', 'pipe'], cwd: dir },
  );
  children.push(child);
  let out = '';
  child.stdout!.on('data', (chunk: Buffer) => {
    out += chunk;
  });
  while (!out.endsWith('}\n') && child.exitCode === null) await new Promise((resolve) => setTimeout(resolve, 10));
  const { listen, subsystems } = JSON.parse(out) as { listen: { port: number }[]; subsystems: { nqn: string }[] };
  const host = await connectHost({ port: listen[0]!.port, nqn: subsystems[0]!.nqn }, { ioQueues: 1 });
  return { child, host };
}
const mayUnshare = spawnSync('unshare', ['-rm', 'true']).status === 0;

test.each([
  ['a full file system', 'mkdir -p fs && mount -t tmpfs -o size=1M none fs && truncate -s 8M fs/disk.img', 'fs/disk.img'],
  ['a limit on the size of files', 'truncate -s 1M disk.img; prlimit --pid $$ --fsize=524288', 'disk.img'],
])('%s: Capacity Exceeded for what does not fit, and everything else goes on', async (what, script, source) => {
  if (!mayUnshare) return skip(`nvmf serve on ${what}`, 'unshare -rm is not permitted here');
  const { child, host } = await serveBelow(script, source);
  const [queue] = host.queues;
  const megabyte = Buffer.alloc(1 << 20, 'x');
  const write = async (slba: number, blocks: number, fua = 0) => {
    const { status } = await queue!.send(block(NvmOpcode.write, slba, blocks, fua), { out: megabyte.subarray(0, blocks * 512) });
    return [status.sct, status.sc, status.dnr];
  };
  if (source === 'disk.img') {
    expect(await write(0, 1024)).toEqual([0, 0, false]);
    expect(await write(1024, 8, 1)).toEqual([0, 0x81, true]);
    expect(await write(512, 512)).toEqual([0, 0, false]);
  } else {
    const statuses: unknown[] = [];
    for (let i = 0; i < 4; i++) statuses.push(await write(i * 2048, 2048, i & 1));
    expect(statuses.at(-1)).toEqual([0, 0x81, true]);
    // what was stored stays, reads of holes work, and space that is given back can be used
    await queue!.run(block(NvmOpcode.read, 12000, 8), { into: Buffer.alloc(4096) });
    await queue!.run(rwCmd.encode({ slba: 0n, nlb: 16383, deac: 1 }, sqe.encode({ opcode: NvmOpcode.writeZeroes, nsid: 1 })));
    expect(await write(0, 1024)).toEqual([0, 0, false]);
    const into = Buffer.alloc(4096);
    await queue!.run(block(NvmOpcode.read, 0, 8), { into });
    expect(into.equals(Buffer.alloc(4096, 'x'))).toBe(true);
  }
  const errors = await host.getLog(1, 64);
  expect(errors.readUInt16LE(12) >> 1).toBe(0x4081);
  await host.disconnect();
  child.kill('SIGTERM');
  expect(await once(child, 'exit')).toEqual([0, null]);
});

test.each(['SIGTERM', 'SIGINT'] as const)(
  '%s while hosts write: what was acknowledged is there, status 0, nothing left',
  async (signal) => {
    const file = sparse('disk.img', 32 << 20);
    const control = path.join(dir, 'ctl');
    const target = await serveTarget([file, '--control', control, '--quiet']);
    const host = await connectHost(target, { ioQueues: 2, keepAlive: 5000 });
    const acknowledged = new Map<number, number>();
    let number = 0;
    let over = false;
    const lane = async (n: number) => {
      while (!over) {
        const at = n * 512 + (number % 512);
        const mine = ++number;
        await host.queues[n % 2]!.run(block(NvmOpcode.write, at * 8, 8), {
          out: Buffer.alloc(4096, Buffer.from(Uint32Array.of(mine).buffer)),
        });
        acknowledged.set(at, mine);
      }
    };
    // they end with the target
    const lanes = Array.from({ length: 16 }, (_, n) => lane(n).catch(() => {}));
    await new Promise((resolve) => setTimeout(resolve, 300));
    const started = performance.now();
    expect(await target.stop(signal)).toBe(0);
    expect(performance.now() - started).toBeLessThan(30_000);
    over = true;
    await Promise.all(lanes);
    host.close();
    expect(fs.existsSync(control)).toBe(false);
    const bytes = fs.readFileSync(file);
    expect(acknowledged.size).toBeGreaterThan(50);
    // a later write of the same block may have been done and not acknowledged
    for (const [at, mine] of acknowledged) expect(bytes.readUInt32LE(at * 4096)).toBeGreaterThanOrEqual(mine);
  },
);

test('a host command that is interrupted while it is busy leaves no controller behind', async () => {
  const control = path.join(dir, 'ctl');
  const target = await serveTarget(['ram:64M', '--control', control, '--quiet']);
  const controllers = () => {
    const { stdout } = vioctl(['nvmf', 'ctl', control, 'list', '--json']);
    return (JSON.parse(stdout) as { controllers: unknown[] }).controllers.length;
  };
  const at = ['-s', String(target.port), '-n', target.nqn];
  for (const [args, signal, status] of [
    [['bench', ...at, '--runtime', '20s'], 'SIGINT', 130],
    [['ping', ...at, '--count', '100000'], 'SIGTERM', 143],
    [['write', ...at], 'SIGINT', 130],
    [['conform', ...at, '--only', 'ad30'], 'SIGINT', 130],
  ] as const) {
    const child = spawn(process.execPath, [program, 'nvmf', ...args], { env: plainEnv(), stdio: ['pipe', 'ignore', 'ignore'] });
    children.push(child);
    child.stdin!.on('error', () => {}); // it ends before all is read
    child.stdin!.write(Buffer.alloc(1 << 20)); // and more never comes
    await eventually(() => controllers() > 0);
    await new Promise((resolve) => setTimeout(resolve, 200));
    child.kill(signal);
    const [code, by] = (await once(child, 'exit')) as [number | null, string | null];
    expect({ verb: args[0], status: code ?? by }).toEqual({ verb: args[0], status });
    await eventually(() => controllers() === 0);
    expect({ verb: args[0], left: controllers() }).toEqual({ verb: args[0], left: 0 });
  }
  expect(await target.stop()).toBe(0);
});

test('a device that is read-only, and a file that may not be opened', async () => {
  const file = sparse('disk.img', 1 << 20);
  const target = await serveTarget([`${file},ro`, '--quiet']);
  const at = ['-s', String(target.port), '-n', target.nqn];
  const refused = await nvmf(['write', ...at], { input: Buffer.alloc(512) });
  expect(refused).toMatchObject({ status: 3, stderr: expect.stringMatching(/write.protected/i) });
  expect((await nvmf(['read', ...at])).stdout.length).toBe(1 << 20);
  expect(await target.stop()).toBe(0);
  expect(vioctl(['nvmf', 'serve', '/proc/kcore', '--listen', ':0']).status).not.toBe(0);
  fs.symlinkSync('loop', path.join(dir, 'loop'));
  expect(vioctl(['nvmf', 'serve', path.join(dir, 'loop'), '--listen', ':0'])).toMatchObject({
    status: 1,
    stdout: '',
    stderr: expect.stringContaining('ELOOP'),
  });
});
