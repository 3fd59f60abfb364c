/** A source of a server that connects again and again: `npm run soak -- nvmf-reconnects [--rounds N]`. */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { reconnects } from '../support/nvme-reconnects.js';

const { values } = parseArgs({ args: process.argv.slice(1), options: { rounds: { type: 'string', default: '1000' } } });

async function main(): Promise<void> {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-soak-'));
  const { cuts, before, after } = await reconnects(dir, Number(values.rounds));
  console.log(
    `${cuts} cuts, no error, all data right; descriptors ${before.fds} -> ${after.fds}, threads ${before.threads} -> ${after.threads}, ` +
      `RSS ${before.rss.toFixed(0)} -> ${after.rss.toFixed(0)} MiB`,
  );
  fs.rmSync(dir, { recursive: true });
}

void main();
