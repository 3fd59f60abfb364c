import fs from 'node:fs';
import { now } from '../../common/clock.js';
import { isTerminal } from '../../common/terminal.js';
import { mayBlock } from '../exit.js';
import { speaksUtf8, toAscii } from './locale.js';

/** stdout was closed by its reader: the command ends silently as SIGPIPE would end it. */
export class ClosedPipe extends Error {}

/** Writing to stdout failed for another reason (`/dev/full`): one line on stderr and exit 1. */
export class WriteError extends Error {
  override readonly cause: NodeJS.ErrnoException;

  constructor(cause: NodeJS.ErrnoException) {
    super(`write error: ${cause.code}`);
    this.cause = cause;
  }
}

/** Bytes that leave in one write(2). */
const flushAt = 64 * 1024;
/** Milliseconds that output may rest once the command was told to end; what is left of it then is dropped. */
const stallLimit = 500;
/** Bytes of messages that wait for a stderr that nobody reads; later ones are dropped. */
const heldMessages = 256 * 1024;

/** Whether writes go through libuv's pool: a main thread that sleeps in write(2) sees no signal. */
let background = false;
/** When the command was told to end, by now(). */
let hurried: number | undefined;
const stuck = new Set<() => void>();

/** From now on no write blocks the main thread: the command catches signals, or serves others. */
export function writeInBackground(): void {
  background = true;
}

/** The command was told to end: output that nobody takes for stallLimit is dropped, and nobody waits for it any more. */
export function hurryOutput(): void {
  hurried ??= now();
  for (const wake of stuck) wake();
}

/** The result of a write; undefined if it rests for too long after hurryOutput(). */
function unlessStuck(writing: Promise<number>): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    let timer: NodeJS.Timeout | undefined;
    const wake = (): void => {
      timer ??= setTimeout(() => resolve(undefined), stallLimit);
    };
    if (hurried === undefined) stuck.add(wake);
    else wake();
    writing.then(resolve, reject).finally(() => {
      clearTimeout(timer);
      stuck.delete(wake);
    });
  });
}

export interface WriterOptions {
  /** Each chunk in one write(2) of libuv's pool, however large: for sinks of whole buffers. */
  bulk?: boolean;
}

/**
 * Buffered writer over one descriptor. Lines that are produced without yielding leave in one write(2); the rest leaves
 * before the event loop waits. A slow reader makes `flush()` pending, never the process grow: producers await it.
 */
export class FdWriter {
  readonly fd: number;
  readonly #options: WriterOptions;
  #chunks: (string | Uint8Array)[] = [];
  #size = 0;
  #flushing: Promise<void> | undefined;
  #scheduled = false;
  #failure: Error | undefined;
  /** Nobody takes what is written: it is dropped. */
  #abandoned = false;

  constructor(fd: number, options: WriterOptions = {}) {
    this.fd = fd;
    this.#options = options;
  }

  /** Bytes that are queued, without those that a write(2) has already. */
  get waiting(): number {
    return this.#size;
  }

  /** Queues data, all of which may leave in one write(2). Await the result when there is much of it. @throws ClosedPipe, WriteError */
  write(...data: (string | Uint8Array)[]): Promise<void> | undefined {
    if (this.#abandoned) return undefined;
    if (this.#failure) throw this.#failure;
    for (const one of data) {
      this.#chunks.push(one);
      this.#size += one.length;
    }
    if (this.#size >= flushAt) return this.flush();
    if (!this.#scheduled) {
      this.#scheduled = true;
      setImmediate(() => {
        this.#scheduled = false;
        this.flush().catch(() => {}); // kept in #failure: the next write() or flush() throws it
      });
    }
    return undefined;
  }

  /** Forgets the failure and what waits; from now on everything is dropped. */
  abandon(): void {
    this.#abandoned = true;
    this.#failure = undefined;
    this.#chunks = [];
    this.#size = 0;
  }

  /** Resolves when all that was written has left, or was given up (hurryOutput). @throws ClosedPipe, WriteError */
  flush(): Promise<void> {
    this.#flushing ??= this.#drain().finally(() => {
      this.#flushing = undefined;
    });
    return this.#flushing;
  }

  /**
   * Lets `run` write to the descriptor itself, once what was written before has left.
   * @returns what `run` resolves with; 0 if the output was given up (hurryOutput). @throws ClosedPipe, WriteError; what `run` throws, unless its
   *   `syscall` is write
   */
  async direct(run: (fd: number) => Promise<number>): Promise<number> {
    await this.flush();
    if (this.#abandoned) return 0;
    try {
      const written = await unlessStuck(mayBlock(run(this.fd)));
      if (written === undefined) this.abandon();
      return written ?? 0;
    } catch (err) {
      if ((err as NodeJS.ErrnoException).syscall !== 'write') throw err;
      throw this.#failed(err as NodeJS.ErrnoException);
    }
  }

  #failed(err: NodeJS.ErrnoException): Error {
    this.#failure = err.code === 'EPIPE' ? new ClosedPipe('closed pipe') : new WriteError(err);
    return this.#failure;
  }

  async #drain(): Promise<void> {
    while (this.#size > 0) {
      if (this.#failure) throw this.#failure;
      const data = this.#take();
      for (let at = 0; at < data.length && !this.#abandoned; ) {
        const written = await this.#some(data, at);
        if (written === undefined) this.abandon();
        else at += written;
      }
    }
    if (this.#failure) throw this.#failure;
  }

  /** All that is queued, as one buffer. */
  #take(): Buffer {
    const chunks = this.#chunks;
    const size = this.#size;
    this.#chunks = [];
    this.#size = 0;
    const [only] = chunks;
    if (chunks.length === 1 && typeof only === 'object') return Buffer.from(only.buffer, only.byteOffset, only.byteLength);
    // Lines are joined, as that is faster. But joining would copy a long text once more, and V8 takes longer for that than for all else here.
    if (size < 2 * flushAt && chunks.every((c) => typeof c === 'string')) return Buffer.from((chunks as string[]).join(''), 'utf8');
    const data = Buffer.allocUnsafeSlow(chunks.reduce((sum, c) => sum + Buffer.byteLength(c), 0));
    let at = 0;
    for (const c of chunks)
      at += typeof c === 'string' ? data.write(c, at) : Buffer.from(c.buffer, c.byteOffset, c.byteLength).copy(data, at);
    return data;
  }

  /** One write(2); waits where the descriptor is non-blocking and full. @returns undefined where nobody takes it any more */
  async #some(data: Buffer, at: number): Promise<number | undefined> {
    let full: number | undefined;
    for (;;) {
      try {
        if (!background && !this.#options.bulk) return fs.writeSync(this.fd, data, at);
        const end = this.#options.bulk ? data.length : Math.min(data.length, at + flushAt);
        return await unlessStuck(
          mayBlock(
            new Promise((resolve, reject) => fs.write(this.fd, data, at, end - at, null, (err, n) => (err ? reject(err) : resolve(n)))),
          ),
        );
      } catch (err) {
        const code = (err as NodeJS.ErrnoException).code;
        if (code === 'EINTR') continue;
        if (code === 'EAGAIN') {
          full ??= now();
          if (hurried !== undefined && now() - Math.max(full, hurried) > stallLimit) return undefined;
          await new Promise((resolve) => setTimeout(resolve, 2));
          continue;
        }
        throw this.#failed(err as NodeJS.ErrnoException);
      }
    }
  }
}

let messages: FdWriter | undefined;

let makeRoom: (() => void) | undefined;

/** What happens before each message: a line of progress goes out of the way. */
export function beforeMessages(action: (() => void) | undefined): void {
  makeRoom = action;
}

/**
 * Writes prose to stderr, in the locale's characters; a lost stderr is nobody's error. In the background, a stderr that
 * nobody reads holds nobody up.
 * @param message false: this is the line of progress itself
 */
export function stderr(text: string, message = true): void {
  if (message) makeRoom?.();
  const spelled = speaksUtf8(process.env) ? text : toAscii(text);
  if (background && !isTerminal(2)) {
    messages ??= new FdWriter(2);
    if (messages.waiting > heldMessages) return;
    try {
      messages.write(spelled)?.catch(() => {});
      messages.flush().catch(() => {});
    } catch {
      // no stderr, no message
    }
    return;
  }
  const data = Buffer.from(spelled, 'utf8');
  for (let at = 0, tries = 0; at < data.length; ) {
    try {
      at += fs.writeSync(2, data, at);
    } catch (err) {
      if ((err as NodeJS.ErrnoException).code !== 'EAGAIN' || ++tries > 1000) return;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 2);
    }
  }
}

/** Resolves when all messages have left, or nobody takes them. */
export async function messagesLeft(): Promise<void> {
  await messages?.flush().catch(() => {});
}
