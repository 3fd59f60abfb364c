/** `vhost-user ctl`: what a running server of disks tells, and what it changes. */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Window } from '../../src/vhost-user/frontend/window.js';
import { connect } from '../../src/vhost-user/wire/channel.js';
import { Background } from '../support/background.js';
import { plainEnv, program, vioctl } from '../support/cli.js';
import { FaultDisk, noFaultDisk } from '../support/fault-disk.js';
import { skip } from '../support/skip.js';
import { blkHeader, Driver } from '../support/vhost-user.js';
import { eventually } from '../support/wait.js';

let dir: string;
let server: Background | undefined;
beforeEach(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-ctl-'));
});
afterEach(async () => {
  await server?.stop('SIGKILL');
  server = undefined;
  fs.rmSync(dir, { recursive: true });
});
const at = (name: string): string => path.join(dir, name);
const image = (name: string, size = 1 << 20): string => {
  fs.writeFileSync(at(name), '');
  fs.truncateSync(at(name), size);
  return at(name);
};
async function serve(...args: string[]): Promise<void> {
  server = Background.vioctl(['vhost-user', 'serve', 'blk', '--control', at('ctl'), ...args]);
  await server.sees(/^serving /m);
}
const ctl = (...args: string[]) => vioctl(['vhost-user', 'ctl', at('ctl'), ...args]);
const answer = (...args: string[]) => {
  const { stdout, stderr } = ctl(...args, '--json');
  expect(stderr).toBe('');
  return JSON.parse(stdout);
};
const request = (driver: Driver, type: number, sector: number, data: Buffer[], room: number): Promise<Buffer> =>
  driver.request([blkHeader(type, BigInt(sector)), ...data], room + 1, 60_000);

test('several disks: who uses them, what they have done, and which one is meant', async () => {
  await serve(`${at('a.sock')}=${image('a')}`, `${at('b.sock')}=${image('b', 2 << 20)},ro,iops=10/20`);
  expect(fs.statSync(at('ctl')).mode & 0o777).toBe(0o600);
  const [a, b] = answer('list').disks;
  expect(a).toMatchObject({ socket: at('a.sock'), source: at('a'), size: 1 << 20, blockSize: 512, readOnly: false, queues: 64 });
  expect(a).toMatchObject({ connected: false, running: false });
  expect(b).toMatchObject({ readOnly: true, limits: { iops: { average: 10, burst: 20, seconds: 1 }, waiting: 0 } });
  expect(a.limits).toBeUndefined();
  expect(ctl('list').stdout).toBe(`${at('a.sock')}  1M  512  idle  ${at('a')}\n${at('b.sock')}  2M  512 ro  idle  ${at('b')} iops=10/20\n`);

  const window = await Window.open(await connect(at('a.sock')));
  expect(answer('list').disks[0]).toMatchObject({ connected: true, running: false });
  await window.start();
  expect(answer('list').disks[0]).toMatchObject({ connected: true, running: true });
  const driver = new Driver(window);
  expect((await request(driver, 1, 0, [Buffer.alloc(4096, 'w')], 0))[0]).toBe(0);
  expect((await request(driver, 0, 0, [], 4096))[4096]).toBe(0);
  expect((await request(driver, 4, 0, [], 0))[0]).toBe(0);
  // while the ring runs, and after it
  const done = { reads: 1, writes: 1, flushes: 1, errors: 0, bytesRead: 4096, bytesWritten: 4096 };
  expect(answer('stats').disks).toEqual([
    expect.objectContaining({ socket: at('a.sock'), ...done }),
    expect.objectContaining({ reads: 0 }),
  ]);
  await window.stop(false);
  window.close();
  await eventually(() => !answer('list').disks[0].connected);
  expect(answer('list').disks[0]).toMatchObject({ connected: false, running: false });
  expect(answer('stats').disks[0]).toMatchObject(done);

  expect(ctl('throttle', 'iops=5')).toMatchObject({ status: 1, stderr: expect.stringContaining(`several disks`) });
  expect(ctl('throttle', 'other', 'iops=5')).toMatchObject({ status: 1, stderr: expect.stringMatching(/no disk other\n.*hint: /) });
  expect(answer('throttle', at('b.sock'), 'iops=none', 'bps=1M')).toMatchObject({ changed: true, limits: { bps: { average: 1 << 20 } } });
  expect(answer('throttle', at('b'), 'bps=1M')).toMatchObject({ changed: false });
  for (const wrong of [['throttle', 'a'], ['throttle', 'iops=0'], ['throttle', 'a', 'b', 'iops=1'], ['list', 'a'], ['sing']])
    expect(ctl(...wrong).status).toBe(2);
  expect(await server!.stop()).toBe(0);
  expect(fs.existsSync(at('ctl'))).toBe(false);
  expect(ctl('list')).toMatchObject({ status: 1, stderr: expect.stringContaining('--control') });
});

test.each(['uring', 'sync'])('throttle, engine %s: no more comes through than the limits allow', async (engine) => {
  await serve(at('sock'), '--file', `${image('disk')},iops=100`, '--engine', engine);
  const window = await Window.open(await connect(at('sock')));
  await window.start();
  const driver = new Driver(window);
  const begin = performance.now();
  let count = 0;
  // more than fits into 100 ms, however slow the machine is
  while (count < 12 || performance.now() - begin < 1500) {
    expect((await request(driver, count % 2, 0, count % 2 ? [Buffer.alloc(512)] : [], count % 2 ? 0 : 512)).at(-1)).toBe(0);
    count++;
  }
  const seconds = (performance.now() - begin) / 1000;
  expect(count).toBeLessThanOrEqual(100 * (seconds + 0.1) + 1);
  window.close();
  expect(await server!.stop()).toBe(0);
});

test.each(['uring', 'sync'])(
  'throttle, engine %s: requests wait, lifting the limit lets them go, and the end of a ring does not wait',
  async (engine) => {
    await serve(at('sock'), '--file', `${image('disk')},iops=1`, '--engine', engine);
    const window = await Window.open(await connect(at('sock')));
    await window.start();
    const driver = new Driver(window);
    const write = () => request(driver, 1, 0, [Buffer.alloc(512, 'w')], 0);
    expect((await write())[0]).toBe(0);
    const waits = async () => {
      await eventually(() => answer('list').disks[0].limits.waiting > 0);
      expect(answer('list').disks[0].limits).toMatchObject({ waiting: 1, delayed: expect.any(Number) });
    };
    expect(answer('throttle', 'iops=none', 'bps=1', '--dry-run')).toMatchObject({ changed: false, would: expect.any(Array) });
    // a sector at a byte a second: the next one comes in minutes
    answer('throttle', 'iops=none', 'bps=1');
    expect((await write())[0]).toBe(0);
    let done = false;
    const second = write().finally(() => {
      done = true;
    });
    await waits();
    expect(done).toBe(false);
    expect(answer('throttle', 'bps=none')).toMatchObject({ changed: true });
    expect((await second)[0]).toBe(0);
    // a discard moves no bytes, and counts as one operation
    answer('throttle', 'iops=1', 'bps=1');
    expect((await write())[0]).toBe(0); // 512 bytes: what follows waits for minutes
    const segment = Buffer.alloc(16);
    segment.writeUInt32LE(8, 8);
    const discard = request(driver, 11, 0, [segment], 0);
    await waits();
    answer('throttle', 'iops=none', 'bps=none');
    expect((await discard)[0]).toBe(0);
    // a guest that stops its device has its requests answered first, whatever the limit
    answer('throttle', 'bps=1');
    await write();
    const last = write();
    await waits();
    await window.stop(false).catch(() => {});
    expect((await last)[0]).toBe(0);
    window.close();
    expect(await server!.stop()).toBe(0);
  },
);

test('resize and reopen', async () => {
  await serve(at('sock'), '--file', image('disk'));
  fs.truncateSync(at('disk'), 2 << 20);
  answer('resize'); // at once; it may have been noticed by itself already
  expect(answer('resize')).toMatchObject({ changed: false, size: 2 << 20 });
  expect(ctl('resize', '--dry-run').stdout).toMatch(/^nothing to do: /);
  expect(answer('resize', path.relative('.', at('sock')))).toMatchObject({ changed: false });
  expect(answer('reopen', '--dry-run')).toMatchObject({ changed: false, would: [`open ${at('disk')} anew`] });
  fs.renameSync(at('disk'), at('moved'));
  image('disk');
  expect(ctl('reopen')).toMatchObject({ status: 1, stderr: expect.stringMatching(/ESTALE.*\nhint: .*start it again/) });
  fs.renameSync(at('moved'), at('disk'));
  expect(answer('reopen')).toMatchObject({ changed: true });
  expect(await server!.stop()).toBe(0);
});

test('a flush that failed is shown, and flushes succeed after reopen', async () => {
  const missing = noFaultDisk();
  if (missing) return skip('vhost-user ctl: a failed flush', missing);
  const disk = await FaultDisk.open(8 << 20);
  try {
    await serve(at('sock'), '--file', disk.file);
    const window = await Window.open(await connect(at('sock')));
    await window.start();
    const driver = new Driver(window);
    const flush = async () => (await request(driver, 4, 0, [], 0))[0];
    expect((await request(driver, 1, 0, [Buffer.alloc(4096, 'w')], 0))[0]).toBe(0);
    await disk.set({ fail_syncs: 1 });
    expect(await flush()).toBe(1);
    await disk.set({ fail_syncs: 0 });
    expect(await flush()).toBe(1);
    expect(answer('list').disks[0]).toMatchObject({ syncError: 'EIO' });
    expect(ctl('list').stdout).toContain('data may be lost (EIO)');
    expect(answer('reopen').syncError).toBeUndefined();
    expect(await flush()).toBe(0);
    window.close();
    await server!.stop();
  } finally {
    await server?.stop('SIGKILL');
    await disk.close();
  }
});

test('add and remove: disks come and go, and the others do not notice', async () => {
  await serve();
  expect(answer('list')).toEqual({ disks: [] });
  const [a, b] = [image('a'), image('b')];
  const added = { changed: true, socket: at('a.sock'), source: a, size: 1 << 20 };
  expect(answer('add', `${at('a.sock')}=${a},iops=500`, '--dry-run')).toMatchObject({
    changed: false,
    would: [`serve ${a} at ${at('a.sock')}`],
  });
  expect([answer('list').disks, fs.existsSync(at('a.sock'))]).toEqual([[], false]);
  expect(answer('add', `${path.relative('.', at('a.sock'))}=${path.relative('.', a)},iops=500,serial=one,queues=2`)).toMatchObject(added);
  expect(answer('add', `${at('a.sock')}=${a},queues=2,serial=one,iops=500`)).toMatchObject({ changed: false, queues: 2 });
  for (const [words, status, text] of [
    [['add', `${at('a.sock')}=${b}`], 3, /is served there already/],
    [['add', `${at('b.sock')}=${a}`], 3, /already in use by this process/],
    [['add', `${at('b.sock')}=${a}`, '--dry-run'], 3, /already in use by this process/],
    [['add', `${at('b.sock')}=${at('missing')}`], 1, /ENOENT/],
    [['add', `${at('no/such.sock')}=${b}`], 1, /ENOENT/],
    [['add', `${at('no/such.sock')}=${b}`, '--dry-run'], 1, /ENOENT/],
    [['add', `${b}=${b}`], 3, /the file exists and is not a socket/],
    [['add', `${b}=${b}`, '--dry-run'], 3, /the file exists and is not a socket/],
    [['add', b], 2, /is not SOCKET=SOURCE/],
    [['add', `${at('b.sock')}=${b},queues=257`], 2, /queues=257/],
    [['add', `${at('b.sock')}=${b},serial=${'x'.repeat(21)}`], 2, /serial=/],
    [['add'], 2, /SOCKET=SOURCE is missing/],
    [['remove'], 2, /the disk is missing/],
  ] as const)
    expect(ctl(...words)).toMatchObject({ status, stdout: '', stderr: expect.stringMatching(text) });
  expect(answer('list').disks).toHaveLength(1);
  answer('add', `${at('b.sock')}=${b}`);

  const [window, other] = [await Window.open(await connect(at('a.sock'))), await Window.open(await connect(at('b.sock')))];
  await window.start();
  await other.start();
  const driver = new Driver(window);
  expect((await request(driver, 8, 0, [], 20)).toString('latin1', 0, 4)).toBe('one\0');
  answer('throttle', at('a.sock'), 'iops=none', 'bps=1');
  expect((await request(driver, 1, 0, [Buffer.alloc(512, 'x')], 0))[0]).toBe(0);
  const waiting = request(driver, 1, 1, [Buffer.alloc(512, 'y')], 0); // for minutes, but for the removal
  await eventually(() => answer('list').disks[0].limits.waiting > 0);
  expect(answer('remove', at('a.sock'), '--dry-run')).toMatchObject({ changed: false, would: [`end ${a} at ${at('a.sock')}`] });
  expect(answer('remove', at('a.sock'))).toMatchObject({ changed: true, socket: at('a.sock'), source: a });
  expect((await waiting)[0]).toBe(0);
  expect(fs.readFileSync(a).toString('latin1', 510, 514)).toBe('xxyy');
  expect(fs.existsSync(at('a.sock'))).toBe(false);
  expect(answer('remove', at('a.sock'))).toMatchObject({ changed: false });
  expect((await request(new Driver(other), 1, 0, [Buffer.alloc(512, 'z')], 0))[0]).toBe(0);
  expect(answer('list').disks).toMatchObject([{ socket: at('b.sock'), running: true }]);
  expect(answer('add', `${at('a.sock')}=${a},ro`)).toMatchObject({ changed: true, readOnly: true }); // its lock was given up
  other.close();
  expect(await server!.stop()).toBe(0);
  expect([fs.existsSync(at('a.sock')), fs.existsSync(at('b.sock'))]).toEqual([false, false]);
  expect(server!.stderr).toMatch(/ 3 writes, /); // of removed disks too
});

test('remove tells a flush that fails, and the disk is gone all the same', async () => {
  const missing = noFaultDisk();
  if (missing) return skip('vhost-user ctl: remove with a failing flush', missing);
  const disk = await FaultDisk.open(8 << 20);
  try {
    await serve(`${at('bad')}=${disk.file}`, `${at('good')}=${image('fine')}`);
    const window = await Window.open(await connect(at('bad')));
    await window.start();
    expect((await request(new Driver(window), 1, 0, [Buffer.alloc(4096, 'w')], 0))[0]).toBe(0);
    await disk.set({ fail_syncs: 1 });
    expect(ctl('remove', at('bad'))).toMatchObject({ status: 1, stderr: expect.stringMatching(/flush .*: EIO/) });
    await disk.set({ fail_syncs: 0 });
    expect(answer('list').disks).toMatchObject([{ socket: at('good') }]);
    expect(fs.existsSync(at('bad'))).toBe(false);
    window.close();
    expect(await server!.stop()).toBe(0);
  } finally {
    await server?.stop('SIGKILL');
    await disk.close();
  }
});

test('stats --watch repeats until a signal; other actions refuse it', async () => {
  await serve(`${at('s')}=${image('img')}`);
  expect(ctl('resize', '--watch').status).toBe(2);
  const watch = Background.vioctl(['vhost-user', 'ctl', at('ctl'), 'stats', '--watch=100ms', '--ndjson']);
  await watch.sees(/"reads".*\n.*"reads".*\n/);
  expect(await watch.stop('SIGINT')).toBe(130);
});

test('the service manager is told when disks are served, and when that ends', async () => {
  const listener = `import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
print('bound', flush=True)
print(s.recv(100).decode(), flush=True)
print(s.recv(100).decode(), flush=True)`;
  const manager = new Background(['python3', '-c', listener, at('notify')]);
  await manager.sees(/bound/);
  const argv = [process.execPath, program, 'vhost-user', 'serve', 'blk', `${at('s')}=${image('img')}`];
  server = new Background(argv, { ...plainEnv(), NOTIFY_SOCKET: at('notify') });
  await manager.sees(/READY=1/);
  expect(server.stdout).toMatch(/^serving /m);
  expect(await server.stop()).toBe(0);
  await manager.sees(/STOPPING=1/);
});
