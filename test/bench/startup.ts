// Start-up as CPU time: `npx tsx test/bench/startup.ts [runs]`. Median user+sys of the whole process, interleaved with
// `node -e 0` of the same run, which is the baseline of the ratios.
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const program = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..', '..', 'bin', 'run.js');
const runs = Number(process.argv[2] ?? 15);
const { NODE_EXTRA_CA_CERTS: _certs, ...env } = process.env; // it costs 40 ms on Node 20 and would flatter the ratios

const cases: Record<string, { argv: string[]; goal?: number }> = {
  'node -e 0': { argv: ['-e', '0'] },
  '--version': { argv: [program, '--version'], goal: 1.05 },
  '--help': { argv: [program, '--help'], goal: 1.25 },
  'uring probe --json': { argv: [program, 'uring', 'probe', '--json'], goal: 1.6 },
  'vfio list --json': { argv: [program, 'vfio', 'list', '--json'], goal: 2.5 },
};

/** CPU milliseconds of one run: the children's resource usage before and after. */
function cpu(argv: string[]): number {
  // A shell's `times` gives the child's user and system time with 1 ms resolution on this kernel's clock.
  const script = 'TIMEFORMAT="%3U %3S"; time "$@" >/dev/null 2>&1';
  const { stderr } = spawnSync('bash', ['-c', script, 'bash', process.execPath, ...argv], { encoding: 'utf8', env });
  const [user, sys] = stderr.trim().split('\n').at(-1)!.split(' ').map(Number);
  return (user! + sys!) * 1000;
}

const median = (values: number[]): number => values.sort((a, b) => a - b)[values.length >> 1]!;
const samples = Object.fromEntries(Object.keys(cases).map((name) => [name, [] as number[]]));
for (const { argv } of Object.values(cases)) cpu(argv);
for (let i = 0; i < runs; i++) for (const [name, { argv }] of Object.entries(cases)) samples[name]!.push(cpu(argv));
const base = median(samples['node -e 0']!);
console.log(`Node ${process.version}, CPU ms, median of ${runs} interleaved runs`);
for (const [name, { goal }] of Object.entries(cases)) {
  const value = median(samples[name]!);
  console.log(
    `${name.padEnd(22)} ${value.toFixed(1).padStart(6)} ms  ${(value / base).toFixed(2)}x${goal === undefined ? '' : `  (goal ${goal}x)`}`,
  );
}
