import { Readable, Writable } from 'node:stream';
import { fileOffset } from '../request/bounds.js';
import { checkOptions, type File, integer, invalid } from '../request/request.js';

/** The operations of a ring that streams are made of. */
export interface StreamOperations {
  open(path: string | Uint8Array, flags?: string | number, mode?: number, options?: { signal?: AbortSignal }): Promise<number>;
  read(file: File, buffer: Buffer, offset: bigint, options: { signal: AbortSignal }): Promise<number>;
  write(file: File, buffer: Buffer, offset: bigint, options: { signal: AbortSignal }): Promise<number>;
  writev(file: File, buffers: readonly Buffer[], offset: bigint, options: { signal: AbortSignal }): Promise<number>;
  fsync(file: File, options: { signal: AbortSignal }): Promise<void>;
  close(file: File): Promise<void>;
}

/** What both streams take. */
interface StreamOptions {
  /** As in node:fs, or O_* ['r', 'w']. Ignored for an open file. */
  flags?: string | number;
  /** Permissions of a file that is created [0o666]. */
  mode?: number;
  /** First byte; the file's own position unless given. */
  start?: number | bigint;
  /** Close the file at the end [true]. */
  autoClose?: boolean;
  /** Bytes in one request, and that wait in the stream at most [64 KiB; 16 KiB to write]. */
  highWaterMark?: number;
  /** Destroys the stream with an AbortError; a request under way is cancelled first. */
  signal?: AbortSignal;
}

export interface ReadStreamOptions extends StreamOptions {
  /** Last byte, which is included. */
  end?: number | bigint;
  /** Yield text instead of Buffers. */
  encoding?: BufferEncoding;
}

export interface WriteStreamOptions extends StreamOptions {
  /** fsync(2) before the file is closed, so that 'finish' means durable [false]. */
  flush?: boolean;
}

/** A Readable over a file of a ring. */
export interface RingReadStream extends Readable {
  /** Bytes read so far. */
  readonly bytesRead: number;
}

/** A Writable over a file of a ring. */
export interface RingWriteStream extends Writable {
  /** Bytes written so far. */
  readonly bytesWritten: number;
}

const common = ['flags', 'mode', 'start', 'autoClose', 'highWaterMark', 'signal'] as const;
const readCalls = [...common, 'end', 'encoding'] as const satisfies (keyof ReadStreamOptions)[];
const writeCalls = [...common, 'flush'] as const satisfies (keyof WriteStreamOptions)[];
const maxChunk = 1 << 30;

type Callback = (err?: Error | null) => void;
const isPath = (target: string | Uint8Array | File): target is string | Uint8Array =>
  typeof target === 'string' || target instanceof Uint8Array;

/** The file of a stream: opened if it is a path, its position, and how its requests are cancelled. */
class Source {
  readonly io: StreamOperations;
  readonly #target: string | Uint8Array | File;
  readonly #options: StreamOptions;
  readonly #autoClose: boolean;
  /** Ends the request under way when the stream is destroyed. */
  readonly #stop = new AbortController();
  #file: File | undefined;
  #active: Promise<unknown> | undefined;
  #position: bigint | undefined;

  constructor(io: StreamOperations, target: string | Uint8Array | File, options: StreamOptions) {
    this.io = io;
    this.#target = target;
    this.#options = options;
    this.#autoClose = options.autoClose ?? true;
    if (options.start === undefined) return;
    if (fileOffset(options.start) < 0) throw invalid('start', options.start, 'a whole number from 0 on');
    this.#position = BigInt(options.start);
  }

  /** Where the next request goes; -1: the file's own position. */
  get position(): bigint {
    return this.#position ?? -1n;
  }

  moved(size: number): void {
    if (this.#position !== undefined) this.#position += BigInt(size);
  }

  open(flags: string, callback: Callback): void {
    const target = this.#target;
    if (!isPath(target)) {
      this.#file = target;
      callback();
      return;
    }
    this.run((_, signal) => this.io.open(target, this.#options.flags ?? flags, this.#options.mode, { signal })).then((fd) => {
      this.#file = fd;
      callback();
    }, callback);
  }

  /** One request at a time, ended by destroy(). */
  run<T>(start: (file: File, signal: AbortSignal) => Promise<T>): Promise<T> {
    const active = (async () => start(this.#file ?? -1, this.#stop.signal))();
    this.#active = active.catch(() => {});
    return active;
  }

  /** Waits for the request under way, because the kernel uses its memory and its file; then closes. */
  close(err: Error | null, callback: Callback): void {
    this.#stop.abort(err ?? new Error('the stream is destroyed'));
    const end = async (): Promise<void> => {
      await this.#active;
      const file = this.#file;
      this.#file = undefined;
      if (file === undefined || !this.#autoClose) return;
      if (typeof file === 'object' && 'close' in file) await (file as { close(): Promise<void> }).close();
      else await this.io.close(file);
    };
    end().then(
      () => callback(err),
      (failed) => callback(err ?? failed),
    );
  }
}

const stream = ({ highWaterMark, signal }: StreamOptions, usual: number) => ({
  highWaterMark: integer('highWaterMark', highWaterMark ?? usual, 1, maxChunk),
  ...(signal !== undefined && { signal }),
});

export function readStream(io: StreamOperations, from: string | Uint8Array | File, options: ReadStreamOptions): RingReadStream {
  checkOptions(options, readCalls);
  const source = new Source(io, from, options);
  const { end, encoding } = options;
  if (end !== undefined && (fileOffset(end) < 0 || BigInt(end) + 1n < (source.position < 0n ? 0n : source.position)))
    throw invalid('end', end, 'a whole number, not before the start');
  /** Bytes that may still be read. */
  let left = end === undefined ? undefined : BigInt(end) + 1n - (source.position < 0n ? 0n : source.position);
  let bytesRead = 0;
  const readable = new Readable({
    ...stream(options, 64 * 1024),
    ...(encoding !== undefined && { encoding }),
    construct: (callback) => source.open('r', callback),
    read(size) {
      const most = left === undefined || left > BigInt(size) ? size : Number(left);
      if (most === 0) {
        this.push(null);
        return;
      }
      const buffer = Buffer.allocUnsafeSlow(most);
      source
        .run((file, signal) => io.read(file, buffer, source.position, { signal }))
        .then(
          (n) => {
            source.moved(n);
            bytesRead += n;
            if (left !== undefined) left -= BigInt(n);
            this.push(n === 0 ? null : n < most / 2 ? Buffer.from(buffer.subarray(0, n)) : buffer.subarray(0, n));
          },
          (err) => this.destroy(err),
        );
    },
    destroy: (err, callback) => source.close(err, callback),
  });
  return Object.defineProperty(readable, 'bytesRead', { get: () => bytesRead }) as unknown as RingReadStream;
}

export function writeStream(io: StreamOperations, to: string | Uint8Array | File, options: WriteStreamOptions): RingWriteStream {
  checkOptions(options, writeCalls);
  const source = new Source(io, to, options);
  let bytesWritten = 0;
  /** All of them: a write may be short. */
  const writeAll = async (buffers: Buffer[]): Promise<void> => {
    let rest = buffers.filter((buffer) => buffer.length > 0);
    while (rest.length > 0) {
      const part = rest.slice(0, 1024);
      let n = await source.run((file, signal) =>
        part.length === 1 ? io.write(file, part[0]!, source.position, { signal }) : io.writev(file, part, source.position, { signal }),
      );
      if (n === 0) throw Object.assign(new Error('write: nothing was taken'), { code: 'EIO' });
      source.moved(n);
      bytesWritten += n;
      while (rest.length > 0 && n >= rest[0]!.length) n -= rest.shift()!.length;
      if (n > 0) rest = [rest[0]!.subarray(n), ...rest.slice(1)];
    }
  };
  const told = (work: Promise<void>, callback: Callback): void => void work.then(() => callback(), callback);
  const writable = new Writable({
    ...stream(options, 16 * 1024),
    decodeStrings: true,
    construct: (callback) => source.open(options.start === undefined ? 'w' : 'r+', callback),
    write: (chunk: Buffer, _, callback) => told(writeAll([chunk]), callback),
    writev: (chunks, callback) => told(writeAll(chunks.map(({ chunk }) => chunk as Buffer)), callback),
    final: (callback) => {
      if (options.flush)
        told(
          source.run((file, signal) => io.fsync(file, { signal })),
          callback,
        );
      else callback();
    },
    destroy: (err, callback) => source.close(err, callback),
  });
  return Object.defineProperty(writable, 'bytesWritten', { get: () => bytesWritten }) as unknown as RingWriteStream;
}
