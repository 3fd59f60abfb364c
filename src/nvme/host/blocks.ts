/** Reading and writing a namespace: single commands over all I/O queues. */
import { VioError } from '../../common/errors.js';
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
