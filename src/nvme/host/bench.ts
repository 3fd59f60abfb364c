/** The load generator: our association, native I/O queues, one report. */
import { Exit, usage, VioError, wrap } from '../../common/errors.js';
import { native } from '../../native/index.js';
import type { LoadOptions, LoadResult } from '../../native/nvme-host.js';
import { decodeStatus, Fid, statusText } from '../wire/index.js';
import { Controller, type ControllerOptions } from './controller.js';
import { onlyNamespace } from './identify.js';

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
  rw: Pattern;
  bs: number;
  iodepth: number;
  queues: number;
  threads: number;
  headerDigest: boolean;
  dataDigest: boolean;
  seconds: number;
  ios: number;
  reads: number;
  writes: number;
  errors: number;
  /** Status of the first command that failed. */
  error: string | undefined;
  iops: number;
  /** Bytes per second. */
  bandwidth: number;
  /** Microseconds. */
  latency: { min: number; mean: number; max: number; p50: number; p90: number; p95: number; p99: number; p999: number; p9999: number };
}

/** Runs the load. @param signal ends it early; what was measured is reported. @throws VioError */
export async function bench(options: ControllerOptions, load: BenchOptions, signal: AbortSignal): Promise<BenchReport> {
  const controller = await Controller.connect({ ...options, ioQueues: 0 });
  try {
    const settled = await settle(controller, options, load);
    const { done, stop } = native().nvmeHost.loadRun(settled);
    signal.addEventListener('abort', stop, { once: true });
    controller.admin.onLost = stop;
    const result = await done.catch((err) => {
      throw wrap('I/O queues', err, (err as { code?: string }).code === 'EPROTO' ? { exit: Exit.damaged } : {});
    });
    return reportOf(load, settled, result);
  } finally {
    await controller.disconnect();
  }
}

/** What the threads are told, as the controller and the namespace allow it. @throws usage error that names what fits */
async function settle(controller: Controller, options: ControllerOptions, load: BenchOptions): Promise<LoadOptions> {
  const nsid = load.nsid ?? (await onlyNamespace(controller));
  const info = await controller.namespace(nsid);
  const wanted = options.ioQueues ?? 1;
  const { dw0 } = await controller.setFeature(Fid.numberOfQueues, (wanted - 1) * 0x10001);
  const queues = Math.min(wanted, (dw0 & 0xffff) + 1, (dw0 >>> 16) + 1);
  const { blockSize } = info;
  if (load.bs % blockSize !== 0 || load.bs === 0)
    throw usage(`${load.bs} bytes are not whole blocks of ${blockSize}`, '--bs is a multiple of the block size');
  if (load.bs > controller.maxTransfer)
    throw usage(`the controller takes ${controller.maxTransfer} bytes in one command`, `--bs ${controller.maxTransfer}`);
  const entries = Math.min(options.queueSize ?? 128, controller.cap.mqes + 1, controller.identify.maxcmd || 65536);
  const depth = Math.min(load.iodepth, entries - 1);
  if (depth < load.iodepth)
    throw usage(`queues of ${entries} entries hold ${entries - 1} commands`, `--iodepth ${depth}, or a larger --queue-size`);
  if (info.readOnly && !load.rw.endsWith('read'))
    throw new VioError(`namespace ${nsid} is write protected`, { code: 'EROFS', exit: Exit.refused });
  const blocks = load.size === undefined ? info.blocks : load.size / BigInt(blockSize);
  if (blocks > info.blocks || blocks < BigInt(load.bs / blockSize))
    throw usage(`a part of ${blocks} blocks of a namespace of ${info.blocks}`, '--size fits the namespace and holds one command');
  return {
    address: options.address,
    port: options.port,
    hostnqn: options.hostnqn,
    subnqn: options.subnqn,
    hostid: options.hostid,
    cntlid: controller.cntlid,
    queues,
    threads: Math.min(load.threads, queues),
    depth,
    entries,
    headerDigest: options.headerDigest ?? false,
    dataDigest: options.dataDigest ?? false,
    flowControl: !options.sqFlowControlOff,
    nsid,
    blockSize,
    ioBlocks: load.bs / blockSize,
    inCapsule: Math.max(0, Math.min(controller.identify.ioccsz * 16, 1 << 24) - 64),
    first: 0n,
    blocks,
    readPercent: load.rw.endsWith('rw') ? load.rwmixread : load.rw.endsWith('read') ? 100 : 0,
    random: load.rw.startsWith('rand'),
    durationMs: load.runtime,
    warmupMs: Math.min(200, load.runtime / 10),
    timeoutMs: options.timeout,
    spinUs: load.spin,
    seed: 1,
  };
}

function reportOf(load: BenchOptions, settled: LoadOptions, result: LoadResult): BenchReport {
  const { queues, threads, headerDigest, dataDigest } = settled;
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
  };
}
