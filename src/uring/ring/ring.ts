import { AsyncResource } from 'node:async_hooks';
import { codeOf, VioError } from '../../common/errors.js';
import { opReadWhole, type RingInfo, type RingStats, readWholeOpen } from '../../native/uring.js';
import { maxFixedFiles, Op, Reg, SqeFlag } from '../abi.js';
import { checkRegister, fileOffset, lengthOf, wide } from '../request/bounds.js';
import { putEntry, userData } from '../request/entry.js';
import {
  addressOf,
  bytesOf,
  type Done,
  type File,
  fileIndex,
  fileNumber,
  integer,
  invalid,
  type Request,
  requestError,
  Slot,
} from '../request/request.js';
import { BufferTable } from './buffer-table.js';
import type { RingOptions } from './options.js';
import { Queue } from './queue.js';

export type { RingOptions } from './options.js';

const AT_FDCWD = -100;

/** Flag of readWhole()'s completion: the buffer is full, the file has not ended, its slot is open. */
export { readWholeOpen };

const maxU32 = 0xffff_ffff;
/** Most bytes that one read or write moves (MAX_RW_COUNT, include/linux/fs.h). */
const maxTransfer = 0x7fff_f000;
const scope = (): AsyncResource => new AsyncResource('VIOCTL_URING');

/** The words of an entry, checked. */
interface Entry {
  head: number;
  fd: number;
  offset: number | bigint;
  address: number | bigint;
  length: number;
  opFlags: number;
  bufIndex: number;
  fileIndex: number;
  addr3: number | bigint;
  buffer: NodeJS.ArrayBufferView | undefined;
  keep: unknown;
}

/**
 * An io_uring of the JavaScript thread. Requests are queued in an array that the addon shares, cross into the kernel as
 * one batch, and what completes at once is called back from the same call: page-cache hits never wake the event loop.
 * Everything else arrives by an eventfd in the event loop.
 *
 * Queued requests leave with submit(), or by themselves at the end of the current turn of JavaScript. Callbacks run in
 * submit() itself, so a callback may come before submit() returns; it never comes before the queueing call returns.
 * Buffers must not be transferred, resized or touched while a request is under way. Memory that threads share may be
 * seen by them as it is filled.
 */
export class Ring {
  readonly #queue: Queue;
  #buffers: BufferTable | undefined;

  /**
   * @throws the errno of io_uring_setup(2): EPERM (sysctl, seccomp), ENOSYS, ENOMEM (locked memory), EINVAL (a required
   *   flag that this kernel has not); see explain() for the reasons in words. EINVAL for an option that does not exist
   */
  constructor(options: RingOptions = {}) {
    this.#queue = new Queue(options);
  }

  /** Descriptor of the ring, owned by it; -1 once it is closed. */
  get fd(): number {
    return this.#queue.fd;
  }
  /** What the kernel made of the options. */
  get info(): Readonly<Pick<RingInfo, 'sqEntries' | 'cqEntries' | 'flags' | 'features' | 'registered' | 'params'>> {
    return this.#queue.info;
  }
  /** Requests that the kernel has and that have not completed. */
  get inFlight(): number {
    return this.#queue.inFlight;
  }
  /** What it cost so far. Completions that do not fit into their queue are kept by the kernel and come with the next call. */
  get stats(): RingStats {
    return { enters: this.#queue.enters, overflows: this.#queue.overflows };
  }
  /** Requests queued here and not submitted. */
  get queued(): number {
    return this.#queue.queued;
  }
  /** Requests that may be queued until as many are under way as the completion queue holds. More are possible, and cost memory of the kernel. */
  get space(): number {
    return this.#queue.space;
  }
  get closed(): boolean {
    return this.#queue.closed;
  }

  /** Receives the tags of registered files and buffers that were let go (32 bits). */
  set onTag(listener: ((tag: number) => void) | undefined) {
    this.#queue.onTag = listener;
  }

  /** Watches completions in the event loop; the constructor does it unless told otherwise. @throws EBUSY the second time */
  watch(): void {
    this.#queue.watch();
  }

  /** Starts a ring opened with Setup.rDisabled. @throws errno */
  enable(): void {
    this.#queue.enable();
  }

  /**
   * Backpressure: resolves when `count` more requests may be queued without going beyond `space`, first come first served. A producer that
   * awaits it holds no more than a queue's worth of requests and buffers.
   * @throws EBADF if the ring is closed meanwhile
   */
  room(count = 1): Promise<void> {
    return this.#queue.room(integer('count', count, 1, maxU32));
  }

  /** Makes room for a chain of `count` requests, which must leave in one batch. @throws EINVAL above the ring's entries */
  reserve(count: number): void {
    this.#queue.check();
    this.#queue.reserve(integer('count', count, 1, maxU32));
  }

  /**
   * Queues a request as it is. `done` is called for every completion (more than once for multishot requests), in the
   * AsyncLocalStorage context of this call.
   * @throws EINVAL for a field that does not fit, and for a length beyond the buffer; EBADF (closed); EOVERFLOW (a chain
   *   without reserve()); EBUSY (the kernel takes no more for now)
   * @returns what cancel() takes, until `done` was called for the last time
   */
  push(request: Request, done: Done): number {
    return this.#put(this.#entry(request), done, scope());
  }

  /**
   * Queues a chain: each request begins when the one before it has ended. All of them are checked before the first is queued.
   * @param hard go on behind a failure too; otherwise the rest ends with -ECANCELED, also behind a short read or write
   * @param done called for each, with its index
   * @throws as push(), and EINVAL for more requests than the ring has entries
   * @returns their tokens
   */
  pushChain(requests: readonly Request[], hard: boolean, done: (index: number, result: number, flags: number) => void): number[] {
    if (!Array.isArray(requests) || requests.length === 0) throw invalid('chain', requests, 'an array of requests');
    if (typeof done !== 'function') throw invalid('done', done, 'a function');
    const link = hard ? SqeFlag.hardlink : SqeFlag.link;
    const last = requests.length - 1;
    const entries = requests.map((request, i) => this.#entry(i < last ? { ...request, flags: (request.flags ?? 0) | link } : request));
    this.reserve(requests.length);
    const context = scope();
    return entries.map((entry, i) => this.#put(entry, (result, flags) => done(i, result, flags), context));
  }

  /**
   * Asks the kernel to cancel a request that push() queued. It is called back in any case: with -ECANCELED, -EINTR, or its
   * result if it was faster.
   */
  cancel(token: number): void {
    const queue = this.#queue;
    const done = queue.pending.of(token);
    if (queue.closed || done === undefined) return;
    if (!queue.enabled) {
      queue.withdraw(token);
      return;
    }
    try {
      this.#put(this.#entry({ opcode: Op.asyncCancel, address: token }), () => {}, undefined);
    } catch (err) {
      // No room now, because of a chain that must not be cut or a kernel that takes no more: in the next turn of the loop.
      if (!['EOVERFLOW', 'EBUSY'].includes(codeOf(err) ?? '')) throw err;
      setImmediate(() => {
        if (queue.pending.of(token) === done) this.cancel(token);
      });
    }
  }

  #entry(request: Request): Entry {
    const { fd = -1, buffer, flags: given = 0, offset = 0, ioprio = 0, opFlags = 0, bufIndex = 0, fileIndex: index = 0 } = request;
    const { addr3 = 0 } = request;
    const opcode = integer('opcode', request.opcode, 0, 255);
    if (opcode === opReadWhole) throw invalid('opcode', opcode, "one of the kernel's");
    const number = fileNumber(fd);
    let flags = integer('flags', given, 0, 255);
    if (flags & SqeFlag.cqeSkip)
      throw new VioError('CQE_SKIP_SUCCESS is not supported: its request would never be let go', { code: 'EINVAL' });
    if (fd instanceof Slot) flags |= SqeFlag.fixedFile;
    wide('offset', offset);
    const asked = request.length === undefined ? undefined : integer('length', request.length, 0, maxU32);
    if (buffer && request.address !== undefined) throw invalid('address', request.address, 'none beside a buffer');
    const address = buffer ? addressOf(buffer) : wide('address', request.address === undefined ? 0 : request.address);
    const length = buffer ? lengthOf(opcode, number, buffer, asked, offset) : (asked ?? 0);
    integer('opFlags', opFlags, -(2 ** 31), maxU32);
    integer('bufIndex', bufIndex, 0, maxU32);
    integer('fileIndex', index, 0, maxU32);
    wide('addr3', addr3);
    const head = opcode | (flags << 8) | (integer('ioprio', ioprio, 0, 0xffff) << 16);
    // The kernel picks a buffer of the group when it needs one: the group lives as long as the request.
    const group = flags & SqeFlag.bufferSelect ? this.#queue.held.get(groupKey(bufIndex & 0xffff)) : undefined;
    const keep = group === undefined ? request.keep : [request.keep, group];
    return { head, fd: number, offset, address, length, opFlags, bufIndex, fileIndex: index, addr3, buffer, keep };
  }

  #put(entry: Entry, done: Done, context: AsyncResource | undefined): number {
    const { sqe } = this.#queue;
    const { head, fd, offset, address, length, opFlags, bufIndex, fileIndex: index, addr3, buffer, keep } = entry;
    const at = this.#queue.entry(done, context, buffer, keep);
    putEntry(sqe, at, head, fd, offset, address, length, opFlags, bufIndex, index, addr3);
    this.#queue.schedule();
    return sqe[at + userData]!;
  }

  /** Like push, as a promise. @throws the errno of a negative result */
  request(request: Request, call = 'io_uring'): Promise<number> {
    return new Promise((resolve, reject) =>
      this.#put(
        this.#entry(request),
        (result) => (result < 0 ? reject(requestError(result, call, request.fd)) : resolve(result)),
        undefined,
      ),
    );
  }

  /**
   * Reads into a buffer at a file offset (-1: the file's own position). `done` gets bytes read (0: end of file; fewer than
   * asked can happen anywhere) or -errno.
   */
  read(file: File, buffer: NodeJS.ArrayBufferView, offset: number | bigint, done: Done): void {
    this.#transfer(Op.read, file, buffer, offset, done, scope());
  }

  /** Writes a buffer at a file offset. `done` gets bytes written or -errno. */
  write(file: File, buffer: NodeJS.ArrayBufferView, offset: number | bigint, done: Done): void {
    this.#transfer(Op.write, file, buffer, offset, done, scope());
  }

  /** read() into memory inside registered buffer `index` (registerBuffers). */
  readFixed(file: File, buffer: NodeJS.ArrayBufferView, index: number, offset: number | bigint, done: Done): void {
    this.#transfer(Op.readFixed, file, buffer, offset, done, scope(), index);
  }

  /** write() from memory inside registered buffer `index`. */
  writeFixed(file: File, buffer: NodeJS.ArrayBufferView, index: number, offset: number | bigint, done: Done): void {
    this.#transfer(Op.writeFixed, file, buffer, offset, done, scope(), index);
  }

  /** read() as a promise. */
  readAsync(file: File, buffer: NodeJS.ArrayBufferView, offset: number | bigint): Promise<number> {
    return new Promise((resolve, reject) =>
      this.#transfer(Op.read, file, buffer, offset, (n) => (n < 0 ? reject(requestError(n, 'read', file)) : resolve(n)), undefined),
    );
  }

  /** write() as a promise. */
  writeAsync(file: File, buffer: NodeJS.ArrayBufferView, offset: number | bigint): Promise<number> {
    return new Promise((resolve, reject) =>
      this.#transfer(Op.write, file, buffer, offset, (n) => (n < 0 ? reject(requestError(n, 'write', file)) : resolve(n)), undefined),
    );
  }

  #transfer(
    opcode: number,
    file: File,
    buffer: NodeJS.ArrayBufferView,
    offset: number | bigint,
    done: Done,
    context: AsyncResource | undefined,
    bufIndex = 0,
  ): void {
    const address = addressOf(buffer);
    const number = fileNumber(file);
    fileOffset(offset);
    integer('index of the buffer', bufIndex, 0, 0xffff);
    const at = this.#queue.entry(done, context, buffer);
    const head = file instanceof Slot ? opcode | (SqeFlag.fixedFile << 8) : opcode;
    putEntry(this.#queue.sqe, at, head, number, offset, address, Math.min(bytesOf(buffer), maxTransfer), 0, bufIndex, 0, 0);
    this.#queue.schedule();
  }

  /**
   * Opens a file into a slot of the table: `path` ends with NUL and must not change until `done`. The lean form of
   * FileTable.open for bulk work. @param sqeFlags SqeFlag.link and the like
   */
  openSlot(path: Uint8Array, openFlags: number, slot: number, sqeFlags: number, done: Done): void {
    const address = addressOf(path);
    lengthOf(Op.openat, AT_FDCWD, path, 0, 0);
    const index = fileIndex(slot);
    const flags = integer('flags', sqeFlags, 0, 0xff & ~(SqeFlag.cqeSkip | SqeFlag.fixedFile | SqeFlag.bufferSelect));
    integer('flags of open', openFlags, 0, 0x7fff_ffff);
    const at = this.#queue.entry(done, scope(), path);
    putEntry(this.#queue.sqe, at, Op.openat | (flags << 8), AT_FDCWD, 0, address, 0, openFlags, 0, index, 0);
    this.#queue.schedule();
  }

  /**
   * Opens a file into a slot, reads it into `buffer` until it ends, and closes it: four requests and one completion. `path`
   * ends with NUL. `done` gets the bytes read or -errno, and READ_WHOLE_OPEN in its flags where the buffer is full: then the
   * file goes on and its slot is open.
   */
  readWhole(path: Uint8Array, openFlags: number, slot: number, buffer: NodeJS.ArrayBufferView, done: Done): void {
    const [from, to, index] = [addressOf(path), addressOf(buffer), integer('slot', slot, 0, maxFixedFiles - 1) + 1];
    lengthOf(Op.openat, AT_FDCWD, path, 0, 0);
    integer('flags of open', openFlags, 0, 0x7fff_ffff);
    if (this.#queue.linked) throw invalid('readWhole', 'behind a link', 'a place outside chains');
    const at = this.#queue.entry(done, undefined, buffer, path);
    putEntry(this.#queue.sqe, at, opReadWhole, 0, to, from, Math.min(buffer.byteLength, maxTransfer), openFlags, 0, index, 0);
    this.#queue.schedule();
  }

  /** Closes a slot of the table; only its completion makes the slot free. */
  closeSlot(slot: number, done: Done): void {
    const index = integer('slot', slot, 0, maxFixedFiles - 1) + 1;
    const at = this.#queue.entry(done, undefined);
    putEntry(this.#queue.sqe, at, Op.close, 0, 0, 0, 0, 0, 0, index, 0);
    this.#queue.schedule();
  }

  /** fsync(2), or fdatasync(2) with `data`. */
  fsync(file: File, data: boolean, done: Done): void {
    this.push({ opcode: Op.fsync, fd: file, opFlags: data ? 1 : 0 }, done);
  }

  /**
   * Submits what is queued, waits for `want` completions (blocking; at most `timeoutMs`), and calls back everything that
   * has completed. From inside a callback it only marks the queue: the batch leaves when the callbacks are through.
   * @returns completions called back
   * @throws what a callback threw; EBADFD (not started), EBADF (closed). Requests that the kernel refuses are called back
   *   with the errno of io_uring_enter(2): EPERM (seccomp)
   */
  submit(want = 0, timeoutMs = -1): number {
    integer('want', want, 0, maxU32);
    if (typeof timeoutMs !== 'number' || Number.isNaN(timeoutMs)) throw invalid('timeout', timeoutMs, 'milliseconds');
    return this.#queue.submit(want, timeoutMs);
  }

  /**
   * io_uring_register(2). Memory that the argument points to is the caller's to keep: see hold().
   * @returns result or -errno
   * @throws EINVAL for an argument shorter than what the kernel would read or write
   */
  register(opcode: number, arg: Uint8Array | null, nr: number): number {
    this.#queue.checkOpen();
    checkRegister(opcode, arg, nr);
    const result = this.#queue.register(opcode, arg, nr);
    if (opcode === Reg.registerEnableRings && result >= 0) this.#queue.started();
    return result;
  }

  /**
   * Keeps memory from being collected until the ring is closed, or until the same key gets other memory or undefined. For what was given to the
   * kernel by register().
   */
  hold(key: string, memory: unknown): void {
    this.#queue.checkOpen();
    if (memory === undefined) this.#queue.held.delete(key);
    else this.#queue.held.set(key, memory);
  }

  /** The registered buffers of this ring. */
  get buffers(): BufferTable {
    this.#buffers ??= new BufferTable(this);
    return this.#buffers;
  }

  /**
   * Registers memory for readFixed() and writeFixed(): `buffers.register()`. The kernel pins it until it is unregistered or the ring closes.
   * Counted against RLIMIT_MEMLOCK of users without CAP_IPC_LOCK.
   * @throws ENOMEM (the limit), EFAULT (memory that cannot be pinned, or above 1 GiB), EBUSY (registered already), EINVAL (none)
   */
  registerBuffers(buffers: readonly NodeJS.ArrayBufferView[]): void {
    this.buffers.register(buffers);
  }

  /**
   * Cancels what is under way, calls it back with -ECANCELED (or its result), unregisters files first (a closed ring lets
   * them go some 30 ms later), and closes. A request that the kernel does not give back within some seconds keeps its
   * memory for good. Idempotent.
   * @throws what a callback threw, once the ring is closed
   */
  close(): void {
    this.#queue.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }
}

/** The key of hold() for a group of provided buffers. */
export const groupKey = (group: number): string => `group ${group}`;
