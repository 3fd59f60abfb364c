/**
 * Mutated migration streams of many kinds: `npm run soak -- migration-mutations [--inputs N] [--seed N]`. Each thousand runs in
 * a process of its own, which is ended if it hangs.
 */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { type Mutated, mutations } from '../support/migration-mutations.js';

const { values } = parseArgs({
  args: process.argv.slice(1),
  options: { inputs: { type: 'string', default: '10000' }, seed: { type: 'string', default: '1' }, part: { type: 'string' } },
});
const PART = 1000;
const MINUTES = 5;
/** What a process may take with Node's own 50 MB and the tools that run TypeScript. */
const MOST = 250 << 20;

/** One part, in this process: its result on stdout. */
async function part(first: number, end: number): Promise<void> {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-soak-'));
  try {
    console.log(JSON.stringify(await mutations(dir, Number(values.seed), first, end)));
  } finally {
    fs.rmSync(dir, { recursive: true, force: true });
  }
}

function main(): void {
  const sum: Mutated = { inputs: 0, verdicts: {}, slowest: 0, rss: 0 };
  const inputs = Number(values.inputs);
  const load = `require('tsx/cjs'); require(${JSON.stringify(__filename)})`;
  for (let first = 0; first < inputs; first += PART) {
    const range = `${first}-${Math.min(inputs, first + PART)}`;
    const args = ['--max-old-space-size=96', '-e', load, '--', '--seed', values.seed, '--part', range];
    const { status, signal, stdout } = spawnSync(process.execPath, args, {
      stdio: ['ignore', 'pipe', 'inherit'],
      encoding: 'utf8',
      timeout: MINUTES * 60_000,
      killSignal: 'SIGKILL',
    });
    if (status !== 0) throw new Error(`inputs ${range}: ${signal ? `ended by ${signal}: it hangs` : `status ${status}`}`);
    const done = JSON.parse(stdout) as Mutated;
    sum.inputs += done.inputs;
    sum.slowest = Math.max(sum.slowest, done.slowest);
    sum.rss = Math.max(sum.rss, done.rss);
    for (const [verdict, count] of Object.entries(done.verdicts)) sum.verdicts[verdict] = (sum.verdicts[verdict] ?? 0) + count;
    if (done.rss > MOST) throw new Error(`inputs ${range}: ${(done.rss / 2 ** 20).toFixed(0)} MB`);
  }
  console.log(`${sum.inputs} inputs, slowest ${sum.slowest.toFixed(0)} ms, at most ${(sum.rss / 2 ** 20).toFixed(0)} MB:`, sum.verdicts);
}

if (values.part) {
  const [first, end] = values.part.split('-').map(Number) as [number, number];
  part(first, end).catch((err: Error) => {
    console.error(err.message);
    process.exitCode = 1;
  });
} else main();
