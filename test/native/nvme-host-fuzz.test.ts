/** The native host against a target whose PDUs are changed at random: every request ends, well or with an error, and nothing is left over. */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { effort } from '../support/effort.js';
import { hostFuzz, usage } from '../support/nvme-host-fuzz.js';
import { eventually } from '../support/wait.js';

/** The slice that every run does; `npm run soak -- nvme-host-fuzz` does more. */
const rounds = effort(50, 150);

test('a target that sends PDUs malformed, early, late, twice, half, or not at all', async () => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-fuzz-'));
  const fuzz = await hostFuzz(dir);
  const seen = new Map<string, number>();
  const first = Number(process.env.SEED ?? Date.now() % 1_000_000);
  for (let i = 0; i < 20; i++) await fuzz.round(i); // pools of threads grow to their size
  const before = usage('self');
  for (let i = 0; i < rounds; i++) {
    const what = await fuzz.round(first + i);
    seen.set(what, (seen.get(what) ?? 0) + 1);
  }
  console.log(`seed ${first}: ${[...seen].map(([what, count]) => `${what} ${count}`).join(', ')}`);
  // some were left alone, and others were not
  expect(seen.get('ok')).toBeGreaterThan(0);
  expect(seen.size).toBeGreaterThan(1);
  await fuzz.close();
  await eventually(() => usage('self').fds <= before.fds);
  const { fds, threads } = usage('self');
  expect({ fds: Math.max(fds, before.fds), threads: Math.max(threads, before.threads) }).toEqual({
    fds: before.fds,
    threads: before.threads,
  });
  fs.rmSync(dir, { recursive: true });
});
