/**
 * `vhost-user serve blk` against the vhost-user-blk export of qemu-storage-daemon: the same driver (vhost-user-load.cc) reads
 * 4 KiB at random places of the same file in the page cache, one read at a time and 32 at once. Figures are CPU time of the
 * back-end's process per read and reads per second; the ratios are to the peer's io_uring
 * engine in the same round.
 *
 *   npx tsx test/bench/vhost-user.ts [--rounds 5] [--runtime 2] [--size 256]
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { compiled, onCore, peer, quick, root, tell } from './support/bench.js';

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: quick ? '2' : '5' },
    runtime: { type: 'string', default: quick ? '1' : '2' },
    size: { type: 'string', default: '256' },
  },
});
const bytes = Number(values.size) << 20;
const depths = [1, 32];

interface Load {
  reads: number;
  seconds: number;
  backEndNs: number;
  driverNs: number;
  p50: number;
  p99: number;
}
interface Run extends Load {
  name: string;
  depth: number;
  round: number;
}

/** The back-ends, by what starts each at a socket. */
const backEnds: [name: string, argv: (socket: string, disk: string) => string[]][] = [
  ['vioctl', (socket, disk) => [process.execPath, path.join(root, 'bin', 'run.js'), 'vhost-user', 'serve', 'blk', socket, '--file', disk]],
  ['vioctl sync', (socket, disk) => [...backEnds[0]![1](socket, disk), '--engine', 'sync']],
  ...(['io_uring', 'threads'] as const).map((aio): [string, (socket: string, disk: string) => string[]] => [
    `qemu ${aio}`,
    (socket, disk) => [
      'qemu-storage-daemon',
      ...['--blockdev', `file,node-name=f,filename=${disk},aio=${aio},cache.direct=off`],
      ...['--export', `vhost-user-blk,id=e,node-name=f,addr.type=unix,addr.path=${socket}`],
    ],
  ]),
];

/** Waits until a socket is there and its server still runs. */
async function listening(child: ChildProcess, socket: string): Promise<void> {
  for (let tries = 0; tries < 500 && !fs.existsSync(socket); tries++) {
    if (child.exitCode !== null) throw new Error(`${child.spawnfile} ended with ${child.exitCode}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

function summary(runs: Run[]): void {
  const rounds = [...new Set(runs.map(({ round }) => round))];
  const rate = (r: Run): number => r.reads / r.seconds;
  for (const depth of depths) {
    const each = (of: (one: (name: string) => Run | undefined) => number): number[] =>
      rounds.map((round) => of((name) => runs.find((r) => r.name === name && r.depth === depth && r.round === round)));
    const at = `4K read QD${depth}`;
    tell({ what: `${at}`, values: each((one) => rate(one('vioctl')!)), unit: 'IOPS' });
    const missing = peer('qemu-storage-daemon') === undefined ? { missing: 'qemu-storage-daemon' } : {};
    const faster = { values: each((one) => rate(one('vioctl')!) / rate(one('qemu io_uring') ?? one('vioctl')!)), ...missing };
    const cheaper = { values: each((one) => one('vioctl')!.backEndNs / (one('qemu io_uring') ?? one('vioctl')!).backEndNs), ...missing };
    const theirs = { peer: 'qemu-storage-daemon, io_uring' };
    tell({ what: `${at}: IOPS to those of the peer`, unit: 'x', goal: { atLeast: depth === 1 ? 1.5 : 4 }, ...faster, ...theirs });
    tell({ what: `${at}: CPU per read to that of the peer`, unit: 'x', goal: { atMost: 0.5 }, ...cheaper, ...theirs });
  }
}

async function main(): Promise<void> {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-bench-'));
  const load = compiled('vhost-user-load');
  const disk = path.join(dir, 'disk');
  const runs: Run[] = [];
  try {
    execFileSync('dd', ['if=/dev/urandom', `of=${disk}`, 'bs=1M', `count=${values.size}`, 'status=none']);
    console.log('load average  round  back-end           depth  CPU ns/read   reads/s   p50 us   p99 us');
    for (let round = 0; round < Number(values.rounds); round++) {
      for (const [name, argv] of backEnds.filter(([one]) => !one.startsWith('qemu') || peer('qemu-storage-daemon'))) {
        const socket = path.join(dir, 'socket');
        fs.rmSync(socket, { force: true });
        const [command = '', ...args] = [...onCore(0), ...argv(socket, disk)];
        const child = spawn(command, args, { stdio: ['ignore', 'ignore', 'ignore'] });
        const ended = new Promise((resolve) => child.on('exit', resolve));
        try {
          await listening(child, socket);
          for (const depth of depths) {
            const r = JSON.parse(
              execFileSync('env', [...onCore(1), load, socket, String(child.pid), String(bytes), String(depth), values.runtime], {
                encoding: 'utf8',
              }),
            );
            runs.push({ ...(r as Load), name, depth, round });
            const cells = [
              os.loadavg()[0]!.toFixed(1).padStart(12),
              String(round).padStart(5),
              name.padEnd(17),
              String(depth).padStart(5),
              r.backEndNs.toFixed(0).padStart(11),
              (r.reads / r.seconds).toFixed(0).padStart(8),
              r.p50.toFixed(1).padStart(7),
              r.p99.toFixed(1).padStart(7),
            ];
            console.log(cells.join('  '));
          }
        } finally {
          child.kill('SIGTERM');
          await ended;
        }
      }
    }
    summary(runs);
  } finally {
    fs.rmSync(dir, { recursive: true, force: true });
  }
}

await main();
