/**
 * The IOVA allocator against libvfn (VIOCTL_LIBVFN names its libvfn.so) and against the sorted array of sorted-array.cc, on the same
 * traces in pairs of unmap and map. Ours is called from JavaScript in batches, and does more in each pair: it reuses the lowest
 * addresses, indexes them from both sides and checks overlaps over whole ranges.
 */
import { spawnSync } from 'node:child_process';
import { Batch, IovaSpace } from '../../src/dma/space.js';
import { native } from '../../src/native/index.js';
import { outcomeWords } from '../../src/native/iova.js';
import { compiled, peer, quick, rounds, tell } from './support/bench.js';

const RANGES = [
  { start: 0n, end: 0xfedf_ffffn },
  { start: 0xfef0_0000n, end: 0xffff_ffff_ffffn },
];
const PAGES = [0x1000n, 0x20_0000n, 0x4000_0000n];
const BATCH = 1024;

/** xorshift32: the same numbers in every run. */
function random(seed: number): () => number {
  let x = seed;
  return () => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return x >>> 0;
  };
}

interface Trace {
  name: string;
  live: number;
  /** First mappings, in random order of addresses. */
  prepare: [va: bigint, size: bigint][];
  /** Each removes one and maps it or another again. */
  pairs: [unmap: bigint, va: bigint, size: bigint][];
}

const pagesOf = { '4K': () => 1, '4K-2M': (next: () => number) => 1 << (next() % 10) } as const;

/** `live` buffers 4 MiB apart; the churn takes a random one away and maps one at a random free place. */
function churn(kind: keyof typeof pagesOf, live: number, count: number): Trace {
  const next = random(live + count);
  const place = (slot: number) => 0x7000_0000_0000n + BigInt(slot) * 0x40_0000n;
  const slots = Array.from({ length: 2 * live }, (_, i) => i);
  for (let i = slots.length - 1; i > 0; i--) {
    const j = next() % (i + 1);
    [slots[i], slots[j]] = [slots[j]!, slots[i]!];
  }
  const size = () => BigInt(pagesOf[kind](next)) * 0x1000n;
  const prepare = slots.slice(0, live).map((slot): [bigint, bigint] => [place(slot), size()]);
  const pairs: Trace['pairs'] = [];
  for (let i = 0; i < count; i++) {
    const out = next() % live;
    const into = live + (next() % live);
    pairs.push([place(slots[out]!), place(slots[into]!), size()]);
    [slots[out], slots[into]] = [slots[into]!, slots[out]!];
  }
  return { name: `${kind} churn`, live, prepare, pairs };
}

/** Pairs per second of a program of its own, which takes the trace from stdin. */
function reference(program: readonly string[], trace: Trace): number {
  const words = new BigUint64Array(2 * (trace.prepare.length + 2 * trace.pairs.length));
  let at = 0;
  for (const [va, size] of trace.prepare) words.set([va, size], 2 * at++);
  for (const [unmap, va, size] of trace.pairs) {
    words.set([unmap, 0n], 2 * at++);
    words.set([va, size], 2 * at++);
  }
  const [command = '', ...args] = program;
  const done = spawnSync(command, [...args, String(trace.prepare.length)], {
    input: new Uint8Array(words.buffer),
    encoding: 'utf8',
  });
  if (done.status !== 0) throw new Error(`${command} ended with ${done.status ?? done.signal}: ${done.stderr}`);
  return trace.pairs.length / (Number(done.stdout.split(' ')[1]) / 1e9);
}

/** Requests of a trace, BATCH pairs each; addresses for unmap are looked up by VA in the batch before. */
function ours(trace: Trace): { fill: Batch; batches: Batch[] } {
  const fill = new Batch(trace.prepare.length);
  for (const [va, size] of trace.prepare) fill.map({ va, size });
  // The addresses are known beforehand because the allocator is deterministic: one dry run collects them.
  const space = new IovaSpace(RANGES, PAGES);
  const at = new Map<bigint, bigint>();
  space.run(fill).forEach((outcome, i) => {
    at.set(trace.prepare[i]![0], outcome.at);
  });
  const batches: Batch[] = [];
  for (let i = 0; i < trace.pairs.length; i += BATCH) {
    const batch = new Batch(2 * BATCH);
    for (const [unmap, va, size] of trace.pairs.slice(i, i + BATCH)) {
      const both = new Batch(2).unmap(at.get(unmap)!).map({ va, size });
      const [gone, got] = space.run(both);
      if (gone!.error || got!.error) throw new Error(`the trace fails: ${gone!.error} ${got!.error}`);
      batch.unmap(at.get(unmap)!).map({ va, size });
      at.delete(unmap);
      at.set(va, got!.at);
    }
    batches.push(batch);
  }
  return { fill, batches };
}

const created = () =>
  native().iova.create(BigUint64Array.from(RANGES.flatMap((r) => [r.start, r.end])), BigUint64Array.from(PAGES), 0x10000n, 64n << 20n);

function measure(trace: Trace, prepared: { fill: Batch; batches: Batch[] }): number {
  const { iova } = native();
  const space = created();
  iova.run(space, prepared.fill.words(), new BigUint64Array(prepared.fill.count * outcomeWords));
  const outcomes = new BigUint64Array(2 * BATCH * outcomeWords);
  const words = prepared.batches.map((batch) => batch.words());
  const start = cpu();
  for (const requests of words) iova.run(space, requests, outcomes);
  const seconds = cpu() - start;
  for (let i = 0; i < outcomes.length; i += outcomeWords) if (outcomes[i] !== 0n) throw new Error('a request failed');
  return trace.pairs.length / seconds;
}

/** Seconds of processor time, so that a busy machine does not count. */
function cpu(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

/** 8 KiB churn while 32k holes of 4 KiB lie below every free place, against the same without holes. */
function holes(): number[] {
  const { iova } = native();
  const rate = (fragmented: boolean): number => {
    const space = created();
    const run = (batch: Batch): BigUint64Array => {
      const outcomes = new BigUint64Array(batch.count * outcomeWords);
      iova.run(space, batch.words(), outcomes);
      return outcomes;
    };
    const fill = new Batch(65_536);
    for (let i = 0; i < 65_536; i++) fill.map({ size: 0x1000n });
    const got = run(fill);
    const punch = new Batch(32_768);
    for (let i = 0; i < 65_536; i += 2) punch.unmap(got[i * outcomeWords + 1]!);
    if (fragmented) run(punch);
    const first = run(new Batch(1).map({ size: 0x2000n }))[1]!;
    const batch = new Batch(2 * BATCH);
    for (let i = 0; i < BATCH; i++) batch.unmap(first).map({ size: 0x2000n });
    const words = batch.words();
    const outcomes = run(batch);
    const start = cpu();
    for (let i = 0; i < 1000; i++) iova.run(space, words, outcomes);
    return (1000 * BATCH) / (cpu() - start);
  };
  return Array.from({ length: rounds }, () => rate(false) / rate(true));
}

/** What the allocator is to reach at so many live mappings, in pairs of libvfn. */
const goals = new Map([
  [1_000, 5],
  [65_000, 20],
]);

function main(): void {
  const array = [compiled('sorted-array')];
  const library = peer('libvfn');
  const libvfn = library === undefined ? undefined : [compiled('libvfn-churn', ['-rdynamic', '-ldl']), library];
  for (const kind of quick ? (['4K'] as const) : (['4K', '4K-2M'] as const)) {
    for (const live of quick ? [1_000, 65_000] : [1_000, 10_000, 65_000]) {
      const trace = churn(kind, live, quick ? 16_384 : 100_000);
      const prepared = ours(trace);
      const values = (program: readonly string[]) =>
        Array.from({ length: Math.min(rounds, 5) }, () => {
          const theirs = reference(program, trace);
          return measure(trace, prepared) / theirs;
        });
      const goal = goals.get(live);
      const what = `${trace.name}, ${live} live: pairs/s to those of`;
      const row = { what: `${what} libvfn`, unit: 'x' as const, ...(goal !== undefined && { goal: { atLeast: goal } }), peer: 'libvfn' };
      tell(libvfn ? { ...row, values: values(libvfn) } : { ...row, values: [], missing: 'libvfn.so' });
      tell({ what: `${what} a sorted array`, values: values(array), unit: 'x' });
    }
  }
  const runs = holes();
  tell({ what: '8K churn above 32768 holes of 4K, to that without', values: runs, unit: 'x', goal: { atMost: 1.5 } });
}

main();
