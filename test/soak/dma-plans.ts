/**
 * Random sets of DMA mappings against exhaustive search: `npm run soak -- dma-plans [--sets N] [--seed N]`.
 * A failure prints its seed and the smallest set that shows it.
 */
import { parseArgs } from 'node:util';
import fc from 'fast-check';
import { planProperty } from '../support/plan-sets.js';

const { values } = parseArgs({
  args: process.argv.slice(1),
  options: { sets: { type: 'string', default: '10000' }, seed: { type: 'string' } },
});

fc.assert(planProperty, { numRuns: Number(values.sets), ...(values.seed !== undefined && { seed: Number(values.seed) }) });
console.log(`${values.sets} sets, none refused without reason, no overlap, one plan for every order`);
