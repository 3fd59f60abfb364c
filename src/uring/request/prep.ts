/**
 * Requests by the name of their operation, for Operations, for chains and for push(). Each has the errors of its arguments (EINVAL) and does
 * nothing else. What the kernel puts there: struct io_uring_sqe of linux/io_uring.h, as liburing's io_uring_prep_* fill it.
 */
import fs from 'node:fs';
import { alloc, Op, SqeFlag } from '../abi.js';
import { type Address, encodeAddress } from './address.js';
import { fileOffset } from './bounds.js';
import { openFlags } from './flags.js';
import { addressOf, type File, fileIndex, fileNumber, integer, invalid, pathBytes, type Request, Slot } from './request.js';

type View = NodeJS.ArrayBufferView;
type Path = string | Uint8Array;
type Offset = number | bigint;

export const AT_FDCWD = -100;
const AT_EMPTY_PATH = 0x1000;
const AT_REMOVEDIR = 0x200;
const AT_SYMLINK_NOFOLLOW = 0x100;
const STATX_BASIC = 0x7ff;
const SOCK_CLOEXEC = 0o2000000;
const MSG_NOSIGNAL = 0x4000;
const multishotAccept = 1; // ioprio
const multishotReceive = 2; // ioprio
const maxU32 = 0xffff_ffff;
const families = { unix: 1, ipv4: 2, ipv6: 10 } as const;
const ends = { read: 0, write: 1, both: 2 } as const;

export type Family = keyof typeof families;
export type End = keyof typeof ends;

/** IORING_ASYNC_CANCEL_*: which requests cancel() means. */
export interface CancelTarget {
  /** A request, by what push() returned. */
  token?: number;
  /** Requests on a file. */
  file?: File;
  /** All of the ring, whatever they are. */
  any?: boolean;
  /** All that fit, not only the first (with `file`). */
  all?: boolean;
}

const choose = <T extends Record<string, number>>(what: string, table: T, key: keyof T): number => {
  if (typeof key !== 'string' || !Object.hasOwn(table, key)) throw invalid(what, key, Object.keys(table).join(', '));
  return table[key]!;
};
const folder = (at: number | undefined): number => (at === undefined ? AT_FDCWD : integer('at', at, AT_FDCWD, 0x7fff_ffff));
const flagBits = (flags: number): number => integer('flags', flags, 0, maxU32);

/** struct __kernel_timespec. @throws EINVAL */
export function timespec(ms: number): BigInt64Array {
  if (typeof ms !== 'number' || !(ms >= 0 && ms < 2 ** 53)) throw invalid('timeout', ms, 'milliseconds');
  return BigInt64Array.of(BigInt(Math.floor(ms / 1000)), BigInt(Math.round((ms % 1000) * 1e6)));
}

/** struct iovec of buffers; they are kept. @throws EINVAL */
function vectors(buffers: readonly View[]): { buffer: BigUint64Array; length: number; keep: unknown } {
  if (!Array.isArray(buffers) || buffers.length > 1024) throw invalid('buffers', buffers?.length, 'an array of at most 1024');
  const buffer = BigUint64Array.from(buffers.flatMap((view) => [BigInt(addressOf(view)), BigInt(view.byteLength)]));
  return { buffer, length: buffers.length, keep: buffers };
}

/** struct user_msghdr {name, namelen, iov, iovlen, control, controllen, flags}. */
export function message(buffers: readonly View[], name: Buffer): { buffer: Buffer; keep: unknown } {
  const { buffer: vector, length, keep } = vectors(buffers);
  const header = Buffer.alloc(56);
  header.writeBigUInt64LE(BigInt(addressOf(name)), 0);
  header.writeUInt32LE(name.length, 8);
  header.writeBigUInt64LE(BigInt(addressOf(vector)), 16);
  header.writeBigUInt64LE(BigInt(length), 24);
  return { buffer: header, keep: [vector, keep, name] };
}

/** The source stands in splice_fd_in (file_index) and addr, a slot there by a flag. */
function pipeToPipe(opcode: number, from: File, fromOffset: Offset, to: File, toOffset: Offset, length: number): Request {
  const fixed = from instanceof Slot ? 0x8000_0000 : 0;
  return { opcode, fd: to, offset: toOffset, address: fromOffset, length, fileIndex: fileNumber(from) >>> 0, opFlags: fixed };
}

/** The folder of the second path stands in len. */
function twoPaths(opcode: number, from: Path, to: Path, opFlags: number, at?: number, toAt?: number): Request {
  const second = pathBytes(to);
  const length = folder(toAt) >>> 0;
  return { opcode, fd: folder(at), buffer: pathBytes(from), length, offset: addressOf(second), keep: second, opFlags: flagBits(opFlags) };
}

export const prep = {
  /** Nothing, through the ring. */
  nop: (): Request => ({ opcode: Op.nop }),

  /** pread(2); read(2) with offset -1. */
  read: (file: File, buffer: View, offset: Offset = -1): Request => ({ opcode: Op.read, fd: file, buffer, offset: fileOffset(offset) }),

  /** pwrite(2); write(2) with offset -1. */
  write: (file: File, buffer: View, offset: Offset = -1): Request => ({ opcode: Op.write, fd: file, buffer, offset: fileOffset(offset) }),

  /** pread(2) into memory inside registered buffer `index`. */
  readFixed: (file: File, buffer: View, index: number, offset: Offset = -1): Request => ({
    opcode: Op.readFixed,
    fd: file,
    buffer,
    bufIndex: integer('index of the buffer', index, 0, 0xffff),
    offset: fileOffset(offset),
  }),

  /** pwrite(2) from memory inside registered buffer `index`. */
  writeFixed: (file: File, buffer: View, index: number, offset: Offset = -1): Request => ({
    ...prep.readFixed(file, buffer, index, offset),
    opcode: Op.writeFixed,
  }),

  /** preadv(2). */
  readv: (file: File, buffers: readonly View[], offset: Offset = -1): Request => ({
    opcode: Op.readv,
    fd: file,
    ...vectors(buffers),
    offset: fileOffset(offset),
  }),

  /** pwritev(2). */
  writev: (file: File, buffers: readonly View[], offset: Offset = -1): Request => ({
    opcode: Op.writev,
    fd: file,
    ...vectors(buffers),
    offset: fileOffset(offset),
  }),

  /** read(2) for each piece of data that comes, into buffers of a group (6.7). */
  readMultishot: (file: File, group: number): Request => ({
    opcode: Op.readMultishot,
    fd: file,
    flags: SqeFlag.bufferSelect,
    bufIndex: integer('group', group, 0, 0xffff),
    offset: -1,
  }),

  /** fsync(2), or fdatasync(2). */
  fsync: (file: File, data = false): Request => ({ opcode: Op.fsync, fd: file, opFlags: data ? 1 : 0 }),

  /** fallocate(2). @param mode FALLOC_FL_* */
  fallocate: (file: File, offset: Offset, length: Offset, mode = 0): Request => ({
    opcode: Op.fallocate,
    fd: file,
    offset,
    address: length, // the length stands in addr, the mode in len
    length: mode,
  }),

  /** ftruncate(2) (6.9). */
  ftruncate: (file: File, length: Offset): Request => ({ opcode: Op.ftruncate, fd: file, offset: length }),

  /** openat(2), close-on-exec. @param flags as in node:fs, or O_* @param at folder that `path` begins in */
  openat: (path: Path, flags: string | number = 'r', mode = 0o666, at?: number): Request => ({
    opcode: Op.openat,
    fd: folder(at),
    buffer: pathBytes(path),
    length: integer('mode', mode, 0, 0o7777),
    opFlags: openFlags(flags) | fs.constants.O_NOCTTY | SOCK_CLOEXEC,
  }),

  /** close(2) of a descriptor, or of a slot. */
  close: (file: File): Request =>
    file instanceof Slot ? { opcode: Op.close, fd: 0, fileIndex: fileIndex(file.index) } : { opcode: Op.close, fd: fileNumber(file) },

  /** statx(2) of a path or of a descriptor. @param out receives struct statx, 256 bytes */
  statx: (of: Path | number, out: Buffer, follow = true, at?: number): Request => {
    const byFd = typeof of === 'number';
    if (out.byteLength < 256) throw invalid('buffer', out.byteLength, 'at least 256 bytes');
    return {
      opcode: Op.statx,
      fd: byFd ? of : folder(at),
      buffer: byFd ? Buffer.of(0) : pathBytes(of),
      length: STATX_BASIC,
      offset: addressOf(out),
      keep: out,
      opFlags: (byFd ? AT_EMPTY_PATH : 0) | (follow ? 0 : AT_SYMLINK_NOFOLLOW),
    };
  },

  /** renameat2(2). @param flags RENAME_* */
  renameat: (from: Path, to: Path, flags = 0, at?: number, toAt?: number): Request => twoPaths(Op.renameat, from, to, flags, at, toAt),

  /** linkat(2). */
  linkat: (from: Path, to: Path, flags = 0, at?: number, toAt?: number): Request => twoPaths(Op.linkat, from, to, flags, at, toAt),

  /** symlinkat(2). */
  symlinkat: (target: Path, path: Path, at?: number): Request => {
    const name = pathBytes(path);
    return { opcode: Op.symlinkat, fd: folder(at), buffer: pathBytes(target), offset: addressOf(name), keep: name };
  },

  /** unlinkat(2), or rmdir(2) with `directory`. */
  unlinkat: (path: Path, directory = false, at?: number): Request => ({
    opcode: Op.unlinkat,
    fd: folder(at),
    buffer: pathBytes(path),
    opFlags: directory ? AT_REMOVEDIR : 0,
  }),

  /** mkdirat(2). */
  mkdirat: (path: Path, mode = 0o777, at?: number): Request => ({
    opcode: Op.mkdirat,
    fd: folder(at),
    buffer: pathBytes(path),
    length: integer('mode', mode, 0, 0o7777),
  }),

  /** splice(2): one of the two is a pipe. Offsets of a pipe are -1. */
  splice: (from: File, fromOffset: Offset, to: File, toOffset: Offset, length: number): Request =>
    pipeToPipe(Op.splice, from, fromOffset, to, toOffset, length),

  /** tee(2): both are pipes. */
  tee: (from: File, to: File, length: number): Request => pipeToPipe(Op.tee, from, 0, to, 0, length),

  /** socket(2), close-on-exec. @param type SOCK_*: 1 stream, 2 datagram */
  socket: (family: Family, type: number, protocol = 0): Request => ({
    opcode: Op.socket,
    fd: choose('family', families, family),
    offset: integer('type', type, 0, 0xffff) | SOCK_CLOEXEC,
    length: integer('protocol', protocol, 0, maxU32),
  }),

  /** bind(2) (6.11). */
  bind: (socket: File, to: Address): Request => {
    const buffer = encodeAddress(to);
    return { opcode: Op.bind, fd: socket, buffer, offset: buffer.length };
  },

  /** listen(2) (6.11). */
  listen: (socket: File, backlog = 128): Request => ({
    opcode: Op.listen,
    fd: socket,
    length: integer('backlog', backlog, 0, 0x7fff_ffff),
  }),

  /** connect(2). */
  connect: (socket: File, to: Address): Request => {
    const buffer = encodeAddress(to);
    return { opcode: Op.connect, fd: socket, buffer, offset: buffer.length };
  },

  /** accept4(2): a descriptor, close-on-exec; or, with `slot`, a slot of the table (ALLOC: one that is free). */
  accept: (listener: File, slot?: number): Request => ({
    opcode: Op.accept,
    fd: listener,
    ...(slot === undefined ? { opFlags: SOCK_CLOEXEC } : { fileIndex: fileIndex(slot) }),
  }),

  /** accept4(2) for each connection that comes (6.0), into free slots of the table with `slots`. */
  acceptMultishot: (listener: File, slots = false): Request => ({
    ...prep.accept(listener, slots ? alloc : undefined),
    ioprio: multishotAccept,
  }),

  /** recv(2). @param flags MSG_* */
  recv: (socket: File, buffer: View, flags = 0): Request => ({ opcode: Op.recv, fd: socket, buffer, opFlags: flagBits(flags) }),

  /** recv(2) for each piece of data that comes, into buffers of a group (6.0). */
  recvMultishot: (socket: File, group: number): Request => ({
    opcode: Op.recv,
    fd: socket,
    flags: SqeFlag.bufferSelect,
    ioprio: multishotReceive,
    bufIndex: integer('group', group, 0, 0xffff),
  }),

  /** send(2); a peer that is gone is EPIPE, never a signal. @param flags MSG_* */
  send: (socket: File, buffer: View, flags = 0): Request => ({
    opcode: Op.send,
    fd: socket,
    buffer,
    opFlags: (flagBits(flags) | MSG_NOSIGNAL) >>> 0,
  }),

  /** sendmsg(2): several buffers, and the address of a datagram. */
  sendmsg: (socket: File, buffers: readonly View[], to?: Address, flags = 0): Request => ({
    opcode: Op.sendmsg,
    fd: socket,
    ...message(buffers, to === undefined ? Buffer.alloc(0) : encodeAddress(to)),
    opFlags: (flagBits(flags) | MSG_NOSIGNAL) >>> 0,
  }),

  /** recvmsg(2). @param name receives the sender's struct sockaddr; struct msghdr is the request's buffer */
  recvmsg: (socket: File, buffers: readonly View[], name: Buffer, flags = 0): Request => ({
    opcode: Op.recvmsg,
    fd: socket,
    ...message(buffers, name),
    opFlags: flagBits(flags),
  }),

  /** recvmsg(2) for each datagram that comes, into buffers of a group (6.0). @param nameSize bytes for the sender's address in each */
  recvmsgMultishot: (socket: File, group: number, nameSize: number): Request => {
    const buffer = Buffer.alloc(56);
    buffer.writeUInt32LE(nameSize, 8);
    return { ...prep.recvMultishot(socket, group), opcode: Op.recvmsg, buffer };
  },

  /** shutdown(2). */
  shutdown: (socket: File, how: End = 'both'): Request => ({ opcode: Op.shutdown, fd: socket, length: choose('how', ends, how) }),

  /** poll(2) of one file. @param events POLL* bits: 1 readable, 4 writable */
  poll: (file: File, events: number): Request => ({ opcode: Op.pollAdd, fd: file, opFlags: integer('events', events, 0, maxU32) }),

  /** Ends with -ETIME after some milliseconds, by the monotonic clock. */
  timeout: (ms: number): Request => ({ opcode: Op.timeout, buffer: timespec(ms), length: 1 }),

  /** Linked behind another request, ends that after some milliseconds. */
  linkTimeout: (ms: number): Request => ({ opcode: Op.linkTimeout, buffer: timespec(ms), length: 1 }),

  /** Cancels requests: one by its token, those on a file, or all (5.19). The result is their number for `all` and `any`, 0 otherwise. */
  cancel: (target: CancelTarget): Request => {
    const { token, file, any = false, all = false } = target;
    if ([token !== undefined, file !== undefined, any].filter(Boolean).length !== 1)
      throw invalid('target', Object.keys(target).join(', '), 'one of token, file and any');
    // IORING_ASYNC_CANCEL_ALL 1, FD 2, ANY 4, FD_FIXED 8
    const bits = (all || any ? 1 : 0) | (any ? 4 : 0) | (file === undefined ? 0 : 2 | (file instanceof Slot ? 8 : 0));
    const request: Request = { opcode: Op.asyncCancel, opFlags: bits };
    if (token !== undefined) request.address = integer('token', token, 0, maxU32);
    if (file !== undefined) request.fd = fileNumber(file); // a slot is named by a flag of the operation
    return request;
  },
} as const;
