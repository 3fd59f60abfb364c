import { VioError } from '../common/errors.js';
import { native } from '../native/index.js';
import { type RingHandle, type RingInfo, type RingStats, Status, type UringNative } from '../native/uring.js';
import { CqeFlag, Op, Reg, Setup, SqeFlag } from './abi.js';
import { Completions } from './completions.js';
import { putEntry, USER_DATA, WORDS } from './entry.js';
import { enterError, errnoError, errnoName } from './errno.js';
import { addressOf, type Done, type File, fileIndex, fileNumber, integer, invalid, type Request, requestError } from './request.js';

export interface RingOptions {
  /** Entries of the submission queue, and the most that one batch carries. Default 256. */
  entries?: number;
  /** Entries of the completion queue; twice `entries` unless given. */
  cqEntries?: number;
  /** Set-up flags (Setup.*) without which the ring is not opened: IOPOLL, SQPOLL, R_DISABLED. */
  require?: number;
  /** Set-up flags to use where offered; SINGLE_ISSUER, DEFER_TASKRUN, TASKRUN_FLAG, SUBMIT_ALL and CLAMP unless given. */
  prefer?: number;
  /** Watch completions in the event loop (default). Without it, poll with submit() or wait(). */
  watch?: boolean;
  /** Enter through a registered ring descriptor where possible (default). */
  registered?: boolean;
}

/** Flushes in a row from microtasks before the event loop gets its turn. */
const INLINE_TURNS = 64;
const CHAIN = (SqeFlag.link | SqeFlag.hardlink) << 8;
const AT_FDCWD = -100;
/** An entry of our own (native/uring/whole.h): the addon makes requests of it. */
const OP_READ_WHOLE = 0xf0;
/** Flag of readWhole()'s completion: the buffer is full, the file has not ended, its slot is open. */
export const READ_WHOLE_OPEN = 1 << 15;
/** The kernel's bound (IORING_MAX_ENTRIES, io_uring/io_uring.h). */
const MAX_ENTRIES = 32768;

/** Open rings: the kernel may write to the memory of their requests, so they are not collected. */
const open = new Set<Ring>();
/** Memory of requests that outlived their ring. */
const stuck: unknown[] = [];

/**
 * An io_uring of the JavaScript thread. Requests are queued in an array that the addon shares, cross into the kernel as
 * one batch, and what completes at once is called back from the same call: page-cache hits never wake the event loop.
 * Everything else arrives by an eventfd in the event loop.
 *
 * Queued requests leave with submit(), or by themselves at the end of the current turn of JavaScript. Callbacks run in
 * submit() itself, so a callback may come before submit() returns; it never comes before the queueing call returns.
 * Buffers must not be transferred, resized or touched while a request is under way.
 */
export class Ring {
  readonly #native: UringNative = native().uring;
  readonly #handle: RingHandle;
  readonly #info: RingInfo;
  readonly #sqe: Uint32Array;
  readonly #cqe: Int32Array;
  readonly #status: Int32Array;
  readonly #batch: number;
  readonly #done: (Done | undefined)[] = [];
  readonly #kept: unknown[] = [];
  readonly #free: number[] = [];
  #queued = 0;
  #scheduled = false;
  #turns = 0;
  readonly #arrived = new Completions();
  #dispatching = false;
  #closed = false;
  #closing = false;
  #draining = false;
  /** Registered buffers: the kernel writes there. */
  #pinned: readonly NodeJS.ArrayBufferView[] | undefined;
  #onTag: ((tag: number) => void) | undefined;

  /**
   * @throws the errno of io_uring_setup(2): EPERM (sysctl, seccomp), ENOSYS, ENOMEM (locked memory), EINVAL (a required
   *   flag that this kernel has not); see unavailable() for the reasons in words
   */
  constructor(options: RingOptions = {}) {
    const entries = integer('entries', options.entries ?? 256, 1, MAX_ENTRIES);
    if (options.cqEntries !== undefined) integer('cqEntries', options.cqEntries, 1, 2 * MAX_ENTRIES);
    this.#handle = this.#native.open({
      entries,
      batch: entries,
      ...(options.cqEntries !== undefined && { cqEntries: options.cqEntries }),
      ...(options.require !== undefined && { require: options.require }),
      ...(options.prefer !== undefined && { prefer: options.prefer }),
      ...(options.registered === false && { registered: 0 as const }),
    });
    this.#info = this.#native.info(this.#handle);
    this.#sqe = new Uint32Array(this.#info.sqes);
    this.#cqe = new Int32Array(this.#info.cqes);
    this.#status = new Int32Array(this.#info.status);
    this.#batch = this.#sqe.length / WORDS;
    open.add(this);
    if ((options.watch ?? true) && !(this.#info.flags & (Setup.iopoll | Setup.rDisabled))) this.watch();
  }

  /** Descriptor of the ring, owned by it; -1 once it is closed. */
  get fd(): number {
    return this.#closed ? -1 : this.#info.fd;
  }
  /** What the kernel made of the options. */
  get info(): Readonly<Pick<RingInfo, 'sqEntries' | 'cqEntries' | 'flags' | 'features' | 'registered' | 'params'>> {
    return this.#info;
  }
  /** Requests that the kernel has and that have not completed. */
  get inFlight(): number {
    return this.#status[Status.inFlight]!;
  }
  /** What it cost so far. Completions that do not fit into their queue are kept by the kernel and come with the next call. */
  get stats(): RingStats {
    return { enters: this.#status[Status.enters]! >>> 0, overflows: this.#status[Status.overflows]! >>> 0 };
  }
  /** Requests queued here and not submitted. */
  get queued(): number {
    return this.#queued;
  }
  get closed(): boolean {
    return this.#closed || this.#closing;
  }

  /** Receives the tags of registered files and buffers that were let go (32 bits). */
  set onTag(listener: ((tag: number) => void) | undefined) {
    this.#onTag = listener;
  }

  /** Watches completions in the event loop; the constructor does it unless told otherwise. */
  watch(): void {
    this.#native.watch(this.#handle, (count) => {
      this.#arrived.take(this.#cqe, count);
      this.#dispatch();
    });
  }

  /** Starts a ring opened with Setup.rDisabled. @throws errno */
  enable(): void {
    const result = this.#native.enable(this.#handle);
    if (result < 0) throw errnoError(result, 'io_uring_register');
  }

  /** Makes room for a chain of `count` requests, which must leave in one batch. @throws EINVAL above the ring's entries */
  reserve(count: number): void {
    this.#check();
    if (count > this.#batch) throw new VioError(`a chain of ${count} requests on a ring of ${this.#batch} entries`, { code: 'EINVAL' });
    if (this.#queued + count > this.#batch) this.#enter(0, -1);
    if (this.#queued + count > this.#batch) throw new VioError('the kernel takes no more requests: EBUSY', { code: 'EBUSY' });
  }

  /** Queues a request as it is. `done` is called for every completion (more than once for multishot requests). */
  push(request: Request, done: Done): void {
    const { fd = -1, buffer } = request;
    const opcode = integer('opcode', request.opcode, 0, 255);
    if (opcode === OP_READ_WHOLE) throw invalid('opcode', opcode, "one of the kernel's");
    const number = fileNumber(fd);
    let flags = integer('flags', request.flags ?? 0, 0, 255);
    if (flags & SqeFlag.cqeSkip)
      throw new VioError('CQE_SKIP_SUCCESS is not supported: its request would never be let go', { code: 'EINVAL' });
    if (typeof fd !== 'number') flags |= SqeFlag.fixedFile;
    const address = buffer ? addressOf(buffer) : (request.address ?? 0);
    const at = this.#entry(done, buffer ?? request.keep);
    const head = opcode | (flags << 8) | ((request.ioprio ?? 0) << 16);
    const length = request.length ?? buffer?.byteLength ?? 0;
    const { offset = 0, opFlags = 0, bufIndex = 0, fileIndex = 0, addr3 = 0 } = request;
    putEntry(this.#sqe, at, head, number, offset, address, length, opFlags, bufIndex, fileIndex, addr3);
    this.#schedule();
  }

  /** Like push, as a promise. @throws the errno of a negative result */
  request(request: Request, call = 'io_uring'): Promise<number> {
    return new Promise((resolve, reject) =>
      this.push(request, (result) => (result < 0 ? reject(requestError(result, call, request.fd)) : resolve(result))),
    );
  }

  /**
   * Reads into a buffer at a file offset (-1: the file's own position). `done` gets bytes read (0: end of file; fewer than
   * asked can happen anywhere) or -errno.
   */
  read(file: File, buffer: NodeJS.ArrayBufferView, offset: number, done: Done): void {
    this.#transfer(Op.read, file, buffer, offset, done);
  }

  /** Writes a buffer at a file offset. `done` gets bytes written or -errno. */
  write(file: File, buffer: NodeJS.ArrayBufferView, offset: number, done: Done): void {
    this.#transfer(Op.write, file, buffer, offset, done);
  }

  /** read() into memory inside registered buffer `index` (registerBuffers). */
  readFixed(file: File, buffer: NodeJS.ArrayBufferView, index: number, offset: number, done: Done): void {
    this.#transfer(Op.readFixed, file, buffer, offset, done, index);
  }

  /** write() from memory inside registered buffer `index`. */
  writeFixed(file: File, buffer: NodeJS.ArrayBufferView, index: number, offset: number, done: Done): void {
    this.#transfer(Op.writeFixed, file, buffer, offset, done, index);
  }

  /** read() as a promise. */
  readAsync(file: File, buffer: NodeJS.ArrayBufferView, offset: number): Promise<number> {
    return new Promise((resolve, reject) =>
      this.#transfer(Op.read, file, buffer, offset, (n) => (n < 0 ? reject(requestError(n, 'read', file)) : resolve(n))),
    );
  }

  /**
   * Opens a file into a slot of the table: `path` ends with NUL and must not change until `done`. The lean form of
   * FileTable.open for bulk work. @param sqeFlags SqeFlag.link and the like
   */
  openSlot(path: Uint8Array, openFlags: number, slot: number, sqeFlags: number, done: Done): void {
    const address = addressOf(path);
    const index = fileIndex(slot);
    const at = this.#entry(done, path);
    putEntry(this.#sqe, at, Op.openat | (sqeFlags << 8), AT_FDCWD, 0, address, 0, openFlags, 0, index, 0);
    this.#schedule();
  }

  /**
   * Opens a file into a slot, reads it into `buffer` until it ends, and closes it: four requests and one completion. `path`
   * ends with NUL. `done` gets the bytes read or -errno, and READ_WHOLE_OPEN in its flags where the buffer is full: then the
   * file goes on and its slot is open.
   */
  readWhole(path: Uint8Array, openFlags: number, slot: number, buffer: NodeJS.ArrayBufferView, done: Done): void {
    const [from, to, index] = [addressOf(path), addressOf(buffer), fileIndex(slot)];
    const at = this.#entry(done, [path, buffer]);
    putEntry(this.#sqe, at, OP_READ_WHOLE, 0, to, from, buffer.byteLength, openFlags, 0, index, 0);
    this.#schedule();
  }

  /** Closes a slot of the table; only its completion makes the slot free. */
  closeSlot(slot: number, done: Done): void {
    const index = fileIndex(slot);
    const at = this.#entry(done, undefined);
    putEntry(this.#sqe, at, Op.close, 0, 0, 0, 0, 0, 0, index, 0);
    this.#schedule();
  }

  /** write() as a promise. */
  writeAsync(file: File, buffer: NodeJS.ArrayBufferView, offset: number): Promise<number> {
    return new Promise((resolve, reject) =>
      this.#transfer(Op.write, file, buffer, offset, (n) => (n < 0 ? reject(requestError(n, 'write', file)) : resolve(n))),
    );
  }

  /** fsync(2), or fdatasync(2) with `data`. */
  fsync(file: File, data: boolean, done: Done): void {
    this.push({ opcode: Op.fsync, fd: file, opFlags: data ? 1 : 0 }, done);
  }

  /**
   * Submits what is queued, waits for `want` completions (blocking; at most `timeoutMs`), and calls back everything that
   * has completed. From inside a callback it only marks the queue: the batch leaves when the callbacks are through.
   * @returns completions called back
   * @throws EEXIST when called from another thread than the one that opened the ring; EBADF when closed
   */
  submit(want = 0, timeoutMs = -1): number {
    if (this.#dispatching) return 0;
    let called = 0;
    do {
      this.#enter(Math.max(0, want - called), timeoutMs);
      called += this.#dispatch(true);
    } while (this.#status[Status.more] && !this.#closed);
    return called;
  }

  /** io_uring_register(2). @returns result or -errno */
  register(opcode: number, arg: Uint8Array | null, nr: number): number {
    return this.#native.register(this.#handle, opcode, arg, nr);
  }

  /**
   * Registers memory for readFixed() and writeFixed(): the kernel pins it until the ring closes. Counted against
   * RLIMIT_MEMLOCK of users without CAP_IPC_LOCK.
   * @throws ENOMEM (the limit), EFAULT (memory that cannot be pinned, or above 1 GiB), EBUSY (registered already), EINVAL (none)
   */
  registerBuffers(buffers: readonly NodeJS.ArrayBufferView[]): void {
    if (buffers.length === 0) throw errnoError(-22, 'register_buffers');
    const vectors = BigUint64Array.from(buffers.flatMap((b) => [BigInt(addressOf(b)), BigInt(b.byteLength)]));
    const result = this.register(Reg.registerBuffers, new Uint8Array(vectors.buffer), buffers.length);
    if (result >= 0) {
      this.#pinned = buffers;
      return;
    }
    const size = buffers.reduce((sum, b) => sum + b.byteLength, 0);
    throw Object.assign(errnoError(result, 'register_buffers'), { size });
  }

  /**
   * Cancels what is under way, calls it back with -ECANCELED (or its result), unregisters files first (a closed ring lets
   * them go some 30 ms later), and closes. A request that the kernel does not give back within some seconds keeps its
   * memory for good. Idempotent.
   * @throws what a callback threw, once the ring is closed
   */
  close(): void {
    if (this.#closed || this.#draining) return;
    if (this.#dispatching) {
      this.#closing = true; // behind the callbacks
      return;
    }
    const failure = this.#drain();
    this.#closed = true;
    this.#native.close(this.#handle);
    open.delete(this);
    if (this.inFlight > 0) stuck.push(this.#kept, this.#pinned);
    this.#pinned = undefined;
    if (failure) throw failure.err;
  }

  #drain(): { err: unknown } | undefined {
    let failure: { err: unknown } | undefined;
    if (this.#info.flags & Setup.rDisabled) return failure;
    this.#draining = true;
    const left = (): number => this.#queued + this.inFlight + this.#arrived.left;
    for (let idle = 0, asked = -1; idle < 50 && left() > 0; ) {
      const before = left();
      // flags 1 | 4: all requests, whatever their user_data (5.19)
      if (idle % 10 === 0 && asked !== idle && this.#queued < this.#batch) {
        asked = idle;
        this.push({ opcode: Op.asyncCancel, opFlags: 5 }, () => {});
      }
      this.#scheduled = true;
      try {
        this.submit(1, 100);
      } catch (err) {
        failure ??= { err };
      }
      if (left() >= before) idle++; // a small queue brings many completions back in many rounds
    }
    return failure;
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #transfer(opcode: number, file: File, buffer: NodeJS.ArrayBufferView, offset: number, done: Done, bufIndex = 0): void {
    const address = addressOf(buffer);
    const number = fileNumber(file);
    if (!Number.isSafeInteger(offset)) throw invalid('offset', offset, 'a whole number (-1: the position of the file itself)');
    const at = this.#entry(done, buffer);
    const head = typeof file === 'number' ? opcode : opcode | (SqeFlag.fixedFile << 8);
    putEntry(this.#sqe, at, head, number, offset, address, buffer.byteLength, 0, bufIndex, 0, 0);
    this.#schedule();
  }

  #check(): void {
    if (this.closed) throw new VioError('the ring is closed', { code: 'EBADF' });
  }

  /** A free entry of the shared array, its user_data set. @returns index of its first word */
  #entry(done: Done, keep: unknown): number {
    this.#check();
    if (typeof done !== 'function') throw invalid('done', done, 'a function');
    if (this.#queued === this.#batch) {
      // A chain ends where a submission ends: it must not be cut here.
      if (this.#sqe[(this.#queued - 1) * WORDS]! & CHAIN)
        throw new VioError('a chain does not fit: reserve() room for it first', { code: 'EOVERFLOW' });
      this.#enter(0, -1);
    }
    const slot = this.#free.pop() ?? this.#done.length;
    this.#done[slot] = done;
    this.#kept[slot] = keep;
    const at = this.#queued++ * WORDS;
    this.#sqe[at + USER_DATA] = slot;
    this.#sqe[at + USER_DATA + 1] = 0;
    return at;
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    if (this.#turns++ < INLINE_TURNS) queueMicrotask(this.#flush);
    else setImmediate(this.#turn);
  }
  readonly #turn = (): void => {
    this.#turns = 0;
    this.#flush();
  };
  readonly #flush = (): void => {
    this.#scheduled = false;
    if (this.#closed) return;
    if (this.#closing || this.#queued > 0 || this.#arrived.left > 0 || this.inFlight > 0) this.submit();
  };

  /** One crossing: submits, waits, takes over completions; calls nothing back. */
  #enter(want: number, timeoutMs: number): void {
    if (this.#closed) throw new VioError('the ring is closed', { code: 'EBADF' });
    const count = this.#queued;
    const completions = this.#native.submit(this.#handle, count, want, timeoutMs);
    const taken = this.#status[Status.taken]!;
    if (taken < count) this.#sqe.copyWithin(0, taken * WORDS, count * WORDS);
    this.#queued = count - taken;
    this.#arrived.take(this.#cqe, completions);
    const error = this.#status[Status.error]!;
    if (error < 0) this.#refused(error, completions);
    if (this.#queued === this.#batch) throw new VioError('the kernel takes no more requests: EBUSY', { code: 'EBUSY' });
  }

  #refused(error: number, completions: number): void {
    const code = errnoName(error);
    if (code === 'ETIME') return;
    // No memory for requests, or completions that must be reaped first: again in the next turn of the loop.
    if (code === 'EAGAIN' || code === 'EBUSY') {
      if (!this.#scheduled && (completions > 0 || this.inFlight > 0 || this.#queued > 0)) {
        this.#scheduled = true;
        setImmediate(this.#turn);
      }
      return;
    }
    throw enterError(code);
  }

  /** Calls back what has arrived, and submits what the callbacks queued. */
  #dispatch(inSubmit = false): number {
    if (this.#dispatching) return 0;
    this.#dispatching = true;
    let called = 0;
    try {
      while (this.#arrived.next()) {
        const { slot, result, flags } = this.#arrived;
        if (slot < 0) {
          this.#onTag?.(-1 - slot);
          continue;
        }
        const done = this.#done[slot];
        if (!(flags & CqeFlag.more)) {
          this.#done[slot] = undefined;
          this.#kept[slot] = undefined;
          this.#free.push(slot);
        }
        called++;
        done?.(result, flags);
      }
    } finally {
      this.#dispatching = false;
      if ((this.#arrived.left > 0 || this.#closing) && !this.#closed) this.#schedule(); // a callback threw: the rest comes in the next turn
    }
    if (this.#closing) {
      this.#closing = false;
      this.close();
      return called;
    }
    if (!inSubmit) {
      this.#turns = 0; // this is a turn of the event loop
      if (this.#queued > 0 || this.#status[Status.more]) this.submit();
    }
    return called;
  }
}
