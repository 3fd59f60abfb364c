/**
 * Many namespaces and many hosts of one target, and what it takes at rest.
 *
 *   npm run bench -- nvmf-scale
 */
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { compiled, cpuOf, memoryOf, quick, rounds, scratch, serve, tell } from './support/bench.js';

const seconds = quick ? 0.5 : 2;
const size = 256 << 20;
const hostCounts = quick ? [1, 64, 1000] : [1, 64, 256, 1000, 4000];
/** Reads outstanding on each host. */
const depth = 4;

/** A configuration with many namespaces, of memory or of files. */
function manyNamespaces(count: number, kind: 'memory' | 'files'): string {
  const dir = path.join(scratch(), kind);
  fs.mkdirSync(dir);
  const source = (i: number): string => {
    if (kind === 'memory') return 'ram:1M';
    const file = path.join(dir, `${i}.img`);
    fs.writeFileSync(file, '');
    fs.truncateSync(file, 1 << 20);
    return file;
  };
  const namespaces = Array.from({ length: count }, (_, i) => ({ source: source(i) }));
  const config = path.join(scratch(), `${kind}.json`);
  fs.writeFileSync(config, JSON.stringify({ listen: ['127.0.0.1:0'], subsystems: [{ nqn: 'nqn.2014-08.org.example:bench', namespaces }] }));
  return config;
}

async function namespaces(): Promise<void> {
  for (const kind of ['memory', 'files'] as const) {
    const config = manyNamespaces(10_000, kind);
    const runs: { took: number; cpu: number }[] = [];
    for (let i = 0; i < Math.min(rounds, 3); i++) {
      const target = await serve('--config', config);
      runs.push({ took: target.took / 1000, cpu: cpuOf(target.pid) / 1e9 });
      await target.stop();
    }
    tell({ what: `10,000 namespaces of ${kind} ready`, values: runs.map(({ took }) => took), unit: 's', goal: { atMost: 2 } });
    tell({ what: `10,000 namespaces of ${kind}: CPU until ready`, values: runs.map(({ cpu }) => cpu), unit: 's' });
  }
}

interface Hosts {
  connected: number;
  cpu: number;
}

/** CPU of the target per read, for several numbers of hosts in each round. A new target for each: it keeps nothing of others. */
async function hosts(): Promise<void> {
  const run = async (count: number): Promise<Hosts> => {
    const target = await serve(`ram:${size}`, '--spin', '0', '--max-connections', '20000', '--max-controllers', '10000');
    const args = [target.port, target.pid, target.nqn, count, depth, seconds, size].map(String);
    const done = JSON.parse(execFileSync(compiled('nvmf-hosts'), args, { encoding: 'utf8' })) as Hosts;
    await target.stop();
    return done;
  };
  const all: { base: Hosts; many: Map<number, Hosts> }[] = [];
  for (let i = 0; i < rounds; i++) {
    const base = await run(16);
    const many = new Map<number, Hosts>();
    for (const count of hostCounts) many.set(count, await run(count));
    all.push({ base, many });
  }
  for (const count of hostCounts) {
    const values = all.map(({ base, many }) => many.get(count)!.cpu / base.cpu);
    tell({ what: `${count} hosts: CPU per read to that of 16 hosts`, values, unit: 'x', goal: { atMost: 1.3 } });
  }
  const connected = all.map(({ many }) => many.get(1000)!.connected);
  tell({ what: '1,000 hosts connect', values: connected, unit: 's', goal: { atMost: 1 } });
}

async function rest(): Promise<void> {
  const target = await serve('ram:256M');
  await new Promise((resolve) => setTimeout(resolve, 500));
  const before = cpuOf(target.pid);
  const idle = quick ? 2 : 10;
  await new Promise((resolve) => setTimeout(resolve, idle * 1000));
  tell({ what: 'CPU at rest', values: [((cpuOf(target.pid) - before) / 1e9 / idle) * 100], unit: '%', goal: { atMost: 1 } });
  tell({ what: 'RSS at rest', values: [memoryOf(target.pid)], unit: 'MB', goal: { atMost: 60 } });
  await target.stop();
}

await rest();
await namespaces();
await hosts();
