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
import { blkHeader, blkRange, Driver, duplicate, openFds, pair } from '../support/vhost-user.js';
import { eventually } from '../support/wait.js';

/** Our block back-end, driven ring by ring. */
const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-blk-'));
const file = path.join(dir, 'img');
afterAll(() => fs.rmSync(dir, { recursive: true }));
beforeEach(() => fs.writeFileSync(file, Buffer.alloc(1 << 20, 'old ')));

const WANT = protocolMask('MQ', 'REPLY_ACK', 'BACKEND_REQ', 'CONFIG', 'RESET_DEVICE');
async function disk(options: { ioUring?: boolean; readonly?: boolean; features?: bigint } = {}) {
  const totals = noStats();
  const source = {
    ...openSource({ source: file, readonly: options.readonly ?? false }),
    queues: 2,
    serial: 'SN-1',
    ioUring: options.ioUring ?? true,
    spinMicroseconds: 30,
  };
  const log: string[] = [];
  const [ours, theirs] = pair();
  const session = new BackEndSession(ours, blkDevice(source, totals), { onLog: (text) => log.push(text) });
  const features = options.features ?? VirtioF.version1 | VirtioF.protocolFeatures;
  const window = await Window.open(theirs, { want: WANT, features });
  await window.start();
  const close = async (): Promise<void> => {
    window.close();
    await session.done;
    native().storage.close(source.store);
  };
  return { window, driver: new Driver(window), totals, log, close, session };
}
const [IN, OUT, FLUSH, GET_ID, DISCARD, WRITE_ZEROES] = [0, 1, 4, 8, 11, 13];

describe.each([
  ['io_uring', true],
  ['preadv and pwritev', false],
])('%s', (_name, ioUring) => {
  test('reads, writes, flush, serial number, zeroes, discard', async () => {
    await (await disk({ ioUring })).close(); // what is opened once and stays open
    const before = openFds();
    const { driver, totals, close, window } = await disk({ ioUring });
    const read = await driver.request([blkHeader(IN, 2n)], 1024 + 1);
    expect(read.subarray(0, 1024)).toEqual(Buffer.alloc(1024, 'old '));
    expect(read[1024]).toBe(0);
    expect(await driver.request([blkHeader(OUT, 8n), Buffer.alloc(512, 'new1'), Buffer.alloc(1536, 'new2')], 1)).toEqual(Buffer.from([0]));
    expect(fs.readFileSync(file).subarray(4096, 6144)).toEqual(Buffer.concat([Buffer.alloc(512, 'new1'), Buffer.alloc(1536, 'new2')]));
    expect(await driver.request([blkHeader(FLUSH, 0n)], 1)).toEqual(Buffer.from([0]));
    const id = await driver.request([blkHeader(GET_ID, 0n)], 21);
    expect(id.toString('utf8', 0, 4)).toBe('SN-1');
    expect(id[20]).toBe(0);
    expect(await driver.request([blkHeader(WRITE_ZEROES, 0n), blkRange(0n, 8, 1)], 1)).toEqual(Buffer.from([0]));
    expect(fs.readFileSync(file).subarray(0, 4097)).toEqual(Buffer.concat([Buffer.alloc(4096), Buffer.from('n')]));
    expect(await driver.request([blkHeader(DISCARD, 0n), blkRange(64n, 8, 0)], 1)).toEqual(Buffer.from([0]));
    expect(await window.stop(false)).toEqual([6]);
    expect(totals).toMatchObject({ reads: 1, writes: 1, flushes: 1, others: 3, errors: 0, bytesRead: 1024, bytesWritten: 2048 });
    await close();
    expect(openFds()).toBeLessThanOrEqual(before);
  });

  test('what lies outside, or is no whole sector, is an error of the request', async () => {
    const { driver, totals, close, window } = await disk({ ioUring });
    const EIO = Buffer.from([1]);
    for (const [sector, size] of [
      [2048n, 512],
      [2047n, 1024],
      [0x7fff_ffff_ffff_ffffn, 512],
      [0n, 511],
    ] as const)
      expect((await driver.request([blkHeader(IN, sector)], size + 1)).subarray(size)).toEqual(EIO);
    expect(await driver.request([blkHeader(OUT, 2048n), Buffer.alloc(512)], 1)).toEqual(EIO);
    expect(await driver.request([blkHeader(WRITE_ZEROES, 0n), blkRange(2047n, 2, 0)], 1)).toEqual(EIO);
    expect(await driver.request([blkHeader(99, 0n)], 1)).toEqual(Buffer.from([2]));
    expect(await driver.request([Buffer.alloc(8)], 1)).toEqual(EIO);
    await window.stop(false);
    expect(totals.errors).toBe(8);
    expect(fs.readFileSync(file).equals(Buffer.alloc(1 << 20, 'old '))).toBe(true);
    await close();
  });

  test('a file that is cut short below us is an error of the request', async () => {
    const { driver, close } = await disk({ ioUring });
    fs.truncateSync(file, 4096);
    expect((await driver.request([blkHeader(IN, 100n)], 513))[512]).toBe(1);
    await close();
  });
});

test('a read-only disk refuses writes', async () => {
  const { driver, close } = await disk({ readonly: true });
  expect((await driver.request([blkHeader(IN, 0n)], 513))[512]).toBe(0);
  expect(await driver.request([blkHeader(OUT, 0n), Buffer.alloc(512)], 1)).toEqual(Buffer.from([1]));
  await close();
});

test('a memory table that changes under the running ring', async () => {
  const { window, driver, close } = await disk();
  for (let i = 0; i < 50; i++) {
    const { fd, size, gpa, uva } = window.memory!;
    await window.front.request('SET_MEM_TABLE', { count: 1, regions: [{ gpa, size: BigInt(size), uva, offset: 0n }] }, [duplicate(fd)]);
    expect((await driver.request([blkHeader(IN, 0n)], 513))[512]).toBe(0);
  }
  await close();
});

type Break = [name: string, why: RegExp, act: (driver: Driver, gpa: bigint) => void, features?: bigint];
const chains: Break[] = [
  [
    'a loop',
    /loop/,
    (d, gpa) => {
      d.desc(0, gpa, 16, 1, 1);
      d.desc(1, gpa, 16, 1, 0);
      d.offer(0);
    },
  ],
  ['a head beyond the queue', /head index/, (d) => d.offer(64)],
  [
    'a successor beyond the queue',
    /beyond the table/,
    (d, gpa) => {
      d.desc(0, gpa, 16, 1, 999);
      d.offer(0);
    },
  ],
  [
    'a buffer outside memory',
    /outside memory/,
    (d) => {
      d.desc(0, 0xffff_ffff_ffff_0000n, 0x20000, 0, 0);
      d.offer(0);
    },
  ],
  [
    'a readable part behind a writable one',
    /follows/,
    (d, gpa) => {
      d.desc(0, gpa, 16, 3, 1);
      d.desc(1, gpa, 16, 0, 0);
      d.offer(0);
    },
  ],
  [
    'an indirect table without INDIRECT_DESC',
    /indirect/,
    (d, gpa) => {
      d.desc(0, gpa + 0x10000n, 32, 4, 0);
      d.offer(0);
    },
  ],
  [
    'an indirect table of no size',
    /bad size/,
    (d, gpa) => {
      d.desc(0, gpa + 0x10000n, 0, 4, 0);
      d.offer(0);
    },
    VirtioF.indirect,
  ],
  [
    'an indirect table inside an indirect table',
    /where none may be/,
    (d, gpa) => {
      const inner = Buffer.alloc(16);
      inner.writeBigUInt64LE(gpa, 0);
      inner.writeUInt32LE(16, 8);
      inner.writeUInt16LE(4, 12);
      d.write(0x10000, inner);
      d.desc(0, gpa + 0x10000n, 16, 4, 0);
      d.offer(0);
    },
    VirtioF.indirect,
  ],
];
test.each(chains)('%s stops the ring, and nothing else', async (_name, why, act, features = 0n) => {
  const { window, driver, log, close } = await disk({ features: VirtioF.version1 | VirtioF.protocolFeatures | features });
  act(driver, driver.gpa);
  await eventually(() => log.length > 0);
  expect(log).toEqual([expect.stringMatching(why)]);
  const other = new Driver(window, 0);
  expect(await other.used(30)).toBeUndefined();
  expect(await window.front.number('GET_QUEUE_NUM')).toBe(2n);
  await window.stop(false);
  await close();
});

test('guest memory that is cut short ends in an error, not in the end of the program', async () => {
  const { vhostUser, common } = native();
  const fd = new OwnedFd(vhostUser.memfd('short', 1 << 20, 0));
  const memory = vhostUser.guestMemory([{ gpa: 0n, size: 1n << 20n, uva: 0n, offset: 0n }], [fd.fd]);
  const ring = { num: 64, desc: 0n, avail: 0x1000n, used: 0x2000n, base: 0, features: 0n, physical: false };
  const queue = vhostUser.virtqueue(memory, ring);
  fs.ftruncateSync(fd.fd, 0);
  expect(memory.broken()).toBe(false);
  expect(queue.take()).toEqual([]);
  expect(memory.broken()).toBe(true);
  queue.close();
  memory.close();
  fd.close();
  expect(common.crc32cEngine()).toBeDefined();
});
