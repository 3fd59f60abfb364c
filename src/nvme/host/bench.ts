/** The load generator: what the native host is to do, and one report. */
import { Exit, usage, VioError } from '../../common/errors.js';
import { native } from '../../native/index.js';
import type { HostFacts, HostOptions, LoadOptions, LoadResult } from '../../native/nvme-host.js';
import { decodeStatus, statusText } from '../wire/index.js';
import type { ControllerOptions } from './controller.js';
import { nativeOptions, OpenNamespace } from './copy.js';

/** What to do, in the words of fio. */
export const patterns = ['randread', 'randwrite', 'randrw', 'read', 'write', 'rw'] as const;
export type Pattern = (typeof patterns)[number];

export interface BenchOptions {
  rw: Pattern;
  /** Percent of reads in randrw and rw. */
  rwmixread: number;
  /** Bytes of one command. */
  bs: number;
  /** Commands outstanding on each queue. */
  iodepth: number;
  threads: number;
  /** Milliseconds. */
  runtime: number;
  /** Microseconds a thread looks for completions before it sleeps. */
  spin: number;
  /** Part of the namespace that is used, in bytes from its start; all of it unless given. */
  size?: bigint | undefined;
  /** None: the only one that there is. */
  nsid: number | undefined;
}

export interface BenchReport {
  /** pattern of reads and writes */
  rw: Pattern;
  /** bytes of a command */
  bs: number;
  /** commands under way in each queue */
  iodepth: number;
  /** I/O queues */
  queues: number;
  /** threads that drive the queues */
  threads: number;
  /** PDU headers had digests */
  headerDigest: boolean;
  /** data had digests */
  dataDigest: boolean;
  /** measured time */
  seconds: number;
  /** commands that completed */
  ios: number;
  /** reads among them */
  reads: number;
  /** writes among them */
  writes: number;
  /** commands that failed */
  errors: number;
  /** Status of the first command that failed. */
  error: string | undefined;
  /** commands a second */
  iops: number;
  /** Bytes per second. */
  bandwidth: number;
  /** Microseconds. */
  latency: { min: number; mean: number; max: number; p50: number; p90: number; p95: number; p99: number; p999: number; p9999: number };
  /** Commands by their latency in microseconds, from `from` to below `to`: each bucket is at most 3 % wide, and empty ones are left out. */
  histogram: { from: number; to: number; count: number }[];
}

/** Runs the load. @param signal ends it early; what was measured is reported. @throws VioError */
export async function bench(options: ControllerOptions, load: BenchOptions, signal: AbortSignal): Promise<BenchReport> {
  const ns = await OpenNamespace.open(options, load.nsid, signal);
  const { facts } = ns;
  await ns.close();
  const settled = settle(facts, options, load);
  const { options: host, failed } = nativeOptions(options, facts.nsid);
  const { done, stop } = native().nvmeHost.loadRun({ ...host, ...settled });
  signal.addEventListener('abort', stop, { once: true });
  const result = await done.catch((err) => {
    throw failed(err);
  });
  return reportOf(load, { ...host, ...settled }, result);
}

/** What the threads are told, as the controller and the namespace allow it. @throws usage error that names what fits */
function settle(facts: HostFacts, options: ControllerOptions, load: BenchOptions): Omit<LoadOptions, keyof HostOptions> {
  const { blockSize, nsid } = facts;
  if (load.bs % blockSize !== 0 || load.bs === 0)
    throw usage(`${load.bs} bytes are not whole blocks of ${blockSize}`, '--bs is a multiple of the block size');
  if (load.bs > facts.maxTransfer)
    throw usage(`the controller takes ${facts.maxTransfer} bytes in one command`, `--bs ${facts.maxTransfer}`);
  const depth = Math.min(load.iodepth, facts.depth);
  if (depth < load.iodepth)
    throw usage(`queues of ${facts.depth + 1} entries hold ${facts.depth} commands`, `--iodepth ${depth}, or a larger --queue-size`);
  if (facts.readonly && !load.rw.endsWith('read'))
    throw new VioError(`namespace ${nsid} is write protected`, { code: 'EROFS', exit: Exit.refused });
  const all = facts.size / BigInt(blockSize);
  const blocks = load.size === undefined ? all : load.size / BigInt(blockSize);
  if (blocks > all || blocks < BigInt(load.bs / blockSize))
    throw usage(`a part of ${blocks} blocks of a namespace of ${all}`, '--size fits the namespace and holds one command');
  return {
    threads: Math.min(load.threads, options.ioQueues ?? 1),
    depth,
    blockSize,
    ioBlocks: load.bs / blockSize,
    first: 0n,
    blocks,
    readPercent: load.rw.endsWith('rw') ? load.rwmixread : load.rw.endsWith('read') ? 100 : 0,
    random: load.rw.startsWith('rand'),
    durationMs: load.runtime,
    warmupMs: Math.floor(Math.min(200, load.runtime / 10)),
    spinUs: load.spin,
    seed: 1,
  };
}

function reportOf(load: BenchOptions, settled: LoadOptions, result: LoadResult): BenchReport {
  const { headerDigest, dataDigest } = settled;
  const { queues } = result;
  const threads = Math.min(settled.threads, queues);
  const { seconds, reads, writes, errors } = result;
  const ios = reads + writes;
  const us = (ns: number) => Math.round(ns / 100) / 10;
  const [p50, p90, p95, p99, p999, p9999] = [...result.percentilesNs].map(us) as [number, number, number, number, number, number];
  return {
    rw: load.rw,
    bs: load.bs,
    iodepth: settled.depth,
    queues,
    threads,
    headerDigest,
    dataDigest,
    seconds,
    ios,
    reads,
    writes,
    errors,
    error: errors > 0 ? statusText(decodeStatus(result.firstError), 'io') : undefined,
    iops: seconds > 0 ? Math.round(ios / seconds) : 0,
    bandwidth: seconds > 0 ? Math.round((ios * load.bs) / seconds) : 0,
    latency: { min: us(result.minNs), mean: us(result.meanNs), max: us(result.maxNs), p50, p90, p95, p99, p999, p9999 },
    histogram: Array.from({ length: result.histogramNs.length / 3 }, (_, i) => {
      const [from, to, count] = result.histogramNs.subarray(3 * i) as unknown as [number, number, number];
      return { from: from / 1000, to: to / 1000, count };
    }),
  };
}
