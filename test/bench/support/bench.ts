/** What all benches share: rows of one table, peers, programs to compile, processor time, medians. */
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { endsWithTests } from '../../support/children.js';

export const root = path.resolve(import.meta.dirname, '..', '..', '..');
export const program = path.join(root, 'bin', 'run.js');
delete process.env.NODE_EXTRA_CA_CERTS; // certificates that Node 20 parses at every start say nothing about this program

/** `npm run bench -- --quick`: fewer rounds, smaller data. */
export const quick = process.env.VIOCTL_BENCH_QUICK === '1';
/** Rounds of a bench, each with all sides one after the other. */
export const rounds = Number(process.env.VIOCTL_BENCH_ROUNDS ?? (quick ? 3 : 7));

/** A line of the table. Ratios are paired: both sides ran in the same round. */
export interface Row {
  what: string;
  /** One value of each round. */
  values: number[];
  unit: 'x' | 'ms' | 's' | 'MB' | '%' | 'us' | 'IOPS';
  /** What the median has to reach; left out: the figure is there to be read beside others. */
  goal?: { atLeast: number } | { atMost: number };
  /** Who it is compared with. */
  peer?: string;
  /** The peer that is not here: nothing was measured. */
  missing?: string;
}

export const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[values.length >> 1]!;

/** `met`, `MISSED`; `noise` if only some rounds reach the goal. */
export function verdict({ values, goal, missing }: Row): string {
  if (missing !== undefined) return `peer missing: ${missing}`;
  if (!goal) return '';
  const reaches = (value: number): boolean => ('atLeast' in goal ? value >= goal.atLeast : value <= goal.atMost);
  const good = values.filter(reaches).length;
  if (good === values.length) return 'met';
  if (good === 0) return 'MISSED';
  return `${reaches(median(values)) ? 'met' : 'MISSED'} (noise: ${good} of ${values.length} rounds)`;
}

const number = (value: number, unit: Row['unit']): string =>
  unit === 'IOPS' || Math.abs(value) >= 1000 ? value.toFixed(0) : value.toPrecision(3);

export const goalText = ({ goal, unit }: Row): string =>
  !goal ? '' : 'atLeast' in goal ? `>= ${goal.atLeast} ${unit}` : `<= ${goal.atMost} ${unit}`;
export const medianText = ({ values, unit }: Row): string => (values.length === 0 ? '' : `${number(median(values), unit)} ${unit}`);
export const spreadText = ({ values, unit }: Row): string =>
  values.length < 2 ? '' : `${number(Math.min(...values), unit)} .. ${number(Math.max(...values), unit)}`;

/** Tells a row: to the table that `npm run bench` makes, and to whoever runs one bench alone. */
export function tell(row: Row): void {
  if (process.send) process.send({ ...row, pingPong: pingPong() });
  const cells = [row.what.padEnd(58), medianText(row).padStart(12), spreadText(row).padStart(20), goalText(row).padStart(14), verdict(row)];
  console.log(`${cells.join('  ').trimEnd()}${row.peer === undefined ? '' : `  (${row.peer})`}`);
}

let folder: string | undefined;
/** A folder for this run, which is gone when the bench ends. */
export function scratch(): string {
  if (folder === undefined) {
    folder = fs.mkdtempSync(path.join(process.env.VIOCTL_BENCH_DIR ?? os.tmpdir(), 'vioctl-bench-'));
    process.on('exit', () => fs.rmSync(folder!, { recursive: true, force: true }));
  }
  return folder;
}

/** Compiles test/bench/NAME.cc. @returns the program */
export function compiled(name: string, more: readonly string[] = []): string {
  const at = path.join(scratch(), name);
  if (fs.existsSync(at)) return at;
  const flags = ['-O2', '-std=c++20', '-pthread', '-I', path.join(root, 'native')];
  const { status, stderr } = spawnSync(
    process.env.CXX || 'g++',
    [...flags, '-o', at, path.join(root, 'test', 'bench', `${name}.cc`), ...more],
    {
      encoding: 'utf8',
    },
  );
  if (status !== 0) throw new Error(`${name}.cc does not compile: ${stderr}`);
  return at;
}

/** Nanoseconds of a round trip of a cache line between two cores: what two processes on loopback can reach follows it. */
export function pingPong(): number {
  const pairs = execFileSync(compiled('ping-pong'), { encoding: 'utf8' });
  return Number(/[\d.]+/.exec(pairs)?.[0]);
}

/** The path of a program, or undefined. Variables such as VIOCTL_NBDKIT name one that is not on PATH, and VIOCTL_SPDK a built tree of SPDK. */
export function peer(name: string): string | undefined {
  const own = process.env[`VIOCTL_${name.toUpperCase().replaceAll(/[^A-Z0-9]/g, '_')}`];
  if (own) return fs.existsSync(own) ? own : undefined;
  const spdk = process.env.VIOCTL_SPDK ? [path.join(process.env.VIOCTL_SPDK, 'build', 'bin')] : [];
  const found = [...spdk, ...(process.env.PATH ?? '').split(':')].map((dir) => path.join(dir, name));
  return found.find((file) => fs.existsSync(file));
}

/** Processor time of a process and its threads so far, in ns (proc(5), schedstat). */
export function cpuOf(pid: number): number {
  let sum = 0;
  for (const thread of fs.readdirSync(`/proc/${pid}/task`))
    try {
      sum += Number(fs.readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ')[0]);
    } catch {
      // it has ended meanwhile
    }
  return sum;
}

export const memoryOf = (pid: number): number =>
  (Number(/^VmRSS:\s+(\d+)/m.exec(fs.readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) * 1024) / 1e6;

/** Seconds that a command takes. @throws unless it ends with 0 */
export function wall(argv: readonly string[]): number {
  const [command = '', ...args] = argv;
  const start = performance.now();
  const { status, stderr } = spawnSync(command, args, { stdio: ['ignore', 'ignore', 'pipe'], encoding: 'utf8' });
  if (status !== 0) throw new Error(`${argv.join(' ')} ended with ${status}: ${stderr}`);
  return (performance.now() - start) / 1000;
}

/** What runs a program on one processor (taskset(1)): a target and its load do not move, and do not meet. */
export const onCore = (core: number): string[] => (os.availableParallelism() > 1 ? ['taskset', '-c', String(core)] : []);

export interface Started {
  child: ChildProcess;
  ended: Promise<unknown>;
  /** What it has written so far. */
  output(): string;
  stop(): Promise<void>;
}

/** Starts a program that serves something; it is ended with this one. @param ready what its output says when it serves */
export async function started(argv: readonly string[], ready?: RegExp): Promise<Started> {
  const [command = '', ...args] = argv;
  const child = endsWithTests(spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] }));
  const ended = once(child, 'exit');
  let output = '';
  let errors = '';
  child.stdout.on('data', (text: Buffer) => {
    output += text;
  });
  child.stderr.on('data', (text: Buffer) => {
    errors += text;
  });
  while (ready && !ready.test(output)) {
    const gone = await Promise.race([ended, once(child.stdout, 'data').then(() => undefined)]);
    if (gone) throw new Error(`${argv.join(' ')} ended with ${gone[0] ?? gone[1]}: ${errors}`);
  }
  return {
    child,
    ended,
    output: () => output,
    stop: async () => {
      child.kill('SIGTERM');
      await ended;
    },
  };
}

/** A target that `nvmf serve` serves on a free port of loopback. */
export interface Served {
  pid: number;
  port: number;
  nqn: string;
  /** Milliseconds from its start until it was ready. */
  took: number;
  /** Neither it nor its load is kept on a processor. */
  anywhere?: boolean;
  stop(): Promise<void>;
}

async function serveOn(core: string[], args: string[]): Promise<Served> {
  const nqn = 'nqn.2014-08.org.example:bench';
  const listen = args.includes('--config') ? [] : ['--nqn', nqn, '--listen', '127.0.0.1:0'];
  const start = performance.now();
  const { child, output, stop } = await started(
    [...core, process.execPath, program, 'nvmf', 'serve', ...args, ...listen, '--discovery-port', 'none', '--ndjson', '--quiet'],
    /\n/,
  );
  const took = performance.now() - start;
  const ready = JSON.parse(output().split('\n')[0]!) as { listen: { port: number }[]; subsystems: { nqn: string }[] };
  return { pid: child.pid!, port: ready.listen[0]!.port, nqn: ready.subsystems[0]!.nqn, took, stop };
}

/** `nvmf serve` on the first processor; its load is on the second. */
export const serve = (...args: string[]): Promise<Served> => serveOn(onCore(0), args);
/** For a source that has many threads of its own. */
export const serveAnywhere = async (...args: string[]): Promise<Served> => ({ ...(await serveOn([], args)), anywhere: true });

export interface Load {
  iops: number;
  bandwidth: number;
  latency: { p50: number; p99: number; p999: number };
}

/** `nvmf bench` of a target, and the processor time that it has cost the target, in ns per command. */
export function load(
  target: Pick<Served, 'pid' | 'port' | 'nqn' | 'anywhere'>,
  seconds: number,
  ...args: string[]
): Load & { cpu: number } {
  const before = cpuOf(target.pid);
  const [command = '', ...argv] = [
    ...(target.anywhere ? [] : onCore(1)),
    process.execPath,
    program,
    'nvmf',
    'bench',
    '-s',
    String(target.port),
    '-n',
    target.nqn,
    '--runtime',
    `${seconds * 1000}ms`,
    '--json',
    ...args,
  ];
  const done = JSON.parse(execFileSync(command, argv, { encoding: 'utf8' })) as Load;
  // it warms up first, which it does not count
  return { ...done, cpu: (cpuOf(target.pid) - before) / (done.iops * (seconds + Math.min(0.2, seconds / 10))) };
}
