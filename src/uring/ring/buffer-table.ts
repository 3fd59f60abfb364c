import { errnoError } from '../../common/errno.js';
import { Reg } from '../abi.js';
import { addressOf, checkOptions, integer, invalid } from '../request/request.js';

/** Most registered buffers of a ring (IORING_MAX_REG_BUFFERS, io_uring/rsrc.h). */
const maxBuffers = 1 << 14;
const key = 'registered buffers';

type View = NodeJS.ArrayBufferView;

/** What a table needs of its ring, and of one that it clones from. */
export interface BufferOwner {
  readonly closed: boolean;
  readonly fd: number;
  readonly buffers: BufferTable;
  register(opcode: number, arg: Uint8Array | null, nr: number): number;
  hold(key: string, memory: unknown): void;
}

/** Which buffers clone() takes over, and where they go. */
export interface CloneOptions {
  /** First buffer of the other ring [0]. */
  from?: number;
  /** Index here [0]. */
  to?: number;
  /** Buffers [all behind `from`]. */
  count?: number;
  /** Replace what is registered here (6.13). */
  replace?: boolean;
}

/**
 * The registered buffers of a ring, pinned once instead of at every request: readFixed() and writeFixed() name them by
 * index. `ring.buffers` is the only one of its ring. The ring keeps the memory from being collected as long as it is registered; requests
 * under way keep theirs themselves.
 */
export class BufferTable {
  readonly #ring: BufferOwner;
  #views: (View | undefined)[] = [];

  /** Programs take `ring.buffers`. */
  constructor(ring: BufferOwner) {
    this.#ring = ring;
  }

  /** Entries of the table, empty ones included; 0 if none is registered. */
  get size(): number {
    return this.#ring.closed ? 0 : this.#views.length;
  }

  /** The memory of an entry; undefined if it is empty. */
  at(index: number): View | undefined {
    return this.#views[index];
  }

  /**
   * Registers buffers as indexes 0, 1, …
   * @param tags one per buffer (0: none, below 2^31): ring.onTag gets it when the last request on that buffer has ended (5.13)
   * @throws ENOMEM (RLIMIT_MEMLOCK), EFAULT (memory that cannot be pinned, or above 1 GiB), EBUSY (registered already), EINVAL (none, too many)
   */
  register(buffers: readonly View[], tags?: readonly number[]): void {
    const vectors = iovecs(buffers, false);
    if (buffers.length === 0) throw errnoError(-22, 'register_buffers');
    const result = tags ? this.#tagged(0, vectors, tags) : this.#ring.register(Reg.registerBuffers, bytes(vectors), buffers.length);
    if (result < 0) {
      const size = buffers.reduce((sum, view) => sum + view.byteLength, 0);
      throw Object.assign(errnoError(result, 'register_buffers'), { size });
    }
    this.#keep([...buffers]);
  }

  /** Registers `size` empty entries, to be filled by update() (5.19). @throws EBUSY, EINVAL */
  registerSparse(size: number): void {
    integer('size of the table', size, 1, maxBuffers);
    const arg = new DataView(new ArrayBuffer(32)); // struct io_uring_rsrc_register
    arg.setUint32(0, size, true);
    arg.setUint32(4, 1, true); // IORING_RSRC_REGISTER_SPARSE
    this.#check(this.#ring.register(Reg.registerBuffers2, new Uint8Array(arg.buffer), 32), 'register_buffers');
    this.#keep(Array.from({ length: size }, () => undefined));
  }

  /**
   * Replaces entries from `offset` on; null empties one (5.13). Requests under way finish on the old memory.
   * @throws ENXIO (none registered), EINVAL (beyond the table), EFAULT, ENOMEM; `done` of the error is the number of entries that were replaced
   */
  update(offset: number, buffers: readonly (View | null)[], tags: readonly number[] = buffers.map(() => 0)): void {
    integer('index', offset, 0, maxBuffers - 1);
    const vectors = iovecs(buffers, true);
    const result = this.#tagged(offset, vectors, tags, Reg.registerBuffersUpdate);
    const done = Math.max(0, result);
    const views = [...this.#views];
    for (let i = 0; i < done; i++) views[offset + i] = buffers[i] ?? undefined;
    this.#keep(views);
    if (result < 0) throw errnoError(result, 'register_buffers_update');
    if (done === buffers.length) return;
    const why = Object.assign(errnoError(-14, `register_buffers_update: entry ${done}`), { done });
    // The kernel empties the entry whose memory it refuses, and hides the errno.
    views[offset + done] = undefined;
    this.#keep(views);
    throw why;
  }

  /**
   * Takes over buffers of another ring, which were pinned already (6.12; parts, and `replace`, 6.13).
   * @throws EINVAL (an older kernel, or outside one of the tables), EBUSY (registered already, without `replace`), ENXIO (the other has none)
   */
  clone(other: BufferOwner, options: CloneOptions = {}): void {
    checkOptions(options, ['from', 'to', 'count', 'replace']);
    const source = other.buffers;
    const from = integer('from', options.from ?? 0, 0, maxBuffers);
    const to = integer('to', options.to ?? 0, 0, maxBuffers);
    const count = integer('count', options.count ?? Math.max(0, source.size - from), 0, maxBuffers);
    const arg = new DataView(new ArrayBuffer(32)); // struct io_uring_clone_buffers {src_fd, flags, src_off, dst_off, nr, pad}
    arg.setInt32(0, other.fd, true);
    arg.setUint32(4, options.replace ? 2 : 0, true); // IORING_REGISTER_DST_REPLACE
    // All of them is 0, as the kernels before 6.13 know it.
    if (from > 0 || to > 0 || count !== source.size) {
      arg.setUint32(8, from, true);
      arg.setUint32(12, to, true);
      arg.setUint32(16, count, true);
    }
    this.#check(this.#ring.register(Reg.registerCloneBuffers, new Uint8Array(arg.buffer), 1), 'clone_buffers');
    const views = [...this.#views];
    while (views.length < to) views.push(undefined);
    for (let i = 0; i < count; i++) views[to + i] = source.at(from + i);
    this.#keep(views);
  }

  /** Lets all of them go; the remaining tags are posted. @throws ENXIO if none is registered */
  unregister(): void {
    this.#check(this.#ring.register(Reg.unregisterBuffers, null, 0), 'unregister_buffers');
    this.#keep([]);
  }

  [Symbol.dispose](): void {
    if (this.size > 0) this.unregister();
  }

  #check(result: number, call: string): void {
    if (result < 0) throw errnoError(result, call);
  }

  #keep(views: (View | undefined)[]): void {
    this.#views = views;
    this.#ring.hold(key, views.length > 0 ? views : undefined);
  }

  #tagged(offset: number, vectors: BigUint64Array, tags: readonly number[], opcode: number = Reg.registerBuffers2): number {
    const count = vectors.length / 2;
    if (!Array.isArray(tags) || tags.length !== count) throw invalid('tags', tags?.length, `one for each of ${count} buffers`);
    const words = BigUint64Array.from(tags, (tag: number, i) => {
      const value = integer(`tag ${i}`, tag, 0, 0x7fff_ffff);
      return value === 0 ? 0n : (1n << 63n) | BigInt(value);
    });
    // struct io_uring_rsrc_register {nr, flags, resv2, data, tags}; io_uring_rsrc_update2 {offset, resv, data, tags, nr, resv2}
    const update = opcode === Reg.registerBuffersUpdate;
    const arg = new DataView(new ArrayBuffer(32));
    arg.setUint32(0, update ? offset : count, true);
    arg.setBigUint64(update ? 8 : 16, BigInt(addressOf(vectors)), true);
    arg.setBigUint64(update ? 16 : 24, BigInt(addressOf(words)), true);
    if (update) arg.setUint32(24, count, true);
    this.#ring.hold('argument', [vectors, words]); // the kernel reads them during the call
    try {
      return this.#ring.register(opcode, new Uint8Array(arg.buffer), 32);
    } finally {
      this.#ring.hold('argument', undefined);
    }
  }
}

const bytes = (vectors: BigUint64Array): Uint8Array => new Uint8Array(vectors.buffer, vectors.byteOffset, vectors.byteLength);

/** struct iovec of each; an empty entry is zero. @throws EINVAL */
function iovecs(buffers: readonly (View | null)[], holes: boolean): BigUint64Array {
  if (!Array.isArray(buffers) || buffers.length > maxBuffers) throw invalid('buffers', buffers, `an array of at most ${maxBuffers}`);
  return BigUint64Array.from(
    buffers.flatMap((view) => (view === null && holes ? [0n, 0n] : [BigInt(addressOf(view)), BigInt(view.byteLength)])),
  );
}
