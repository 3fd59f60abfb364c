/**
 * Both servers on both engines over a disk that fails at random, with restarts and power cuts:
 * `npm run soak -- storage-faults [--minutes N] [--seed N]`, 10 minutes at least. Prints what each did, and how the server's memory, descriptors
 * and threads changed over its longest life. A disk without faults of its own is needed: root and /dev/fuse.
 */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { FaultDisk, noFaultDisk } from '../support/fault-disk.js';
import { STORM_SIZE, type StormOptions, storm } from '../support/storage-storm.js';

const { values } = parseArgs({
  args: process.argv.slice(1),
  options: { minutes: { type: 'string', default: '30' }, seed: { type: 'string', default: '1' } },
});

/** Bytes that a server may grow by: its caches fill, and the allocator keeps what was free. */
const MOST_GROWTH = 48 << 20;
/** Seconds that a storm lasts at least, and that the last servers, comparisons and clean-ups of a cell take. */
const LEAST = 10;
const ASIDE = 20;
/** Threads that may be more: rings and the executor start and end them as work comes. */
const MOST_THREADS = 4;

/** The ring is used on devices only (native/storage/file.cc), the short transfers come from files. */
const cells: Pick<StormOptions, 'kind' | 'engine' | 'suffix' | 'loop'>[] = (['nvmf', 'vhost-user'] as const).flatMap((kind) =>
  (['uring', 'sync'] as const).flatMap((engine) =>
    [true, false].flatMap((loop) => ['', ',direct=on'].map((suffix) => ({ kind, engine, suffix, loop }))),
  ),
);

async function main(): Promise<void> {
  const missing = noFaultDisk();
  if (missing) throw new Error(missing);
  const end = performance.now() + Number(values.minutes) * 60_000;
  for (const [i, cell] of cells.entries()) {
    // what a cell needs besides its storm is taken from the time of all
    const seconds = Math.max(LEAST, (end - performance.now()) / 1000 / (cells.length - i) - ASIDE);
    const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-soak-'));
    const disk = await FaultDisk.open(STORM_SIZE, true);
    const seed = Number(values.seed) * 100 + i;
    const name = `${cell.kind}, engine ${cell.engine}, ${cell.loop ? 'device' : 'file'}${cell.suffix}`;
    try {
      const { requests, failed, lives, latches, reopens, grown, errors } = await storm({ ...cell, dir, disk, seconds, seed });
      console.log(
        `${name}: ${requests} requests, ${failed} failed as they had to, data right; lives ended by term ${lives.term}, kill ${lives.kill}, ` +
          `power cut ${lives.cut}; ${latches} failed syncs seen, ${reopens} reopened; after ${grown.seconds.toFixed(0)} s ` +
          `${(grown.rss / 2 ** 20).toFixed(1)} MiB, ${grown.fds} descriptors, ${grown.threads} threads more`,
      );
      console.log(`  injected ${JSON.stringify(await disk.injected())}\n  answered ${JSON.stringify(errors)}`);
      if (grown.rss > MOST_GROWTH || grown.fds > 0 || grown.threads > MOST_THREADS) throw new Error('the server grows');
    } catch (err) {
      throw new Error(`${name}, seed ${seed}: ${(err as Error).message}`, { cause: err });
    } finally {
      await disk.close();
      fs.rmSync(dir, { recursive: true, force: true });
    }
  }
}

void main();
