/** Commands that wait for somebody else: a signal ends them whatever they wait for, and servers end whoever reads what they print. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { plainEnv, program, vioctl } from '../support/cli.js';
import { serveTarget } from '../support/nvme-target.js';

const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-waiting-'));
const image = path.join(dir, 'image');
fs.writeFileSync(image, Buffer.alloc(1 << 20, 1));
const children: ChildProcess[] = [];
afterAll(() => {
  for (const child of children) child.kill('SIGKILL');
  fs.rmSync(dir, { recursive: true });
});

type Signal = 'SIGINT' | 'SIGTERM' | 'SIGHUP';

/** How a child ended after a signal: status as a shell tells it, or `stuck`. */
async function endedBy(child: ChildProcess, signal: Signal): Promise<number | 'stuck'> {
  if (child.exitCode !== null) throw new Error(`it has ended before, with ${child.exitCode}`);
  const end = once(child, 'exit') as Promise<[number | null, NodeJS.Signals | null]>;
  child.kill(signal);
  const late = setTimeout(() => child.kill('SIGKILL'), 4000);
  const [code, by] = await end;
  clearTimeout(late);
  if (by === 'SIGKILL') return 'stuck';
  return code ?? 128 + os.constants.signals[by!];
}

function start(args: string[], stdio: ('ignore' | 'pipe' | number)[] = ['ignore', 'ignore', 'ignore']): ChildProcess {
  const child = spawn(process.execPath, [program, ...args], { env: plainEnv(), stdio, cwd: dir });
  children.push(child);
  return child;
}

/** A server that takes what it is sent and says nothing. `asked` resolves when something came. */
async function silent(place: { path: string } | { port: 0; host: string }) {
  let came: () => void = () => {};
  const asked = new Promise<void>((resolve) => {
    came = resolve;
  });
  const sockets: net.Socket[] = [];
  const server = net.createServer((socket) => {
    sockets.push(socket);
    socket.on('error', () => {}).once('data', came);
  });
  await new Promise<void>((resolve) => server.listen(place, resolve));
  return {
    asked,
    port: (server.address() as net.AddressInfo).port,
    close: () => {
      for (const socket of sockets) socket.destroy();
      server.close();
    },
  };
}

const nqn = 'nqn.2014-08.org.example:silent';
const commands: [name: string, args: string[]][] = [
  ...['identify', 'read', 'write -d image', 'ping', 'logs smart', 'bench', 'conform'].map((verb): [string, string[]] => [
    `nvmf ${verb}`,
    ['nvmf', ...verb.split(' '), '-s', 'PORT', '-n', nqn],
  ]),
  ['nvmf discover', ['nvmf', 'discover', '-s', 'PORT']],
  ['nvmf ctl', ['nvmf', 'ctl', 'SOCK', 'list']],
  ['dma list', ['dma', 'list', 'SOCK']],
  ['dma unmap', ['dma', 'unmap', 'SOCK', 'a']],
  ['dma attach', ['dma', 'attach', 'SOCK', '--', 'true']],
  ['vhost-user probe', ['vhost-user', 'probe', 'SOCK', '--timeout', '60s']],
  ['vhost-user check', ['vhost-user', 'check', 'SOCK', '--timeout', '60s']],
  ['vhost-user shmem list', ['vhost-user', 'shmem', 'list', 'SOCK']],
  ['vhost-user shmem map', ['vhost-user', 'shmem', 'map', 'SOCK', '0:0=image']],
  ['vhost-user shmem unmap', ['vhost-user', 'shmem', 'unmap', 'SOCK', '0:0']],
];

test.each(commands)('%s that waits for a peer that says nothing ends by the first signal', async (name, args) => {
  for (const [signal, status] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const) {
    const sock = path.join(dir, `${name.replaceAll(/[^a-z]/g, '-')}.${signal}`);
    const peer = await silent(args.includes('SOCK') ? { path: sock } : { port: 0, host: '127.0.0.1' });
    const child = start(args.map((word) => (word === 'SOCK' ? sock : word === 'PORT' ? String(peer.port) : word)));
    await Promise.race([peer.asked, once(child, 'exit')]);
    expect([signal, await endedBy(child, signal)]).toEqual([signal, status]);
    peer.close();
  }
});

test('vhost-user check ends the back-end that it has started', async () => {
  const pid = path.join(dir, 'backend.pid');
  const child = start(['vhost-user', 'check', path.join(dir, 'none.sock'), '--respawn', `sh -c 'echo $$ > ${pid}; exec sleep 1000'`]);
  while (!fs.existsSync(pid) || fs.readFileSync(pid, 'utf8') === '') await new Promise((resolve) => setTimeout(resolve, 20));
  const backEnd = Number(fs.readFileSync(pid, 'utf8'));
  expect(await endedBy(child, 'SIGINT')).toBe(130);
  expect(() => process.kill(backEnd, 0)).toThrow('ESRCH');
});

test.each([
  ['ping', ['--count', '0', '--interval', '1ms']],
  ['read', ['--data', '/dev/null']],
  ['write', ['--data', '/dev/zero']],
  ['bench', ['--runtime', '60s']],
  ['conform', []],
])('nvmf %s whose target stops in the middle ends by the first signal', async (verb, options) => {
  const target = await serveTarget(['ram:256M']);
  const child = start(['nvmf', verb, '-s', String(target.port), '-n', target.nqn, ...options], ['ignore', 'pipe', 'ignore']);
  child.stdout!.resume();
  await new Promise((resolve) => setTimeout(resolve, 700)); // before it connects or after: it has to end in either case
  target.child.kill('SIGSTOP');
  await new Promise((resolve) => setTimeout(resolve, 100));
  if (child.exitCode === null) expect([0, 130]).toContain(await endedBy(child, 'SIGINT'));
  target.child.kill('SIGCONT');
  expect(await target.stop()).toBe(0);
});

/** Servers, and what they print first. */
const servers: [name: string, args: () => string[]][] = [
  ['nvmf serve', () => ['nvmf', 'serve', 'ram:1M', '--listen', ':0', '--json']],
  ['nvmf proxy', () => ['nvmf', 'proxy', '--listen', ':0', '--to', ':1']],
  ['vhost-user serve blk', () => ['vhost-user', 'serve', 'blk', `${dir}/blk.sock`, '--file', image]],
  ['vhost-user shmem serve', () => ['vhost-user', 'shmem', 'serve', `${dir}/shm.sock`, '--region', '0=4K']],
  ['vhost-user trace', () => ['vhost-user', 'trace', '--listen', `${dir}/t.sock`, `${dir}/none.sock`]],
];

/** The writing end of a pipe that is full and that nobody reads. */
function fullPipe(): number {
  const fifo = path.join(dir, 'fifo');
  execFileSync('mkfifo', [fifo]);
  const filler = fs.openSync(fifo, fs.constants.O_RDWR | fs.constants.O_NONBLOCK); // stays open: the reader that does not read
  try {
    for (;;) fs.writeSync(filler, Buffer.alloc(1024));
  } catch (err) {
    expect((err as NodeJS.ErrnoException).code).toBe('EAGAIN');
  }
  const fd = fs.openSync(fifo, 'w');
  fs.rmSync(fifo);
  return fd;
}

/** Waits until a thread of the process sleeps in write(2) to its stdout or stderr. */
async function writing(child: ChildProcess): Promise<void> {
  const write = { x64: '1', arm64: '64' }[process.arch as 'x64'];
  for (let tries = 0; tries < 400 && child.exitCode === null; tries++) {
    for (const task of fs.readdirSync(`/proc/${child.pid}/task`)) {
      const call = fs.readFileSync(`/proc/${child.pid}/task/${task}/syscall`, 'utf8').split(' ');
      if (call[0] === write && ['0x1', '0x2'].includes(call[1]!)) return;
    }
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  throw new Error(`does not write, status ${child.exitCode}`);
}

describe.each(servers)('%s', (_name, args) => {
  test.each(['SIGTERM', 'SIGINT'] as const)('ends with 0 by %s though nobody reads what it prints', async (signal) => {
    const full = fullPipe();
    const child = start(args(), ['ignore', full, full]);
    fs.closeSync(full);
    await writing(child);
    expect(await endedBy(child, signal)).toBe(0);
    expect(fs.readdirSync(dir).filter((name) => name.endsWith('.sock'))).toEqual([]);
  });

  test('goes on after SIGHUP, after its terminal or reader is gone, and ends with 0', async () => {
    const child = start(args(), ['ignore', 'pipe', 'pipe']);
    await Promise.race([once(child.stdout!, 'data'), once(child.stderr!, 'data')]);
    child.stdout!.destroy();
    child.stderr!.destroy();
    for (let i = 0; i < 3; i++) {
      child.kill('SIGHUP');
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    expect([child.exitCode, child.signalCode]).toEqual([null, null]);
    expect(await endedBy(child, 'SIGTERM')).toBe(0);
  });
});

test('a target whose log nobody reads serves on', async () => {
  const full = fullPipe();
  const child = start(['nvmf', 'serve', 'ram:1M', '--listen', ':0', '--ndjson', '--nqn', nqn], ['ignore', 'pipe', full]);
  fs.closeSync(full);
  const [line] = (await once(child.stdout!, 'data')) as [Buffer];
  const { port } = (JSON.parse(line.toString()) as { listen: { port: number }[] }).listen[0]!;
  // each connection is a line of the log
  for (let i = 0; i < 5; i++) expect(vioctl(['nvmf', 'ping', '-s', String(port), '-n', nqn, '--count', '1']).status).toBe(0);
  expect(await endedBy(child, 'SIGTERM')).toBe(0);
});
