import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { native } from '../../src/native/index.js';
import { openSource } from '../../src/storage/open.js';
import { BackEndSession } from '../../src/vhost-user/backend/session.js';
import { blkDevice, noStats } from '../../src/vhost-user/blk/device.js';
import { pair } from '../support/vhost-user.js';
import { Guest } from '../support/vhost-user-guest.js';

/** A queue looks for chains for a while before it sleeps: none may be missed between its last look and its sleep. */

const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vhu-spin-'));
const file = path.join(dir, 'disk');
fs.writeFileSync(file, Buffer.alloc(1 << 20, 'data'));
afterAll(() => fs.rmSync(dir, { recursive: true }));

/** Requests one by one, with gaps around the time of a spin, from a driver that kicks only when it is asked to. @returns the kicks */
async function oneByOne(spinMicroseconds: number, ioUring: boolean, packed: boolean, eventIdx: boolean, count: number): Promise<number> {
  const guest = new Guest({ packed, eventIdx, num: 16 });
  const source = { ...openSource({ source: file }), queues: 1, serial: '', ioUring, spinMicroseconds };
  const [ours, theirs] = pair();
  const totals = noStats();
  const session = new BackEndSession(ours, blkDevice(source, totals), { onLog: () => {} });
  await guest.start(theirs);
  const [ring] = guest.rings as [(typeof guest.rings)[0]];
  const { avail, used } = ring.parts;
  // virtio 1.3, 2.7.10 and 2.8.10: the driver looks at this after it has made the chain available
  const wantsKick = (): boolean => {
    if (packed) return guest.memory.u16(used + 2) !== 1;
    if (!eventIdx) return (guest.memory.u16(used) & 1) === 0;
    return guest.memory.u16(used + 4 + 8 * ring.num) === ((guest.memory.u16(avail + 2) - 1) & 0xffff);
  };
  let kicks = 0;
  let seed = 1;
  for (let i = 0; i < count; i++) {
    seed = (seed * 1103515245 + 12345) & 0x7fff_ffff;
    if (i % 100 === 99) await new Promise((resolve) => setTimeout(resolve, 2));
    else for (const end = performance.now() + (seed % 80) / 1000; performance.now() < end; );
    const at = guest.buffers + (i % 8) * 0x2000;
    ring.add(guest.request(0, (i % 16) * 8, at, 4096));
    if (wantsKick()) {
      kicks++;
      guest.kick();
    }
    // The answer is looked for, not waited for in the event loop, so that the gaps are as short as drawn.
    let done: number[] = [];
    for (const end = performance.now() + 60_000; done.length === 0; done = ring.completed())
      if (performance.now() > end) throw new Error(`request ${i} of ${count} was not answered, after ${kicks} kicks`);
    expect([done.length, guest.status(at)]).toEqual([1, 0]);
  }
  await guest.stopRing(0);
  guest.close();
  await session.done;
  native().storage.close(source.store);
  expect(totals.reads).toBe(count);
  return kicks;
}

const rings: [name: string, packed: boolean, eventIdx: boolean][] = [
  ['split, event index', false, true],
  ['split, flags', false, false],
  ['packed, flags', true, false],
];

describe.each([
  ['io_uring', true],
  ['preadv', false],
] as const)('%s', (_name, ioUring) => {
  test.each(rings)('%s: every request is answered, whenever it comes', async (_ring, packed, eventIdx) => {
    await oneByOne(30, ioUring, packed, eventIdx, 2000);
  });
  test.each(rings)('%s: while it looks, the driver need not kick; its end is not delayed', async (_ring, packed, eventIdx) => {
    expect(await oneByOne(1_000_000, ioUring, packed, eventIdx, 300)).toBeLessThan(30);
  });
  test.each(rings)('%s: without a spin, it sleeps', async (_ring, packed, eventIdx) => {
    expect(await oneByOne(0, ioUring, packed, eventIdx, 300)).toBeGreaterThan(30);
  });
});
