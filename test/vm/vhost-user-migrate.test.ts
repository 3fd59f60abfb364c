import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { migrateGuest } from '../support/vhost-user-migrate.js';
import { qemu } from './qemu.js';

/** A slice of test/soak/vhost-user-migrate. */
test('a guest under fio verify moves from QEMU 10 to 10 to 11, and its disk from server to server', async () => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-migrate-'));
  try {
    const [ten, eleven] = await Promise.all([qemu('10'), qemu('11')]);
    const { hops, rounds } = await migrateGuest({ dir, builds: [ten, ten, eleven], hops: 2, packed: true, engine: 'uring' });
    expect(hops).toBe(2);
    expect(rounds).toBeGreaterThanOrEqual(2);
  } finally {
    fs.rmSync(dir, { recursive: true, force: true });
  }
});
