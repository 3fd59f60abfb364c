/**
 * An image of Ceph with three copies behind `nvmf serve`, through what happens to clusters: `npm run soak -- ceph-three`. One OSD stops for
 * 20 s, is killed, and comes back empty; then the whole cluster stops for 20 s. Four hosts' lanes write, read and compare all the time.
 */
import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { Background } from '../support/background.js';
import { Ceph } from '../support/ceph.js';
import { usage } from '../support/nvme-host-fuzz.js';
import { NvmeDisk } from '../support/served-disk.js';

const SIZE = 64 << 20;
const LANES = 4;
const nqn = 'nqn.2014-08.org.nvmexpress:ceph';

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

async function main(ceph: Ceph): Promise<void> {
  const source = `rbd:rbd/disk,conf=${ceph.conf},timeout=2m`;
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
  ceph.signal('SIGSTOP', 'osd1');
  await step('an OSD stopped for 20 s', 20);
  ceph.signal('SIGCONT', 'osd1');
  await step('and on again', 5);
  ceph.signal('SIGKILL', 'osd1');
  await step('an OSD killed', 35);
  ceph.restart('osd1');
  await step('and started again, empty', 15);
  ceph.signal('SIGSTOP', 'osd', 'osd1', 'osd2', 'mon');
  await step('the cluster gone for 20 s', 20);
  ceph.signal('SIGCONT', 'osd', 'osd1', 'osd2', 'mon');
  await step('and back', 10);
  over = true;
  console.log(`${(await lanes).reduce((a, b) => a + b, 0)} writes, all data right`);
  disk.close();
  const ended = await server.stop();
  if (ended !== 0) throw new Error(`the server ended with ${ended}: ${server.stderr}`);
}

Ceph.start({ osds: 3 })
  .then((ceph) => main(ceph).finally(() => ceph.stop()))
  .catch((err: Error) => {
    console.error(err);
    process.exitCode = 1;
  })
  .finally(() => process.exit());
