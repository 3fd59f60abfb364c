/** The write cache of `vhost-user serve blk`, which a guest switches at run time (VIRTIO_BLK_F_CONFIG_WCE). */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Window } from '../../src/vhost-user/frontend/window.js';
import { connect } from '../../src/vhost-user/wire/channel.js';
import { VirtioF } from '../../src/vhost-user/wire/features.js';
import { Background } from '../support/background.js';
import { FaultDisk, noFaultDisk } from '../support/fault-disk.js';
import { skip } from '../support/skip.js';
import { blkHeader, blkRange, Driver } from '../support/vhost-user.js';

const [FLUSH, CONFIG_WCE] = [1n << 9n, 1n << 11n];
const writebackAt = 32;

let dir: string;
let disk: FaultDisk | undefined;
let server: Background | undefined;
beforeEach(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-cache-'));
});
afterEach(async () => {
  await server?.stop('SIGKILL');
  await disk?.close();
  [server, disk] = [undefined, undefined];
  fs.rmSync(dir, { recursive: true });
});
const socket = (): string => path.join(dir, 's');
async function open(features: bigint): Promise<Window> {
  const window = await Window.open(await connect(socket()), { features: VirtioF.version1 | VirtioF.protocolFeatures | features });
  await window.start();
  return window;
}
const setCache = (window: Window, ...bytes: number[]) =>
  window.front.request('SET_CONFIG', { offset: writebackAt, size: bytes.length, flags: 0, data: Uint8Array.from(bytes) });
const cacheOf = async (window: Window): Promise<number> => (await window.front.config(writebackAt, 1))![0]!;
/** Whether a write of the driver is durable when it is answered. */
async function durable(driver: Driver): Promise<boolean> {
  const before = (await disk!.ops()).length;
  expect((await driver.request([blkHeader(1), Buffer.alloc(4096, 'w')], 1))[0]).toBe(0);
  const ops = (await disk!.ops()).slice(before);
  expect(ops).toContain('write');
  return ops.lastIndexOf('fsync') > ops.lastIndexOf('write');
}

test.each(['sync', 'uring'])(
  'engine %s: switched off, every write is durable, over restarts of rings and connections; switched on, none is',
  async (engine) => {
    const missing = noFaultDisk();
    if (missing) return skip(`vhost-user ${engine}: write cache`, missing);
    disk = await FaultDisk.open(8 << 20);
    server = Background.vioctl(['vhost-user', 'serve', 'blk', `${socket()}=${disk.file}`, '--engine', engine]);
    await server.sees(/^serving /m);
    let window = await open(FLUSH | CONFIG_WCE);
    let driver = new Driver(window);
    expect([await cacheOf(window), await durable(driver)]).toEqual([1, false]);
    // what the cache holds is durable before the answer comes
    const before = (await disk.ops()).length;
    await setCache(window, 0);
    expect((await disk.ops()).slice(before)).toContain('fsync');
    expect([await cacheOf(window), await durable(driver), await durable(driver)]).toEqual([0, true, true]);
    const zeroes = (await disk.ops()).length;
    expect((await driver.request([blkHeader(13), blkRange(0n, 8)], 1))[0]).toBe(0);
    expect((await disk.ops()).slice(zeroes)).toContain('fsync');
    await window.stop(false);
    window.close();
    window = await open(FLUSH | CONFIG_WCE);
    driver = new Driver(window);
    expect([await cacheOf(window), await durable(driver)]).toEqual([0, true]);
    await setCache(window, 1);
    await setCache(window, 1);
    expect([await cacheOf(window), await durable(driver)]).toEqual([1, false]);
    await setCache(window, 0);
    window.close();
    // who has not negotiated the field has the cache that FLUSH promises
    window = await open(FLUSH);
    expect(await durable(new Driver(window))).toBe(false);
    window.close();
    // and who cannot flush has none
    window = await open(CONFIG_WCE);
    await setCache(window, 1);
    expect(await durable(new Driver(window))).toBe(true);
    window.close();
    expect(await server.stop()).toBe(0);
    expect(server.stderr).toMatch(/the guest has switched its write cache off/);
  },
);

test('a flush that fails while the cache is switched off is told, and so is every write after it', async () => {
  const missing = noFaultDisk();
  if (missing) return skip('vhost-user: write cache and a failing flush', missing);
  disk = await FaultDisk.open(8 << 20);
  server = Background.vioctl(['vhost-user', 'serve', 'blk', `${socket()}=${disk.file}`]);
  await server.sees(/^serving /m);
  const window = await open(FLUSH | CONFIG_WCE);
  const driver = new Driver(window);
  expect(await durable(driver)).toBe(false);
  await disk.set({ fail_syncs: 1 });
  await expect(setCache(window, 0)).rejects.toThrow(/EIO/);
  await disk.set({ fail_syncs: 0 });
  expect(await cacheOf(window)).toBe(0);
  expect((await driver.request([blkHeader(1), Buffer.alloc(4096, 'w')], 1))[0]).toBe(1);
  window.close();
});

test('nothing else of the configuration space can be written, and of a read-only disk nothing at all', async () => {
  fs.writeFileSync(path.join(dir, 'img'), Buffer.alloc(1 << 20));
  for (const readonly of [false, true]) {
    server = Background.vioctl(['vhost-user', 'serve', 'blk', `${socket()}=${path.join(dir, 'img')}${readonly ? ',ro' : ''}`]);
    await server.sees(/^serving /m);
    const window = await open(FLUSH);
    expect((window.front.features & CONFIG_WCE) !== 0n).toBe(!readonly);
    const before = await window.front.config(0, 60);
    for (const [offset, bytes] of [
      [writebackAt, [2]],
      [writebackAt, [255]],
      [writebackAt, [1, 0]],
      [0, [0]],
      [33, [1]],
      [255, [0]],
    ] as const) {
      const values = { offset, size: bytes.length, flags: 0, data: Uint8Array.from(bytes) };
      await expect(window.front.request('SET_CONFIG', values)).rejects.toThrow(readonly ? /EPERM/ : /EINVAL/);
    }
    expect(await window.front.config(0, 60)).toEqual(before);
    window.close();
    expect(await server.stop()).toBe(0);
  }
});
