import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { native } from '../../src/native/index.js';
import { OwnedFd } from '../../src/native/owned-fd.js';
import { BackEndSession } from '../../src/vhost-user/backend/session.js';
import { blkDevice, noStats } from '../../src/vhost-user/blk/device.js';
import { pair } from '../support/vhost-user.js';
import { GPA, Guest } from '../support/vhost-user-guest.js';

/**
 * What a back-end that was killed leaves in the in-flight region, written by hand after the specification ("Inflight I/O tracking"), and
 * what the next one makes of it.
 */
const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-inflight-'));
const file = path.join(dir, 'img');
afterAll(() => fs.rmSync(dir, { recursive: true }));
beforeEach(() => fs.writeFileSync(file, Buffer.alloc(1 << 20)));
const opened: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of opened.splice(0)) await close();
});
const [IN, OUT] = [0, 1];
const NUM = 16;

interface Left {
  used: number;
  lastBatch: number;
  /** By head. */
  entries: Record<number, { counter: number; next?: number; inflight?: boolean }>;
}
function splitRegion(left: Left): Buffer {
  const bytes = Buffer.alloc(16 + 16 * NUM);
  bytes.writeUInt16LE(1, 8);
  bytes.writeUInt16LE(NUM, 10);
  bytes.writeUInt16LE(left.lastBatch, 12);
  bytes.writeUInt16LE(left.used, 14);
  for (const [head, { counter, next = 0, inflight = true }] of Object.entries(left.entries)) {
    const at = 16 + 16 * Number(head);
    bytes[at] = inflight ? 1 : 0;
    bytes.writeUInt16LE(next, at + 6);
    bytes.writeBigUInt64LE(BigInt(counter), at + 8);
  }
  return bytes;
}

/** A guest whose ring has `count` requests available, of which the first `used` have been answered, with a region. */
async function afterKill(packed: boolean, region: (guest: Guest) => Buffer, prepare: (guest: Guest) => void) {
  const guest = new Guest({ packed, inflight: true, num: NUM });
  prepare(guest);
  const bytes = region(guest);
  const fd = new OwnedFd(native().vhostUser.memfd('inflight', 4096, 0));
  fs.writeSync(fd.fd, bytes, 0, bytes.length, 0);
  guest.region = { fd, payload: { size: 4096n, offset: 0n, queues: 1, queueSize: NUM } };
  const store = native().storage.open(file, {});
  const [ours, theirs] = pair();
  const log: string[] = [];
  const source = { store, readonly: false, queues: 1, serial: '', blockSize: 512 as const, ioUring: true, spinMicroseconds: 30 };
  const totals = noStats();
  const session = new BackEndSession(ours, blkDevice(source as never, totals), { onLog: (text) => log.push(text) });
  let closed = false;
  const close = async (): Promise<void> => {
    if (closed) return;
    closed = true;
    guest.close();
    await session.done;
    native().storage.close(store);
  };
  opened.push(close);
  await guest.start(theirs);
  const left = (): Buffer => {
    const now = Buffer.alloc(4096);
    fs.readSync(fd.fd, now, 0, 4096, 0);
    return now;
  };
  return { guest, log, close, left, totals };
}
const slot = (guest: Guest, i: number): number => guest.buffers + i * 0x1000;
/** Writes of one sector each; their heads are 0, 3, 6, … */
function offer(guest: Guest, count: number): void {
  for (let i = 0; i < count; i++) {
    guest.memory.write(slot(guest, i) + 512, Buffer.alloc(512, i + 1));
    guest.rings[0]!.add(guest.request(OUT, i, slot(guest, i), 512));
  }
}
/** The ring as if so many had been answered, with these heads. */
function answered(guest: Guest, heads: number[]): void {
  const { used } = guest.rings[0]!.parts;
  heads.forEach((head, i) => {
    const element = Buffer.alloc(8);
    element.writeUInt32LE(head);
    guest.memory.write(used + 4 + 8 * i, element);
  });
  guest.memory.setU16(used + 2, heads.length);
}

test('split: what was taken and not answered is done again, in the order of its taking, and once', async () => {
  const { guest, close, left } = await afterKill(
    false,
    () => splitRegion({ used: 1, lastBatch: 3, entries: { 0: { counter: 1 }, 6: { counter: 3 }, 9: { counter: 2 } } }),
    (g) => {
      offer(g, 5);
      answered(g, [3]);
    },
  );
  expect((await guest.used(5)).sort((a, b) => a - b)).toEqual([0, 3, 6, 9, 12]);
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect(guest.rings[0]!.completed()).toEqual([]);
  for (const i of [0, 2, 3, 4]) expect(guest.status(slot(guest, i))).toBe(0);
  expect(guest.status(slot(guest, 1))).toBe(0xee); // answered before: not done again
  expect(fs.readFileSync(file).subarray(0, 2560)).toEqual(
    Buffer.concat([0, 1, 2, 3, 4].map((i) => Buffer.alloc(512, i === 1 ? 0 : i + 1))),
  );
  const region = left();
  expect(region.readUInt16LE(14)).toBe(5);
  for (let i = 0; i < NUM; i++) expect(region[16 + 16 * i]).toBe(0);
  expect(await guest.stopRing(0)).toBe(5);
  await close();
});

test.each([
  ['used index moved, flags not cleared', { used: 0, lastBatch: 3, entries: { 0: { counter: 0 }, 3: { counter: 1 } } }, [3]],
  [
    'a batch of two, one flag cleared',
    { used: 0, lastBatch: 6, entries: { 0: { counter: 0 }, 3: { counter: 1, next: 0, inflight: false }, 6: { counter: 2, next: 3 } } },
    [3, 6],
  ],
  ['used index not moved', { used: 0, lastBatch: 3, entries: { 0: { counter: 0 }, 3: { counter: 1 } } }, []],
] as [string, Left, number[]][])('split: killed in the middle of an answer: %s', async (_name, region, heads) => {
  const { guest, close } = await afterKill(
    false,
    () => splitRegion(region),
    (g) => {
      offer(g, 3);
      answered(g, heads);
    },
  );
  expect((await guest.used(3)).sort()).toEqual([0, 3, 6]);
  for (const [i, head] of [0, 3, 6].entries()) expect(guest.status(slot(guest, i))).toBe(heads.includes(head) ? 0xee : 0);
  await close();
});

test('split: a region of a ring that was begun anew since counts for nothing', async () => {
  const entries = Object.fromEntries(Array.from({ length: NUM }, (_, i) => [i, { counter: i }]));
  const { guest, close } = await afterKill(
    false,
    () => splitRegion({ used: 700, lastBatch: 3, entries }),
    (g) => offer(g, 2),
  );
  expect(await guest.used(2)).toHaveLength(2);
  await close();
});

test.each([
  ['a batch list that loops', { used: 0, lastBatch: 3, entries: { 3: { counter: 1, next: 3 } } }],
  ['a batch list that leaves the region', { used: 0, lastBatch: 999, entries: { 3: { counter: 1, next: 65535, inflight: false } } }],
] as [string, Left][])('split: %s is survived', async (_name, region) => {
  const { guest, close } = await afterKill(
    false,
    () => splitRegion(region),
    (g) => {
      offer(g, 3);
      answered(g, [0, 3]);
    },
  );
  expect(await guest.used(3)).toEqual([0, 3, 6]);
  await close();
});

interface PackedLeft {
  free: number;
  oldFree: number;
  used: [index: number, wrap: boolean];
  oldUsed: [index: number, wrap: boolean];
  /** Chains in the entries from `first` on. */
  chains: { first: number; counter: number; id: number; parts: { at: number; size: number; write?: boolean }[]; inflight?: boolean }[];
}
function packedRegion(left: PackedLeft): Buffer {
  const bytes = Buffer.alloc(32 + 32 * NUM);
  bytes.writeUInt16LE(1, 8);
  bytes.writeUInt16LE(NUM, 10);
  bytes.writeUInt16LE(left.free, 12);
  bytes.writeUInt16LE(left.oldFree, 14);
  bytes.writeUInt16LE(left.used[0], 16);
  bytes.writeUInt16LE(left.oldUsed[0], 18);
  bytes[20] = Number(left.used[1]);
  bytes[21] = Number(left.oldUsed[1]);
  for (let i = 0; i < NUM; i++) bytes.writeUInt16LE(i + 1, 32 + 32 * i + 2);
  for (const { first, counter, id, parts, inflight = true } of left.chains) {
    const head = 32 + 32 * first;
    bytes[head] = inflight ? 1 : 0;
    bytes.writeUInt16LE(first + parts.length - 1, head + 4);
    bytes.writeUInt16LE(parts.length, head + 6);
    bytes.writeBigUInt64LE(BigInt(counter), head + 8);
    parts.forEach((part, i) => {
      const at = head + 32 * i;
      const last = i === parts.length - 1;
      bytes.writeUInt16LE(id, at + 16);
      bytes.writeUInt16LE((last ? 0 : 1) | (part.write ? 2 : 0), at + 18);
      bytes.writeUInt32LE(part.size, at + 20);
      bytes.writeBigUInt64LE(BigInt(GPA + part.at), at + 24);
    });
  }
  return bytes;
}

/** The first of three chains has been answered by a used descriptor over its first entry. */
function packedAnswered(guest: Guest, id: number): void {
  const bytes = Buffer.alloc(8);
  bytes.writeUInt32LE(1, 0);
  bytes.writeUInt16LE(id, 4);
  bytes.writeUInt16LE((1 << 7) | (1 << 15), 6);
  guest.memory.write(guest.rings[0]!.parts.desc + 8, bytes);
}
const chainOf = (guest: Guest, i: number) => guest.request(OUT, i, slot(guest, i), 512);

test.each([
  ['one answered, one in flight, one not taken', { free: 0, oldFree: 0, used: [3, true], oldUsed: [3, true] }, true],
  ['killed before the used descriptor was written', { free: 0, oldFree: 6, used: [3, true], oldUsed: [0, true] }, false],
  ['killed after the used descriptor was written', { free: 0, oldFree: 6, used: [3, true], oldUsed: [0, true] }, true],
] as [string, Omit<PackedLeft, 'chains'>, boolean][])('packed: %s', async (name, places, written) => {
  const finished = name.startsWith('one');
  const { guest, close, left } = await afterKill(
    true,
    (g) =>
      packedRegion({
        ...places,
        ...(finished && { free: 0, oldFree: 0 }),
        chains: [
          { first: 0, counter: 0, id: 0, parts: chainOf(g, 0), inflight: !finished },
          { first: 3, counter: 1, id: 1, parts: chainOf(g, 1) },
        ],
      }),
    (g) => {
      offer(g, 3);
      if (written) packedAnswered(g, 0);
    },
  );
  expect((await guest.used(3)).sort()).toEqual([0, 1, 2]);
  expect([0, 1, 2].map((i) => guest.status(slot(guest, i)))).toEqual([written ? 0xee : 0, 0, 0]);
  await new Promise((resolve) => setTimeout(resolve, 30));
  expect(guest.rings[0]!.completed()).toEqual([]);
  const region = left();
  for (let i = 0; i < NUM; i++) expect([i, region[32 + 32 * i]]).toEqual([i, 0]);
  await close();
});

test('packed: a list of free entries that loops, and chains that leave the region, are survived', async () => {
  const { guest, close } = await afterKill(
    true,
    (g) => {
      const bytes = packedRegion({
        free: 5,
        oldFree: 5,
        used: [0, true],
        oldUsed: [0, true],
        chains: [{ first: 0, counter: 0, id: 0, parts: chainOf(g, 0) }],
      });
      bytes.writeUInt16LE(65535, 32 + 2); // the chain's second entry
      bytes.writeUInt16LE(5, 32 + 32 * 5 + 2); // the free list
      return bytes;
    },
    () => {},
  );
  await new Promise((resolve) => setTimeout(resolve, 300)); // the ring has a thread of its own
  expect(await guest.front.number('GET_QUEUE_NUM')).toBe(1n);
  await close();
});

test('regions that do not fit their file or the device are refused', async () => {
  const { guest, close } = await afterKill(
    false,
    () => Buffer.alloc(16),
    (g) => offer(g, 0),
  );
  const ask = (over: Record<string, unknown>): Promise<unknown> =>
    guest.front.request('SET_INFLIGHT_FD', { ...guest.region!.payload, ...over }, [
      new OwnedFd(native().vhostUser.dup(guest.region!.fd.fd)),
    ]);
  for (const over of [{ size: 8192n }, { offset: 4096n }, { offset: 4n }, { queues: 0 }, { queues: 7 }, { size: 1n << 63n }])
    await expect(ask(over)).rejects.toThrow('SET_INFLIGHT_FD');
  await ask({});
  await close();
});

test('requests are taken and answered through the region while the ring runs', async () => {
  for (const packed of [false, true]) {
    const { guest, close } = await afterKill(
      packed,
      () => Buffer.alloc(16),
      () => {},
    );
    for (let i = 0; i < 100; i++) {
      guest.rings[0]!.add(guest.request(i % 2 ? IN : OUT, i, slot(guest, i % 4), 512 * (1 + (i % 3)), 1 + (i % 3)));
      guest.kick();
      await guest.used(1);
      expect(guest.status(slot(guest, i % 4))).toBe(0);
    }
    await close();
  }
});
