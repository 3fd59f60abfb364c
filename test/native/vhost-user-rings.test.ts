import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { native } from '../../src/native/index.js';
import { BackEndSession } from '../../src/vhost-user/backend/session.js';
import { blkDevice, noStats } from '../../src/vhost-user/blk/device.js';
import { pair } from '../support/vhost-user.js';
import { Guest, type GuestOptions } from '../support/vhost-user-guest.js';

/** Split and packed rings alike: order, wrapping, indirect tables, stopping and going on, events. */
const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-rings-'));
const file = path.join(dir, 'img');
afterAll(() => fs.rmSync(dir, { recursive: true }));
beforeEach(() => fs.writeFileSync(file, Buffer.alloc(1 << 20)));

async function disk(options: GuestOptions, ioUring = true) {
  const store = native().storage.open(file, {});
  const log: string[] = [];
  const guest = new Guest(options);
  const connect = async () => {
    const [ours, theirs] = pair();
    const source = {
      store,
      readonly: false,
      queues: guest.rings.length,
      serial: '',
      blockSize: 512 as const,
      ioUring,
      spinMicroseconds: 30,
    };
    const session = new BackEndSession(ours, blkDevice(source as never, noStats()), { onLog: (text) => log.push(text) });
    sessions.push(session);
    await guest.start(theirs);
    return session;
  };
  const sessions: BackEndSession[] = [];
  const close = async (): Promise<void> => {
    guest.close();
    for (const session of sessions) await session.done;
    native().storage.close(store);
  };
  await connect().catch(async (err) => {
    await close();
    throw err;
  });
  return { guest, log, close };
}
const [IN, OUT] = [0, 1];

describe.each([
  ['split', false],
  ['packed', true],
] as const)('%s', (_kind, packed) => {
  test.each([
    ['io_uring', true, false],
    ['io_uring, event index', true, true],
    ['preadv, event index', false, true],
  ] as const)('%s: chains of many lengths around and around, direct and indirect', async (_engine, ioUring, eventIdx) => {
    const { guest, close, log } = await disk({ packed, eventIdx, num: 16 }, ioUring);
    const at = guest.buffers;
    for (let i = 0; i < 200; i++) {
      const segments = 1 + (i % 8);
      const size = segments * 512;
      const data = Buffer.alloc(size, `${i}-`);
      const table = i % 3 === 0 ? at + 0x8000 : undefined;
      const parts = guest.request(OUT, i % 50, at, size, segments);
      guest.memory.write(at + 512, data);
      const name = guest.rings[0]!.add(parts, table);
      guest.kick();
      expect(await guest.used(1)).toEqual([name]);
      expect(guest.status(at)).toBe(0);
      guest.memory.write(at + 512, Buffer.alloc(size));
      guest.rings[0]!.add(guest.request(IN, i % 50, at, size, segments), table);
      guest.kick();
      await guest.used(1);
      expect(guest.memory.read(at + 512, size).equals(data)).toBe(true);
    }
    expect(log).toEqual([]);
    await close();
  });

  test('several in flight, answered once each', async () => {
    const { guest, close } = await disk({ packed, num: 64, eventIdx: true });
    for (let round = 0; round < 40; round++) {
      const names: number[] = [];
      for (let slot = 0; ; slot++) {
        const at = guest.buffers + slot * 0x1000;
        const name = guest.rings[0]!.add(guest.request(slot % 2 ? IN : OUT, slot, at, 512));
        if (name === undefined) break;
        names.push(name);
      }
      guest.kick();
      expect((await guest.used(names.length)).sort()).toEqual(names.sort());
    }
    await close();
  });

  test('stop gives the place to go on from', async () => {
    const { guest, close } = await disk({ packed, num: 8 });
    const at = guest.buffers;
    for (let i = 0; i < 25; i++) {
      guest.rings[0]!.add(guest.request(IN, 0, at, 512));
      guest.kick();
      await guest.used(1);
      const base = await guest.stopRing(0);
      expect(base).toBe(guest.rings[0]!.base());
      await guest.startRing(0, base);
    }
    await close();
  });

  test('what came while the ring was stopped is served at its start', async () => {
    const { guest, close } = await disk({ packed, num: 8 });
    const base = await guest.stopRing(0);
    const name = guest.rings[0]!.add(guest.request(IN, 0, guest.buffers, 512));
    guest.kick();
    await new Promise((resolve) => setTimeout(resolve, 30));
    expect(guest.rings[0]!.completed()).toEqual([]);
    await guest.startRing(0, base);
    expect(await guest.used(1)).toEqual([name]);
    await close();
  });
});

test('a packed ring need not be a power of two, a split one must', async () => {
  const { guest, close } = await disk({ packed: true, num: 21 });
  for (let i = 0; i < 50; i++) {
    guest.rings[0]!.add(guest.request(IN, 0, guest.buffers, 512 * (1 + (i % 4)), 1 + (i % 4)));
    guest.kick();
    await guest.used(1);
    expect(guest.status(guest.buffers)).toBe(0);
  }
  await close();
  await expect(disk({ packed: false, num: 21 })).rejects.toThrow('SET_VRING_NUM');
});
