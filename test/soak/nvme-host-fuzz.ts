/** The fuzzer of the native host for a long time: `npm run soak -- nvme-host-fuzz [--rounds N] [--seed N]`. */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { hostFuzz, usage } from '../support/nvme-host-fuzz.js';

const { values } = parseArgs({
  args: process.argv.slice(1),
  options: { rounds: { type: 'string', default: '20000' }, seed: { type: 'string', default: '1' } },
});

async function main(): Promise<void> {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-soak-'));
  const fuzz = await hostFuzz(dir);
  const [rounds, seed] = [Number(values.rounds), Number(values.seed)];
  const seen = new Map<string, number>();
  let before = usage('self');
  for (let i = 0; i < rounds; i++) {
    const what = await fuzz.round(seed + i);
    seen.set(what, (seen.get(what) ?? 0) + 1);
    if (i === Math.floor(rounds / 10)) before = usage('self');
  }
  const after = usage('self');
  const grown = (after.rss - before.rss).toFixed(0);
  console.log([...seen].map(([what, count]) => `${what} ${count}`).join(', '));
  console.log(
    `${rounds} rounds; descriptors ${before.fds} -> ${after.fds}, threads ${before.threads} -> ${after.threads}, ${grown} MiB more`,
  );
  await fuzz.close();
  fs.rmSync(dir, { recursive: true });
}

void main();
