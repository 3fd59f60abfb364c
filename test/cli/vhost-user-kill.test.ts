import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { killRounds } from '../support/vhost-user-kill.js';

/** A slice of test/soak/vhost-user-kill: servers that end at any moment lose and repeat nothing. */
let dir: string;
beforeEach(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-kill-'));
});
afterEach(() => fs.rmSync(dir, { recursive: true }));

test.each([
  ['split', 'io_uring'],
  ['packed', 'io_uring'],
  ['split', 'sync'],
  ['packed', 'sync'],
] as const)('%s, %s: each write is answered exactly once over kill -9 and SIGTERM', async (kind, engine) => {
  expect(await killRounds({ dir, packed: kind === 'packed', engine, rounds: 5, seed: 7 })).toBeGreaterThan(50);
});
