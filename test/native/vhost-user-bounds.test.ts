import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { native } from '../../src/native/index.js';
import { OwnedFd } from '../../src/native/owned-fd.js';
import { openSource } from '../../src/storage/open.js';
import { BackEndSession } from '../../src/vhost-user/backend/session.js';
import { blkDevice, noStats } from '../../src/vhost-user/blk/device.js';
import { Window } from '../../src/vhost-user/frontend/window.js';
import { protocolMask, VirtioF } from '../../src/vhost-user/wire/features.js';
import { Driver, duplicate, pair } from '../support/vhost-user.js';
import { eventually } from '../support/wait.js';

/** What a driver can make a queue hold: chains, descriptors, bytes. */
const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-bounds-'));
const file = path.join(dir, 'img');
const SIZE = 2 ** 32;
beforeAll(() => {
  fs.writeFileSync(file, '');
  fs.truncateSync(file, SIZE);
});
afterAll(() => fs.rmSync(dir, { recursive: true }));

const FAR = 0x1000_0000n; // a second region
const FAR_SIZE = 32 << 20;
async function disk(ioUring: boolean) {
  const log: string[] = [];
  const [ours, theirs] = pair();
  const source = { ...openSource({ source: file }), queues: 1, serial: '', ioUring, spinMicroseconds: 30 };
  const session = new BackEndSession(ours, blkDevice(source, noStats()), { onLog: (text) => log.push(text) });
  const window = await Window.open(theirs, {
    want: protocolMask('MQ', 'REPLY_ACK', 'CONFIG'),
    features: VirtioF.version1 | VirtioF.protocolFeatures | VirtioF.indirect,
  });
  await window.start();
  const far = new OwnedFd(native().vhostUser.memfd('far', FAR_SIZE, 0));
  const { fd, size, gpa, uva } = window.memory!;
  await window.front.request(
    'SET_MEM_TABLE',
    {
      count: 2,
      regions: [
        { gpa, size: BigInt(size), uva, offset: 0n },
        { gpa: FAR, size: BigInt(FAR_SIZE), uva: 0x7e00_0000_0000n, offset: 0n },
      ],
    },
    [duplicate(fd), duplicate(far)],
  );
  const segMax = Buffer.from((await window.front.config(12, 4))!).readUInt32LE();
  const close = async (): Promise<void> => {
    window.close();
    far.close();
    await session.done;
    native().storage.close(source.store);
  };
  return { window, driver: new Driver(window), log, segMax, close };
}

type Part = [address: bigint, size: number, flags?: number];
const WRITE = 2;
/** An indirect table in slot `slot`, made available: header, the parts, a status. @returns where the status lies */
function offer(
  driver: Driver,
  slot: number,
  type: number,
  sector: number,
  parts: Part[],
  next: (i: number) => number = (i) => i + 1,
): number {
  const [table, head] = [0x8000 + slot * 0x6000, 0x4000 + slot * 64];
  const header = Buffer.alloc(32);
  header.writeUInt32LE(type, 0);
  header.writeBigUInt64LE(BigInt(sector), 8);
  header[16] = 0xee;
  driver.write(head, header);
  const all: Part[] = [[driver.gpa + BigInt(head), 16], ...parts, [driver.gpa + BigInt(head + 16), 1, WRITE]];
  const bytes = Buffer.alloc(16 * all.length);
  all.forEach(([address, size, flags = 0], i) => {
    bytes.writeBigUInt64LE(address, 16 * i);
    bytes.writeUInt32LE(size, 16 * i + 8);
    bytes.writeUInt16LE(flags | (i < all.length - 1 ? 1 : 0), 16 * i + 12);
    bytes.writeUInt16LE(i < all.length - 1 ? next(i) : 0, 16 * i + 14);
  });
  driver.write(table, bytes);
  driver.desc(slot, driver.gpa + BigInt(table), bytes.length, 4, 0);
  driver.offer(slot);
  return head + 16;
}
const [IN, FLUSH, DISCARD] = [0, 4, 11];
const same = (count: number, size: number): Part[] => Array.from({ length: count }, () => [FAR, size, WRITE]);

describe.each([
  ['io_uring', true],
  ['preadv and pwritev', false],
])('%s', (_name, ioUring) => {
  test('a request of seg_max segments is served by a queue that has fewer entries', async () => {
    const { driver, segMax, close, log } = await disk(ioUring);
    expect(segMax).toBeGreaterThan(64);
    const status = offer(driver, 0, IN, 0, same(segMax, 4096));
    expect(await driver.used()).toEqual({ head: 0, written: segMax * 4096 + 1 });
    expect(driver.read(status, 1)[0]).toBe(0);
    expect(log).toEqual([]);
    await close();
  });

  test('requests that together exceed what a queue may hold are done one after the other', async () => {
    const { driver, segMax, close } = await disk(ioUring);
    const count = 3;
    const size = 4 << 20; // segMax of them: more than a queue may have in flight
    const statuses = Array.from({ length: count }, (_, slot) => offer(driver, slot, IN, 0, same(segMax, size)));
    for (let i = 0; i < count; i++) expect((await driver.used(20000))?.written).toBe(segMax * size + 1);
    expect(statuses.map((at) => driver.read(at, 1)[0])).toEqual([0, 0, 0]);
    await close();
  });

  test('a request of more bytes than one may have is an error of the request', async () => {
    const { driver, segMax, close } = await disk(ioUring);
    const status = offer(driver, 0, IN, 0, same(segMax, FAR_SIZE));
    await driver.used();
    expect(driver.read(status, 1)[0]).toBe(1);
    const good = offer(driver, 1, IN, 0, same(1, 512));
    await driver.used();
    expect(driver.read(good, 1)[0]).toBe(0);
    await close();
  });

  test('more ranges than the configuration space offers are an error of the request', async () => {
    const { driver, close } = await disk(ioUring);
    const ranges = Buffer.alloc(64);
    for (let i = 0; i < 4; i++) ranges.writeUInt32LE(8, 16 * i + 8);
    driver.write(0x7000, ranges);
    for (const [count, expected] of [
      [1, 0],
      [2, 1],
      [4, 1],
    ] as const) {
      const status = offer(driver, count, DISCARD, 0, [[driver.gpa + 0x7000n, 16 * count]]);
      await driver.used();
      expect([count, driver.read(status, 1)[0]]).toEqual([count, expected]);
    }
    await close();
  });
});

type Attack = [name: string, why: RegExp, count: number, type: number, flags: number, next?: (i: number) => number];
test.each<Attack>([
  ['one data segment more than seg_max', /longer than the queue/, 127, IN, WRITE],
  ['thousands of readable segments', /longer than the queue/, 1400, FLUSH, 0],
  ['a loop in a long table', /longer than the queue|loop/, 1400, FLUSH, 0, (i) => (i === 100 ? 50 : i + 1)],
  ['a descriptor that is its own successor', /longer than the queue|loop/, 1400, IN, WRITE, (i) => (i === 3 ? 3 : i + 1)],
  ['a loop in a table that is short enough', /loop/, 20, IN, WRITE, (i) => (i === 10 ? 5 : i + 1)],
  ['a successor beyond the table', /beyond the table/, 20, IN, WRITE, (i) => (i === 10 ? 500 : i + 1)],
])('%s stops the ring', async (...[, why, count, type, flags, next]: Attack) => {
  const { driver, log, close } = await disk(true);
  const parts: Part[] = Array.from({ length: count }, () => [FAR, 512, flags]);
  offer(driver, 0, type, 0, parts, next);
  await eventually(() => log.length > 0);
  expect(log).toEqual([expect.stringMatching(why)]);
  expect(await driver.used(30)).toBeUndefined();
  await close();
});

test('a queue that JavaScript serves hands out a few requests at a time, and little of each', async () => {
  const { vhostUser } = native();
  const fd = new OwnedFd(vhostUser.memfd('ring', 1 << 20, 0));
  const memory = vhostUser.guestMemory([{ gpa: 0n, size: 1n << 20n, uva: 0n, offset: 0n }], [fd.fd]);
  const num = 256;
  const ring = { num, desc: 0n, avail: 0x2000n, used: 0x3000n, base: 0, features: 0n, physical: false };
  const queue = vhostUser.virtqueue(memory, ring);
  const [desc, avail] = [Buffer.alloc(16 * num), Buffer.alloc(4 + 2 * num)];
  avail.writeUInt16LE(num, 2);
  for (let i = 0; i < num; i++) {
    desc.writeBigUInt64LE(0x8000n, 16 * i);
    desc.writeUInt32LE(0x80000, 16 * i + 8);
    avail.writeUInt16LE(i, 4 + 2 * i);
  }
  fs.writeSync(fd.fd, desc, 0, desc.length, 0);
  fs.writeSync(fd.fd, avail, 0, avail.length, 0x2000);
  const heads: number[] = [];
  for (let requests = queue.take(); requests.length > 0; requests = queue.take()) {
    expect(requests.length).toBeLessThanOrEqual(64);
    expect(queue.take()).toEqual([]); // until something is answered
    for (const { head, out } of requests) {
      expect(out.length).toBe(4096);
      heads.push(head);
      queue.answer(head, new Uint8Array(0));
    }
  }
  expect(heads).toEqual(Array.from({ length: num }, (_, i) => i));
  queue.close();
  memory.close();
  fd.close();
});
