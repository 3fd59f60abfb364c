/**
 * A guest that attacks `serve blk` with random chains: `npm run soak -- vhost-user-attack [--seconds N] [--seed N]`. Both kinds of ring
 * and both engines share the time. Ten minutes by default.
 */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { attack } from '../support/vhost-user-attack.js';

const { values } = parseArgs({
  args: process.argv.slice(1),
  options: { seconds: { type: 'string', default: '600' }, seed: { type: 'string', default: String(Date.now() & 0xffff) } },
});

async function main(): Promise<void> {
  for (const packed of [false, true])
    for (const engine of ['uring', 'sync'] as const) {
      const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-attack-'));
      const { rounds, stopped, honest, resident } = await attack({
        dir,
        packed,
        engine,
        seconds: Number(values.seconds) / 4,
        seed: Number(values.seed),
      });
      const size = `${(resident / 2 ** 20).toFixed(1)} MiB resident at most`;
      console.log(
        `${packed ? 'packed' : 'split'}, ${engine}, seed ${values.seed}: ${rounds} rounds, ${stopped} rings logged, ${honest} honest requests, ${size}`,
      );
      fs.rmSync(dir, { recursive: true });
    }
}

void main();
