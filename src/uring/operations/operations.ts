import { errnoError } from '../../common/errno.js';
import { codeOf } from '../../common/errors.js';
import { SqeFlag } from '../abi.js';
import { type Address, addressSize, decodeAddress } from '../request/address.js';
import { type CancelTarget, type End, type Family, prep } from '../request/prep.js';
import { checkOptions, type File, type Request, requestError } from '../request/request.js';
import type { BufferRing } from '../ring/buffer-ring.js';
import type { Ring } from '../ring/ring.js';
import { connections, type Datagram, datagrams, pieces } from './iterators.js';
import { decodeStatx, type Status } from './status.js';
import {
  type ReadStreamOptions,
  type RingReadStream,
  type RingWriteStream,
  readStream,
  type WriteStreamOptions,
  writeStream,
} from './streams.js';

/** What every operation takes last. */
export interface OperationOptions {
  /** Cancels the operation. Its promise is rejected with the signal's reason, once the kernel has let its memory go. */
  signal?: AbortSignal;
  /** Milliseconds after which the kernel cancels it: rejected with ETIME. */
  timeout?: number;
}
type SignalOptions = Pick<OperationOptions, 'signal'>;
/** A folder that relative paths begin in, by its descriptor. */
interface AtOptions extends OperationOptions {
  at?: number;
}

type View = NodeJS.ArrayBufferView;
type Path = string | Uint8Array;
type Offset = number | bigint;

const ECANCELED = -125;
const EINTR = -4;
const ETIME = -62;
const common = ['signal', 'timeout'] as const;
const known = (...more: string[]): readonly string[] => [...common, ...more];
const [AT, FSYNC, STAT, UNLINK, TWO] = [
  known('at'),
  known('data'),
  known('follow', 'at'),
  known('directory', 'folder', 'at'),
  known('at', 'toAt'),
];

/** The error of chain(): the first request that failed by itself. */
export interface ChainError extends NodeJS.ErrnoException {
  /** Which request of the chain. */
  index: number;
  /** Of all requests: results, or -errno; -125 (ECANCELED) for those that did not begin. */
  results: number[];
}

/**
 * The operations of a ring as promises. A file is a descriptor, a FileHandle of node:fs/promises, or a Slot of the ring's file table; offsets are
 * numbers or bigints, -1 for the file's own position. Each operation is rejected with the errno that its system call
 * has (`code`, `errno`, `syscall`), EBADF if the ring is closed, EINVAL for arguments and options that cannot be meant. One that the kernel has no
 * room for waits until it has.
 */
export class Operations {
  readonly #ring: Ring;

  constructor(ring: Ring) {
    this.#ring = ring;
  }

  /** read(2), pread(2). @returns bytes read; 0 at the end */
  read(file: File, buffer: View, offset: Offset = -1, options?: OperationOptions): Promise<number> {
    return this.#run('read', prep.read(file, buffer, offset), options);
  }

  /** write(2), pwrite(2). @returns bytes written, maybe fewer than given */
  write(file: File, buffer: View, offset: Offset = -1, options?: OperationOptions): Promise<number> {
    return this.#run('write', prep.write(file, buffer, offset), options);
  }

  /** read() into memory inside registered buffer `index` (Ring.buffers). @returns bytes read */
  readFixed(file: File, buffer: View, index: number, offset: Offset = -1, options?: OperationOptions): Promise<number> {
    return this.#run('read', prep.readFixed(file, buffer, index, offset), options);
  }

  /** write() from memory inside registered buffer `index`. @returns bytes written */
  writeFixed(file: File, buffer: View, index: number, offset: Offset = -1, options?: OperationOptions): Promise<number> {
    return this.#run('write', prep.writeFixed(file, buffer, index, offset), options);
  }

  /** preadv(2). @returns bytes read */
  readv(file: File, buffers: readonly View[], offset: Offset = -1, options?: OperationOptions): Promise<number> {
    return this.#run('readv', prep.readv(file, buffers, offset), options);
  }

  /** pwritev(2). @returns bytes written */
  writev(file: File, buffers: readonly View[], offset: Offset = -1, options?: OperationOptions): Promise<number> {
    return this.#run('writev', prep.writev(file, buffers, offset), options);
  }

  /** fsync(2), or fdatasync(2) with `data`. */
  async fsync(file: File, options: OperationOptions & { data?: boolean } = {}): Promise<void> {
    await this.#run('fsync', prep.fsync(file, options.data), options, FSYNC);
  }

  /** fallocate(2). @param mode FALLOC_FL_* */
  async fallocate(file: File, offset: Offset, length: Offset, mode = 0, options?: OperationOptions): Promise<void> {
    await this.#run('fallocate', prep.fallocate(file, offset, length, mode), options);
  }

  /** ftruncate(2) (6.9). */
  async ftruncate(file: File, length: Offset, options?: OperationOptions): Promise<void> {
    await this.#run('ftruncate', prep.ftruncate(file, length), options);
  }

  /** openat(2). @param flags as in node:fs: 'r', 'w+', … or O_* @returns a descriptor, close-on-exec, of the caller */
  open(path: Path, flags: string | number = 'r', mode = 0o666, options: AtOptions = {}): Promise<number> {
    return this.#run(`open '${path}'`, prep.openat(path, flags, mode, options.at), options, AT);
  }

  /** close(2) of a descriptor, or of a slot of the table. */
  async close(file: File, options?: OperationOptions): Promise<void> {
    await this.#run('close', prep.close(file), options);
  }

  /** statx(2) of a path, or of a descriptor. @param options.follow false: of the symbolic link itself */
  async stat(of: Path | number, options: AtOptions & { follow?: boolean } = {}): Promise<Status> {
    const out = Buffer.alloc(256);
    await this.#run('statx', prep.statx(of, out, options.follow, options.at), options, STAT);
    return decodeStatx(out);
  }

  /** renameat2(2). @param flags RENAME_* */
  async rename(from: Path, to: Path, flags = 0, options: AtOptions & { toAt?: number } = {}): Promise<void> {
    await this.#run(`rename '${from}'`, prep.renameat(from, to, flags, options.at, options.toAt), options, TWO);
  }

  /** linkat(2). */
  async link(from: Path, to: Path, options: AtOptions & { toAt?: number } = {}): Promise<void> {
    await this.#run(`link '${from}'`, prep.linkat(from, to, 0, options.at, options.toAt), options, TWO);
  }

  /** symlinkat(2). */
  async symlink(target: Path, path: Path, options: AtOptions = {}): Promise<void> {
    await this.#run('symlink', prep.symlinkat(target, path, options.at), options, AT);
  }

  /** unlinkat(2), or rmdir(2) with `directory` (`folder` is another spelling). */
  async unlink(path: Path, options: AtOptions & { directory?: boolean; folder?: boolean } = {}): Promise<void> {
    await this.#run(`unlink '${path}'`, prep.unlinkat(path, options.directory ?? options.folder, options.at), options, UNLINK);
  }

  /** mkdirat(2). */
  async mkdir(path: Path, mode = 0o777, options: AtOptions = {}): Promise<void> {
    await this.#run(`mkdir '${path}'`, prep.mkdirat(path, mode, options.at), options, AT);
  }

  /** splice(2): one of the two is a pipe. Offsets of a pipe are -1. @returns bytes moved */
  splice(from: File, fromOffset: Offset, to: File, toOffset: Offset, length: number, options?: OperationOptions): Promise<number> {
    return this.#run('splice', prep.splice(from, fromOffset, to, toOffset, length), options);
  }

  /** tee(2): both are pipes. @returns bytes copied */
  tee(from: File, to: File, length: number, options?: OperationOptions): Promise<number> {
    return this.#run('tee', prep.tee(from, to, length), options);
  }

  /** socket(2). @param type SOCK_*: 1 stream, 2 datagram @returns a descriptor, close-on-exec, of the caller */
  socket(family: Family, type: number, protocol = 0, options?: OperationOptions): Promise<number> {
    return this.#run('socket', prep.socket(family, type, protocol), options);
  }

  /** bind(2) (6.11). */
  async bind(socket: File, to: Address, options?: OperationOptions): Promise<void> {
    await this.#run('bind', prep.bind(socket, to), options);
  }

  /** listen(2) (6.11). */
  async listen(socket: File, backlog = 128, options?: OperationOptions): Promise<void> {
    await this.#run('listen', prep.listen(socket, backlog), options);
  }

  /** connect(2). */
  async connect(socket: File, to: Address, options?: OperationOptions): Promise<void> {
    await this.#run('connect', prep.connect(socket, to), options);
  }

  /** accept4(2). @returns a descriptor, close-on-exec, of the caller */
  accept(listener: File, options?: OperationOptions): Promise<number> {
    return this.#run('accept', prep.accept(listener), options);
  }

  /** recv(2). @param flags MSG_* @returns bytes received; 0: the peer has ended */
  recv(socket: File, buffer: View, flags = 0, options?: OperationOptions): Promise<number> {
    return this.#run('recv', prep.recv(socket, buffer, flags), options);
  }

  /** send(2); a peer that is gone is EPIPE, never a signal. @returns bytes sent, maybe fewer than given */
  send(socket: File, buffer: View, flags = 0, options?: OperationOptions): Promise<number> {
    return this.#run('send', prep.send(socket, buffer, flags), options);
  }

  /** sendmsg(2): several buffers, and the address of a datagram. @returns bytes sent */
  sendmsg(socket: File, buffers: readonly View[], to?: Address, flags = 0, options?: OperationOptions): Promise<number> {
    return this.#run('sendmsg', prep.sendmsg(socket, buffers, to, flags), options);
  }

  /** recvmsg(2). @returns bytes received, MSG_* flags (MSG_TRUNC: the datagram was longer), and where it came from */
  async recvmsg(
    socket: File,
    buffers: readonly View[],
    flags = 0,
    options?: OperationOptions,
  ): Promise<{ size: number; flags: number; from: Address | undefined }> {
    const name = Buffer.alloc(addressSize);
    const request = prep.recvmsg(socket, buffers, name, flags);
    const size = await this.#run('recvmsg', request, options);
    const header = request.buffer as Buffer;
    return { size, flags: header.readUInt32LE(48), from: decodeAddress(name.subarray(0, header.readUInt32LE(8))) };
  }

  /** shutdown(2). */
  async shutdown(socket: File, how: End = 'both', options?: OperationOptions): Promise<void> {
    await this.#run('shutdown', prep.shutdown(socket, how), options);
  }

  /** poll(2) of one file. @param events POLL* bits: 1 readable, 4 writable @returns the bits that hold */
  poll(file: File, events: number, options?: OperationOptions): Promise<number> {
    return this.#run('poll', prep.poll(file, events), options);
  }

  /** Resolves after some milliseconds, by the kernel's clock. */
  async timeout(ms: number, options: SignalOptions = {}): Promise<void> {
    checkOptions(options, ['signal']);
    const { signal } = options;
    const request = prep.timeout(ms);
    await new Promise<void>((resolve, reject) => {
      // -ETIME is how a timeout ends that nobody cancelled
      const done = (result: number): void => {
        if (result === ETIME || result >= 0) resolve();
        else reject(result === ECANCELED && signal?.aborted ? signal.reason : errnoError(result, 'timeout'));
      };
      this.#admitted(reject, () => this.#start(request, signal, done));
    });
  }

  /**
   * Cancels requests of the ring: one by the token that Ring.push() returned, the first or all on a file, or any. They are called back or
   * rejected with ECANCELED. @returns their number for `all` and `any`, 0 for one. @throws ENOENT (none was found), EALREADY (it is about to end)
   */
  cancel(target: CancelTarget, options?: OperationOptions): Promise<number> {
    checkOptions(target, ['token', 'file', 'any', 'all']);
    return this.#run('cancel', prep.cancel(target), options);
  }

  /**
   * Runs requests one after the other (`prep` makes them): each begins when the one before it has ended well. A short read or write ends the chain
   * too; with `hard` every request runs.
   * @returns the results in their order
   * @throws ChainError: the errno of the first request that failed by itself, with the results of all
   */
  chain(requests: readonly Request[], options: SignalOptions & { hard?: boolean } = {}): Promise<number[]> {
    checkOptions(options, ['signal', 'hard']);
    const { signal, hard = false } = options;
    return new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      const results: number[] = [];
      let left = requests?.length;
      let tokens: number[] = [];
      const abort = (): void => {
        for (const token of tokens) this.#ring.cancel(token);
      };
      const done = (index: number, result: number): void => {
        results[index] = result;
        if (--left > 0) return;
        signal?.removeEventListener('abort', abort);
        const failed = results.findIndex((n) => n < 0 && n !== ECANCELED);
        const first = failed >= 0 ? failed : results.findIndex((n) => n < 0);
        if (first < 0) resolve(results);
        else if (failed < 0 && signal?.aborted) reject(signal.reason);
        else {
          const why = requestError(results[first]!, `chain: request ${first}`, requests[first]!.fd);
          reject(Object.assign(why, { index: first, results }) satisfies ChainError);
        }
      };
      this.#admitted(reject, () => {
        tokens = this.#ring.pushChain(requests, hard, done);
        signal?.addEventListener('abort', abort, { once: true });
      });
    });
  }

  /** The connections of a listener, one after the other, by one request (6.0). Those that nobody took when it ends are closed. */
  connections(listener: File, options: SignalOptions = {}): AsyncGenerator<number, void> {
    return connections(this.#ring, listener, options);
  }

  /**
   * What a stream socket receives, piece by piece, by one request (6.0) into buffers that sockets may share. Ends when the peer has. The bytes of a
   * piece are valid until the next one is asked for. A reader that is slow keeps its buffers, and the peer waits.
   */
  receive(socket: File, buffers: BufferRing, options: SignalOptions = {}): AsyncGenerator<Buffer, void> {
    return pieces(this.#ring, 'recv', socket, prep.recvMultishot(socket, buffers.group), buffers, options);
  }

  /** The same for files that are read as their data comes: pipes, terminals, character devices (6.7). */
  chunks(file: File, buffers: BufferRing, options: SignalOptions = {}): AsyncGenerator<Buffer, void> {
    return pieces(this.#ring, 'read', file, prep.readMultishot(file, buffers.group), buffers, options);
  }

  /**
   * The datagrams that a socket receives, by one request (6.0). A buffer has room for 16 + 128 bytes beside the datagram: its header and the sender's
   * address. Does not end by itself.
   */
  datagrams(socket: File, buffers: BufferRing, options: SignalOptions = {}): AsyncGenerator<Datagram, void> {
    return datagrams(this.#ring, socket, buffers, options);
  }

  /** A Readable over a file, as fs.createReadStream makes one; `from` is a path, or an open file. */
  createReadStream(from: Path | File, options: ReadStreamOptions = {}): RingReadStream {
    return readStream(this, from, options);
  }

  /** A Writable over a file, as fs.createWriteStream makes one; `to` is a path, or an open file. */
  createWriteStream(to: Path | File, options: WriteStreamOptions = {}): RingWriteStream {
    return writeStream(this, to, options);
  }

  #run(call: string, request: Request, options: OperationOptions = {}, allowed: readonly string[] = common): Promise<number> {
    checkOptions(options, allowed);
    const { signal, timeout } = options;
    return new Promise((resolve, reject) => {
      if (signal === undefined && timeout === undefined) {
        const done = (result: number): void => (result < 0 ? reject(requestError(result, call, request.fd)) : resolve(result));
        return this.#admitted(reject, () => this.#ring.push(request, done));
      }
      let timedOut = false;
      const done = (result: number): void => {
        const cancelled = result === ECANCELED || result === EINTR;
        if (result >= 0) resolve(result);
        else if (signal?.aborted && cancelled) reject(signal.reason);
        else if (timedOut && cancelled) reject(errnoError(ETIME, call));
        else reject(requestError(result, call, request.fd));
      };
      if (timeout === undefined) return this.#admitted(reject, () => this.#start(request, signal, done));
      const limit = prep.linkTimeout(timeout);
      let result: number | undefined;
      let open = 2; // both must have ended: which of the two comes first is not said
      const part = (): void => {
        if (--open === 0) done(result!);
      };
      this.#admitted(reject, () => {
        this.#ring.reserve(2);
        this.#start({ ...request, flags: (request.flags ?? 0) | SqeFlag.link }, signal, (n) => {
          result = n;
          part();
        });
        this.#ring.push(limit, (n) => {
          timedOut = n === ETIME;
          part();
        });
      });
    });
  }

  /** Queues something; while the kernel takes no more (EBUSY), again in the next turn of the event loop. */
  #admitted(reject: (err: unknown) => void, queue: () => void): void {
    try {
      queue();
    } catch (err) {
      if (codeOf(err) !== 'EBUSY') throw err;
      setImmediate(() => {
        try {
          this.#admitted(reject, queue);
        } catch (later) {
          reject(later);
        }
      });
    }
  }

  #start(request: Request, signal: AbortSignal | undefined, done: (result: number) => void): void {
    signal?.throwIfAborted();
    if (signal === undefined) {
      this.#ring.push(request, done);
      return;
    }
    const abort = (): void => this.#ring.cancel(token);
    const token = this.#ring.push(request, (result) => {
      signal.removeEventListener('abort', abort);
      done(result);
    });
    signal.addEventListener('abort', abort, { once: true });
  }
}
