import fs from 'node:fs';
import { setImmediate } from 'node:timers/promises';
import { errnoName } from '../common/errno.js';
import { codeOf, VioError, wrap } from '../common/errors.js';
import type { Sysroot } from '../common/sysroot.js';
import { Setup } from './abi.js';
import { unavailable } from './host/unavailable.js';
import type { Done, File } from './request/request.js';
import { Ring, type RingOptions } from './ring/ring.js';
import { FileTable } from './ring/table.js';

export interface BenchOptions {
  path: string;
  /** Bytes of each read. */
  size: number;
  /** Reads under way at once. */
  depth: number;
  /** Reads of each configuration in each round. */
  reads: number;
  rounds: number;
  sysroot: Sysroot;
  signal: AbortSignal;
  /** CPU time of the process so far, microseconds. */
  cpuTime: () => number;
  /** Called after each round. */
  progress?: () => void;
}

/** One way of reading, over all rounds. */
export interface BenchResult {
  /** name of the way of reading */
  name: string;
  /** description of the way of reading */
  what: string;
  /** CPU time per read in microseconds: median of the rounds */
  cpu: number;
  /** least CPU time of a round */
  cpuMin: number;
  /** most CPU time of a round */
  cpuMax: number;
  /** Wall time per read, microseconds, median. */
  wall: number;
  /** median ratio to the CPU time of the first way in the same round; below 1 is a gain */
  ratio: number;
  /** least ratio of a round */
  ratioMin: number;
  /** largest ratio of a round */
  ratioMax: number;
}

const plain: RingOptions = { prefer: Setup.submitAll, registered: false };
const oneThread = Setup.singleIssuer | Setup.deferTaskrun | Setup.taskrunFlag | Setup.submitAll;

interface Way {
  name: string;
  what: string;
  ring?: RingOptions;
  files?: boolean;
  buffers?: boolean;
}
const ways: Way[] = [
  { name: 'pread', what: 'one system call per read' },
  { name: 'ring', what: 'io_uring, plain set-up', ring: plain },
  { name: 'one-thread', what: '+ SINGLE_ISSUER and DEFER_TASKRUN', ring: { prefer: oneThread, registered: false } },
  { name: 'fixed-file', what: '+ registered file', ring: { prefer: oneThread, registered: false }, files: true },
  { name: 'ring-fd', what: '+ registered ring descriptor', ring: { prefer: oneThread }, files: true },
  { name: 'fixed-buffer', what: '+ registered buffers', ring: { prefer: oneThread }, files: true, buffers: true },
];

/** Bytes of the file that are read: they are brought into the page cache first. */
const window = 64 << 20;

const sorted = (values: number[]): number[] => [...values].sort((a, b) => a - b);
const median = (values: number[]): number => sorted(values)[Math.floor(values.length / 2)]!;

/**
 * Measures what fixed files, registered buffers and the registered ring descriptor save on this machine and file: cached
 * reads, every way in every round, so that the ratios are of the same moment.
 * @throws UNAVAILABLE (7), the errno of opening and reading the file
 */
export async function bench(options: BenchOptions): Promise<BenchResult[]> {
  const { path, size, depth, reads, rounds } = options;
  let fd: number;
  try {
    fd = fs.openSync(path, 'r');
  } catch (err) {
    throw wrap(path, err);
  }
  const memory = Buffer.alloc(depth * size);
  const buffers = Array.from({ length: depth }, (_, i) => memory.subarray(i * size, (i + 1) * size));
  const runners: { way: Way; run: () => void; close: () => void; cpu: number[]; wall: number[] }[] = [];
  try {
    const blocks = Math.floor(Math.min(readable(path, fd, memory), window) / size);
    if (blocks === 0)
      throw new VioError(`${path}: smaller than one read of ${size} bytes`, { code: 'TOO_SMALL', hint: '--size, or a larger file' });
    for (const way of ways)
      runners.push({ way, ...prepare(way, { fd, memory, buffers, blocks, size, reads, sysroot: options.sysroot }), cpu: [], wall: [] });
    for (let round = -1; round < rounds; round++) {
      for (const runner of runners) {
        await setImmediate(); // the reads hold the thread: signals arrive between two runs
        options.signal.throwIfAborted();
        const cpu = options.cpuTime();
        const start = performance.now();
        runner.run();
        if (round < 0) continue; // warms caches and the compiler
        runner.cpu.push((options.cpuTime() - cpu) / reads);
        runner.wall.push(((performance.now() - start) * 1000) / reads);
      }
      options.progress?.();
    }
  } finally {
    for (const { close } of runners) close();
    fs.closeSync(fd);
  }
  const base = runners[0]!.cpu;
  return runners.map(({ way, cpu, wall }) => {
    const ratios = sorted(cpu.map((value, i) => value / base[i]!));
    const spread = sorted(cpu);
    return {
      ...{ name: way.name, what: way.what },
      ...{ cpu: median(cpu), cpuMin: spread[0]!, cpuMax: spread.at(-1)!, wall: median(wall) },
      ...{ ratio: median(ratios), ratioMin: ratios[0]!, ratioMax: ratios.at(-1)! },
    };
  });
}

/** Reads the window once. @returns bytes that are there */
function readable(path: string, fd: number, memory: Buffer): number {
  let at = 0;
  try {
    for (let n = 1; n > 0 && at < window; at += n) n = fs.readSync(fd, memory, 0, memory.length, at);
  } catch (err) {
    throw wrap(path, err);
  }
  return at;
}

interface Work {
  fd: number;
  memory: Buffer;
  buffers: Buffer[];
  blocks: number;
  size: number;
  reads: number;
  sysroot: Sysroot;
}

function prepare(way: Way, work: Work): { run: () => void; close: () => void } {
  const { fd, memory, buffers, blocks, size, reads } = work;
  const offset = (i: number): number => ((i * 7919) % blocks) * size;
  const short = (n: number): never => {
    throw new VioError(`read: ${n < 0 ? errnoName(n) : `${n} of ${size} bytes`}`, { code: 'EIO' });
  };
  if (!way.ring) {
    const run = (): void => {
      for (let i = 0; i < reads; i++) {
        const n = fs.readSync(fd, buffers[i % buffers.length]!, 0, size, offset(i));
        if (n !== size) short(n);
      }
    };
    return { run, close: () => {} };
  }
  let ring: Ring;
  try {
    ring = new Ring({ entries: buffers.length, watch: false, ...way.ring });
  } catch (err) {
    throw unavailable(err, work.sysroot);
  }
  let file: File = fd;
  if (way.files) {
    const table = new FileTable(ring);
    table.register([fd]);
    file = table.slot(0);
  }
  if (way.buffers) {
    try {
      ring.registerBuffers([memory]);
    } catch (err) {
      ring.close();
      throw wrap('register buffers', err, {
        ...(codeOf(err) === 'ENOMEM' && { hint: `needs ${memory.length} bytes of locked memory: ulimit -l` }),
      });
    }
  }
  const done: Done = (n) => {
    if (n !== size) short(n);
  };
  const run = (): void => {
    for (let i = 0; i < reads; ) {
      for (let k = 0; k < buffers.length && i < reads; k++, i++) {
        if (way.buffers) ring.readFixed(file, buffers[k]!, 0, offset(i), done);
        else ring.read(file, buffers[k]!, offset(i), done);
      }
      ring.submit();
      while (ring.inFlight > 0) ring.submit(ring.inFlight);
    }
  };
  return { run, close: () => ring.close() };
}
