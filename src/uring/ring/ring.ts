import { AsyncResource } from 'node:async_hooks';
import { errnoError, errnoName } from '../../common/errno.js';
import { codeOf, VioError } from '../../common/errors.js';
import { native } from '../../native/index.js';
import { type RingHandle, type RingInfo, type RingStats, Status, type UringNative } from '../../native/uring.js';
import { CqeFlag, MAX_FIXED_FILES, Op, Reg, Setup, SqeFlag } from '../abi.js';
import { checkRegister, fileOffset, lengthOf, wide } from './bounds.js';
import { Completions } from './completions.js';
import { ADDRESS, putEntry, USER_DATA, WORDS } from './entry.js';
import { EnterError } from './errno.js';
import { addressOf, type Done, type File, fileIndex, fileNumber, integer, invalid, type Request, requestError, Slot } from './request.js';

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
/** Milliseconds that they may take together: reads of large files from the page cache are much work each. */
const INLINE_TIME = 10;
const CHAIN = (SqeFlag.link | SqeFlag.hardlink) << 8;
const AT_FDCWD = -100;
/** An entry of our own (native/uring/read_file.h): the addon makes requests of it. */
const OP_READ_WHOLE = 0xf0;
/** Flag of readWhole()'s completion: the buffer is full, the file has not ended, its slot is open. */
export const READ_WHOLE_OPEN = 1 << 15;
/** The kernel's bound (IORING_MAX_ENTRIES, io_uring/io_uring.h). */
const MAX_ENTRIES = 32768;

const ECANCELED = 125;
const U32 = 0xffff_ffff;
/** Most bytes that one read or write moves (MAX_RW_COUNT, include/linux/fs.h). */
const MAX_TRANSFER = 0x7fff_f000;
const OPTIONS: readonly string[] = ['entries', 'cqEntries', 'require', 'prefer', 'watch', 'registered'] satisfies (keyof RingOptions)[];

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
  /** By slot: the memory of a request, the bytes of it that the kernel may use, what else lives as long, and its context. */
  readonly #buffers: (NodeJS.ArrayBufferView | undefined)[] = [];
  readonly #sizes: number[] = [];
  readonly #kept: unknown[] = [];
  readonly #scopes: (AsyncResource | undefined)[] = [];
  readonly #free: number[] = [];
  #queued = 0;
  #scheduled = false;
  #turns = 0;
  #turned = 0;
  readonly #arrived = new Completions();
  #dispatching = false;
  #closed = false;
  #closing = false;
  #draining = false;
  #enabled: boolean;
  /** Registered buffers: the kernel writes there. */
  #pinned: readonly NodeJS.ArrayBufferView[] | undefined;
  #onTag: ((tag: number) => void) | undefined;

  /**
   * @throws the errno of io_uring_setup(2): EPERM (sysctl, seccomp), ENOSYS, ENOMEM (locked memory), EINVAL (a required
   *   flag that this kernel has not); see explain() for the reasons in words. EINVAL for an option that does not exist
   */
  constructor(options: RingOptions = {}) {
    for (const key of Object.keys(options)) if (!OPTIONS.includes(key)) throw invalid('option', key, `one of ${OPTIONS.join(', ')}`);
    for (const key of ['require', 'prefer'] as const) if (options[key] !== undefined) integer(key, options[key], 0, U32);
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
    this.#enabled = !(this.#info.flags & Setup.rDisabled);
    open.add(this);
    try {
      if ((options.watch ?? true) && this.#enabled && !(this.#info.flags & Setup.iopoll)) this.watch();
    } catch (err) {
      this.close();
      throw err;
    }
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
    this.#checkOpen();
    this.#native.watch(this.#handle, (count) => {
      this.#arrived.take(this.#cqe, count);
      this.#dispatch();
    });
  }

  /** Starts a ring opened with Setup.rDisabled. @throws errno */
  enable(): void {
    this.#checkOpen();
    const result = this.#native.enable(this.#handle);
    if (result < 0) throw errnoError(result, 'io_uring_register');
    this.#enabled = true;
    if (this.#queued > 0 || this.inFlight > 0) this.#schedule();
  }

  #checkOpen(): void {
    if (this.#closed) throw new VioError('the ring is closed', { code: 'EBADF' });
  }

  /** Makes room for a chain of `count` requests, which must leave in one batch. @throws EINVAL above the ring's entries */
  reserve(count: number): void {
    this.#check();
    integer('count', count, 1, U32);
    if (count > this.#batch) throw new VioError(`a chain of ${count} requests on a ring of ${this.#batch} entries`, { code: 'EINVAL' });
    if (this.#queued + count > this.#batch) this.#enter(0, -1);
    if (this.#queued + count > this.#batch) throw new EnterError('EBUSY', 'the kernel takes no more requests');
  }

  /**
   * Queues a request as it is. `done` is called for every completion (more than once for multishot requests), in the
   * AsyncLocalStorage context of this call.
   * @throws EINVAL for a field that does not fit, and for a length beyond the buffer; EBADF (closed); EOVERFLOW (a chain
   *   without reserve())
   * @returns what cancel() takes, until `done` was called for the last time
   */
  push(request: Request, done: Done): number {
    return this.#push(request, done, new AsyncResource('VIOCTL_URING'));
  }

  /**
   * Asks the kernel to cancel a request that push() queued. It is called back in any case: with -ECANCELED, -EINTR, or its
   * result if it was faster.
   */
  cancel(token: number): void {
    const done = this.#done[token];
    if (this.closed || done === undefined) return;
    if (!this.#enabled) {
      this.#withdraw(token);
      return;
    }
    try {
      this.#push({ opcode: Op.asyncCancel, address: token }, () => {}, undefined);
    } catch (err) {
      // No room now, because of a chain that must not be cut or a kernel that takes no more: in the next turn of the loop.
      if (!['EOVERFLOW', 'EBUSY'].includes(codeOf(err) ?? '')) throw err;
      setImmediate(() => {
        if (this.#done[token] === done) this.cancel(token);
      });
    }
  }

  /** Takes a request back that the kernel has not seen, because the ring was not started. */
  #withdraw(token: number): void {
    for (let at = 0; at < this.#queued * WORDS; at += WORDS) {
      if (this.#sqe[at + USER_DATA] !== token) continue;
      this.#sqe.copyWithin(at, at + WORDS, this.#queued * WORDS);
      this.#queued--;
      queueMicrotask(() => this.#call(token, -ECANCELED, 0));
      return;
    }
  }

  #push(request: Request, done: Done, scope: AsyncResource | undefined): number {
    const {
      fd = -1,
      buffer,
      keep,
      flags: given = 0,
      offset = 0,
      ioprio = 0,
      opFlags = 0,
      bufIndex = 0,
      fileIndex: index = 0,
      addr3 = 0,
    } = request;
    const opcode = integer('opcode', request.opcode, 0, 255);
    if (opcode === OP_READ_WHOLE) throw invalid('opcode', opcode, "one of the kernel's");
    const number = fileNumber(fd);
    let flags = integer('flags', given, 0, 255);
    if (flags & SqeFlag.cqeSkip)
      throw new VioError('CQE_SKIP_SUCCESS is not supported: its request would never be let go', { code: 'EINVAL' });
    if (fd instanceof Slot) flags |= SqeFlag.fixedFile;
    wide('offset', offset);
    const asked = request.length === undefined ? undefined : integer('length', request.length, 0, U32);
    if (buffer && request.address !== undefined) throw invalid('address', request.address, 'none beside a buffer');
    const address = buffer ? addressOf(buffer) : wide('address', request.address === undefined ? 0 : request.address);
    const length = buffer ? lengthOf(opcode, number, buffer, asked, offset) : (asked ?? 0);
    integer('opFlags', opFlags, -(2 ** 31), U32);
    integer('bufIndex', bufIndex, 0, U32);
    integer('fileIndex', index, 0, U32);
    wide('addr3', addr3);
    const head = opcode | (flags << 8) | (integer('ioprio', ioprio, 0, 0xffff) << 16);
    const at = this.#entry(done, scope, buffer, keep);
    putEntry(this.#sqe, at, head, number, offset, address, length, opFlags, bufIndex, index, addr3);
    this.#schedule();
    return this.#sqe[at + USER_DATA]!;
  }

  /** Like push, as a promise. @throws the errno of a negative result */
  request(request: Request, call = 'io_uring'): Promise<number> {
    return new Promise((resolve, reject) =>
      this.#push(request, (result) => (result < 0 ? reject(requestError(result, call, request.fd)) : resolve(result)), undefined),
    );
  }

  /**
   * Reads into a buffer at a file offset (-1: the file's own position). `done` gets bytes read (0: end of file; fewer than
   * asked can happen anywhere) or -errno.
   */
  read(file: File, buffer: NodeJS.ArrayBufferView, offset: number | bigint, done: Done): void {
    this.#transfer(Op.read, file, buffer, offset, done, new AsyncResource('VIOCTL_URING'));
  }

  /** Writes a buffer at a file offset. `done` gets bytes written or -errno. */
  write(file: File, buffer: NodeJS.ArrayBufferView, offset: number | bigint, done: Done): void {
    this.#transfer(Op.write, file, buffer, offset, done, new AsyncResource('VIOCTL_URING'));
  }

  /** read() into memory inside registered buffer `index` (registerBuffers). */
  readFixed(file: File, buffer: NodeJS.ArrayBufferView, index: number, offset: number | bigint, done: Done): void {
    this.#transfer(Op.readFixed, file, buffer, offset, done, new AsyncResource('VIOCTL_URING'), index);
  }

  /** write() from memory inside registered buffer `index`. */
  writeFixed(file: File, buffer: NodeJS.ArrayBufferView, index: number, offset: number | bigint, done: Done): void {
    this.#transfer(Op.writeFixed, file, buffer, offset, done, new AsyncResource('VIOCTL_URING'), index);
  }

  /** read() as a promise. */
  readAsync(file: File, buffer: NodeJS.ArrayBufferView, offset: number | bigint): Promise<number> {
    return new Promise((resolve, reject) =>
      this.#transfer(Op.read, file, buffer, offset, (n) => (n < 0 ? reject(requestError(n, 'read', file)) : resolve(n)), undefined),
    );
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
    const at = this.#entry(done, new AsyncResource('VIOCTL_URING'), path);
    putEntry(this.#sqe, at, Op.openat | (flags << 8), AT_FDCWD, 0, address, 0, openFlags, 0, index, 0);
    this.#schedule();
  }

  /**
   * Opens a file into a slot, reads it into `buffer` until it ends, and closes it: four requests and one completion. `path`
   * ends with NUL. `done` gets the bytes read or -errno, and READ_WHOLE_OPEN in its flags where the buffer is full: then the
   * file goes on and its slot is open.
   */
  readWhole(path: Uint8Array, openFlags: number, slot: number, buffer: NodeJS.ArrayBufferView, done: Done): void {
    const [from, to, index] = [addressOf(path), addressOf(buffer), integer('slot', slot, 0, MAX_FIXED_FILES - 1) + 1];
    lengthOf(Op.openat, AT_FDCWD, path, 0, 0);
    integer('flags of open', openFlags, 0, 0x7fff_ffff);
    if (this.#queued > 0 && this.#sqe[(this.#queued - 1) * WORDS]! & CHAIN)
      throw invalid('readWhole', 'behind a link', 'a place outside chains');
    const at = this.#entry(done, undefined, buffer, path);
    putEntry(this.#sqe, at, OP_READ_WHOLE, 0, to, from, Math.min(buffer.byteLength, MAX_TRANSFER), openFlags, 0, index, 0);
    this.#schedule();
  }

  /** Closes a slot of the table; only its completion makes the slot free. */
  closeSlot(slot: number, done: Done): void {
    const index = integer('slot', slot, 0, MAX_FIXED_FILES - 1) + 1;
    const at = this.#entry(done, undefined);
    putEntry(this.#sqe, at, Op.close, 0, 0, 0, 0, 0, 0, index, 0);
    this.#schedule();
  }

  /** write() as a promise. */
  writeAsync(file: File, buffer: NodeJS.ArrayBufferView, offset: number | bigint): Promise<number> {
    return new Promise((resolve, reject) =>
      this.#transfer(Op.write, file, buffer, offset, (n) => (n < 0 ? reject(requestError(n, 'write', file)) : resolve(n)), undefined),
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
   * @throws what a callback threw; EBADFD (not started), EBADF (closed). Requests that the kernel refuses are called back
   *   with the errno of io_uring_enter(2): EPERM (seccomp)
   */
  submit(want = 0, timeoutMs = -1): number {
    integer('want', want, 0, U32);
    if (typeof timeoutMs !== 'number' || Number.isNaN(timeoutMs)) throw invalid('timeout', timeoutMs, 'milliseconds');
    if (this.#dispatching) return 0;
    let called = 0;
    do {
      this.#enter(Math.max(0, want - called), timeoutMs);
      called += this.#dispatch(true);
    } while (this.#status[Status.more] && !this.#closed);
    return called;
  }

  /**
   * io_uring_register(2). Memory that the argument points to is the caller's to keep.
   * @returns result or -errno
   * @throws EINVAL for an argument shorter than what the kernel would read or write
   */
  register(opcode: number, arg: Uint8Array | null, nr: number): number {
    this.#checkOpen();
    checkRegister(opcode, arg, nr);
    const result = this.#native.register(this.#handle, opcode, arg, nr);
    if (opcode === Reg.registerEnableRings && result >= 0) this.#enabled = true;
    return result;
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
    this.#draining = true;
    this.#closing = true; // nothing new from callbacks
    const failure = this.#drain();
    this.#closed = true;
    this.#native.close(this.#handle);
    open.delete(this);
    if (this.inFlight > 0) stuck.push(this.#buffers, this.#kept, this.#pinned);
    this.#pinned = undefined;
    if (failure) throw failure.err;
  }

  #drain(): { err: unknown } | undefined {
    let failure: { err: unknown } | undefined;
    const left = (): number => this.#queued + this.inFlight + this.#arrived.left;
    const attempt = (run: () => void): void => {
      try {
        run();
      } catch (err) {
        failure ??= { err };
      }
    };
    for (let idle = 0, asked = -1; this.#enabled && idle < 50 && left() > 0; ) {
      const before = left();
      if (idle % 10 === 0 && asked !== idle && this.#queued < this.#batch) {
        asked = idle;
        // flags 1 | 4: all requests, whatever their user_data (5.19)
        const at = this.#take(() => {}, undefined, undefined, undefined);
        putEntry(this.#sqe, at, Op.asyncCancel, 0, 0, 0, 0, 5, 0, 0, 0);
      }
      attempt(() => {
        this.#enter(1, 100);
        this.#dispatch(true);
      });
      if (left() >= before) idle++; // a small queue brings many completions back in many rounds
    }
    while (this.#arrived.left > 0) attempt(() => this.#dispatch(true));
    // What the kernel never had: a ring that was not started, or that the kernel does not let in any more.
    const slots = Array.from({ length: this.#queued }, (_, i) => this.#sqe[i * WORDS + USER_DATA]!);
    this.#queued = 0;
    for (const slot of slots) attempt(() => this.#call(slot, -ECANCELED, 0));
    return failure;
  }

  [Symbol.dispose](): void {
    this.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }

  #transfer(
    opcode: number,
    file: File,
    buffer: NodeJS.ArrayBufferView,
    offset: number | bigint,
    done: Done,
    scope: AsyncResource | undefined,
    bufIndex = 0,
  ): void {
    const address = addressOf(buffer);
    const number = fileNumber(file);
    fileOffset(offset);
    integer('index of the buffer', bufIndex, 0, 0xffff);
    const at = this.#entry(done, scope, buffer);
    const head = file instanceof Slot ? opcode | (SqeFlag.fixedFile << 8) : opcode;
    putEntry(this.#sqe, at, head, number, offset, address, Math.min(buffer.byteLength, MAX_TRANSFER), 0, bufIndex, 0, 0);
    this.#schedule();
  }

  #check(): void {
    if (this.closed) throw new VioError('the ring is closed', { code: 'EBADF' });
  }

  /** A free entry of the shared array, its user_data set. @returns index of its first word */
  #entry(done: Done, scope: AsyncResource | undefined, buffer?: NodeJS.ArrayBufferView, keep?: unknown): number {
    this.#check();
    if (typeof done !== 'function') throw invalid('done', done, 'a function');
    if (this.#queued === this.#batch) {
      // A chain ends where a submission ends: it must not be cut here.
      if (this.#sqe[(this.#queued - 1) * WORDS]! & CHAIN)
        throw new VioError('a chain does not fit: reserve() room for it first', { code: 'EOVERFLOW' });
      this.#enter(0, -1);
    }
    return this.#take(done, scope, buffer, keep);
  }

  #take(done: Done, scope: AsyncResource | undefined, buffer: NodeJS.ArrayBufferView | undefined, keep: unknown): number {
    const slot = this.#free.pop() ?? this.#done.length;
    this.#done[slot] = done;
    this.#scopes[slot] = scope;
    this.#buffers[slot] = buffer;
    this.#sizes[slot] = buffer === undefined ? 0 : buffer.byteLength;
    this.#kept[slot] = keep;
    const at = this.#queued++ * WORDS;
    this.#sqe[at + USER_DATA] = slot;
    this.#sqe[at + USER_DATA + 1] = 0;
    return at;
  }

  /** Memory that was transferred away or shrank since it was queued has no address any more: its request fails with EFAULT. */
  #review(): void {
    for (let i = 0; i < this.#queued; i++) {
      const at = i * WORDS;
      const slot = this.#sqe[at + USER_DATA]!;
      const buffer = this.#buffers[slot];
      if (buffer === undefined || buffer.byteLength >= this.#sizes[slot]!) continue;
      this.#sqe[at + ADDRESS] = this.#sqe[at + ADDRESS + 1] = 0;
    }
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    const turns = this.#turns++;
    if (turns === 0) this.#turned = performance.now();
    const late = turns >= INLINE_TURNS || ((turns & 3) === 3 && performance.now() - this.#turned > INLINE_TIME);
    if (late) setImmediate(this.#turn);
    else queueMicrotask(this.#flush);
  }
  readonly #turn = (): void => {
    this.#turns = 0;
    this.#flush();
  };
  readonly #flush = (): void => {
    this.#scheduled = false;
    if (this.#closed) return;
    if (!this.#enabled || !(this.#closing || this.#queued > 0 || this.#arrived.left > 0 || this.inFlight > 0)) return;
    try {
      this.submit();
    } catch (err) {
      // The requests that the kernel refused were told. What a callback threw is the program's, and is thrown.
      if (!(err instanceof EnterError)) throw err;
      if (this.#queued > 0 && !this.#scheduled) this.#later();
    }
  };

  /** One crossing: submits, waits, takes over completions; calls nothing back. */
  #enter(want: number, timeoutMs: number): void {
    this.#checkOpen();
    if (!this.#enabled) throw new EnterError('EBADFD', 'the ring was not started: enable() does');
    const count = this.#queued;
    this.#review();
    const completions = this.#native.submit(this.#handle, count, want, timeoutMs);
    const taken = this.#status[Status.taken]!;
    if (taken < count) this.#sqe.copyWithin(0, taken * WORDS, count * WORDS);
    this.#queued = count - taken;
    this.#arrived.take(this.#cqe, completions);
    const error = this.#status[Status.error]!;
    if (error < 0) this.#refused(error, completions);
    if (this.#queued === this.#batch && !this.#draining) throw new EnterError('EBUSY', 'the kernel takes no more requests');
  }

  #refused(error: number, completions: number): void {
    const code = errnoName(error);
    if (code === 'ETIME') return;
    // No memory for requests, or completions that must be reaped first: again in the next turn of the loop.
    if (code === 'EAGAIN' || code === 'EBUSY') {
      if (!this.#scheduled && (completions > 0 || this.inFlight > 0 || this.#queued > 0)) this.#later();
      return;
    }
    throw new EnterError(code);
  }

  #later(): void {
    this.#scheduled = true;
    setImmediate(this.#turn);
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
        called++;
        this.#call(slot, result, flags);
      }
    } finally {
      this.#dispatching = false;
      if ((this.#arrived.left > 0 || this.#closing) && !this.#draining) this.#schedule(); // a callback threw: the rest comes in the next turn
    }
    if (this.#closing) {
      if (!this.#draining) this.close();
      return called;
    }
    if (!inSubmit) {
      this.#turns = 0; // this is a turn of the event loop
      if (this.#queued > 0 || this.#status[Status.more]) this.submit();
    }
    return called;
  }

  /** Calls back one completion; the last of a request lets its memory go. */
  #call(slot: number, result: number, flags: number): void {
    const done = this.#done[slot];
    const scope = this.#scopes[slot];
    if (!(flags & CqeFlag.more)) {
      this.#done[slot] = this.#scopes[slot] = this.#buffers[slot] = this.#kept[slot] = undefined;
      this.#free.push(slot);
    }
    if (scope === undefined) done?.(result, flags);
    else if (done !== undefined) scope.runInAsyncScope(done, undefined, result, flags);
  }
}
