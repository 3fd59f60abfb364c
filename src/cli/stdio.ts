import fs from 'node:fs';
import { mayBlock } from './exit.js';
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

const FLUSH_AT = 64 * 1024;

/**
 * Buffered writer over one descriptor. Lines that are produced without yielding leave in one write(2); the rest leaves
 * before the event loop waits. A slow reader makes `ready()` pending, never the process grow: producers await it.
 */
export class FdWriter {
  readonly fd: number;
  readonly #blocking: boolean;
  #chunks: (string | Uint8Array)[] = [];
  #size = 0;
  #flushing: Promise<void> | undefined;
  #scheduled = false;
  #failure: Error | undefined;
  #abandoned = false;

  /** @param blocking write(2) on the main thread (one-shot commands); false: in libuv's pool, for servers that must go on */
  constructor(fd: number, blocking: boolean) {
    this.fd = fd;
    this.#blocking = blocking;
  }

  /** Queues data. Await the result when there is much of it. @throws ClosedPipe, WriteError */
  write(data: string | Uint8Array): Promise<void> | undefined {
    if (this.#abandoned) return undefined;
    if (this.#failure) throw this.#failure;
    this.#chunks.push(data);
    this.#size += data.length;
    if (this.#size >= FLUSH_AT) return this.flush();
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

  /** Resolves when all that was written has left. @throws ClosedPipe, WriteError */
  flush(): Promise<void> {
    this.#flushing ??= this.#drain().finally(() => {
      this.#flushing = undefined;
    });
    return this.#flushing;
  }

  async #drain(): Promise<void> {
    while (this.#size > 0) {
      if (this.#failure) throw this.#failure;
      const chunks = this.#chunks;
      this.#chunks = [];
      this.#size = 0;
      const [only] = chunks;
      const data =
        chunks.length === 1 && typeof only === 'object'
          ? Buffer.from(only.buffer, only.byteOffset, only.byteLength)
          : chunks.every((c) => typeof c === 'string')
            ? Buffer.from((chunks as string[]).join(''), 'utf8')
            : Buffer.concat(chunks.map((c) => (typeof c === 'string' ? Buffer.from(c, 'utf8') : c)));
      for (let at = 0; at < data.length; ) at += await this.#some(data, at);
    }
    if (this.#failure) throw this.#failure;
  }

  /** One write(2); waits where the descriptor is non-blocking and full. */
  async #some(data: Buffer, at: number): Promise<number> {
    for (;;) {
      try {
        if (this.#blocking) return fs.writeSync(this.fd, data, at);
        return await mayBlock(
          new Promise<number>((resolve, reject) =>
            fs.write(this.fd, data, at, data.length - at, null, (err, n) => (err ? reject(err) : resolve(n))),
          ),
        );
      } catch (err) {
        const code = (err as NodeJS.ErrnoException).code;
        if (code === 'EINTR') continue;
        if (code === 'EAGAIN') {
          await new Promise((resolve) => setTimeout(resolve, 2));
          continue;
        }
        this.#failure = code === 'EPIPE' ? new ClosedPipe('closed pipe') : new WriteError(err as NodeJS.ErrnoException);
        throw this.#failure;
      }
    }
  }
}

/** Writes prose to stderr at once, in the locale's characters; a lost stderr is nobody's error. */
export function stderr(text: string): void {
  const data = Buffer.from(speaksUtf8(process.env) ? text : toAscii(text), 'utf8');
  for (let at = 0, tries = 0; at < data.length; ) {
    try {
      at += fs.writeSync(2, data, at);
    } catch (err) {
      if ((err as NodeJS.ErrnoException).code !== 'EAGAIN' || ++tries > 1000) return;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 2);
    }
  }
}
