import fs from 'node:fs';
import { errnoError } from '../../common/errno.js';
import { Op, requestOps, SqeFlag } from '../abi.js';
import { ADDRESS_SIZE, type Address, decodeAddress, encodeAddress } from './address.js';
import { fileOffset } from './bounds.js';
import { openFlags } from './flags.js';
import { addressOf, type File, fileNumber, integer, invalid, pathBytes, type Request, requestError, Slot } from './request.js';
import type { Ring } from './ring.js';

/** What every operation takes last. */
export interface OperationOptions {
  /** Cancels the operation. Its promise is rejected with the signal's reason, once the kernel has let its memory go. */
  signal?: AbortSignal;
  /** Milliseconds after which the kernel cancels it: rejected with ETIME. */
  timeout?: number;
}

const AT_FDCWD = -100;
const AT_EMPTY_PATH = 0x1000;
const AT_REMOVEDIR = 0x200;
const STATX_BASIC = 0x7ff;
const ACCEPT_MULTISHOT = 1;
const SOCK_CLOEXEC = 0o2000000;
const ECANCELED = -125;
const opcode = (name: string): number => requestOps.find((op) => op.name === name)!.value;
const LINK_TIMEOUT = opcode('link_timeout');

/** What stat(2) tells. Times are nanoseconds since 1970. */
export interface Status {
  mode: number;
  size: bigint;
  blocks: bigint;
  blockSize: number;
  links: number;
  uid: number;
  gid: number;
  inode: bigint;
  device: { major: number; minor: number };
  accessed: bigint;
  modified: bigint;
  changed: bigint;
}

/**
 * The operations of a ring as promises. A file is a descriptor, a FileHandle of node:fs/promises, or a Slot of the ring's file table; offsets are
 * numbers or bigints, -1 for the file's own position. Each operation is rejected with the errno that its system call
 * has (`code`, `errno`, `syscall`), EBADF if the ring is closed, EINVAL for arguments that cannot be meant.
 */
export class Operations {
  readonly #ring: Ring;

  constructor(ring: Ring) {
    this.#ring = ring;
  }

  /** read(2), pread(2). @returns bytes read; 0 at the end */
  read(file: File, buffer: NodeJS.ArrayBufferView, offset: number | bigint = -1, options?: OperationOptions): Promise<number> {
    return this.#run('read', { opcode: Op.read, fd: file, buffer, offset: fileOffset(offset) }, options);
  }

  /** write(2), pwrite(2). @returns bytes written, maybe fewer than given */
  write(file: File, buffer: NodeJS.ArrayBufferView, offset: number | bigint = -1, options?: OperationOptions): Promise<number> {
    return this.#run('write', { opcode: Op.write, fd: file, buffer, offset: fileOffset(offset) }, options);
  }

  /** preadv(2). @returns bytes read */
  readv(file: File, buffers: readonly NodeJS.ArrayBufferView[], offset: number | bigint = -1, options?: OperationOptions): Promise<number> {
    return this.#run('readv', { opcode: opcode('readv'), fd: file, ...vectors(buffers), offset: fileOffset(offset) }, options);
  }

  /** pwritev(2). @returns bytes written */
  writev(
    file: File,
    buffers: readonly NodeJS.ArrayBufferView[],
    offset: number | bigint = -1,
    options?: OperationOptions,
  ): Promise<number> {
    return this.#run('writev', { opcode: opcode('writev'), fd: file, ...vectors(buffers), offset: fileOffset(offset) }, options);
  }

  /** fsync(2), or fdatasync(2) with `data`. */
  async fsync(file: File, options: OperationOptions & { data?: boolean } = {}): Promise<void> {
    await this.#run('fsync', { opcode: Op.fsync, fd: file, opFlags: options.data ? 1 : 0 }, options);
  }

  /** fallocate(2). @param mode FALLOC_FL_* */
  async fallocate(file: File, offset: number | bigint, length: number | bigint, mode = 0, options?: OperationOptions): Promise<void> {
    // the length stands in addr, the mode in len
    await this.#run('fallocate', { opcode: Op.fallocate, fd: file, offset, address: length, length: mode }, options);
  }

  /** ftruncate(2) (6.9). */
  async ftruncate(file: File, length: number | bigint, options?: OperationOptions): Promise<void> {
    await this.#run('ftruncate', { opcode: Op.ftruncate, fd: file, offset: length }, options);
  }

  /** openat(2). @param flags as in node:fs: 'r', 'w+', … or O_* @returns a descriptor, close-on-exec, of the caller */
  open(
    path: string | Uint8Array,
    flags: string | number = 'r',
    mode = 0o666,
    options: OperationOptions & { at?: number } = {},
  ): Promise<number> {
    const request = { opcode: Op.openat, fd: options.at ?? AT_FDCWD, buffer: pathBytes(path), length: integer('mode', mode, 0, 0o7777) };
    return this.#run(`open '${path}'`, { ...request, opFlags: openFlags(flags) | fs.constants.O_NOCTTY | SOCK_CLOEXEC }, options);
  }

  /** close(2) of a descriptor, or of a slot of the table. */
  async close(file: File, options?: OperationOptions): Promise<void> {
    const request =
      file instanceof Slot ? { opcode: Op.close, fd: 0, fileIndex: file.index + 1 } : { opcode: Op.close, fd: fileNumber(file) };
    await this.#run('close', request, options);
  }

  /** statx(2) of a path, or of a descriptor. @param options.follow false: of the symbolic link itself */
  async stat(of: string | Uint8Array | number, options: OperationOptions & { follow?: boolean; at?: number } = {}): Promise<Status> {
    const out = Buffer.alloc(256);
    const byFd = typeof of === 'number';
    const flags = (byFd ? AT_EMPTY_PATH : 0) | (options.follow === false ? 0x100 : 0);
    const buffer = byFd ? Buffer.of(0) : pathBytes(of);
    const fd = byFd ? of : (options.at ?? AT_FDCWD);
    const request = { opcode: Op.statx, fd, buffer, length: STATX_BASIC, offset: addressOf(out), keep: out, opFlags: flags };
    await this.#run('statx', request, options);
    const time = (at: number): bigint => out.readBigInt64LE(at) * 1_000_000_000n + BigInt(out.readUInt32LE(at + 8));
    return {
      mode: out.readUInt16LE(28),
      size: out.readBigUInt64LE(40),
      blocks: out.readBigUInt64LE(48),
      blockSize: out.readUInt32LE(4),
      links: out.readUInt32LE(16),
      uid: out.readUInt32LE(20),
      gid: out.readUInt32LE(24),
      inode: out.readBigUInt64LE(32),
      device: { major: out.readUInt32LE(136), minor: out.readUInt32LE(140) },
      accessed: time(64),
      changed: time(96),
      modified: time(112),
    };
  }

  /** renameat2(2). @param flags RENAME_* */
  async rename(from: string | Uint8Array, to: string | Uint8Array, flags = 0, options?: OperationOptions): Promise<void> {
    await this.#twoPaths('renameat', from, to, flags, options);
  }

  /** linkat(2). */
  async link(from: string | Uint8Array, to: string | Uint8Array, options?: OperationOptions): Promise<void> {
    await this.#twoPaths('linkat', from, to, 0, options);
  }

  /** symlinkat(2). */
  async symlink(target: string | Uint8Array, path: string | Uint8Array, options?: OperationOptions): Promise<void> {
    const at = pathBytes(path);
    const request = { opcode: opcode('symlinkat'), fd: AT_FDCWD, buffer: pathBytes(target), offset: addressOf(at), keep: at };
    await this.#run('symlink', request, options);
  }

  /** unlinkat(2), or rmdir(2) with `folder`. */
  async unlink(path: string | Uint8Array, options: OperationOptions & { folder?: boolean } = {}): Promise<void> {
    const opFlags = options.folder ? AT_REMOVEDIR : 0;
    await this.#run(`unlink '${path}'`, { opcode: opcode('unlinkat'), fd: AT_FDCWD, buffer: pathBytes(path), opFlags }, options);
  }

  /** mkdirat(2). */
  async mkdir(path: string | Uint8Array, mode = 0o777, options?: OperationOptions): Promise<void> {
    const length = integer('mode', mode, 0, 0o7777);
    await this.#run(`mkdir '${path}'`, { opcode: opcode('mkdirat'), fd: AT_FDCWD, buffer: pathBytes(path), length }, options);
  }

  /** splice(2): one of the two is a pipe. Offsets of a pipe are -1. @returns bytes moved */
  splice(
    from: File,
    fromOffset: number | bigint,
    to: File,
    toOffset: number | bigint,
    length: number,
    options?: OperationOptions,
  ): Promise<number> {
    return this.#run('splice', splice(Op.splice, from, fromOffset, to, toOffset, length), options);
  }

  /** tee(2): both are pipes. @returns bytes copied */
  tee(from: File, to: File, length: number, options?: OperationOptions): Promise<number> {
    return this.#run('tee', { ...splice(opcode('tee'), from, 0, to, 0, length) }, options);
  }

  /** socket(2). @param type SOCK_*: 1 stream, 2 datagram @returns a descriptor, close-on-exec, of the caller */
  socket(family: 'unix' | 'ipv4' | 'ipv6', type: number, protocol = 0, options?: OperationOptions): Promise<number> {
    const domain = { unix: 1, ipv4: 2, ipv6: 10 }[family];
    if (domain === undefined) throw invalid('family', family, 'unix, ipv4 or ipv6');
    const offset = integer('type', type, 0, 0xffff) | SOCK_CLOEXEC;
    return this.#run('socket', { opcode: Op.socket, fd: domain, offset, length: protocol }, options);
  }

  /** bind(2) (6.11). */
  async bind(socket: File, to: Address, options?: OperationOptions): Promise<void> {
    const buffer = encodeAddress(to);
    await this.#run('bind', { opcode: opcode('bind'), fd: socket, buffer, offset: buffer.length }, options);
  }

  /** listen(2) (6.11). */
  async listen(socket: File, backlog = 128, options?: OperationOptions): Promise<void> {
    await this.#run('listen', { opcode: opcode('listen'), fd: socket, length: backlog }, options);
  }

  /** connect(2). */
  async connect(socket: File, to: Address, options?: OperationOptions): Promise<void> {
    const buffer = encodeAddress(to);
    await this.#run('connect', { opcode: Op.connect, fd: socket, buffer, offset: buffer.length }, options);
  }

  /** accept4(2). @returns a descriptor, close-on-exec, of the caller */
  accept(listener: File, options?: OperationOptions): Promise<number> {
    return this.#run('accept', { opcode: Op.accept, fd: listener, opFlags: SOCK_CLOEXEC }, options);
  }

  /** The connections of a listener, one after the other, by one request (6.0). Those that nobody took when it ends are closed. */
  async *connections(listener: File, options: Pick<OperationOptions, 'signal'> = {}): AsyncGenerator<number, void> {
    const { signal } = options;
    signal?.throwIfAborted();
    const waiting: number[] = [];
    let ended: { result: number } | undefined;
    let wake = (): void => {};
    const accept = { opcode: Op.accept, fd: listener, ioprio: ACCEPT_MULTISHOT, opFlags: SOCK_CLOEXEC };
    const token = this.#ring.push(accept, (result, flags) => {
      if (result >= 0) waiting.push(result);
      if (!(flags & 2)) ended = { result };
      wake();
    });
    const cancel = (): void => this.#ring.cancel(token);
    signal?.addEventListener('abort', cancel, { once: true });
    try {
      for (;;) {
        for (let fd = waiting.shift(); fd !== undefined; fd = waiting.shift()) yield fd;
        if (ended !== undefined) break;
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
      signal?.throwIfAborted();
      if (ended.result < 0) throw requestError(ended.result, 'accept', listener);
    } finally {
      signal?.removeEventListener('abort', cancel);
      if (ended === undefined) {
        cancel();
        while (ended === undefined)
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
      }
      for (const fd of waiting) fs.closeSync(fd);
    }
  }

  /** recv(2). @param flags MSG_* @returns bytes received; 0: the peer has ended */
  recv(socket: File, buffer: NodeJS.ArrayBufferView, flags = 0, options?: OperationOptions): Promise<number> {
    return this.#run('recv', { opcode: opcode('recv'), fd: socket, buffer, opFlags: flags }, options);
  }

  /** send(2); a peer that is gone is EPIPE, never a signal. @returns bytes sent, maybe fewer than given */
  send(socket: File, buffer: NodeJS.ArrayBufferView, flags = 0, options?: OperationOptions): Promise<number> {
    return this.#run('send', { opcode: opcode('send'), fd: socket, buffer, opFlags: flags | 0x4000 }, options);
  }

  /** sendmsg(2): several buffers, and the address of a datagram. @returns bytes sent */
  sendmsg(socket: File, buffers: readonly NodeJS.ArrayBufferView[], to?: Address, flags = 0, options?: OperationOptions): Promise<number> {
    const { buffer, keep } = message(buffers, to === undefined ? Buffer.alloc(0) : encodeAddress(to));
    return this.#run('sendmsg', { opcode: opcode('sendmsg'), fd: socket, buffer, keep, opFlags: flags | 0x4000 }, options);
  }

  /** recvmsg(2). @returns bytes received, MSG_* flags (MSG_TRUNC: the datagram was longer), and where it came from */
  async recvmsg(
    socket: File,
    buffers: readonly NodeJS.ArrayBufferView[],
    flags = 0,
    options?: OperationOptions,
  ): Promise<{ size: number; flags: number; from: Address | undefined }> {
    const name = Buffer.alloc(ADDRESS_SIZE);
    const { buffer, keep } = message(buffers, name);
    const size = await this.#run('recvmsg', { opcode: opcode('recvmsg'), fd: socket, buffer, keep, opFlags: flags }, options);
    return { size, flags: buffer.readUInt32LE(48), from: decodeAddress(name.subarray(0, buffer.readUInt32LE(8))) };
  }

  /** shutdown(2). */
  async shutdown(socket: File, how: 'read' | 'write' | 'both' = 'both', options?: OperationOptions): Promise<void> {
    const length = { read: 0, write: 1, both: 2 }[how];
    if (length === undefined) throw invalid('how', how, 'read, write or both');
    await this.#run('shutdown', { opcode: opcode('shutdown'), fd: socket, length }, options);
  }

  /** poll(2) of one file. @param events POLL* bits: 1 readable, 4 writable @returns the bits that hold */
  poll(file: File, events: number, options?: OperationOptions): Promise<number> {
    return this.#run('poll', { opcode: Op.pollAdd, fd: file, opFlags: integer('events', events, 0, 0xffff_ffff) }, options);
  }

  /** Resolves after some milliseconds, by the kernel's clock. */
  async timeout(ms: number, options: Pick<OperationOptions, 'signal'> = {}): Promise<void> {
    const request = { opcode: Op.timeout, buffer: timespec(ms), length: 1 };
    await new Promise<void>((resolve, reject) => {
      // -ETIME is how a timeout ends that nobody cancelled
      this.#start(request, options.signal, (result) => {
        if (result === -62 || result >= 0) resolve();
        else reject(result === ECANCELED && options.signal?.aborted ? options.signal.reason : errnoError(result, 'timeout'));
      });
    });
  }

  #twoPaths(
    name: string,
    from: string | Uint8Array,
    to: string | Uint8Array,
    opFlags: number,
    options?: OperationOptions,
  ): Promise<number> {
    const second = pathBytes(to);
    // the folder of the second path stands in len
    const request = {
      opcode: opcode(name),
      fd: AT_FDCWD,
      buffer: pathBytes(from),
      length: AT_FDCWD >>> 0,
      offset: addressOf(second),
      keep: second,
    };
    return this.#run(`${name} '${from}'`, { ...request, opFlags }, options);
  }

  #run(call: string, request: Request, options: OperationOptions = {}): Promise<number> {
    const { signal, timeout } = options;
    if (signal === undefined && timeout === undefined) return this.#ring.request(request, call);
    return new Promise((resolve, reject) => {
      let timedOut = false;
      const done = (result: number): void => {
        if (result >= 0) resolve(result);
        else if (signal?.aborted && (result === ECANCELED || result === -4)) reject(signal.reason);
        else if (timedOut && (result === ECANCELED || result === -4)) reject(errnoError(-62, call));
        else reject(requestError(result, call, request.fd));
      };
      if (timeout === undefined) return this.#start(request, signal, done);
      const limit = { opcode: LINK_TIMEOUT, buffer: timespec(timeout), length: 1 };
      let result: number | undefined;
      let open = 2; // both must have ended: which of the two comes first is not said
      const part = (): void => {
        if (--open === 0) done(result!);
      };
      this.#ring.reserve(2);
      this.#start({ ...request, flags: (request.flags ?? 0) | SqeFlag.link }, signal, (n) => {
        result = n;
        part();
      });
      this.#ring.push(limit, (n) => {
        timedOut = n === -62;
        part();
      });
    });
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

/** struct __kernel_timespec. @throws EINVAL */
function timespec(ms: number): BigInt64Array {
  if (typeof ms !== 'number' || !(ms >= 0 && ms < 2 ** 53)) throw invalid('timeout', ms, 'milliseconds');
  return BigInt64Array.of(BigInt(Math.floor(ms / 1000)), BigInt(Math.round((ms % 1000) * 1e6)));
}

/** struct iovec of buffers; they are kept. @throws EINVAL */
function vectors(buffers: readonly NodeJS.ArrayBufferView[]): { buffer: BigUint64Array; length: number; keep: unknown } {
  if (!Array.isArray(buffers) || buffers.length > 1024) throw invalid('buffers', buffers?.length, 'an array of at most 1024');
  const buffer = BigUint64Array.from(buffers.flatMap((view) => [BigInt(addressOf(view)), BigInt(view.byteLength)]));
  return { buffer, length: buffers.length, keep: buffers };
}

/** struct user_msghdr {name, namelen, iov, iovlen, control, controllen, flags}. */
function message(buffers: readonly NodeJS.ArrayBufferView[], name: Buffer): { buffer: Buffer; keep: unknown } {
  const { buffer: vector, length, keep } = vectors(buffers);
  const header = Buffer.alloc(56);
  header.writeBigUInt64LE(BigInt(addressOf(name)), 0);
  header.writeUInt32LE(name.length, 8);
  header.writeBigUInt64LE(BigInt(addressOf(vector)), 16);
  header.writeBigUInt64LE(BigInt(length), 24);
  return { buffer: header, keep: [vector, keep, name] };
}

/** The source stands in splice_fd_in (file_index) and addr, a slot there by a flag. */
function splice(op: number, from: File, fromOffset: number | bigint, to: File, toOffset: number | bigint, length: number): Request {
  const fixed = from instanceof Slot ? 0x8000_0000 : 0;
  return { opcode: op, fd: to, offset: toOffset, address: fromOffset, length, fileIndex: fileNumber(from) >>> 0, opFlags: fixed };
}
