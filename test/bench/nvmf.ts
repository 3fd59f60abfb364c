/**
 * The NVMe/TCP target, as users start it: what digests cost, how fast it is on loopback, whether a slow source disturbs its
 * neighbour. Figures that have no ratio compare only with others of the same ping-pong.
 *
 *   npm run bench -- nvmf
 */
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { noSpdk, SpdkTarget, spdkNqn } from '../peers/spdk.js';
import { type Load, load, peer, program, quick, type Row, rounds, scratch, serve, started, tell } from './support/bench.js';

const seconds = quick ? 0.4 : 1.5;

/** What SPDK's target is compared at: the goals of each cell. */
const cells: [what: string, goal: number, args: string[]][] = [
  ['4K read QD1', 1.2, ['--iodepth', '1']],
  ['4K read QD32', 1.5, ['--iodepth', '32']],
  ['4K read QD128', 1.6, ['--iodepth', '128', '-Q', '256']],
  ['4K write QD32', 1.6, ['--iodepth', '32', '--rw', 'randwrite']],
  ['4K write QD128', 1.6, ['--iodepth', '128', '-Q', '256', '--rw', 'randwrite']],
  ['128K read QD32', 1.3, ['--iodepth', '32', '--rw', 'read', '--bs', '128K']],
  ['128K write QD32', 1.2, ['--iodepth', '32', '--rw', 'write', '--bs', '128K']],
];

/** Writes all of a namespace: memory that nobody has written is one page of zeroes, which stays in the cache. */
const fill = (served: Parameters<typeof load>[0]): unknown => load(served, 1, '--rw', 'write', '--bs', '128K');

/** Each cell against SPDK, or, without it, by itself. */
async function target(): Promise<void> {
  const ours = await serve('ram:256M');
  const missing = noSpdk();
  const theirs = missing === undefined ? new SpdkTarget(scratch(), 256, 14420) : undefined;
  await theirs?.start();
  fill(ours);
  if (theirs) fill({ pid: theirs.pid, port: theirs.port, nqn: spdkNqn });
  for (const [what, goal, args] of cells) {
    const runs: Load[] = [];
    const ratios: number[] = [];
    for (let i = 0; i < rounds; i++) {
      theirs?.pause(true);
      runs.push(load(ours, seconds, ...args));
      if (!theirs) continue;
      theirs.pause(false);
      ratios.push(runs.at(-1)!.iops / load({ pid: theirs.pid, port: theirs.port, nqn: spdkNqn }, seconds, ...args).iops);
    }
    const row: Row = { what: `${what} against SPDK`, values: ratios, unit: 'x', goal: { atLeast: goal }, peer: 'SPDK nvmf_tgt' };
    tell(theirs ? row : { ...row, missing: 'SPDK nvmf_tgt (VIOCTL_SPDK)' });
    tell({ what, values: runs.map(({ iops }) => iops), unit: 'IOPS' });
  }
  await theirs?.kill();
  await ours.stop();
}

/** Files against memory, writes by a ring against those by threads, and O_DIRECT against fio on the same file. */
async function files(): Promise<void> {
  const memory = await serve('ram:256M');
  fill(memory);
  const reads: [string, string[]][] = [
    ['4K read QD32', ['--iodepth', '32']],
    ['128K read QD32', ['--iodepth', '32', '--rw', 'read', '--bs', '128K']],
  ];
  const random = (dir: string): string => {
    const file = path.join(fs.mkdtempSync(path.join(dir, 'vioctl-bench-')), 'disk');
    process.on('exit', () => fs.rmSync(path.dirname(file), { recursive: true, force: true }));
    execFileSync('dd', ['if=/dev/urandom', `of=${file}`, 'bs=1M', 'count=256', 'status=none']);
    return file;
  };
  const cached = random(scratch());
  for (const [name, file] of [
    ['tmpfs', random('/dev/shm')],
    ['page cache', cached],
  ] as const) {
    const served = await serve(file);
    for (const [what, args] of reads) {
      const values = Array.from({ length: rounds }, () => load(served, seconds, ...args).iops / load(memory, seconds, ...args).iops);
      tell({
        what: `${what} of a file in ${name === 'tmpfs' ? 'a tmpfs' : 'the page cache'}: IOPS to memory`,
        values,
        unit: 'x',
        goal: { atLeast: 0.9 },
      });
    }
    await served.stop();
  }
  await memory.stop();
  const ring = await serve(`${cached},engine=uring`);
  const writes = ['--iodepth', '32', '--rw', 'randwrite', '--size', '32M'];
  const byRing = Array.from({ length: rounds }, () => load(ring, seconds, ...writes).iops);
  await ring.stop();
  const threads = await serve(`${cached},engine=sync`);
  const ratios = byRing.map((iops) => iops / load(threads, seconds, ...writes).iops);
  await threads.stop();
  tell({ what: '4K write QD32 of a file: IOPS with engine=uring to engine=sync', values: ratios, unit: 'x', goal: { atLeast: 1 } });
  await direct(cached);
}

/** Reads past the page cache, and what fio gets of the same file. */
async function direct(file: string): Promise<void> {
  const what = '4K read QD32 with direct=on: IOPS to those of fio';
  const goal = { atLeast: 0.9 };
  if (peer('fio') === undefined) return tell({ what, values: [], unit: 'x', goal, missing: 'fio' });
  const served = await serve(`${file},direct=on`);
  const values = Array.from({ length: rounds }, () => {
    const job = ['--name=direct', `--filename=${file}`, '--direct=1', '--ioengine=io_uring', '--rw=randread', '--bs=4k', '--iodepth=32'];
    const said = execFileSync('fio', [...job, '--time_based', `--runtime=${Math.ceil(seconds)}`, '--output-format=json'], {
      encoding: 'utf8',
    });
    const theirs = (JSON.parse(said) as { jobs: { read: { iops: number } }[] }).jobs[0]!.read.iops;
    return load(served, seconds, '--iodepth', '32').iops / theirs;
  });
  await served.stop();
  tell({ what, values, unit: 'x', goal, peer: 'fio' });
}

/** Processor time of the target per command, with digests and without. */
async function digests(): Promise<void> {
  const ours = await serve('ram:256M', '--spin', '0');
  for (const [what, args] of [
    ['4K read QD32', ['--iodepth', '32']],
    ['4K write QD32', ['--iodepth', '32', '--rw', 'randwrite']],
  ] as const) {
    const runs = Array.from({ length: rounds }, () => [load(ours, seconds, ...args), load(ours, seconds, ...args, '-g', '-G')] as const);
    const cost = (value: (one: Load & { cpu: number }) => number): number[] =>
      runs.map(([without, digested]) => value(digested) / value(without));
    tell({ what: `${what}: CPU with digests to CPU without`, values: cost(({ cpu }) => cpu), unit: 'x', goal: { atMost: 1.08 } });
    tell({ what: `${what}: IOPS with digests to IOPS without`, values: cost(({ iops }) => iops), unit: 'x', goal: { atLeast: 0.92 } });
  }
  await ours.stop();
}

/** A neighbour of a source with 20 ms writes, and that source itself. */
async function isolation(): Promise<void> {
  const nbdkit = peer('nbdkit');
  const what = 'neighbour of a source with 20 ms writes';
  if (nbdkit === undefined) return tell({ what, values: [], unit: 'x', goal: { atMost: 2 }, missing: 'nbdkit' });
  const socket = path.join(scratch(), 'slow.sock');
  const slow = await started([nbdkit, '-f', '-U', socket, '--filter=delay', 'memory', '64M', 'wdelay=20ms']);
  for (let tries = 0; tries < 100 && !fs.existsSync(socket); tries++) await new Promise((r) => setTimeout(r, 50));
  const ours = await serve('ram:256M', `nbd+unix:///?socket=${socket}`);
  const reads = ['--namespace-id', '1', '--iodepth', '8'];
  const tails: number[] = [];
  const rates: number[] = [];
  const own: number[] = [];
  for (let i = 0; i < rounds; i++) {
    const alone = load(ours, seconds, ...reads);
    const argv = [
      'nvmf',
      'bench',
      '-s',
      String(ours.port),
      '-n',
      ours.nqn,
      '--namespace-id',
      '2',
      '--rw',
      'randwrite',
      '--iodepth',
      '8',
      '--spin',
      '0',
    ];
    const writer = await started([process.execPath, program, ...argv, '--runtime', `${seconds + 1}s`, '--json']);
    await new Promise((resolve) => setTimeout(resolve, 500));
    const beside = load(ours, seconds, ...reads);
    await writer.ended;
    tails.push(beside.latency.p999 / alone.latency.p999);
    rates.push(beside.iops / alone.iops);
    own.push((JSON.parse(writer.output()) as Load).iops);
  }
  tell({ what: `${what}: p99.9 of reads to p99.9 alone`, values: tails, unit: 'x', goal: { atMost: 2 } });
  tell({ what: `${what}: IOPS to IOPS alone`, values: rates, unit: 'x', goal: { atLeast: 0.9 } });
  tell({ what: 'the slow source itself at QD8 (depth / latency is 400)', values: own, unit: 'IOPS', goal: { atLeast: 360 } });
  await ours.stop();
  await slow.stop();
}

await target();
await files();
await digests();
await isolation();
