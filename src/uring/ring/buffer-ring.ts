import { errnoError } from '../../common/errno.js';
import { native } from '../../native/index.js';
import { CqeFlag, Reg } from '../abi.js';
import { addressOf, checkOptions, integer, invalid } from '../request/request.js';
import { groupKey, type Ring } from './ring.js';

export interface BufferRingOptions {
  /** Buffers: a power of two up to 32768 [64]. */
  count?: number;
  /** Bytes of each [4096]. */
  size?: number;
  /** Number of the group, as requests name it (bufIndex) [the next that is free here]. */
  group?: number;
}

/** struct io_uring_buf {addr u64, len u32, bid u16, resv u16} */
const entry = 16;
/** The tail lies in the last two bytes of the first entry, as a 16-bit word. */
const tail = 7;
const maxCount = 1 << 15;

const withResolvers = (): { promise: Promise<void>; resolve: () => void } => {
  let resolve = (): void => {};
  const promise = new Promise<void>((fulfil) => {
    resolve = () => fulfil();
  });
  return { promise, resolve };
};

/** Groups that were given numbers here, by ring. */
const groups = new WeakMap<Ring, number>();

/**
 * Buffers that the kernel takes one by one when data has come (IORING_REGISTER_PBUF_RING, 5.19): a thousand idle sockets share a few of
 * them. Operations.receive(), datagrams() and chunks() use them; a request of one's own has SqeFlag.bufferSelect and the group as `bufIndex`,
 * and the kernel says in the completion's flags which buffer it took: idOf(). A buffer is the kernel's again after give().
 */
export class BufferRing {
  readonly #ring: Ring;
  readonly group: number;
  readonly count: number;
  readonly size: number;
  readonly #memory: Buffer;
  readonly #words: Uint32Array;
  readonly #halves: Uint16Array;
  /** Buffers of the program: a completion has brought them, and they were not given back. */
  readonly #taken = new Set<number>();
  #tail = 0;
  #registered = true;
  #waiting: (() => void)[] = [];

  /** @throws EEXIST (the group is in use), EINVAL (an older kernel, or options that do not fit), ENOMEM */
  constructor(ring: Ring, options: BufferRingOptions = {}) {
    checkOptions(options, ['count', 'size', 'group']);
    this.count = integer('count', options.count ?? 64, 1, maxCount);
    if (this.count & (this.count - 1)) throw invalid('count', this.count, 'a power of two');
    this.size = integer('size', options.size ?? 4096, 1, 0x7fff_ffff);
    this.group = integer('group', options.group ?? groups.get(ring) ?? 0, 0, 0xffff);
    this.#ring = ring;
    this.#memory = Buffer.from(new ArrayBuffer(this.count * this.size));
    const page = native().common.pageSize();
    const block = new ArrayBuffer(this.count * entry + page); // the kernel wants it to begin with a page
    const address = addressOf(new Uint8Array(block));
    const begin = (page - (address % page)) % page;
    this.#words = new Uint32Array(block, begin, this.count * 4);
    this.#halves = new Uint16Array(block, begin, this.count * 8);
    const arg = this.#argument();
    arg.setBigUint64(0, BigInt(address + begin), true);
    const result = ring.register(Reg.registerPbufRing, new Uint8Array(arg.buffer), 1);
    if (result < 0) throw errnoError(result, 'register_pbuf_ring');
    groups.set(ring, Math.max(groups.get(ring) ?? 0, this.group + 1) % 0x1_0000);
    ring.hold(groupKey(this.group), [this.#memory, block]);
    for (let id = 0; id < this.count; id++) this.#put(id);
    this.#publish();
  }

  /** Buffers that the kernel may take. */
  get free(): number {
    return this.count - this.#taken.size;
  }
  /** Whether the kernel may take any at all. */
  get registered(): boolean {
    return this.#registered;
  }

  /** The number of the buffer that a completion took; undefined if it took none. */
  static idOf(flags: number): number | undefined {
    return flags & CqeFlag.buffer ? flags >>> 16 : undefined;
  }

  /** The bytes of a completion; they are the program's until give(). @param id idOf() of its flags @param size its result */
  take(id: number, size: number): Buffer {
    const start = integer('buffer', id, 0, this.count - 1) * this.size;
    this.#taken.add(id);
    return this.#memory.subarray(start, start + integer('size', size, 0, this.size));
  }

  /** Gives a buffer back to the kernel. @throws EINVAL for one that was not taken */
  give(id: number): void {
    if (!this.#taken.delete(id)) throw invalid('buffer', id, 'one that was taken');
    this.#put(id);
    this.#publish();
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const resolve of waiting) resolve();
  }

  /** Resolves when the kernel has a buffer to take, or never will; also when the signal is aborted. */
  async available(signal?: AbortSignal): Promise<void> {
    while (this.#registered && this.free === 0 && !signal?.aborted) {
      const { promise, resolve } = withResolvers();
      this.#waiting.push(resolve);
      signal?.addEventListener('abort', resolve, { once: true });
      await promise;
      signal?.removeEventListener('abort', resolve);
    }
  }

  /** Takes the buffers away from the kernel: requests of the group end with ENOBUFS. Idempotent. */
  unregister(): void {
    if (!this.#registered) return;
    this.#registered = false;
    for (const resolve of this.#waiting.splice(0)) resolve();
    if (this.#ring.closed) return;
    const result = this.#ring.register(Reg.unregisterPbufRing, new Uint8Array(this.#argument().buffer), 1);
    if (result < 0) throw errnoError(result, 'unregister_pbuf_ring');
    this.#ring.hold(groupKey(this.group), undefined);
  }

  [Symbol.dispose](): void {
    this.unregister();
  }

  /** struct io_uring_buf_reg {ring_addr u64, ring_entries u32, bgid u16, flags u16, resv} */
  #argument(): DataView {
    const arg = new DataView(new ArrayBuffer(40));
    arg.setUint32(8, this.count, true);
    arg.setUint16(12, this.group, true);
    return arg;
  }

  #put(id: number): void {
    const at = this.#tail++ & (this.count - 1);
    const address = addressOf(this.#memory) + id * this.size;
    this.#words[at * 4] = address;
    this.#words[at * 4 + 1] = Math.floor(address / 0x1_0000_0000);
    this.#words[at * 4 + 2] = this.size;
    this.#halves[at * 8 + 6] = id;
  }

  /** The kernel sees the entries before it sees the tail. */
  #publish(): void {
    Atomics.store(this.#halves, tail, this.#tail & 0xffff);
  }
}
