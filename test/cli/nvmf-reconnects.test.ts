/** A source that connects again and again loses no request and no data, and leaves nothing behind. */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { effort } from '../support/effort.js';
import { reconnects } from '../support/nvme-reconnects.js';

/** The slice that every run does; `npm run soak -- nvmf-reconnects` does 1,000. */
const rounds = effort(20, 60);

test('connections that are cut in the midst of requests', async () => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-again-'));
  const { cuts, before, after } = await reconnects(dir, rounds);
  expect(cuts).toBe(rounds);
  // an attempt has a thread, and two descriptors, beside the connections
  expect(after.threads).toBeLessThanOrEqual(before.threads + 2);
  expect(after.fds).toBeLessThanOrEqual(before.fds + 4);
  expect(after.rss - before.rss).toBeLessThan(32);
  fs.rmSync(dir, { recursive: true });
});
