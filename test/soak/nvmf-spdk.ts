/**
 * SPDK as the target of our host, and as a host of our target: `VIOCTL_SPDK=DIR npm run soak -- nvmf-spdk [--rounds N]`. Commands with
 * digests and several queues; both servers on a namespace of a target that resets connections, is killed and started again under load;
 * N reconnects of a source.
 */
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { noSpdk, SpdkTarget, spdkNqn, spdkPerf } from '../peers/spdk.js';
import { Background } from '../support/background.js';
import { program } from '../support/cli.js';
import { usage } from '../support/nvme-host-fuzz.js';
import { reconnects, reconnectsSize } from '../support/nvme-reconnects.js';
import { serveTarget } from '../support/nvme-target.js';
import { NvmeDisk, RingDisk, type ServedDisk } from '../support/served-disk.js';
import { freePort } from '../vm/devices.js';

const { values } = parseArgs({ args: process.argv.slice(1), options: { rounds: { type: 'string', default: '1000' } } });
const SIZE = 16 << 20;
const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-spdk-'));
const at = (name: string): string => path.join(dir, name);
const near = 'nqn.2014-08.org.nvmexpress:near';

/** Runs `vioctl nvmf VERB` against a port. @throws Error if it fails */
function nvmf(port: number, verb: string, args: string[], input?: Buffer): Buffer {
  const argv = [program, 'nvmf', verb, '-s', `${port}`, ...args];
  const { status, stdout, stderr } = spawnSync(process.execPath, argv, { input, maxBuffer: SIZE * 2, timeout: 120_000 });
  if (status !== 0) throw new Error(`nvmf ${verb} ${args.join(' ')}: status ${status}: ${stderr}`);
  return stdout;
}

function commands(port: number): void {
  const { records } = JSON.parse(nvmf(port, 'discover', ['--json']).toString()) as { records: { subnqn: string }[] };
  if (!records.some(({ subnqn }) => subnqn === spdkNqn)) throw new Error('discover does not name the subsystem');
  const { mn } = JSON.parse(nvmf(port, 'identify', ['-n', spdkNqn, '--json']).toString()) as { mn: string };
  nvmf(port, 'ping', ['-n', spdkNqn, '--count', '3', '--interval', '1ms']);
  for (const options of [[], ['-g'], ['-G'], ['-g', '-G', '-i', '4'], ['-i', '8']]) {
    const where = ['-n', spdkNqn, '--offset', '777', '--chunk', options.length > 2 ? '8K' : '1M', ...options];
    const data = randomBytes(5_000_001);
    nvmf(port, 'write', where, data);
    if (!nvmf(port, 'read', [...where, '--count', `${data.length}`]).equals(data)) throw new Error(`wrong data with ${options.join(' ')}`);
    const bench = ['-n', spdkNqn, ...options, '--rw', 'randrw', '--runtime', '1s', '--json'];
    const { ios, errors } = JSON.parse(nvmf(port, 'bench', bench).toString()) as { ios: number; errors: number };
    if (ios === 0 || errors !== 0) throw new Error(`bench: ${ios} requests, ${errors} errors`);
  }
  console.log(`${mn}: discover, identify, ping; write, read and bench with five sets of options: all data right`);
}

/** Writes and compares in a part of the disk until it is stopped; counts each time. */
async function lane(disk: ServedDisk, base: number, size: number, count: (done: number) => void, stopped: () => boolean): Promise<void> {
  for (let done = 0; !stopped(); count(++done)) {
    const where = base + 512 * Math.floor(Math.random() * (size / 512 - 32));
    const data = randomBytes(512 * (1 + Math.floor(Math.random() * 32)));
    const back = Buffer.alloc(data.length);
    const outcomes = [await disk.write(where, data), await disk.read(where, back)];
    if (done % 16 === 0) outcomes.push(await disk.flush());
    const bad = outcomes.find((one) => one !== 'ok');
    if (bad) throw new Error(`at ${where}: ${bad}`);
    if (!back.equals(data)) throw new Error(`wrong data at ${where}`);
  }
}

async function pathLoss(far: SpdkTarget): Promise<void> {
  const source = `nvme+tcp://127.0.0.1:${far.port}/${spdkNqn}/1,queues=2,hdgst=on,ddgst=on`;
  const nvme = Background.vioctl(['nvmf', 'serve', source, '--nqn', near, '--listen', '127.0.0.1:0', '--discovery-port', 'none']);
  const ring = Background.vioctl(['vhost-user', 'serve', 'blk', at('blk'), '--file', source, '--queues', '2']);
  const [, port] = await nvme.sees(/on 127\.0\.0\.1:(\d+)/);
  await ring.sees(/^serving /m);
  const disks: ServedDisk[] = [await NvmeDisk.open(Number(port), near), await RingDisk.open(at('blk'))];
  let over = false;
  const done = [0, 0, 0, 0];
  const lanes = Promise.all(
    done.map((_, n) =>
      lane(
        disks[n % 2]!,
        (n * SIZE) / 4,
        SIZE / 4,
        (count) => {
          done[n] = count;
        },
        () => over,
      ),
    ),
  );
  const failed = lanes.then(() => undefined).catch((err: Error) => err);
  // no request fails, and all lanes get on within a minute
  const step = async (what: string, act: () => unknown): Promise<void> => {
    await act();
    const before = [...done];
    for (const end = Date.now() + 60_000; done.some((count, n) => count < before[n]! + 2); ) {
      const early = await Promise.race([sleep(100), failed]);
      if (early instanceof Error) throw early;
      if (Date.now() > end) throw new Error(`${what}: requests still wait: ${nvme.stderr}${ring.stderr}`);
    }
    console.log(`${what}: no error`);
  };
  for (let round = 1; round <= 3; round++) {
    await step(`all connections ended (${round})`, async () => {
      far.listener('remove');
      await sleep(300);
      far.listener('add');
    });
    await step(`killed and started again (${round})`, async () => {
      await far.kill();
      await far.start();
    });
  }
  for (const server of [nvme, ring]) await server.sees(/connected again/);
  over = true;
  await lanes;
  const memory = [nvme, ring].map(({ child }) => usage(child.pid!).rss.toFixed(0));
  console.log(`${done.reduce((a, b) => a + b)} writes compared; RSS ${memory.join(', ')} MiB`);
  for (const disk of disks) disk.close();
  for (const server of [nvme, ring]) {
    const status = await server.stop();
    if (status !== 0) throw new Error(`a server ended with ${status}: ${server.stderr}`);
  }
}

async function asHost(): Promise<void> {
  const target = await serveTarget(['ram:64M', '--discovery-port', 'none']);
  for (const args of [
    ['-w', 'randread'],
    ['-w', 'randrw', '-M', '50'],
    ['-w', 'write', '-o', '131072', '-q', '8'],
  ]) {
    const sizes = args.includes('-o') ? [] : ['-o', '4096', '-q', '32'];
    const said = spdkPerf(target.port, target.nqn, '-t', '2', ...sizes, ...args);
    const total = /^Total\s*:\s*([\d.]+)/m.exec(said);
    if (!total || Number(total[1]) === 0) throw new Error(`no requests: ${said}`);
    console.log(`spdk_nvme_perf ${args.join(' ')}: ${total[1]} requests a second`);
  }
  const status = await target.stop();
  if (status !== 0) throw new Error(`our target ended with ${status}: ${target.messages()}`);
}

async function main(): Promise<void> {
  const missing = noSpdk();
  if (missing) return console.log(`skipped: ${missing}`);
  await asHost();
  fs.writeFileSync(at('disk'), Buffer.alloc(SIZE));
  const far = new SpdkTarget(dir, at('disk'), await freePort());
  await far.start();
  commands(far.port);
  await pathLoss(far);
  await far.kill();
  fs.writeFileSync(at('small'), Buffer.alloc(reconnectsSize));
  const small = new SpdkTarget(dir, at('small'), await freePort());
  await small.start();
  const { cuts, before, after } = await reconnects(dir, Number(values.rounds), {
    ...{ port: small.port, nqn: spdkNqn, file: at('small'), stop: () => small.kill() },
  });
  console.log(
    `${cuts} reconnects, no error, all data right; descriptors ${before.fds} -> ${after.fds}, threads ${before.threads} -> ${after.threads}, ` +
      `RSS ${before.rss.toFixed(0)} -> ${after.rss.toFixed(0)} MiB`,
  );
}

main()
  .catch((err: Error) => {
    console.error(err);
    process.exitCode = 1;
  })
  .finally(() => {
    fs.rmSync(dir, { recursive: true, force: true });
    process.exit();
  });
