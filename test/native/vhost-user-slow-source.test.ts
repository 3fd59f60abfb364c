/**
 * Disks that hang, beside others in one process: nobody waits for them but their own guests, and their own guests' control
 * messages do not either. What was taken is answered once, and GET_VRING_BASE waits for it.
 */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { native } from '../../src/native/index.js';
import { openSource } from '../../src/storage/open.js';
import { BackEndSession } from '../../src/vhost-user/backend/session.js';
import { blkDevice, noStats } from '../../src/vhost-user/blk/device.js';
import { FaultDisk, noFaultDisk } from '../support/fault-disk.js';
import { skip } from '../support/skip.js';
import { blkHeader, blkRange, duplicate, pair } from '../support/vhost-user.js';
import { GPA, Guest, type GuestOptions } from '../support/vhost-user-guest.js';

/** Milliseconds that a slow request takes. */
const delay = 4000;
const [IN, OUT, FLUSH, GET_ID, DISCARD, WRITE_ZEROES] = [0, 1, 4, 8, 11, 13];
/** Bytes of a disk; a guest reads away from its start, which was read when the disk was opened. */
const SIZE = 16 << 20;

interface Disk {
  guest: Guest;
  log: string[];
  totals: ReturnType<typeof noStats>;
  close: () => Promise<void>;
}

async function serve(file: string, ioUring: boolean, options: GuestOptions = {}): Promise<Disk> {
  const guest = new Guest({ num: 128, inflight: true, ...options });
  const source = {
    ...openSource({ source: file, format: 'raw' }),
    queues: guest.rings.length,
    serial: 'SN',
    ioUring,
    spinMicroseconds: 30,
  };
  const [ours, theirs] = pair();
  const log: string[] = [];
  const totals = noStats();
  const session = new BackEndSession(ours, blkDevice(source, totals), { onLog: (text) => log.push(text) });
  await guest.start(theirs);
  const close = async (): Promise<void> => {
    guest.close();
    await session.done;
    native().storage.close(source.store);
  };
  return { guest, log, totals, close };
}

/** Puts one request into ring 0. @returns where it lies */
function put(guest: Guest, type: number, slot: number, sector: number): number {
  const at = guest.buffers + slot * 0x2000;
  if (type === DISCARD || type === WRITE_ZEROES) {
    const parts = guest.request(OUT, 0, at, 16);
    guest.memory.write(at + 512, blkRange(BigInt(sector), 8));
    guest.memory.write(at, blkHeader(type));
    guest.rings[0]!.add(parts);
  } else {
    if (type === OUT) guest.memory.write(at + 512, Buffer.alloc(4096, slot + 1));
    guest.rings[0]!.add(guest.request(type, sector, at, type === FLUSH ? 0 : 4096));
  }
  return at;
}

describe.each([
  ['uring', true],
  ['sync', false],
] as const)('a disk that hangs, engine %s', (_name, ioUring) => {
  let dir: string;
  let slow: FaultDisk[];
  const disks: Disk[] = [];
  const calm = async (): Promise<void> => {
    for (const disk of slow) await disk.set({ write_delay: 0, read_delay: 0, sync_delay: 0 });
  };
  const setUp = async (count: number): Promise<string | undefined> => {
    const missing = noFaultDisk();
    if (missing) return void skip('disks that hang', missing);
    dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vhu-slow-'));
    const fast = path.join(dir, 'fast.img');
    fs.writeFileSync(fast, Buffer.alloc(1 << 20, 'fast'));
    slow = [];
    for (let i = 0; i < count; i++) slow.push(await FaultDisk.open(SIZE));
    return fast;
  };
  const tearDown = async (): Promise<void> => {
    await calm();
    for (const disk of disks.splice(0)) await disk.close();
    for (const disk of slow) await disk.close();
    fs.rmSync(dir, { recursive: true, force: true });
  };
  /** Everything that a guest and its VMM do with a disk. */
  const neighbour = async ({ guest }: Disk): Promise<void> => {
    for (const type of [IN, OUT, FLUSH, GET_ID, WRITE_ZEROES, DISCARD]) {
      const at = put(guest, type, 0, 64);
      guest.kick();
      await guest.used(1);
      expect([type, guest.status(at)]).toEqual([type, 0]);
    }
    expect((await guest.front.config(0, 8))!.length).toBe(8);
    const base = await guest.stopRing(0);
    await guest.startRing(0, base);
  };
  /** Many requests of all kinds. @returns where they lie */
  const load = ({ guest }: Disk, count: number): number[] => {
    const kinds = [OUT, IN, FLUSH, WRITE_ZEROES, OUT, IN];
    const at = Array.from({ length: count }, (_, i) => put(guest, kinds[i % kinds.length]!, i, 8192 + 64 * i));
    guest.kick();
    return at;
  };

  test.each([
    ['split', false],
    ['packed', true],
  ])('%s: neither other disks nor any control message wait for it; what it had taken is answered once', async (_ring, packed) => {
    const fast = await setUp(1);
    if (fast === undefined) return;
    try {
      const [a, b] = [await serve(fast, ioUring, { packed }), await serve(slow[0]!.file, ioUring, { packed })];
      disks.push(a, b);
      const seconds = delay / 1000;
      await slow[0]!.set({ write_delay: seconds, read_delay: seconds, sync_delay: seconds });
      const places = load(b, 30);
      for (let round = 0; round < 3; round++) {
        await neighbour(a);
        // the slow disk's own VMM asks, maps its memory anew and moves an eventfd
        expect((await b.guest.front.config(0, 8))!.length).toBe(8);
        const region = { gpa: BigInt(GPA), size: BigInt(b.guest.memory.size), uva: 0x7f0000000000n, offset: 0n };
        await b.guest.front.request('SET_MEM_TABLE', { count: 1, regions: [region] }, [duplicate(b.guest.memory.fd)]);
        await b.guest.front.request('SET_VRING_CALL', { value: 0n }, [duplicate(b.guest.calls[0]!)]);
      }
      expect(b.guest.rings[0]!.completed()).toEqual([]); // and nothing of the slow one is done
      const stopped = b.guest.stopRing(0);
      await neighbour(a);
      await calm();
      await stopped;
      expect(await b.guest.used(30)).toHaveLength(30);
      expect(places.map((at) => b.guest.status(at))).toEqual(places.map(() => 0));
      // the memory of the last table, in which the reads have ended
      expect(b.guest.memory.read(places[1]! + 512, 4096)).toEqual(Buffer.alloc(4096));
      await b.close();
      disks.splice(1);
      expect(b.totals).toMatchObject({ reads: 10, writes: 10, flushes: 5, others: 5, errors: 0 });
      expect([a.log, b.log]).toEqual([[], []]);
    } finally {
      await tearDown();
    }
  });

  test('more disks that hang than libuv has threads, each asked for its size: nobody waits', async () => {
    const fast = await setUp(6);
    if (fast === undefined) return;
    try {
      const a = await serve(fast, ioUring);
      disks.push(a);
      for (const disk of slow) disks.push(await serve(disk.file, ioUring));
      for (const disk of slow) await disk.set({ write_delay: delay / 1000, sync_delay: delay / 1000 });
      for (const disk of disks.slice(1)) load(disk, 12);
      await neighbour(a);
      // what Node itself does in its pool
      expect((await fs.promises.readFile(fast)).length).toBe(1 << 20);
      for (const disk of disks.slice(1)) expect(disk.totals.errors).toBe(0);
      const done = disks.slice(1).map((disk) => disk.guest.rings[0]!.completed().length);
      expect(Math.max(...done)).toBeLessThan(12);
      await calm();
      for (const [i, disk] of disks.slice(1).entries()) await disk.guest.used(12 - done[i]!, 0, 30_000);
    } finally {
      await tearDown();
    }
  });

  test('a request that the source fails is an error of that request, and of no other', async () => {
    const fast = await setUp(1);
    if (fast === undefined) return;
    try {
      const b = await serve(slow[0]!.file, ioUring);
      disks.push(b);
      await slow[0]!.set({ fail_writes: 1 });
      put(b.guest, OUT, 0, 4096);
      b.guest.kick();
      await b.guest.used(1);
      expect(b.guest.status(b.guest.buffers)).toBe(1);
      const at = put(b.guest, OUT, 1, 4096);
      b.guest.kick();
      await b.guest.used(1);
      expect(b.guest.status(at)).toBe(0);
    } finally {
      await tearDown();
    }
  });
});
