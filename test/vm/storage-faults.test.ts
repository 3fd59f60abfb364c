// Disks that lose data (dm-error) and disks that are slow (dm-delay) below both servers, under Linux's NVMe/TCP host, our
// host and our vhost-user front-end.
import { kernelsFor } from './lab.js';
import { storageFacts } from './storage/lab.js';

const failed = Array.from({ length: 3 }, () => expect.stringMatching(/^error /));
const fine = ['ok', 'ok', 'ok'];

// What a kernel says of a lost write-back, and to whom, has changed more than once: the oldest and the newest.
test.each(kernelsFor(['6.1', '7']))(
  '%s: a disk that has lost data: everybody gets an error at each flush until the source is opened anew',
  async (kernel) => {
    const facts = await storageFacts('faults', 'lost', kernel);
    for (const engine of ['uring', 'sync'])
      expect(facts).toMatchObject({
        [`nvmf-${engine} before`]: { kernel: fine, own: fine },
        [`nvmf-${engine} write`]: 'ok',
        [`nvmf-${engine} lost`]: { kernel: failed, own: failed },
        [`nvmf-${engine} back`]: { kernel: failed, own: failed, late: failed },
        [`nvmf-${engine} durable write`]: expect.stringMatching(/^error /),
        [`nvmf-${engine} read`]: 'ok true',
        [`nvmf-${engine} critical warning`]: expect.any(Number),
        [`nvmf-${engine} write after reopen`]: 'ok',
        [`nvmf-${engine} reopened`]: { kernel: fine, own: fine, late: fine },
        [`nvmf-${engine} on the disk`]: '0',
        [`blk-${engine} before`]: { ring: fine },
        [`blk-${engine} write`]: 'ok',
        [`blk-${engine} lost`]: { ring: failed },
        [`blk-${engine} back`]: { ring: failed },
        [`blk-${engine} next front-end`]: { ring: failed },
        [`blk-${engine} write after reopen`]: 'ok',
        [`blk-${engine} reopened`]: { ring: fine },
      });
    for (const engine of ['uring', 'sync']) {
      expect(facts[`nvmf-${engine} critical warning`]).not.toBe(0);
      expect([facts[`nvmf-${engine} status`], facts[`blk-${engine} status`]]).toEqual([0, 0]);
    }
  },
);

/** Milliseconds that nobody may wait for a source of somebody else. */
const MOST = 100;
/** The slow disk takes 8 s for a write. Whoever waits for it waits for seconds, on the slowest machine as well. */
const WAITED = 3000;

interface Times {
  count: number;
  middle: number;
  /** Nine of ten are no slower. */
  most: number;
  longest: number;
}
interface Slow {
  idle: Record<string, Times>;
  busy: Record<string, Times>;
  stuck: number;
  seconds: number;
  outcomes: string[];
}

test('a disk with writes of 8 s: keep-alive, admin commands and other sources answer within 100 ms', async () => {
  const facts = await storageFacts('faults', 'slow');
  for (const server of ['nvmf', 'blk'])
    for (const engine of ['uring', 'sync']) {
      const { idle, busy, stuck, seconds, outcomes } = facts[`slow ${server} ${engine}`] as Slow;
      console.log(`${server} ${engine}: ${JSON.stringify({ idle, busy })}`);
      expect(outcomes).toEqual(['ok']);
      expect(stuck).toBeGreaterThan(0); // they were under way all the time
      expect(seconds).toBeGreaterThan(7.9);
      for (const [name, { count, middle, most, longest }] of Object.entries(busy)) {
        // The emulated machine's own outliers are those that it has without the slow disk.
        const within = { name, middle: middle < MOST, most: most < MOST + idle[name]!.longest, longest: longest < WAITED };
        expect(within).toEqual({ name, middle: true, most: true, longest: true });
        expect(count).toBeGreaterThanOrEqual(10);
      }
      expect(facts[`slow ${server} ${engine} status`]).toBe(0);
    }
});
