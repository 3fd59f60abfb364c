/**
 * An image of Ceph three ways: fio's rbd engine, which calls librbd itself; `nvmf bench` of `nvmf serve`; fio's nbd engine and an NBD export
 * of qemu-storage-daemon's rbd over TCP. All open the same image of a cluster of one node on loopback that keeps data in memory, with
 * rbd_cache off, so that each request reaches the OSD. The cluster, servers and loads share the processors: nothing is pinned, because
 * librbd and the OSD have some 80 threads.
 *
 *   npm run bench -- rbd
 */
import { execFileSync, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { createConnection } from 'node:net';
import path from 'node:path';
import { Ceph, cephMissing } from '../support/ceph.js';
import { eventually } from '../support/wait.js';
import { freePort } from '../vm/devices.js';
import {
  cpuOf,
  type Load,
  load,
  peer,
  program,
  quick,
  type Row,
  rounds,
  type Started,
  scratch,
  serveAnywhere,
  started,
  tell,
} from './support/bench.js';

const seconds = quick ? 0.3 : 1;
const mib = quick ? 64 : 256;
/** Part of the time that fio runs before it counts. */
const warmUp = 0.2;
const depths = quick ? [1, 32] : [1, 16, 32];
/** Requests that qemu's NBD server takes of one connection at a time. */
const perConnection = 16;

const cells = depths.flatMap((depth) => (['read', 'write'] as const).map((rw) => ({ what: `4K ${rw} QD${depth}`, depth, rw })));
type Cell = (typeof cells)[number];

/** fio for some seconds at random places of the image. */
function fio(env: NodeJS.ProcessEnv, engine: string[], { depth, rw }: Cell, jobs = 1): number {
  const argv = [
    ...['--name=load', `--rw=rand${rw}`, '--bs=4k', `--size=${mib}M`, '--norandommap', `--iodepth=${depth / jobs}`, `--numjobs=${jobs}`],
    ...[
      '--time_based',
      `--runtime=${seconds * 1000}ms`,
      `--ramp_time=${seconds * warmUp * 1000}ms`,
      '--group_reporting',
      '--output-format=json',
    ],
    ...engine,
  ];
  const said = execFileSync('fio', argv, { env, encoding: 'utf8', cwd: scratch() });
  // errors of libraries may come before it
  const { jobs: all } = JSON.parse(said.slice(said.indexOf('{'))) as { jobs: Record<'read' | 'write', { iops: number }>[] };
  return all[0]![rw].iops;
}

/** Why something cannot be compared with. */
function missing(): { fio?: string; qemu?: string } {
  const at = peer('qemu-storage-daemon');
  const image = 'driver=rbd,node-name=image,pool=rbd,image=disk,conf=/nonexistent';
  const said = at === undefined ? '' : spawnSync(at, ['--blockdev', image], { encoding: 'utf8' }).stderr;
  const engine = (name: string): boolean => peer('fio') !== undefined && spawnSync('fio', [`--enghelp=${name}`]).status === 0;
  return {
    ...(!engine('rbd') && { fio: 'fio with its rbd engine' }),
    ...(at === undefined && { qemu: 'qemu-storage-daemon' }),
    ...(/Unknown driver|does not accept/.test(said) && { qemu: "qemu-storage-daemon's rbd (block-rbd.so)" }),
    ...(!engine('nbd') && { qemu: 'fio with its nbd engine' }),
  };
}

/** Whether a server takes connections. */
const listens = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = createConnection(port, '127.0.0.1', () => {
      socket.destroy();
      resolve(true);
    }).on('error', () => resolve(false));
  });

/** qemu-storage-daemon with the image. */
async function exported(conf: string): Promise<Started & { port: number }> {
  const port = await freePort();
  const served = await started([
    peer('qemu-storage-daemon')!,
    ...['--blockdev', `driver=rbd,node-name=image,pool=rbd,image=bench,conf=${conf},cache.direct=on`],
    ...['--nbd-server', `addr.type=inet,addr.host=127.0.0.1,addr.port=${port},max-connections=8`],
    ...['--export', 'nbd,id=image,node-name=image,name=image,writable=on'],
  ]);
  await eventually(() => listens(port));
  return { ...served, port };
}

interface Run {
  ours: Load & { cpu: number };
  /** IOPS of fio's rbd engine */
  direct?: number;
  /** Of the daemon; its processor time is in ns per request. */
  qemu?: { iops: number; cpu: number };
}

const shown = (side: { iops: number; cpu: number } | undefined): string =>
  side === undefined ? '-' : `${side.iops.toFixed(0)} IOPS, ${(side.cpu / 1000).toFixed(1)} us`;

/** All sides in turns. */
async function measured(ceph: Ceph, lacks: ReturnType<typeof missing>): Promise<Map<Cell, Run[]>> {
  fs.appendFileSync(ceph.conf, '[client]\nrbd_cache = false\n');
  ceph.run('rbd', 'create', '--size', `${mib}M`, 'bench');
  const env = { ...process.env, CEPH_CONF: ceph.conf };
  const filled = path.join(scratch(), 'filled');
  execFileSync('dd', ['if=/dev/urandom', `of=${filled}`, 'bs=1M', `count=${mib}`, 'status=none']);
  // the lock of the image goes to whoever writes
  const ours = await serveAnywhere(`rbd:rbd/bench,conf=${ceph.conf},shared`);
  execFileSync(process.execPath, [program, 'nvmf', 'write', '-s', String(ours.port), '-n', ours.nqn, '-d', filled]);
  fs.rmSync(filled);
  const qemu = lacks.qemu === undefined ? await exported(ceph.conf) : undefined;
  const runs = new Map(cells.map((cell): [Cell, Run[]] => [cell, []]));
  for (let round = 0; round < (quick ? 1 : Math.min(rounds, 5)); round++)
    for (const [cell, all] of runs) {
      const run: Run = { ours: load(ours, seconds, '--iodepth', String(cell.depth), '--rw', `rand${cell.rw}`) };
      if (lacks.fio === undefined) run.direct = fio(env, ['--ioengine=rbd', '--clientname=admin', '--pool=rbd', '--rbdname=bench'], cell);
      if (qemu) {
        const before = cpuOf(qemu.child.pid!);
        const jobs = Math.ceil(cell.depth / perConnection);
        const iops = fio(process.env, ['--ioengine=nbd', `--uri=nbd://127.0.0.1:${qemu.port}/image`], cell, jobs);
        run.qemu = { iops, cpu: (cpuOf(qemu.child.pid!) - before) / (iops * seconds * (1 + warmUp)) };
      }
      console.log(
        ...[`${round}  ${cell.what.padEnd(15)}  vioctl ${shown(run.ours)}  qemu ${shown(run.qemu)}`],
        ` fio's rbd engine ${run.direct?.toFixed(0) ?? '-'} IOPS`,
      );
      all.push(run);
    }
  await qemu?.stop();
  await ours.stop();
  return runs;
}

function summary(runs: ReadonlyMap<Cell, Run[]>, lacks: ReturnType<typeof missing>): void {
  for (const [{ what }, all] of runs) {
    const each = (value: (run: Run) => number | undefined): number[] => all.map(value).filter((one) => one !== undefined);
    const row = (more: Omit<Row, 'unit'>, lack: string | undefined): void =>
      tell({ unit: 'x', ...more, ...(lack !== undefined && { missing: lack }) });
    tell({ what, values: each(({ ours }) => ours.iops), unit: 'IOPS' });
    const faster = each(({ ours, direct }) => direct && ours.iops / direct);
    row({ what: `${what}: IOPS to those of fio's rbd engine`, values: faster, goal: { atLeast: 0.9 }, peer: 'fio' }, lacks.fio);
    const cheaper = each(({ ours, qemu }) => qemu && ours.cpu / qemu.cpu);
    const theirs = 'qemu-storage-daemon, rbd';
    row({ what: `${what}: CPU per I/O to that of the peer`, values: cheaper, goal: { atMost: 1 }, peer: theirs }, lacks.qemu);
  }
}

async function main(): Promise<void> {
  const absent = cephMissing();
  const lacks = missing();
  if (absent !== undefined) {
    const what = "4K reads and writes: IOPS to those of fio's rbd engine";
    return tell({ what, values: [], unit: 'x', goal: { atLeast: 0.9 }, missing: absent });
  }
  const ceph = await Ceph.start();
  process.on('exit', () => ceph.stop());
  summary(await measured(ceph, lacks), lacks);
}

await main();
