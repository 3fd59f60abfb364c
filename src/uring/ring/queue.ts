import type { AsyncResource } from 'node:async_hooks';
import { now } from '../../common/clock.js';
import { errnoError, errnoName } from '../../common/errno.js';
import { VioError } from '../../common/errors.js';
import { native } from '../../native/index.js';
import { type RingHandle, type RingInfo, Status, type UringNative } from '../../native/uring.js';
import { Op, Setup, SqeFlag } from '../abi.js';
import { addressWord, putEntry, userData, words } from '../request/entry.js';
import { type Done, invalid } from '../request/request.js';
import { Completions } from './completions.js';
import { EnterError } from './errno.js';
import { openOptions, type RingOptions } from './options.js';
import { Pending } from './pending.js';

/** Flushes in a row from microtasks before the event loop gets its turn. */
const inlineTurns = 64;
/** Milliseconds that they may take together: reads of large files from the page cache are much work each. */
const inlineTime = 10;
const chain = (SqeFlag.link | SqeFlag.hardlink) << 8;
const ECANCELED = 125;
/** Rounds of 100 ms that close() waits without any request ending. */
const patience = 50;

/** Open rings: the kernel may write to the memory of their requests, so they are not collected. */
const open = new Set<Queue>();
/** Memory of requests that outlived their ring. */
const stuck: unknown[] = [];

interface Waiting {
  count: number;
  resolve: () => void;
  reject: (err: unknown) => void;
}

/**
 * The two queues of a ring and what is between them: entries wait in an array that the addon shares, cross into the kernel as one batch, and
 * what has completed is called back. Ring has the requests that go through it.
 */
export class Queue {
  readonly #native: UringNative = native().uring;
  readonly #handle: RingHandle;
  readonly #info: RingInfo;
  /** The words of the entries. */
  readonly sqe: Uint32Array;
  readonly #cqe: Int32Array;
  readonly #status: Int32Array;
  /** Entries of the shared array: the most that one crossing carries. */
  readonly batch: number;
  readonly pending = new Pending();
  #queued = 0;
  #scheduled = false;
  #turns = 0;
  #turned = 0;
  #returning = false;
  readonly #arrived = new Completions();
  readonly #waiting: Waiting[] = [];
  #dispatching = false;
  #closed = false;
  #closing = false;
  #draining = false;
  #enabled: boolean;
  /** Memory that the kernel may use as long as the ring is open, beside that of requests. */
  readonly held = new Map<string, unknown>();
  /** Receives the tags of resources that were let go. */
  onTag: ((tag: number) => void) | undefined;

  /** @throws the errno of io_uring_setup(2), EINVAL for options */
  constructor(options: RingOptions) {
    this.#handle = this.#native.open(openOptions(options));
    this.#info = this.#native.info(this.#handle);
    this.sqe = new Uint32Array(this.#info.sqes);
    this.#cqe = new Int32Array(this.#info.cqes);
    this.#status = new Int32Array(this.#info.status);
    this.batch = this.sqe.length / words;
    this.#enabled = !(this.#info.flags & Setup.rDisabled);
    open.add(this);
    try {
      if ((options.watch ?? true) && this.#enabled && !(this.#info.flags & Setup.iopoll)) this.watch();
    } catch (err) {
      this.close();
      throw err;
    }
  }

  get info(): RingInfo {
    return this.#info;
  }
  get fd(): number {
    return this.#closed ? -1 : this.#info.fd;
  }
  get inFlight(): number {
    return this.#status[Status.inFlight]!;
  }
  get enters(): number {
    return this.#status[Status.enters]! >>> 0;
  }
  get overflows(): number {
    return this.#status[Status.overflows]! >>> 0;
  }
  get queued(): number {
    return this.#queued;
  }
  get closed(): boolean {
    return this.#closed || this.#closing;
  }
  get enabled(): boolean {
    return this.#enabled;
  }
  /** Completions for which the completion queue has room beside those of what is under way. */
  get space(): number {
    return Math.max(0, this.#info.cqEntries - this.inFlight - this.#queued);
  }

  /** Watches completions in the event loop. */
  watch(): void {
    this.checkOpen();
    this.#native.watch(this.#handle, (count) => {
      this.#comeBack();
      this.#arrived.take(this.#cqe, count);
      this.#dispatch();
    });
  }

  /** Starts a ring opened with Setup.rDisabled. @throws errno */
  enable(): void {
    this.checkOpen();
    const result = this.#native.enable(this.#handle);
    if (result < 0) throw errnoError(result, 'io_uring_register');
    this.started();
    if (this.#queued > 0 || this.inFlight > 0) this.schedule();
  }

  /** The ring was started by whatever call. */
  started(): void {
    this.#enabled = true;
  }

  /** @throws EBADF once the descriptor is closed */
  checkOpen(): void {
    if (this.#closed) throw new VioError('the ring is closed', { code: 'EBADF' });
  }

  /** @throws EBADF also while the ring is being closed */
  check(): void {
    if (this.closed) throw new VioError('the ring is closed', { code: 'EBADF' });
  }

  register(opcode: number, arg: Uint8Array | null, nr: number): number {
    return this.#native.register(this.#handle, opcode, arg, nr);
  }

  /** Makes room in the shared array. @throws EINVAL above its size, EBUSY */
  reserve(count: number): void {
    if (count > this.batch) throw new VioError(`a chain of ${count} requests on a ring of ${this.batch} entries`, { code: 'EINVAL' });
    if (this.#queued + count > this.batch) this.#enter(0, -1);
    if (this.#queued + count > this.batch) throw new EnterError('EBUSY', 'the kernel takes no more requests');
  }

  /** Resolves when `count` more completions fit. @throws EBADF if the ring is closed meanwhile */
  room(count: number): Promise<void> {
    this.check();
    const wanted = Math.min(count, this.#info.cqEntries);
    if (this.#waiting.length === 0 && this.space >= wanted) return Promise.resolve();
    if (this.#queued > 0) this.schedule();
    return new Promise((resolve, reject) => this.#waiting.push({ count: wanted, resolve, reject }));
  }

  readonly #admit = (): void => {
    let left = this.space;
    let admitted = false;
    while (this.#waiting.length > 0 && (this.closed || this.#waiting[0]!.count <= left)) {
      const { count, resolve, reject } = this.#waiting.shift()!;
      left -= count;
      admitted = true;
      if (this.closed) reject(new VioError('the ring is closed', { code: 'EBADF' }));
      else resolve();
    }
    // Those may queue fewer requests than they had room for.
    if (admitted && this.#waiting.length > 0) setImmediate(this.#admit);
  };

  /** A free entry of the shared array, its user_data set. @returns index of its first word */
  entry(done: Done, scope: AsyncResource | undefined, buffer?: NodeJS.ArrayBufferView, keep?: unknown): number {
    this.check();
    if (typeof done !== 'function') throw invalid('done', done, 'a function');
    if (this.#queued === this.batch) {
      // A chain ends where a submission ends: it must not be cut here.
      if (this.linked) throw new VioError('a chain does not fit: reserve() room for it first', { code: 'EOVERFLOW' });
      this.#enter(0, -1);
    }
    return this.#take(done, scope, buffer, keep);
  }

  /** Whether the entry queued last is linked to the next. */
  get linked(): boolean {
    return this.#queued > 0 && (this.sqe[(this.#queued - 1) * words]! & chain) !== 0;
  }

  #take(done: Done, scope: AsyncResource | undefined, buffer: NodeJS.ArrayBufferView | undefined, keep: unknown): number {
    const slot = this.pending.add(done, scope, buffer, keep);
    const at = this.#queued++ * words;
    this.sqe[at + userData] = slot;
    this.sqe[at + userData + 1] = 0;
    return at;
  }

  /** Takes a request back that the kernel has not seen, because the ring was not started. */
  withdraw(token: number): void {
    for (let at = 0; at < this.#queued * words; at += words) {
      if (this.sqe[at + userData] !== token) continue;
      this.sqe.copyWithin(at, at + words, this.#queued * words);
      this.#queued--;
      queueMicrotask(() => this.pending.call(token, -ECANCELED, 0));
      return;
    }
  }

  /** Submits at the end of this turn of JavaScript, or in the next turn of the event loop if it has waited for long. */
  schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    const turns = this.#turns++;
    if (turns === 0) this.#turned = now();
    const late = turns >= inlineTurns || ((turns & 3) === 3 && now() - this.#turned > inlineTime);
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
    const ready = this.#status[Status.again] || this.#arrived.left > 0;
    if (!this.#enabled || !(this.#closing || this.#queued > 0 || ready || this.inFlight > 0)) return;
    try {
      this.submit(0, -1);
    } catch (err) {
      // The requests that the kernel refused were told. What a callback threw is the program's, and is thrown.
      if (!(err instanceof EnterError)) throw err;
      if (this.#queued > 0 && !this.#scheduled) this.#later();
    }
  };
  #later(): void {
    this.#scheduled = true;
    setImmediate(this.#turn);
  }
  /**
   * What the kernel has ready by now, or did not take, is seen to in the next turn of the loop: the addon did not arm the eventfd for it. The
   * turn that was scheduled for new requests may come before that, and does the same.
   */
  #comeBack(): void {
    if (this.#returning || !this.#status[Status.again]) return;
    this.#returning = true;
    setImmediate(this.#return);
  }
  readonly #return = (): void => {
    this.#returning = false;
    if (this.#status[Status.again]) this.#turn();
  };

  /** Submits, waits, calls back. @returns completions called back */
  submit(want: number, timeoutMs: number): number {
    if (this.#dispatching) return 0;
    let called = 0;
    do {
      this.#enter(Math.max(0, want - called), timeoutMs);
      called += this.#dispatch(true);
    } while (this.#status[Status.more] && !this.#closed);
    return called;
  }

  /** One crossing: submits, waits, takes over completions; calls nothing back. */
  #enter(want: number, timeoutMs: number): void {
    this.checkOpen();
    if (!this.#enabled) throw new EnterError('EBADFD', 'the ring was not started: enable() does');
    const count = this.#queued;
    this.#review();
    const completions = this.#native.submit(this.#handle, count, want, timeoutMs);
    this.#comeBack();
    const taken = this.#status[Status.taken]!;
    if (taken < count) this.sqe.copyWithin(0, taken * words, count * words);
    this.#queued = count - taken;
    this.#arrived.take(this.#cqe, completions);
    const error = this.#status[Status.error]!;
    if (error < 0) this.#refused(error, completions);
    if (this.#queued === this.batch && !this.#draining) throw new EnterError('EBUSY', 'the kernel takes no more requests');
  }

  /** Memory that was transferred away or shrank since it was queued has no address any more: its request fails with EFAULT. */
  #review(): void {
    for (let i = 0; i < this.#queued; i++) {
      const at = i * words;
      if (this.pending.moved(this.sqe[at + userData]!)) this.sqe[at + addressWord] = this.sqe[at + addressWord + 1] = 0;
    }
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

  /** Calls back what has arrived, and submits what the callbacks queued. */
  #dispatch(inSubmit = false): number {
    if (this.#dispatching) return 0;
    this.#dispatching = true;
    let called = 0;
    try {
      while (this.#arrived.next()) {
        const { slot, result, flags } = this.#arrived;
        if (slot < 0) {
          this.onTag?.(-1 - slot);
          continue;
        }
        called++;
        this.pending.call(slot, result, flags);
      }
    } finally {
      this.#dispatching = false;
      if ((this.#arrived.left > 0 || this.#closing) && !this.#draining) this.schedule(); // a callback threw: the rest comes in the next turn
      if (this.#waiting.length > 0) this.#admit();
    }
    if (this.#closing) {
      if (!this.#draining) this.close();
      return called;
    }
    if (!inSubmit) {
      this.#turns = 0; // this is a turn of the event loop
      if (this.#queued > 0 || this.#status[Status.more]) this.submit(0, -1);
    }
    return called;
  }

  /** Cancels and calls back everything, then closes. Idempotent. @throws what a callback threw, once the ring is closed */
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
    if (this.inFlight > 0) stuck.push(this.pending, [...this.held.values()]);
    this.held.clear();
    this.#admit();
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
    for (let idle = 0, asked = -1; this.#enabled && idle < patience && left() > 0; ) {
      const before = left();
      if (idle % 10 === 0 && asked !== idle && this.#queued < this.batch) {
        asked = idle;
        // flags 1 | 4: all requests, whatever their user_data (5.19)
        const at = this.#take(() => {}, undefined, undefined, undefined);
        putEntry(this.sqe, at, Op.asyncCancel, 0, 0, 0, 0, 5, 0, 0, 0);
      }
      attempt(() => {
        this.#enter(1, 100);
        this.#dispatch(true);
      });
      if (left() >= before) idle++; // a small queue brings many completions back in many rounds
    }
    while (this.#arrived.left > 0) attempt(() => this.#dispatch(true));
    // What the kernel never had: a ring that was not started, or that the kernel does not let in any more.
    const slots = Array.from({ length: this.#queued }, (_, i) => this.sqe[i * words + userData]!);
    this.#queued = 0;
    for (const slot of slots) attempt(() => this.pending.call(slot, -ECANCELED, 0));
    return failure;
  }
}
