/** The misuse fuzzer of `vioctl/uring`: `npm run soak -- uring-misuse [--asan] [--minutes N] [--rounds N] [--seed N]`. */
import path from 'node:path';
import { parseArgs } from 'node:util';
import v8 from 'node:v8';
import vm from 'node:vm';
import { Worker } from 'node:worker_threads';
import { fuzzRings } from '../support/uring-misuse.js';

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '10' },
    rounds: { type: 'string', default: '1e9' },
    seed: { type: 'string', default: '1' },
  },
});

v8.setFlagsFromString('--expose-gc');
(globalThis as { gc?: () => void }).gc = vm.runInNewContext('gc');

/** The same calls in a worker that is ended at a random moment, with rings open and requests under way. */
async function inWorker(seed: number): Promise<void> {
  const source = `require('tsx/cjs'); process.on('uncaughtException', (err) => { if (err.code !== 'MINE') throw err; });
    require(${JSON.stringify(path.resolve('test/support/uring-misuse.ts'))}).fuzzRings(${seed}, 2000);
    require('node:worker_threads').parentPort.postMessage('begun');`;
  const worker = new Worker(source, { eval: true });
  const failed = new Promise<never>((_, reject) => worker.on('error', reject));
  const ended = new Promise((resolve) => worker.on('exit', resolve));
  await Promise.race([new Promise((resolve) => worker.on('message', resolve)), failed]);
  await Promise.race([new Promise((resolve) => setTimeout(resolve, seed % 100)), ended, failed]);
  await worker.terminate();
}

process.on('uncaughtException', (err) => {
  if ((err as { code?: string }).code === 'MINE') return; // what a callback threw on purpose
  console.error(err);
  process.exit(1);
});

async function main(): Promise<void> {
  const end = performance.now() + Number(values.minutes) * 60_000;
  const sum = { rings: 0, accepted: 0, refused: 0, called: 0, workers: 0 };
  const first = Number(values.seed);
  for (let seed = first; performance.now() < end && seed < first + Number(values.rounds); seed++) {
    try {
      if (seed % 4 === 0) {
        await inWorker(seed);
        sum.workers++;
        continue;
      }
      const count = await fuzzRings(seed * 2654435761, 2000);
      for (const key of Object.keys(count) as (keyof typeof count)[]) sum[key] += count[key];
    } catch (err) {
      console.error(`seed ${seed}:`, err);
      process.exit(1);
    }
  }
  console.log(JSON.stringify(sum));
}
void main();
