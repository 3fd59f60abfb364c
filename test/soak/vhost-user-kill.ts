/**
 * `serve blk` ended by SIGKILL and SIGTERM at random moments for a long time: `npm run soak -- vhost-user-kill [--rounds N] [--seed N]
 * [--front-end own|qemu]`. Under our own front-end, both kinds of ring and both engines share the rounds; under the one of QEMU 11, a
 * guest with a disk of each kind of ring. Both by default.
 */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { killRounds, randomOf } from '../support/vhost-user-kill.js';
import { killGuest } from '../support/vhost-user-kill-guest.js';

const { values } = parseArgs({
  args: process.argv.slice(1),
  options: {
    rounds: { type: 'string', default: '200' },
    seed: { type: 'string', default: '1' },
    'front-end': { type: 'string' },
  },
});
const [rounds, seed] = [Number(values.rounds), Number(values.seed)];

async function inFolder<T>(work: (dir: string) => Promise<T>): Promise<T> {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-soak-'));
  try {
    return await work(dir);
  } finally {
    fs.rmSync(dir, { recursive: true, force: true });
  }
}

async function main(): Promise<void> {
  const wanted = (name: string): boolean => (values['front-end'] ?? name) === name;
  if (wanted('own'))
    for (const packed of [false, true])
      for (const engine of ['io_uring', 'sync'] as const) {
        const share = Math.ceil(rounds / 4);
        const writes = await inFolder((dir) => killRounds({ dir, packed, engine, rounds: share, seed }));
        console.log(`${packed ? 'packed' : 'split'}, ${engine}: ${share} ends, ${writes} writes, each answered exactly once`);
      }
  if (!wanted('qemu')) return;
  const done = await inFolder((dir) => killGuest({ dir, kills: rounds, random: randomOf(seed) }));
  console.log(`a guest of QEMU 11, split and packed: ${done.kills} ends, ${done.rounds} rounds of fio verified`);
}

void main();
