/** A namespace of another target as a source of both servers: through kill -9, a lost cache, a long absence and a changed size. */
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Background } from '../support/background.js';
import { nvmf, type ServedTarget, serveTarget } from '../support/nvme-target.js';
import { NvmeDisk, type Outcome, RingDisk, type ServedDisk } from '../support/served-disk.js';

const SIZE = 8 << 20;
const nqn = 'nqn.2014-08.org.nvmexpress:far';
let dir: string;
let far: ServedTarget;
let port: number;
const file = (): string => path.join(dir, 'disk.img');
/** The far target, on the port that it had before. */
const startFar = async (): Promise<void> => {
  far = await serveTarget([file(), '--nqn', nqn, '--listen', `127.0.0.1:${port}`, '--discovery-port', 'none']);
  port = far.port;
};
beforeEach(async () => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-far-'));
  fs.writeFileSync(file(), '');
  fs.truncateSync(file(), SIZE);
  port = 0;
  await startFar();
});
afterEach(async () => {
  await far.stop('SIGKILL');
  fs.rmSync(dir, { recursive: true, force: true });
});
const source = (options = ''): string => `nvme+tcp://127.0.0.1:${port}/${nqn}/1${options}`;

type Kind = 'nvmf' | 'vhost-user';
/** A server of the far namespace, and a disk on it. */
async function serve(kind: Kind, options = ''): Promise<{ disk: ServedDisk; server: Background; end(status?: number): Promise<void> }> {
  const socket = path.join(dir, 'sock');
  const server = Background.vioctl(
    kind === 'nvmf'
      ? [
          'nvmf',
          'serve',
          source(options),
          '--nqn',
          'nqn.2014-08.org.nvmexpress:near',
          '--listen',
          '127.0.0.1:0',
          '--discovery-port',
          'none',
        ]
      : ['vhost-user', 'serve', 'blk', `${socket}=${source(options)}`],
  );
  const ready = await server.sees(kind === 'nvmf' ? /on 127\.0\.0\.1:(\d+)/ : /^serving /m);
  const disk = kind === 'nvmf' ? await NvmeDisk.open(Number(ready[1]), 'nqn.2014-08.org.nvmexpress:near') : await RingDisk.open(socket);
  /** @param status of the server: 1 if its last flush fails */
  const end = async (status = 0): Promise<void> => {
    disk.close();
    expect(await server.stop()).toBe(status);
  };
  return { disk, server, end };
}
const kill = async (): Promise<void> => void (await far.stop('SIGKILL'));

describe.each<Kind>(['nvmf', 'vhost-user'])('%s', (kind) => {
  test('the far target is killed and started again under load: a pause, no error, all data right', async () => {
    const { disk, server, end } = await serve(kind, ',queues=2,hdgst=on,ddgst=on');
    const model = Buffer.alloc(SIZE);
    const outcomes = new Set<Outcome>();
    let over = false;
    let done = 0;
    // each lane has its own part, so that the order of writes is known
    const lane = async (n: number): Promise<void> => {
      const part = SIZE / 8;
      while (!over) {
        const size = 512 * (1 + Math.floor(Math.random() * 64));
        const at = n * part + 512 * Math.floor(Math.random() * ((part - size) / 512));
        const data = randomBytes(size);
        outcomes.add(await disk.write(at, data, Math.random() < 0.1));
        data.copy(model, at);
        if (Math.random() < 0.05) outcomes.add(await disk.flush());
        const back = Buffer.alloc(size);
        outcomes.add(await disk.read(at, back));
        if (!back.equals(data)) throw new Error(`wrong data at ${at}`);
        done++;
      }
    };
    const lanes = Promise.all(Array.from({ length: 8 }, (_, n) => lane(n)));
    for (let i = 0; i < 3; i++) {
      const before = done;
      while (done < before + 40) await sleep(5);
      await kill();
      await startFar();
    }
    await server.sees(/connected again/);
    over = true;
    await lanes;
    outcomes.add(await disk.flush());
    expect([...outcomes]).toEqual(['ok']);
    expect(fs.readFileSync(file()).equals(model)).toBe(true);
    await end();
  });
});

describe('a cache that is lost with its target', () => {
  const data = randomBytes(64 << 10);
  /** Writes without a flush; then the target dies, and its file is what it was before. */
  const lose = async (disk: ServedDisk): Promise<void> => {
    const old = fs.readFileSync(file());
    for (let at = 0; at < data.length; at += 4096) expect(await disk.write(at, data.subarray(at, at + 4096))).toBe('ok');
    expect(await disk.zero(data.length, 4096)).toBe('ok');
    await kill();
    fs.writeFileSync(file(), old);
    await startFar();
  };

  test('what was acknowledged is written again, and the next flush is right', async () => {
    fs.writeFileSync(file(), Buffer.alloc(SIZE, 0x55));
    const { disk, server, end } = await serve('nvmf');
    await lose(disk);
    expect(await disk.flush()).toBe('ok');
    await server.sees(/were written again/);
    const found = fs.readFileSync(file());
    expect(found.subarray(0, data.length).equals(data)).toBe(true);
    expect(found.subarray(data.length, data.length + 4096).equals(Buffer.alloc(4096))).toBe(true);
    // flushed data is not written again
    await kill();
    fs.writeFileSync(file(), Buffer.alloc(SIZE, 0x66));
    await startFar();
    const back = Buffer.alloc(4096);
    expect(await disk.read(0, back)).toBe('ok');
    expect(back.equals(Buffer.alloc(4096, 0x66))).toBe(true);
    await end();
  });

  test('a write that was durable at once stays newer than one before it', async () => {
    const { disk, end } = await serve('nvmf');
    const [old, young] = [randomBytes(64 << 10), randomBytes(4096)];
    expect(await disk.write(0, old)).toBe('ok');
    expect(await disk.write(8192, young, true)).toBe('ok');
    await kill();
    await startFar();
    const back = Buffer.alloc(old.length);
    expect(await disk.read(0, back)).toBe('ok');
    young.copy(old, 8192);
    expect(back.equals(old)).toBe(true);
    await end();
  });

  test('blocks that were deallocated do not get back what a write before it had put there', async () => {
    const { disk, server, end } = await serve('nvmf');
    expect(await disk.write(0, randomBytes(64 << 10))).toBe('ok');
    expect(await disk.discard(8192, 16 << 10)).toBe('ok');
    const back = Buffer.alloc(16 << 10);
    expect(await disk.read(8192, back)).toBe('ok');
    expect(back.equals(Buffer.alloc(back.length))).toBe(true);
    await kill();
    await startFar();
    back.fill(1);
    expect(await disk.read(8192, back)).toBe('ok');
    await server.sees(/were written again/);
    expect(back.equals(Buffer.alloc(back.length))).toBe(true);
    await end();
  });

  test('of a source that others share nothing is written again: the flush tells, until it is opened anew', async () => {
    const { disk, end } = await serve('nvmf', ',shared=on');
    await lose(disk);
    expect(await disk.flush()).toBe('error 2/80h');
    expect(await disk.flush()).toBe('error 2/80h');
    const back = Buffer.alloc(4096);
    expect(await disk.read(0, back)).toBe('ok');
    expect(back.equals(Buffer.alloc(4096))).toBe(true);
    await end(1);
  });
});

test('two paths to one disk: one is killed, one becomes inaccessible, and nobody waits or fails', async () => {
  await far.stop('SIGKILL');
  const common = ['--nqn', nqn, '--discovery-port', 'none'];
  const shared = `${file()},shared=on`;
  const control = path.join(dir, 'ctl');
  const first = await serveTarget([shared, ...common, '--listen', '127.0.0.1:0']);
  far = await serveTarget([shared, ...common, '--listen', '127.0.0.1:0', '--control', control]);
  port = first.port;
  const { disk, server, end } = await serve('nvmf', `,path=127.0.0.1:${far.port},timeout=10s`);
  const data = randomBytes(4096);
  const use = async (): Promise<Outcome[]> => {
    const back = Buffer.alloc(4096);
    const outcomes = [await disk.write(8192, data), await disk.read(8192, back)];
    expect(back.equals(data)).toBe(true);
    return outcomes;
  };
  for (let i = 0; i < 20; i++) expect(await use()).toEqual(['ok', 'ok']);
  // the second is not to be used: all goes to the first
  expect((await nvmf(['ctl', control, 'ana', '1', 'inaccessible'])).status).toBe(0);
  for (let i = 0; i < 20; i++) expect(await use()).toEqual(['ok', 'ok']);
  expect((await nvmf(['ctl', control, 'ana', '1', 'optimized'])).status).toBe(0);
  await first.stop('SIGKILL');
  for (let i = 0; i < 20; i++) expect(await use()).toEqual(['ok', 'ok']);
  expect(await disk.flush()).toBe('ok');
  expect(fs.readFileSync(file()).subarray(8192, 12288).equals(data)).toBe(true);
  await server.sees(/the connection is lost/);
  await end();
});

test('a target is not its own source: neither when it starts nor later', async () => {
  const at = `127.0.0.1:${port}`;
  await far.stop();
  const start = Background.vioctl(['nvmf', 'serve', source(), '--nqn', nqn, '--listen', at, '--discovery-port', 'none']);
  expect([await start.exited, start.stderr]).toEqual([3, expect.stringContaining('serve itself')]);
  const control = path.join(dir, 'ctl');
  far = await serveTarget([file(), '--nqn', nqn, '--listen', at, '--discovery-port', 'none', '--control', control]);
  const added = await nvmf(['ctl', control, 'add', `nvme+tcp://localhost:${port}/${nqn}/1`]);
  expect([added.status, added.stderr]).toEqual([3, expect.stringContaining('serve itself')]);
  // another process may
  const { disk, end } = await serve('nvmf');
  expect(await disk.read(0, Buffer.alloc(4096))).toBe('ok');
  await end();
});

test('a target that stays away longer than timeout=: path errors, and service when it is back', async () => {
  const { disk, server, end } = await serve('nvmf', ',timeout=300ms');
  expect(await disk.write(0, Buffer.alloc(4096, 1))).toBe('ok');
  await kill();
  expect(await disk.read(0, Buffer.alloc(4096))).toBe('error 3/00h');
  expect(await disk.write(4096, Buffer.alloc(4096, 2))).toBe('error 3/00h');
  await startFar();
  await server.sees(/connected again/);
  const back = Buffer.alloc(4096);
  expect(await disk.read(0, back)).toBe('ok');
  expect(back.equals(Buffer.alloc(4096, 1))).toBe(true);
  await end();
});

test('another disk by the same name is not used', async () => {
  const { disk, server, end } = await serve('nvmf', ',timeout=1s');
  expect(await disk.read(0, Buffer.alloc(4096))).toBe('ok');
  await kill();
  // a copy has an identity of its own
  fs.copyFileSync(file(), path.join(dir, 'copy'));
  fs.renameSync(path.join(dir, 'copy'), file());
  await startFar();
  expect(await disk.read(0, Buffer.alloc(4096))).toBe('error 3/00h');
  await server.sees(/another disk by this name/);
  await end(1);
});

test('a new size of the far namespace is told', async () => {
  const { server, end } = await serve('nvmf');
  fs.truncateSync(file(), 2 * SIZE);
  await server.sees(new RegExp(`has ${2 * SIZE} bytes now`));
  await end();
});

test('what cannot be opened is named', async () => {
  const opened = async (uri: string): Promise<[number, string]> => {
    const server = Background.vioctl(['nvmf', 'serve', uri, '--listen', '127.0.0.1:0', '--discovery-port', 'none']);
    return [await server.exited, server.stderr];
  };
  expect(await opened(`nvme+tcp://127.0.0.1:${port}/nqn.2014-08.org.nvmexpress:none/1`)).toEqual([
    1,
    expect.stringContaining('subsystem NQNs'),
  ]);
  expect(await opened(`nvme+tcp://127.0.0.1:${port}/${nqn}/7`)).toEqual([1, expect.stringContaining('namespace 7')]);
  expect(await opened(`nvme+tcp://127.0.0.1:1/${nqn}/1`)).toEqual([1, expect.stringContaining('ECONNREFUSED')]);
  expect(await opened(`nvme+tcp://127.0.0.1:${port}/${nqn}`)).toEqual([2, expect.stringContaining('NSID')]);
});
