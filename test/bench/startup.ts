// Start-up as CPU time: user and system of the whole process, to `node -e 0` of the same round.
import { spawnSync } from 'node:child_process';
import { program, quick, tell } from './support/bench.js';

const runs = Number(process.argv[2] ?? (quick ? 5 : 15));

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
  const { stderr } = spawnSync('bash', ['-c', script, 'bash', process.execPath, ...argv], { encoding: 'utf8' });
  const [user, sys] = stderr.trim().split('\n').at(-1)!.split(' ').map(Number);
  return (user! + sys!) * 1000;
}

const samples = Object.fromEntries(Object.keys(cases).map((name) => [name, [] as number[]]));
for (const { argv } of Object.values(cases)) cpu(argv);
for (let i = 0; i < runs; i++) for (const [name, { argv }] of Object.entries(cases)) samples[name]!.push(cpu(argv));
const base = samples['node -e 0']!;
for (const [name, { goal }] of Object.entries(cases)) {
  if (goal === undefined) tell({ what: `${name}: CPU`, values: samples[name]!, unit: 'ms' });
  else tell({ what: `${name}: CPU to node -e 0`, values: samples[name]!.map((ms, i) => ms / base[i]!), unit: 'x', goal: { atMost: goal } });
}
