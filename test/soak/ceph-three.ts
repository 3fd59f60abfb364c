/**
 * An image of Ceph with three copies behind `nvmf serve`, through what happens to clusters: `npm run soak -- ceph-three`. One OSD stops for
 * 20 s, is killed, and comes back empty; then the whole cluster stops for 20 s. Four hosts' lanes write, read and compare all the time.
 */
import { spawn, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Background } from '../support/background.js';
import { usage } from '../support/nvme-host-fuzz.js';
import { NvmeDisk } from '../support/served-disk.js';

const SIZE = 64 << 20;
const LANES = 4;
const nqn = 'nqn.2014-08.org.nvmexpress:ceph';
const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-ceph-'));
const pid = (daemon: string): number => Number(fs.readFileSync(path.join(dir, `${daemon}.p`), 'utf8'));
const daemons = ['osd', 'osd1', 'osd2', 'mgr', 'mon'];
const signal = (name: NodeJS.Signals, ...which: string[]): void => {
  for (const daemon of which) process.kill(pid(daemon), name);
};

async function freePort(): Promise<number> {
  const server = net.createServer().listen(0, '127.0.0.1');
  await new Promise((ready) => server.once('listening', ready));
  const { port } = server.address() as net.AddressInfo;
  await new Promise((closed) => server.close(closed));
  return port;
}

/** Writes and compares in one part of the disk until it is stopped. */
async function lane(disk: NvmeDisk, n: number, stopped: () => boolean): Promise<number> {
  const base = (SIZE / LANES) * n;
  const part = 4 << 20;
  const model = Buffer.alloc(part);
  let done = 0;
  for (; !stopped(); done++) {
    const at = 4096 * Math.floor(Math.random() * (part / 4096 - 16));
    const data = randomBytes(4096 * (1 + Math.floor(Math.random() * 16)));
    const back = Buffer.alloc(data.length);
    const outcomes = [await disk.write(base + at, data, done % 8 === 0), await disk.read(base + at, back)];
    data.copy(model, at);
    if (done % 16 === 0) outcomes.push(await disk.flush());
    const bad = outcomes.find((one) => one !== 'ok');
    if (bad) throw new Error(`lane ${n}: ${bad}`);
    if (!back.equals(data)) throw new Error(`lane ${n}: wrong data at ${base + at}`);
  }
  const all = Buffer.alloc(256 << 10);
  for (let at = 0; at < part; at += all.length)
    if ((await disk.read(base + at, all)) !== 'ok' || !all.equals(model.subarray(at, at + all.length)))
      throw new Error(`lane ${n}: wrong data at the end, at ${base + at}`);
  return done;
}

async function main(): Promise<void> {
  const script = path.resolve(__dirname, '..', 'support', 'programs', 'ceph-one-node.sh');
  const { status, stderr } = spawnSync('bash', [script, dir, String(await freePort()), '3'], { encoding: 'utf8', timeout: 280_000 });
  if (status !== 0) throw new Error(stderr);
  const source = `rbd:rbd/disk,conf=${path.join(dir, 'ceph.conf')},timeout=2m`;
  const server = Background.vioctl(['nvmf', 'serve', source, '--nqn', nqn, '--listen', '127.0.0.1:0', '--discovery-port', 'none']);
  const [, port] = await server.sees(/on 127\.0\.0\.1:(\d+)/, 60_000);
  const disk = await NvmeDisk.open(Number(port), nqn, { timeout: 180_000 });
  let over = false;
  const lanes = Promise.all(Array.from({ length: LANES }, (_, n) => lane(disk, n, () => over)));
  const failed = lanes.then(() => undefined).catch((err: Error) => err);
  const step = async (what: string, seconds: number): Promise<void> => {
    const early = await Promise.race([sleep(seconds * 1000), failed]);
    if (early instanceof Error) throw early;
    console.log(`${what}: no error; RSS ${usage(server.child.pid!).rss.toFixed(0)} MiB`);
  };
  await step('load alone', 3);
  signal('SIGSTOP', 'osd1');
  await step('an OSD stopped for 20 s', 20);
  signal('SIGCONT', 'osd1');
  await step('and on again', 5);
  signal('SIGKILL', 'osd1');
  await step('an OSD killed', 35);
  const again = spawn('bash', [path.join(dir, 'osd1.sh')], { stdio: 'ignore' });
  fs.writeFileSync(path.join(dir, 'osd1.p'), String(again.pid));
  await step('and started again, empty', 15);
  signal('SIGSTOP', 'osd', 'osd1', 'osd2', 'mon');
  await step('the cluster gone for 20 s', 20);
  signal('SIGCONT', 'osd', 'osd1', 'osd2', 'mon');
  await step('and back', 10);
  over = true;
  console.log(`${(await lanes).reduce((a, b) => a + b, 0)} writes, all data right`);
  disk.close();
  const ended = await server.stop();
  if (ended !== 0) throw new Error(`the server ended with ${ended}: ${server.stderr}`);
}

main()
  .catch((err: Error) => {
    console.error(err);
    process.exitCode = 1;
  })
  .finally(() => {
    for (const daemon of daemons)
      try {
        signal('SIGKILL', daemon);
      } catch {
        // it was never started, or has ended
      }
    fs.rmSync(dir, { recursive: true, force: true, maxRetries: 5 });
    process.exit();
  });
