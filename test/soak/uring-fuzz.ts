/** The misuse fuzzer of `vioctl/uring`: `npm run soak -- uring-fuzz [--asan] [--minutes N] [--rounds N] [--seed N]`. */
import { parseArgs } from 'node:util';
import { fuzzRings } from '../support/uring-fuzz.js';

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '10' },
    rounds: { type: 'string', default: '1e9' },
    seed: { type: 'string', default: '1' },
  },
});

process.on('uncaughtException', (err) => {
  if ((err as { code?: string }).code === 'MINE') return; // what a callback threw on purpose
  console.error(err);
  process.exit(1);
});

async function main(): Promise<void> {
  const end = performance.now() + Number(values.minutes) * 60_000;
  const sum = { rings: 0, accepted: 0, refused: 0, called: 0 };
  const first = Number(values.seed);
  for (let seed = first; performance.now() < end && seed < first + Number(values.rounds); seed++) {
    try {
      const count = await fuzzRings(seed * 2654435761, 2000);
      for (const key of Object.keys(sum) as (keyof typeof sum)[]) sum[key] += count[key];
    } catch (err) {
      console.error(`seed ${seed}:`, err);
      process.exit(1);
    }
  }
  console.log(JSON.stringify(sum));
}
void main();
