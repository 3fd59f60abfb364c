import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { attack, residentBound } from '../support/vhost-user-attack.js';

/** A slice of test/soak/vhost-user-attack: random chains of a guest harm only their own ring. */
let dir: string;
beforeEach(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-attack-'));
});
afterEach(() => fs.rmSync(dir, { recursive: true }));

test.each([
  ['split', 'uring'],
  ['packed', 'uring'],
  ['split', 'sync'],
  ['packed', 'sync'],
] as const)('%s, %s: the ring is stopped with a line in the log; other rings and disks go on, in bounded memory', async (kind, engine) => {
  const result = await attack({ dir, packed: kind === 'packed', engine, seconds: 3, seed: 11 });
  expect(result.rounds).toBeGreaterThan(0);
  expect(result.stopped).toBeGreaterThan(0);
  expect(result.resident).toBeLessThan(residentBound);
});
