import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { native } from '../../src/native/index.js';
import { OwnedFd } from '../../src/native/owned-fd.js';
import { BackEndSession } from '../../src/vhost-user/backend/session.js';
import { blkDevice, noStats } from '../../src/vhost-user/blk/device.js';
import { VirtioF } from '../../src/vhost-user/wire/features.js';
import { duplicate, pair } from '../support/vhost-user.js';
import { GPA, Guest } from '../support/vhost-user-guest.js';

/** The dirty log of a migration against the pages that have changed. */
const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-log-'));
const file = path.join(dir, 'img');
afterAll(() => fs.rmSync(dir, { recursive: true }));
const PAGE = 4096;
const [IN, OUT, GET_ID] = [0, 1, 8];
const UVA = 0x7f0000000000n;

async function migrating(packed: boolean, ioUring: boolean) {
  fs.writeFileSync(file, Buffer.alloc(1 << 20, 0xab));
  const store = native().storage.open(file, {});
  const guest = new Guest({ packed, num: 32 });
  const [ours, theirs] = pair();
  const source = { store, readonly: false, queues: 1, serial: 'SN', blockSize: 512 as const, ioUring, spinMicroseconds: 30 };
  const session = new BackEndSession(ours, blkDevice(source as never, noStats()));
  await guest.start(theirs);
  const log = new OwnedFd(native().vhostUser.memfd('log', PAGE, 0));
  const { front } = guest;
  const features = (on: boolean): bigint =>
    VirtioF.version1 |
    VirtioF.protocolFeatures |
    VirtioF.indirect |
    (1n << 9n) |
    (packed ? VirtioF.packed : 0n) |
    (on ? VirtioF.logAll : 0n);
  const switchLog = async (on: boolean, used = on): Promise<void> => {
    await front.request('SET_LOG_BASE', { size: BigInt(PAGE), offset: 0n }, [duplicate(log)]);
    await front.request('SET_FEATURES', { value: features(on) });
    const { desc, avail, used: ring } = guest.rings[0]!.parts;
    const at = (offset: number): bigint => UVA + BigInt(offset);
    const addresses = { index: 0, desc: at(desc), used: at(ring), avail: at(avail), log: BigInt(GPA + ring) };
    await front.request('SET_VRING_ADDR', { ...addresses, flags: used ? 1 : 0 });
  };
  /** Numbers of the pages, from the guest's first on, that are marked; clears the log. */
  const marked = (): number[] => {
    const bits = Buffer.alloc(PAGE);
    fs.readSync(log.fd, bits, 0, PAGE, 0);
    fs.writeSync(log.fd, Buffer.alloc(PAGE), 0, PAGE, 0);
    const pages: number[] = [];
    for (let page = 0; page < PAGE * 8; page++) if ((bits[page >> 3]! >> (page & 7)) & 1) pages.push(page - GPA / PAGE);
    return pages;
  };
  const whole = (): Buffer => guest.memory.read(0, guest.memory.size);
  const run = async (type: number, sector: number, at: number, size: number, segments = 1): Promise<void> => {
    guest.rings[0]!.add(guest.request(type, sector, at, size, segments));
    guest.kick();
    await guest.used(1);
  };
  const close = async (): Promise<void> => {
    guest.close();
    log.close();
    await session.done;
    native().storage.close(store);
  };
  return { guest, switchLog, marked, whole, run, close };
}

describe.each([
  ['split, io_uring', false, true],
  ['split, preadv', false, false],
  ['packed, io_uring', true, true],
] as const)('%s', (_name, packed, ioUring) => {
  test('every page that the device has changed is marked, while the log is on and not otherwise', async () => {
    const { guest, switchLog, marked, whole, run, close } = await migrating(packed, ioUring);
    const at = guest.buffers;
    await run(IN, 0, at, 8192);
    expect(marked()).toEqual([]);
    await switchLog(true);
    marked();
    for (const [type, sector, where, size, segments] of [
      [IN, 0, at, 512, 1],
      [IN, 8, at + 0x10e00, 65536, 16],
      [OUT, 0, at + 0x40000, 4096, 1],
      [GET_ID, 0, at + 0x50ff0, 0, 1],
      [IN, 5000, at + 0x60000, 4096, 1], // beyond the end: an error, with its status
    ] as const) {
      const request = guest.request(type, sector, where, size, segments);
      const before = whole();
      guest.rings[0]!.add(request);
      guest.kick();
      await guest.used(1);
      const after = whole();
      const changed: number[] = [];
      for (let page = 0; page < before.length / PAGE; page++)
        if (!before.subarray(page * PAGE, (page + 1) * PAGE).equals(after.subarray(page * PAGE, (page + 1) * PAGE))) changed.push(page);
      const pages = marked();
      // The driver's own writes of descriptors are among the changed ones: those it tells QEMU itself.
      const ours = changed.filter((page) => page * PAGE >= at);
      expect(pages).toEqual(expect.arrayContaining(ours));
      expect(pages.filter((page) => page * PAGE >= at).length).toBeLessThanOrEqual(Math.ceil((size + 8192) / PAGE));
      const { desc, used } = guest.rings[0]!.parts;
      expect(pages).toContain(Math.floor((packed ? desc : used) / PAGE));
    }
    await switchLog(false);
    marked();
    await run(IN, 0, at, 8192);
    expect(marked()).toEqual([]);
    await close();
  });

  test('the log can be switched while requests are in flight', async () => {
    const { guest, switchLog, marked, close } = await migrating(packed, ioUring);
    for (let round = 0; round < 20; round++) {
      for (let i = 0; i < 4; i++) guest.rings[0]!.add(guest.request(IN, i, guest.buffers + i * 0x4000, 8192));
      guest.kick();
      await switchLog(round % 2 === 0);
      await guest.used(4);
    }
    marked();
    await close();
  });
});

test('a log that its file does not hold closes the connection; a bitmap that is too small leaves pages out', async () => {
  const { guest, close } = await migrating(false, true);
  const small = new OwnedFd(native().vhostUser.memfd('log', PAGE, 0));
  await guest.front.request('SET_LOG_BASE', { size: 8n, offset: 0n }, [duplicate(small)]);
  await guest.front.request('SET_FEATURES', {
    value: VirtioF.version1 | VirtioF.protocolFeatures | VirtioF.indirect | (1n << 9n) | VirtioF.logAll,
  });
  guest.rings[0]!.add(guest.request(IN, 0, guest.buffers, 4096));
  guest.kick();
  await guest.used(1);
  expect(guest.status(guest.buffers)).toBe(0);
  await expect(guest.front.request('SET_LOG_BASE', { size: 8192n, offset: 0n }, [duplicate(small)])).rejects.toThrow();
  small.close();
  await close();
});
