/**
 * The pipelining fuzzer of the NVMe/TCP target for a long time: `npm run soak -- nvme-fuzz [--pdus N] [--seeds N,N…]`.
 * Each seed attacks a target of its own, in turn with both engines and with its JavaScript stalled; the data of another
 * host is verified all the time.
 */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { fuzz, serveAttacked } from '../support/nvme-fuzz.js';

const { values } = parseArgs({
  args: process.argv.slice(1),
  options: {
    pdus: { type: 'string', default: '2000000' },
    seeds: { type: 'string', default: '1,20260,8675309,424242,14601055' },
  },
});

async function main(): Promise<void> {
  const seeds = values.seeds.split(',').map(Number);
  const each = Math.ceil(Number(values.pdus) / seeds.length);
  let sum = 0;
  for (const [i, seed] of seeds.entries()) {
    const engine = i % 2 === 0 ? 'sync' : 'uring';
    const stall = i % 3 === 1 ? 60 : 0;
    const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-soak-'));
    const attacked = await serveAttacked(dir, { engine, stall });
    const { target, nqn, fds, rss } = attacked;
    const before = { fds: fds(), rss: 0 };
    const began = performance.now();
    const verifier = attacked.verify();
    let { pdus, associations, completions } = await fuzz({ port: target.port, nqn, seed, pdus: each / 10, lanes: 6 });
    before.rss = rss();
    const rest = await fuzz({ port: target.port, nqn, seed: seed + 1, pdus: each - pdus, lanes: 6 });
    pdus += rest.pdus;
    associations += rest.associations;
    completions += rest.completions;
    sum += pdus;
    const verified = await verifier.stop();
    // keep-alive and the handshake deadline end whatever was left open
    const deadline = performance.now() + 20_000;
    while (fds() > before.fds && performance.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 200));
    const grown = (rss() - before.rss) / 2 ** 20;
    const left = fds() - before.fds;
    const status = await target.stop();
    const seconds = ((performance.now() - began) / 1000).toFixed(0);
    console.log(
      `seed ${seed}, engine ${engine}, stall ${stall} ms: ${pdus} PDUs, ${associations} associations, ${completions} completions in ${seconds} s; ` +
        `${verified} transfers verified; ${left} descriptors and ${grown.toFixed(0)} MiB more; status ${status}`,
    );
    if (status !== 0 || left > 0) throw new Error(`seed ${seed}: ${target.messages()}`);
    fs.rmSync(dir, { recursive: true, force: true });
  }
  console.log(`${sum} PDUs over ${seeds.length} seeds: all data right`);
}

void main();
