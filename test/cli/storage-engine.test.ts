/** The engine behind both servers: what it says where io_uring is refused, and how a server ends while a source hangs. */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { NvmOpcode, rwCmd, sqe } from '../../src/nvme/wire/index.js';
import { Window } from '../../src/vhost-user/frontend/window.js';
import { connect } from '../../src/vhost-user/wire/channel.js';
import { Background } from '../support/background.js';
import { plainEnv, program, vioctl } from '../support/cli.js';
import { compileC } from '../support/compile.js';
import { FaultDisk, noFaultDisk } from '../support/fault-disk.js';
import { connectHost, serveTarget } from '../support/nvme-target.js';
import { skip } from '../support/skip.js';
import { Driver } from '../support/vhost-user.js';

let dir: string;
let withoutUring: string;
let slow: string;
const running: Background[] = [];
beforeAll(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-engine-'));
  withoutUring = compileC('test/support/programs/without-uring.c', path.join(dir, 'without-uring'));
  slow = compileC('test/support/programs/slow-disk.c', path.join(dir, 'slow.so'), ['-shared', '-fPIC']);
});
afterEach(async () => {
  for (const server of running.splice(0)) await server.stop('SIGKILL');
});
afterAll(() => fs.rmSync(dir, { recursive: true }));

const EPERM = '1';
const ENOSYS = '38';
/** io_uring_register(2) of IORING_REGISTER_BUFFERS answers ENOMEM, as it does beyond RLIMIT_MEMLOCK. */
const noBuffers = '12:427:0';
const servers = ['nvmf', 'vhost-user'] as const;
let sockets = 0;

interface Served {
  server: Background;
  /** Writes or reads 4 KiB at a sector; a read gives them. */
  request: (write: boolean, sector: number) => Promise<Buffer>;
  close: () => void;
}

/** Serves a file and takes it as a host or a guest does. */
async function serve(
  kind: (typeof servers)[number],
  file: string,
  engine: string | undefined,
  before: string[] = [],
  env: Record<string, string> = {},
): Promise<Served> {
  const socket = path.join(dir, `s${sockets++}`);
  const words =
    kind === 'nvmf' ? ['nvmf', 'serve', file, '--listen', '127.0.0.1:0', '--ndjson'] : ['vhost-user', 'serve', 'blk', `${socket}=${file}`];
  const argv = [process.execPath, program, ...words, ...(engine === undefined ? [] : ['--engine', engine])];
  const server = new Background([...before, ...argv], plainEnv(env));
  running.push(server);
  if (kind === 'nvmf') {
    const { listen, subsystems } = JSON.parse((await server.sees(/^\{.*\}$/m))[0]);
    const host = await connectHost({ port: listen[0].port, nqn: subsystems[0].nqn }, { ioQueues: 1, timeout: 60_000 });
    const request = async (write: boolean, sector: number): Promise<Buffer> => {
      const data = Buffer.alloc(4096, 'w');
      const command = rwCmd.encode(
        { slba: BigInt(sector), nlb: 7 },
        sqe.encode({ opcode: write ? NvmOpcode.write : NvmOpcode.read, nsid: 1 }),
      );
      expect((await host.queues[0]!.send(command, write ? { out: data } : { into: data })).status.sc).toBe(0);
      return data;
    };
    return { server, request, close: () => host.close() };
  }
  await server.sees(/serving/);
  const window = await Window.open(await connect(socket));
  await window.start();
  const driver = new Driver(window);
  const request = async (write: boolean, sector: number): Promise<Buffer> => {
    const header = Buffer.alloc(16);
    header.writeUInt32LE(write ? 1 : 0);
    header.writeBigUInt64LE(BigInt(sector), 8);
    const answer = await driver.request([header, ...(write ? [Buffer.alloc(4096, 'w')] : [])], write ? 1 : 4097);
    expect(answer.at(-1)).toBe(0);
    return answer.subarray(0, -1);
  };
  return { server, request, close: () => window.close() };
}

/** Entries that all rings of a process have taken (io_uring's part of /proc/PID/fdinfo). */
function ringEntries(pid: number): number {
  const fds = fs.readdirSync(`/proc/${pid}/fd`);
  const texts = fds.map((fd) => {
    try {
      return fs.readFileSync(`/proc/${pid}/fdinfo/${fd}`, 'utf8');
    } catch {
      return ''; // closed meanwhile
    }
  });
  return texts.reduce((sum, text) => sum + Number(/^SqTail:\s*(\d+)/m.exec(text)?.[1] ?? 0), 0);
}

const image = (name: string): string => {
  const file = path.join(dir, name);
  fs.writeFileSync(file, Buffer.alloc(1 << 20));
  return file;
};

describe.each(servers)('%s', (kind) => {
  test.each([
    [undefined, EPERM, 'EPERM'],
    ['auto', ENOSYS, 'ENOSYS'],
  ])('engine %s where io_uring_setup answers errno %s: the log says why, once, and threads do the I/O', async (engine, errno, name) => {
    const { server, request, close } = await serve(kind, image('refused'), engine, [withoutUring, errno]);
    await request(true, 64);
    expect(await request(false, 64)).toEqual(Buffer.alloc(4096, 'w'));
    await new Promise((resolve) => setTimeout(resolve, 1200)); // the next look at everything
    close();
    expect(await server.stop()).toBe(0);
    expect(server.stderr.match(/io_uring is not available.*/g)).toEqual([
      expect.stringMatching(new RegExp(`so threads do the I/O: io_uring_setup: ${name} \\(a seccomp filter `)),
    ]);
  });

  test('nothing is said where io_uring was not asked for, nor where it is there', async () => {
    for (const [engine, before] of [
      ['sync', [withoutUring, EPERM]],
      [undefined, []],
    ] as const) {
      const { server, request, close } = await serve(kind, image('quiet'), engine, [...before]);
      await request(true, 64);
      close();
      expect(await server.stop()).toBe(0);
      expect(server.stderr).not.toContain('io_uring');
    }
  });

  test('engine uring where io_uring_setup is refused: nothing is served, and the reason is told with status 7', () => {
    const socket = path.join(dir, 'refused.sock');
    const file = image('asked');
    const words =
      kind === 'nvmf' ? ['nvmf', 'serve', file, '--listen', '127.0.0.1:0'] : ['vhost-user', 'serve', 'blk', `${socket}=${file}`];
    for (const engine of ['uring', 'io_uring']) {
      const argv = [EPERM, process.execPath, program, ...words, '--engine', engine];
      const { status, stdout, stderr } = spawnSync(withoutUring, argv, { encoding: 'utf8', env: plainEnv({}), timeout: 30_000 });
      expect({ status, stdout }).toEqual({ status: 7, stdout: '' });
      expect(stderr).toMatch(/: io_uring is not available: a seccomp filter/);
      expect(fs.existsSync(socket)).toBe(false);
    }
  });

  test('a source that wants a ring of a server without one is wrong usage', () => {
    const socket = path.join(dir, 'contrary.sock');
    const file = `${image('contrary')},engine=uring`;
    const words =
      kind === 'nvmf' ? ['nvmf', 'serve', file, '--listen', '127.0.0.1:0'] : ['vhost-user', 'serve', 'blk', `${socket}=${file}`];
    const result = vioctl([...words, '--engine', 'sync']);
    expect(result).toMatchObject({ status: 2, stdout: '', stderr: expect.stringMatching(/engine=uring .* the server is sync/) });
    expect(fs.existsSync(socket)).toBe(false);
  });

  test('engine=sync of a source keeps its I/O out of the ring', async () => {
    const counts: number[] = [];
    for (const option of ['', ',engine=sync']) {
      const { server, request, close } = await serve(kind, `${image('ringless')},direct=on${option}`, undefined);
      const before = ringEntries(server.child.pid!);
      for (let i = 0; i < 8; i++) await request(true, 8 * i);
      counts.push(ringEntries(server.child.pid!) - before);
      close();
      expect(await server.stop()).toBe(0);
    }
    if (counts[0] === 0) return skip('io_uring', 'it is not available here');
    expect(counts[0]).toBeGreaterThanOrEqual(8);
    expect(counts[1]).toBe(0);
  });

  test('direct=on under a limit of locked memory: the log says once that buffers are not registered, and data is right', async () => {
    const { server, request, close } = await serve(kind, `${image('limited')},direct=on`, undefined, [withoutUring, noBuffers]);
    await request(true, 64);
    expect(await request(false, 64)).toEqual(Buffer.alloc(4096, 'w'));
    await server.sees(/io_uring buffers are not registered/);
    await new Promise((resolve) => setTimeout(resolve, 1200)); // the next look at everything
    close();
    expect(await server.stop()).toBe(0);
    expect(server.stderr.match(/io_uring.*/g)).toEqual([
      expect.stringMatching(/buffers are not registered, .*: io_uring_register: ENOMEM \(locked memory is used up/),
    ]);
  });

  // Not FUSE: the kernel lets nobody go whose request the file system has taken.
  test('a second SIGTERM ends a server at once whose source hangs', async () => {
    const { server, request, close } = await serve(kind, `${image('hangs')},format=raw`, 'sync', [], {
      LD_PRELOAD: slow,
      SLOW_DISK_MS: '600000',
    });
    request(true, 128).catch(() => {});
    await new Promise((resolve) => setTimeout(resolve, 300));
    server.child.kill('SIGTERM');
    await server.sees(/finishing the (requests|commands) under way; a second signal ends at once/);
    expect(server.child.exitCode).toBeNull();
    server.child.kill('SIGTERM');
    expect(await server.exited).toBe(143);
    close();
  });

  test('a source on FUSE: threads do its I/O, and the log says so once', async () => {
    const missing = noFaultDisk();
    if (missing) return skip(`${kind}: the engine on FUSE`, missing);
    const disk = await FaultDisk.open(1 << 20);
    try {
      const { server, request, close } = await serve(kind, `${disk.file},format=raw`, undefined);
      await request(true, 64);
      expect(await request(false, 64)).toEqual(Buffer.alloc(4096, 'w'));
      close();
      expect(await server.stop()).toBe(0);
      expect(server.stderr.match(/.*threads do its I\/O.*/g)).toEqual([expect.stringMatching(/\/disk: threads do its I\/O: .* on FUSE$/)]);
    } finally {
      for (const server of running.splice(0)) await server.stop('SIGKILL');
      await disk.close();
    }
  });

  test.each(['uring', 'sync'])('engine %s: a SIGTERM waits for what a slow source does', async (engine) => {
    const missing = noFaultDisk();
    if (missing) return skip(`${kind}: the end while a source is slow`, missing);
    const disk = await FaultDisk.open(1 << 20);
    try {
      const { server, request, close } = await serve(kind, `${disk.file},format=raw`, engine);
      await disk.set({ write_delay: 2 });
      const began = (await disk.ops()).length;
      request(true, 128).catch(() => {});
      while ((await disk.ops()).length === began) await new Promise((resolve) => setTimeout(resolve, 20));
      expect(await server.stop()).toBe(0);
      close();
      expect(await disk.read(128 * 512, 4096)).toEqual(Buffer.alloc(4096, 'w'));
    } finally {
      for (const server of running.splice(0)) await server.stop('SIGKILL');
      await disk.close();
    }
  });
});

test.each(['uring', 'sync'])(
  'nvmf, engine %s: a shutdown of the controller ends after the commands under way, and they are durable',
  async (engine) => {
    const missing = noFaultDisk();
    if (missing) return skip(`nvmf ${engine}: a shutdown under way`, missing);
    const disk = await FaultDisk.open(1 << 20);
    const target = await serveTarget([`${disk.file},format=raw`, '--engine', engine]);
    try {
      const host = await connectHost(target, { ioQueues: 1, timeout: 60_000 });
      const cc = await host.getProperty('CC');
      await disk.set({ write_delay: 2 });
      const before = (await disk.ops()).length;
      const out = Buffer.alloc(4096, 'w');
      let written = false;
      const write = host.queues[0]!.send(rwCmd.encode({ slba: 0n, nlb: 7, fua: 0 }, sqe.encode({ opcode: NvmOpcode.write, nsid: 1 })), {
        out,
      });
      const answer = write.then(({ status }) => {
        written = true;
        return status.sc;
      });
      // The queues are connections of their own: a shutdown could overtake the write.
      while (!written && !(await disk.ops()).slice(before).includes('write')) await new Promise((resolve) => setTimeout(resolve, 20));
      await host.setProperty('CC', cc | (1n << 14n)); // SHN: a normal shutdown
      let shst = 0;
      for (let i = 0; i < 500 && shst !== 2; i++) {
        ({ shst } = await host.status());
        // a page cache ends a write before its disk: then the flush is what takes time
        if (shst === 2) expect(written).toBe(true);
        else await new Promise((resolve) => setTimeout(resolve, 20));
      }
      expect([shst, await answer]).toEqual([2, 0]);
      const ops = (await disk.ops()).slice(before);
      expect(ops.lastIndexOf('fsync')).toBeGreaterThan(ops.lastIndexOf('write'));
      expect(ops).toContain('write');
      host.close();
      expect(await target.stop()).toBe(0);
    } finally {
      await target.stop('SIGKILL');
      await disk.close();
    }
  },
);
