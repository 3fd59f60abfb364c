import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { effort } from '../support/effort.js';
import { fuzz, serveAttacked } from '../support/nvme-fuzz.js';
import { eventually } from '../support/wait.js';

/** Seconds of each kind (`npm run soak -- nvme-fuzz` takes millions of PDUs). */
const seconds = effort(2, 4);

test.each([
  { engine: 'sync', stall: 0, seed: 1 },
  { engine: 'sync', stall: 60, seed: 20260 },
  { engine: 'uring', stall: 0, seed: 0xdecade },
  { engine: 'uring', stall: 60, seed: 7 },
])(
  "pipelined random PDUs, $engine, JavaScript stalled for $stall ms: another host's data stays right, nothing is left behind",
  async (kind) => {
    const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'nvmf-'));
    const attacked = await serveAttacked(dir, kind);
    const { target, nqn, fds, rss } = attacked;
    const attack = (pdus: number, until: number) => fuzz({ port: target.port, nqn, seed: kind.seed, pdus, until });
    const before = { fds: fds(), rss: 0 };
    const verifier = attacked.verify();
    const end = performance.now() + seconds * 1000;
    await attack(3000, end - seconds * 500); // what is allocated once is there after that
    before.rss = rss();
    const sent = await attack(Number.POSITIVE_INFINITY, end);
    expect(await verifier.stop()).toBeGreaterThan(16);
    // keep-alive and the handshake deadline end whatever was left open
    await eventually(() => fds() <= before.fds);
    expect(fds()).toBeLessThanOrEqual(before.fds);
    expect(sent.associations).toBeGreaterThan(4);
    expect(sent.completions).toBeGreaterThan(100);
    // the sanitised addon keeps freed memory for a while
    if (!process.env.VIOCTL_ADDON) expect(rss() - before.rss).toBeLessThan(96 << 20);
    expect(await target.stop()).toBe(0);
    fs.rmSync(dir, { recursive: true, force: true });
  },
);
