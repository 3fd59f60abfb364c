import { errnoError } from '../../common/errno.js';
import { VioError } from '../../common/errors.js';
import { native } from '../../native/index.js';
import { alloc, maxFixedFiles } from '../abi.js';

/** Called with the result of a request: bytes, a descriptor, 0, or a negative errno; and the CQE's flags. */
export type Done = (result: number, flags: number) => void;

/** An argument that cannot be meant: without this it would become a 0 in the kernel, often a valid number of something else. */
export const invalid = (what: string, value: unknown, expected: string): VioError =>
  new VioError(`${what}: expected ${expected}, found ${typeof value === 'string' ? JSON.stringify(value) : String(value)}`, {
    code: 'EINVAL',
  });

/** A whole number within bounds. @throws EINVAL naming what it is, the bounds and the value */
export function integer(what: string, value: number, min: number, max: number): number {
  if (!Number.isInteger(value) || value < min || value > max) throw invalid(what, value, `a whole number from ${min} to ${max}`);
  return value;
}

/** Refuses options that do not exist: a misspelt one would be ignored. @throws EINVAL naming it */
export function checkOptions(options: object | undefined, known: readonly string[]): void {
  if (options === undefined) return;
  if (typeof options !== 'object' || options === null) throw invalid('options', options, 'an object');
  for (const key of Object.keys(options)) if (!known.includes(key)) throw invalid('option', key, `one of ${known.join(', ')}`);
}

/** A file of the ring's table, by its index; where a descriptor is expected, it means the registered file. */
export class Slot {
  readonly index: number;
  /** @throws EINVAL for what is no index of any table */
  constructor(index: number) {
    this.index = integer('slot', index, 0, maxFixedFiles - 1);
  }
}

/** sqe->file_index of a slot: one more, and ALLOC stays. 0 would be a descriptor of the process. @throws EINVAL */
export const fileIndex = (slot: number): number => (slot === alloc ? alloc : integer('slot', slot, 0, maxFixedFiles - 1) + 1);

/** What a request works on: a descriptor of the process, a FileHandle of node:fs/promises, or a slot of the ring's file table. */
export type File = number | Slot | { readonly fd: number };

/** A request in full; the named methods of Ring are shorter. Field names are those of struct io_uring_sqe. */
export interface Request {
  opcode: number;
  flags?: number;
  ioprio?: number;
  fd?: File;
  /** off, addr2 */
  offset?: number | bigint;
  /** Memory that the kernel reads or writes; held until the request is done. */
  buffer?: NodeJS.ArrayBufferView;
  /** addr, where it is not a buffer. */
  address?: number | bigint;
  /** Bytes, vectors, descriptors, … (len). What the buffer holds unless given. */
  length?: number;
  /** rw_flags, open_flags, fsync_flags, … */
  opFlags?: number;
  /** Index of a registered buffer, or group of a provided one; the personality from bit 16 on. */
  bufIndex?: number;
  /** file_index (slot + 1, ALLOC) or splice_fd_in */
  fileIndex?: number;
  addr3?: number | bigint;
  /** Anything else that must live as long as the request. */
  keep?: unknown;
}

/** Asks for the number of the file that a request works on. @throws EINVAL */
export function fileNumber(file: File): number {
  if (typeof file === 'number' && (file | 0) === file) return file;
  if (file instanceof Slot) return file.index;
  if (typeof file === 'object' && file !== null && (file.fd | 0) === file.fd) return file.fd;
  throw invalid('file', file, 'a descriptor or a Slot');
}

/** The error of a request; EBADF on a slot says that it is empty. */
export function requestError(result: number, call: string, file?: File): NodeJS.ErrnoException {
  const empty = result === -9 && file instanceof Slot;
  return errnoError(result, empty ? `${call}: slot ${file.index} is empty or outside the table` : call);
}

/** Bytes of a view. Its `length` is read faster than its `byteLength`, because Buffer.prototype is too large for V8 to look through. */
export const bytesOf = (view: NodeJS.ArrayBufferView): number => (view instanceof Uint8Array ? view.length : view.byteLength);

const addresses = new WeakMap<ArrayBufferLike, number>();

/**
 * Address of a view's first byte; 0 where it has none, also because its memory was transferred away. The memory of an ArrayBuffer or
 * SharedArrayBuffer stays where it is while that is reachable. @throws EINVAL for anything else
 */
export function addressOf(view: NodeJS.ArrayBufferView): number {
  const buffer = view?.buffer;
  let base = addresses.get(buffer);
  if (base === undefined) {
    const kind = Object.prototype.toString.call(ArrayBuffer.isView(view) ? buffer : view);
    if (!buffer || !/^\[object (Shared)?ArrayBuffer\]$/.test(kind))
      throw invalid('buffer', kind, 'a Buffer, typed array or DataView over an ArrayBuffer or a SharedArrayBuffer');
    if (buffer.byteLength === 0) return 0; // transferred away, or empty: the address is not kept, for it may grow
    base = native().uring.addressOf(new Uint8Array(buffer));
    addresses.set(buffer, base);
  }
  return bytesOf(view) === 0 ? 0 : base + view.byteOffset;
}

/** A path with its NUL. @throws EINVAL for anything but text or bytes, and for a NUL inside */
export function pathBytes(path: string | Uint8Array): Buffer {
  const valid = typeof path === 'string' ? !path.includes('\0') : path instanceof Uint8Array && !path.includes(0);
  if (!valid) throw invalid('path', path, 'a string or bytes without NUL');
  return Buffer.concat([Buffer.from(path as Uint8Array), Buffer.of(0)]);
}
