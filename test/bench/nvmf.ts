/**
 * NVMe/TCP over loopback: `nvmf bench` against `nvmf serve ram:…`, both as users start them. Beside the figures stands the
 * cache-line ping-pong between two cores, taken in the same round: figures of different machines, or of one machine at
 * different times, compare only with it.
 *
 *   npx tsx test/bench/nvmf.ts [--rounds 3] [--runtime 2s]
 */
import { execFileSync, spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';

const root = path.resolve(path.dirname(process.argv[1]!), '..', '..');
const program = path.join(root, 'bin', 'run.js');
const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '3' },
    runtime: { type: 'string', default: '2s' },
  },
});

interface Report {
  iops: number;
  bandwidth: number;
  latency: { p50: number; p99: number };
}

function command(args: string[]): string {
  return execFileSync(process.execPath, [program, 'nvmf', ...args], { encoding: 'utf8' });
}

const workloads: [string, string[]][] = [
  ['4K randread QD1', ['--iodepth', '1']],
  ['4K randread QD32', ['--iodepth', '32']],
  ['4K randread QD128', ['--iodepth', '128']],
  ['4K randread QD32 digests', ['--iodepth', '32', '-g', '-G']],
  ['4K randread QD32 SQ flow off', ['--iodepth', '32', '--disable-sqflow']],
  ['4K randwrite QD32', ['--iodepth', '32', '--rw', 'randwrite']],
  ['4K randwrite QD32 digests', ['--iodepth', '32', '--rw', 'randwrite', '-g', '-G']],
  ['128K read QD32', ['--iodepth', '32', '--rw', 'read', '--bs', '128K']],
  ['128K write QD32', ['--iodepth', '32', '--rw', 'write', '--bs', '128K']],
];

async function main(): Promise<void> {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-bench-'));
  const pingPong = path.join(dir, 'ping-pong');
  execFileSync('g++', ['-O2', '-std=c++20', '-pthread', '-o', pingPong, path.join(root, 'test', 'bench', 'ping-pong.cc')]);
  const serve = ['nvmf', 'serve', 'ram:256M', '--listen', '127.0.0.1:0', '--json', '--quiet'];
  const server = spawn(process.execPath, [program, ...serve], { stdio: ['ignore', 'pipe', 'inherit'] });
  try {
    const ready = await new Promise<{ listen: { port: number }[]; subsystems: { nqn: string }[] }>((resolve, reject) => {
      let text = '';
      server.stdout.on('data', (chunk: Buffer) => {
        text += chunk;
        if (text.endsWith('}\n')) resolve(JSON.parse(text));
      });
      server.on('exit', (status) => reject(new Error(`serve ended with ${status}`)));
    });
    const at = ['-s', String(ready.listen[0]!.port), '-n', ready.subsystems[0]!.nqn, '--runtime', values.runtime, '--json'];
    console.log('load average  ping-pong ns  workload                        IOPS    MiB/s  p50 us  p99 us');
    for (let round = 0; round < Number(values.rounds); round++) {
      for (const [name, args] of workloads) {
        const ns = execFileSync(pingPong, { encoding: 'utf8' }).trim();
        const report = JSON.parse(command(['bench', ...at, ...args])) as Report;
        const cells = [
          os.loadavg()[0]!.toFixed(1).padStart(12),
          ns.padStart(12),
          name.padEnd(28),
          String(report.iops).padStart(7),
          (report.bandwidth / (1 << 20)).toFixed(0).padStart(7),
          String(report.latency.p50).padStart(7),
          String(report.latency.p99).padStart(7),
        ];
        console.log(cells.join('  '));
      }
    }
  } finally {
    server.kill('SIGTERM');
    fs.rmSync(dir, { recursive: true, force: true });
  }
}

await main();
