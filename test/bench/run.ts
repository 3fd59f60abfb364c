/**
 * `npm run bench [-- [--quick] [--seconds N] [--markdown FILE] [GROUP…]]`: all benches, or those named, and one table of what they found. A bench
 * that fails or takes too long is a line of the table; the others go on. --quick ends within three minutes: fewer rounds, smaller data.
 * --seconds gives them another time.
 */
import { spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { goalText, medianText, peer, type Row, root, spreadText, verdict } from './support/bench.js';

/** The parts of the time that groups get; what one leaves, the others share. */
const groups: Readonly<Record<string, number>> = {
  startup: 2,
  dma: 3,
  nvmf: 9,
  'nvmf-scale': 6,
  'nvmf-copy': 3,
  'nvmf-secure': 3,
  'vhost-user': 3,
  rbd: 4,
  uring: 3,
  migration: 3,
};
/** Seconds for all. */
const fullTime = 3600;
const quickTime = 170;

type Line = Row & { group: string; pingPong?: number; failed?: string };

/** Ends a bench and what it has started, as far as that is still there. */
function killGroup(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-pid, signal);
  } catch (err) {
    if ((err as NodeJS.ErrnoException).code !== 'ESRCH') throw err;
  }
}

/** Runs one bench. Its rows come as messages. */
function run(group: string, quick: boolean, seconds: number): Promise<Line[]> {
  const file = path.join(root, 'test', 'bench', `${group}.ts`);
  const env = { ...process.env, ...(quick && { VIOCTL_BENCH_QUICK: '1' }) };
  // a group of its own: what it has started ends with it
  const child = spawn(process.execPath, ['--import', 'tsx', file], {
    env,
    cwd: root,
    detached: true,
    stdio: ['ignore', 'inherit', 'pipe', 'ipc'],
  });
  const lines: Line[] = [];
  let errors = '';
  child.on('message', (row) => lines.push({ ...(row as Row), group }));
  child.stderr!.on('data', (text: Buffer) => {
    errors += text;
  });
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    killGroup(child.pid!, 'SIGTERM');
    setTimeout(() => killGroup(child.pid!, 'SIGKILL'), 2000).unref();
  }, seconds * 1000);
  return new Promise((resolve) => {
    child.on('close', (status, signal) => {
      clearTimeout(timer);
      const why = late
        ? `not done within ${seconds.toFixed(0)} s`
        : (/^\S*Error: .*$/m.exec(errors)?.[0] ?? `ended with ${status ?? signal}`);
      if (late || status !== 0) lines.push({ group, what: 'the rest', values: [], unit: 'x', failed: why });
      resolve(lines);
    });
  });
}

const cells = (line: Line): string[] => [
  line.group,
  line.what,
  goalText(line),
  medianText(line),
  spreadText(line),
  line.failed === undefined ? verdict(line) : `failed: ${line.failed}`,
  line.pingPong === undefined ? '' : line.pingPong.toFixed(0),
];
const head = ['group', 'what', 'goal', 'median', 'spread', 'verdict', 'ping-pong ns'];

function table(lines: readonly Line[]): string {
  const all = [head, ...lines.map(cells)];
  const widths = head.map((_, i) => Math.max(...all.map((row) => row[i]!.length)));
  return all
    .map((row) =>
      row
        .map((cell, i) => cell.padEnd(widths[i]!))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

/** First line that a program prints of itself. */
function versionOf(name: string, args: string[]): string {
  const at = peer(name);
  if (at === undefined) return 'not here';
  const { stdout, stderr } = spawnSync(at, args, { encoding: 'utf8' });
  return `${stdout}${stderr}`.trim().split('\n')[0] ?? '';
}

/** The machine, and what it was compared with. */
function surroundings(): [string, string][] {
  const cpus = os.cpus();
  return [
    ['Processor', `${cpus.length} x ${cpus[0]?.model ?? '?'}`],
    ['Memory', `${(os.totalmem() / 2 ** 30).toFixed(0)} GiB`],
    ['Kernel', os.release()],
    ['Node', process.version],
    ['Load average before and after', ''],
    ['SPDK nvmf_tgt', versionOf('nvmf_tgt', ['--version'])],
    ['qemu-storage-daemon', versionOf('qemu-storage-daemon', ['--version'])],
    ['nbdcopy', versionOf('nbdcopy', ['--version'])],
    ['nbdkit', versionOf('nbdkit', ['--version'])],
    ['fio', versionOf('fio', ['--version'])],
    ['rbd', versionOf('rbd', ['--version'])],
    ['b3sum', versionOf('b3sum', ['--version'])],
    ['coreutils', versionOf('sha256sum', ['--version'])],
    ['libvfn', process.env.VIOCTL_LIBVFN ? 'given' : 'not here'],
    ['analyze-migration.py', process.env.VIOCTL_ANALYZE_MIGRATION ? 'given' : 'not here'],
  ];
}

function markdown(lines: readonly Line[], facts: readonly [string, string][]): string {
  const row = (list: readonly string[]): string => `| ${list.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;
  return [
    row(['', '']),
    row(['---', '---']),
    ...facts.map((fact) => row(fact)),
    '',
    row(head),
    row(head.map(() => '---')),
    ...lines.map((line) => row(cells(line))),
    '',
  ].join('\n');
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    options: { quick: { type: 'boolean', default: false }, seconds: { type: 'string' }, markdown: { type: 'string' } },
    allowPositionals: true,
  });
  const unknown = positionals.find((name) => !Object.hasOwn(groups, name));
  if (unknown !== undefined) {
    console.error(`no bench "${unknown}"; there are ${Object.keys(groups).join(', ')}`);
    process.exitCode = 2;
    return;
  }
  const loads = [os.loadavg()[0]!.toFixed(1)];
  const lines: Line[] = [];
  const end = performance.now() + Number(values.seconds ?? (values.quick ? quickTime : fullTime)) * 1000;
  const chosen = positionals.length > 0 ? positionals : Object.keys(groups);
  for (const [i, group] of chosen.entries()) {
    console.log(`\n${group}`);
    const parts = chosen.slice(i).reduce((sum, name) => sum + groups[name]!, 0);
    lines.push(...(await run(group, values.quick, ((end - performance.now()) / 1000) * (groups[group]! / parts))));
  }
  loads.push(os.loadavg()[0]!.toFixed(1));
  console.log(`\n${table(lines)}`);
  const facts = surroundings().map(([name, fact]): [string, string] => [name, fact === '' ? loads.join(', ') : fact]);
  if (values.markdown !== undefined) fs.writeFileSync(values.markdown, markdown(lines, facts));
}

await main();
