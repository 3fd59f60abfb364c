/** direct=on: requests whose memory or ends are not aligned, against a model in memory; more of them than there are aligned buffers. */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Sysroot } from '../../src/common/sysroot.js';
import { native } from '../../src/native/index.js';
import { openSource } from '../../src/storage/open.js';
import { ringsOf } from '../../src/uring/host/processes.js';
import { BackEndSession } from '../../src/vhost-user/backend/session.js';
import { blkDevice, noStats } from '../../src/vhost-user/blk/device.js';
import { skip } from '../support/skip.js';
import { pair } from '../support/vhost-user.js';
import { Guest } from '../support/vhost-user-guest.js';

const SIZE = 4 << 20;
const [IN, OUT] = [0, 1];
/** Requests at a time: the ring of a queue has eight buffers. */
const DEPTH = 12;
const SLOT = 0x60000;

let dir: string;
beforeAll(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vhu-direct-'));
});
afterAll(() => fs.rmSync(dir, { recursive: true }));

/** A generator of numbers below a bound; the seed names a failure. */
function numbers(seed: number): (below: number) => number {
  let state = seed >>> 0 || 1;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

test.each([
  ['uring', true],
  ['sync', false],
] as const)('engine %s', async (_name, ioUring) => {
  const file = path.join(dir, 'disk');
  const seed = Number(process.env.SEED ?? Date.now() % 1_000_000);
  const random = numbers(seed);
  const model = Buffer.alloc(SIZE);
  for (let i = 0; i < SIZE; i += 4) model.writeUInt32LE(random(2 ** 32), i);
  fs.writeFileSync(file, model);
  let source: ReturnType<typeof openSource>;
  try {
    source = openSource({ source: file, direct: true, format: 'raw' });
  } catch (err) {
    if ((err as { code?: string }).code === 'EINVAL') return skip('direct I/O of guests', 'the file system of the tests has no O_DIRECT');
    throw err;
  }
  const unit = Math.max(512, source.geometry.directOffset);
  const guest = new Guest({ num: 128 }, 0x10000 + DEPTH * SLOT);
  const [ours, theirs] = pair();
  const log: string[] = [];
  const device = blkDevice({ ...source, queues: 1, serial: '', ioUring, spinMicroseconds: 30 }, noStats());
  const session = new BackEndSession(ours, device, { onLog: (text) => log.push(text) });
  await guest.start(theirs);
  for (let round = 0; round < 40; round++) {
    // reads and writes do not meet within a round: each has a stripe of its own
    const stripe = Math.floor(SIZE / DEPTH / unit) * unit;
    const asked = Array.from({ length: DEPTH }, (_, i) => {
      const write = random(2) === 0;
      const step = write ? unit : 512;
      const most = Math.min(stripe, 300 << 10) / step;
      const size = (1 + random(random(4) === 0 ? most : 24)) * step;
      const offset = i * stripe + Math.floor(random(stripe - size + 1) / step) * step;
      const at = guest.buffers + i * SLOT + random(2) * (1 + random(600));
      const parts = guest.request(write ? OUT : IN, offset / 512, at, size, size % 1024 === 0 ? 1 + random(2) : 1);
      if (write) {
        const data = Buffer.alloc(size, random(256));
        data.writeUInt32LE(random(2 ** 32));
        guest.memory.write(at + 512, data);
        data.copy(model, offset);
      }
      guest.rings[0]!.add(parts);
      return { write, at, offset, size };
    });
    guest.kick();
    await guest.used(DEPTH);
    for (const { write, at, offset, size } of asked) {
      expect([seed, round, write, offset, size, guest.status(at)]).toEqual([seed, round, write, offset, size, 0]);
      if (!write && !guest.memory.read(at + 512, size).equals(model.subarray(offset, offset + size)))
        throw new Error(`seed ${seed}, round ${round}: wrong data at ${offset}+${size}`);
    }
  }
  // the file, and the eight buffers for what is not aligned
  const rings = ringsOf(new Sysroot(), process.pid).filter(({ files }) => files.some((one) => one.path === file));
  expect(rings.map(({ buffers }) => buffers.map(({ size }) => size))).toEqual(ioUring ? [Array(8).fill(256 << 10)] : []);
  await guest.stopRing(0);
  guest.close();
  await session.done;
  native().storage.close(source.store);
  expect(fs.readFileSync(file).equals(model)).toBe(true);
  expect(log).toEqual([]);
});
