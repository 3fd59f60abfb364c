/**
 * `serve blk` ended by SIGKILL and SIGTERM at random moments for a long time: `npm run soak -- vhost-user-kill [--rounds N] [--seed N]`.
 * Both kinds of ring and both engines share the rounds.
 */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { killRounds } from '../support/vhost-user-kill.js';

const { values } = parseArgs({
  args: process.argv.slice(1),
  options: { rounds: { type: 'string', default: '200' }, seed: { type: 'string', default: '1' } },
});

async function main(): Promise<void> {
  const rounds = Math.ceil(Number(values.rounds) / 4);
  for (const packed of [false, true])
    for (const engine of ['io_uring', 'sync'] as const) {
      const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-soak-'));
      const writes = await killRounds({ dir, packed, engine, rounds, seed: Number(values.seed) });
      console.log(`${packed ? 'packed' : 'split'}, ${engine}: ${rounds} ends, ${writes} writes, each answered exactly once`);
      fs.rmSync(dir, { recursive: true });
    }
}

void main();
