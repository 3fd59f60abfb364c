/** Reading and writing a namespace: single commands, and streams over all I/O queues. */
import { Exit, VioError } from '../../common/errors.js';
import { NvmOpcode, rwCmd, sqe as sqeTable } from '../wire/index.js';
import type { Controller, NamespaceInfo } from './controller.js';
import { mayRetry } from './errors.js';
import type { Queue, Transfer } from './queue.js';

/** A transient error is tried again this often. */
const retries = 3;

export class Namespace {
  readonly info: NamespaceInfo;
  readonly #controller: Controller;
  readonly #queues: Queue[];
  #turn = 0;

  constructor(controller: Controller, info: NamespaceInfo) {
    if (controller.queues.length === 0) throw new VioError('the controller granted no I/O queue', { code: 'ENXIO' });
    this.info = info;
    this.#controller = controller;
    this.#queues = controller.queues;
  }

  /** Bytes of the namespace. */
  get size(): bigint {
    return this.info.blocks * BigInt(this.info.blockSize);
  }
  /** Bytes of one command at most: MDTS, and 65,536 blocks. */
  get maxTransfer(): number {
    const { blockSize } = this.info;
    return Math.max(blockSize, Math.min(this.#controller.maxTransfer, 65536 * blockSize));
  }

  #queue(): Queue {
    // The least loaded, in turn: one slow queue does not hold the others.
    let best = this.#queues[this.#turn++ % this.#queues.length]!;
    for (const queue of this.#queues) if (queue.load < best.load) best = queue;
    return best;
  }

  async #command(opcode: number, slba: bigint, nlb: number, transfer: Transfer, fua: boolean, what: string): Promise<void> {
    for (let attempt = 0; ; attempt++) {
      const sqe = sqeTable.encode({ opcode, nsid: this.info.nsid });
      if (nlb > 0) rwCmd.encode({ slba, nlb: nlb - 1, fua: fua ? 1 : 0 }, sqe);
      try {
        await this.#queue().run(sqe, transfer, nlb > 0 ? `${what} of ${nlb} blocks at ${slba}` : what);
        return;
      } catch (err) {
        if (attempt >= retries || !mayRetry(err)) throw err;
      }
    }
  }

  /** Reads whole blocks. @param into a multiple of the block size, maxTransfer at most */
  read(slba: bigint, into: Buffer): Promise<void> {
    return this.#command(NvmOpcode.read, slba, into.length / this.info.blockSize, { into }, false, 'read');
  }
  /** Writes whole blocks. @param fua completes only when the data is on the medium */
  write(slba: bigint, out: Buffer, fua = false): Promise<void> {
    return this.#command(NvmOpcode.write, slba, out.length / this.info.blockSize, { out }, fua, 'write');
  }
  /** Compares whole blocks. @throws NvmeError Compare Failure (2/85h) */
  compare(slba: bigint, out: Buffer): Promise<void> {
    return this.#command(NvmOpcode.compare, slba, out.length / this.info.blockSize, { out }, false, 'compare');
  }
  /** All that was written is on the medium. */
  flush(): Promise<void> {
    return this.#command(NvmOpcode.flush, 0n, 0, undefined, false, 'flush');
  }
}

/** A part of a namespace in bytes. */
export interface ByteRange {
  offset: bigint;
  length: bigint;
}

/**
 * The range that a user means; the rest of the namespace where no count is given.
 * @throws usage error when it is not in the namespace
 */
export function byteRange(ns: Namespace, offset: bigint, count: bigint | undefined): ByteRange {
  const { size } = ns;
  if (offset > size || offset + (count ?? 0n) > size)
    throw new VioError(`${count === undefined ? '' : `${count} bytes at `}offset ${offset}: beyond the namespace's ${size} bytes`, {
      code: 'ERANGE',
      exit: Exit.failed,
      hint: 'vioctl nvmf identify shows the sizes',
    });
  return { offset, length: count ?? size - offset };
}

export interface StreamOptions {
  /** Commands outstanding at once over all queues. */
  depth: number;
  /** Bytes of one command; cut to what the controller takes. */
  chunk: number;
}

/**
 * Reads a range and yields it in order, with `depth` commands under way. Ranges need not be whole blocks: the first and last
 * block are cut.
 * A yielded buffer is good until the next one is asked for.
 */
export async function* readRange(ns: Namespace, range: ByteRange, options: StreamOptions): AsyncGenerator<Buffer, void> {
  const bs = BigInt(ns.info.blockSize);
  const per = chunkBlocks(ns, options);
  const end = range.offset + range.length;
  const lastBlock = (end + bs - 1n) / bs;
  const under: { buffer: Buffer; slba: bigint; done: Promise<Error | undefined> }[] = [];
  const pool: Buffer[] = [];
  let next = range.offset / bs;
  const start = () => {
    const blocks = Number(lastBlock - next < BigInt(per) ? lastBlock - next : BigInt(per));
    const whole = pool.pop() ?? Buffer.allocUnsafeSlow(per * ns.info.blockSize);
    const buffer = whole.subarray(0, blocks * ns.info.blockSize);
    const done = ns.read(next, buffer).then(
      () => undefined,
      (err: Error) => err,
    );
    under.push({ buffer, slba: next, done });
    next += BigInt(blocks);
  };
  if (range.length === 0n) return;
  while (under.length > 0 || next < lastBlock) {
    while (next < lastBlock && under.length < options.depth) start();
    const { buffer, slba, done } = under.shift()!;
    const error = await done;
    if (error) throw error;
    const at = slba * bs;
    const from = Number(range.offset > at ? range.offset - at : 0n);
    const to = Number(end - at < BigInt(buffer.length) ? end - at : BigInt(buffer.length));
    yield buffer.subarray(from, to);
    pool.push(Buffer.from(buffer.buffer, buffer.byteOffset, per * ns.info.blockSize));
  }
}

const chunkBlocks = (ns: Namespace, { chunk }: StreamOptions): number =>
  Math.max(1, Math.floor(Math.min(chunk, ns.maxTransfer) / ns.info.blockSize));

export interface WriteResult {
  /** Bytes taken from the source. */
  bytes: bigint;
  /** Blocks that were read first because the data did not fill them. */
  mergedBlocks: number;
}

/** Writes bytes from `where` on; the first and last block are read first where the bytes do not fill them. @returns blocks read */
async function writeBytes(ns: Namespace, data: Buffer, where: bigint, fua: boolean | undefined): Promise<number> {
  const bs = ns.info.blockSize;
  const head = Number(where % BigInt(bs));
  const slba = where / BigInt(bs);
  const size = Math.ceil((head + data.length) / bs) * bs;
  let merged = 0;
  let out = data;
  if (size !== data.length) {
    out = Buffer.alloc(size);
    if (head !== 0) {
      await ns.read(slba, out.subarray(0, bs));
      merged++;
    }
    if (head + data.length !== size && (size > bs || head === 0)) {
      await ns.read(slba + BigInt(size / bs - 1), out.subarray(size - bs));
      merged++;
    }
    data.copy(out, head);
  }
  await ns.write(slba, out, fua);
  return merged;
}

/**
 * Writes a stream of bytes from `offset` on, with `depth` commands under way. Where the first or last block is not filled,
 * its old contents are kept (read, changed, written). Returns when all is acknowledged; flush is the caller's.
 * @param limit bytes that may be written: a longer source is an error, after what fits was written
 * @param report called with the bytes of each acknowledged command
 */
export async function writeStream(
  ns: Namespace,
  source: AsyncIterable<Buffer>,
  offset: bigint,
  limit: bigint,
  options: StreamOptions & { fua?: boolean },
  report: (bytes: number) => void = () => {},
): Promise<WriteResult> {
  const bs = ns.info.blockSize;
  const chunkSize = chunkBlocks(ns, options) * bs;
  const under = new Set<Promise<void>>();
  let failure: Error | undefined;
  let merged = 0;
  let total = 0n;
  let at = offset;
  let overlong = false;

  const submit = async (data: Buffer, where: bigint): Promise<void> => {
    merged += await writeBytes(ns, data, where, options.fua);
    report(data.length);
  };
  const start = async (data: Buffer): Promise<void> => {
    const one: Promise<void> = submit(data, at)
      .catch((err: Error) => {
        failure ??= err;
      })
      .finally(() => under.delete(one));
    under.add(one);
    at += BigInt(data.length);
    total += BigInt(data.length);
    if (under.size >= options.depth) await Promise.race(under);
  };

  // Commands start at block boundaries: only the first and the last may need merging.
  let have: Buffer[] = [];
  let size = 0;
  let want = chunkSize - Number(offset % BigInt(bs));
  for await (let piece of source) {
    if (failure) break;
    const room = limit - total - BigInt(size);
    if (BigInt(piece.length) > room) {
      overlong = true;
      piece = piece.subarray(0, Number(room));
    }
    for (let from = 0; from < piece.length && !failure; ) {
      const part = piece.subarray(from, from + Math.min(piece.length - from, want - size));
      have.push(part);
      size += part.length;
      from += part.length;
      if (size === want) {
        const data = have.length === 1 ? have[0]! : Buffer.concat(have);
        have = [];
        size = 0;
        want = chunkSize;
        await start(data);
      }
    }
    if (overlong) break;
  }
  if (size > 0 && !failure) await start(Buffer.concat(have));
  await Promise.all(under);
  if (failure) throw failure;
  if (overlong)
    throw new VioError(`the input is longer than the ${limit} bytes there are from offset ${offset} on; those were written`, {
      code: 'ENOSPC',
      details: { written: Number(total) },
    });
  return { bytes: total, mergedBlocks: merged };
}

/** A range as the options of commands give it: in bytes, or in blocks. */
export interface WantedRange {
  offset?: bigint | undefined;
  count?: bigint | undefined;
  'start-block'?: bigint | undefined;
  blocks?: bigint | undefined;
}

/** The bytes that are meant. @throws VioError when they are not in the namespace */
export function wantedRange(ns: Namespace, wanted: WantedRange): ByteRange {
  const bytes = (blocks: bigint | undefined) => (blocks === undefined ? undefined : blocks * BigInt(ns.info.blockSize));
  return byteRange(ns, wanted.offset ?? bytes(wanted['start-block']) ?? 0n, wanted.count ?? bytes(wanted.blocks));
}

/** What a write did. */
export interface WriteSummary {
  nsid: number;
  offset: bigint;
  /** null: a dry run with a pipe, whose size is not known */
  bytes: number | null;
  /** blocks whose old contents were kept in part */
  mergedBlocks: number;
  flushed: boolean;
  seconds: number;
}

/**
 * Writes a source into a range and flushes.
 * @param options exact: a source that is shorter than the range is an error (after it was written and flushed)
 * @throws VioError read-only namespace; too long or too short a source; the controller's errors
 */
export async function writeRange(
  ns: Namespace,
  source: AsyncIterable<Buffer>,
  range: ByteRange,
  options: StreamOptions & {
    fua?: boolean;
    dryRun?: boolean;
    exact?: boolean;
    size?: number | undefined;
    report?: (bytes: number) => void;
  },
): Promise<WriteSummary> {
  const { nsid, readOnly } = ns.info;
  if (readOnly) throw new VioError(`namespace ${nsid} is write protected`, { code: 'EROFS', exit: Exit.refused });
  const started = performance.now();
  const done = (bytes: number | null, mergedBlocks: number, flushed: boolean): WriteSummary => ({
    nsid,
    offset: range.offset,
    bytes,
    mergedBlocks,
    flushed,
    seconds: (performance.now() - started) / 1000,
  });
  if (options.dryRun) {
    if (options.size !== undefined && BigInt(options.size) > range.length)
      throw new VioError(`the input has ${options.size} bytes, there is room for ${range.length}`, { code: 'ENOSPC', exit: Exit.refused });
    return done(options.size ?? null, 0, false);
  }
  let result: WriteResult;
  try {
    result = await writeStream(ns, source, range.offset, range.length, options, options.report);
  } catch (err) {
    if ((err as VioError).code === 'ENOSPC') await ns.flush();
    throw err;
  }
  await ns.flush();
  if (options.exact && result.bytes < range.length)
    throw new VioError(`the input ended after ${result.bytes} of ${range.length} bytes; those were written`, {
      code: 'ENODATA',
      details: { written: Number(result.bytes) },
    });
  return done(Number(result.bytes), result.mergedBlocks, true);
}
