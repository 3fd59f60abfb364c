import { registerOps, requestOps } from '../abi.js';
import { integer, invalid } from './request.js';

/** What a request does with the memory at its `addr`. */
interface Use {
  /** Bytes for each unit of the entry's length. */
  unit?: number;
  /** Bytes of a structure, whatever the length. */
  size?: number;
  /** Text that ends with NUL. */
  text?: true;
  /** As many bytes as the entry's `off` says: the size of an address. */
  bySize?: true;
  /** As many times as the entry's `fd` says. */
  times?: true;
  /** Length if none is given and the memory does not determine it. */
  length?: number;
}

/** struct epoll_event is packed on x86-64 only (linux/eventpoll.h). */
const EPOLL_EVENT = process.arch === 'x64' ? 12 : 16;
const bytes: Use = { unit: 1 };
const text: Use = { text: true };
const message: Use = { size: 56, length: 1 }; // struct user_msghdr
const time: Use = { size: 16, length: 1 }; // struct __kernel_timespec

/** By name of the opcode: what liburing's io_uring_prep_* functions put there. Others read `length` bytes at most. */
const uses: Readonly<Record<string, Use>> = {
  readv: { unit: 16 }, writev: { unit: 16 }, readv_fixed: { unit: 16 }, writev_fixed: { unit: 16 },
  sendmsg: message, recvmsg: message, sendmsg_zc: message,
  timeout: time, link_timeout: time,
  connect: { bySize: true }, bind: { bySize: true }, accept: { size: 0 },
  openat: text, openat2: text, statx: text, renameat: text, unlinkat: text, mkdirat: text, symlinkat: text, linkat: text,
  setxattr: text, fsetxattr: text, getxattr: text, fgetxattr: text,
  provide_buffers: { unit: 1, times: true }, files_update: { unit: 4 }, epoll_ctl: { size: EPOLL_EVENT }, epoll_wait: { unit: EPOLL_EVENT },
  futex_wait: { size: 4 }, futex_wake: { size: 4 }, futex_waitv: { unit: 24 }, pipe: { size: 8 },
}; // biome-ignore format: a table
const byOpcode: readonly Use[] = requestOps.map(({ name }) => uses[name] ?? bytes);

/**
 * The length of a request that works on a buffer: the one given, or what the buffer holds.
 * @param fd the entry's `fd`
 * @param offset the entry's `off`
 * @param given undefined: as many bytes, vectors, descriptors, … as the buffer holds
 * @throws EINVAL if the kernel would go beyond the buffer
 */
export function lengthOf(
  opcode: number,
  fd: number,
  buffer: NodeJS.ArrayBufferView,
  given: number | undefined,
  offset: number | bigint,
): number {
  const { unit, size = 0, text: ends, bySize, times, length: usual = 0 } = byOpcode[opcode] ?? bytes;
  const held = buffer.byteLength;
  const count = times ? Math.max(1, fd) : 1;
  const length = given ?? (unit ? Math.min(Math.floor(held / unit / count), 0xffff_ffff) : usual);
  const needed = unit ? length * unit * count : bySize ? Number(offset) : size;
  if (needed > held) throw invalid('length', given ?? needed, `at most what the buffer of ${held} bytes holds`);
  if (ends && !new Uint8Array(buffer.buffer, buffer.byteOffset, held).includes(0))
    throw invalid('buffer', 'text without NUL', 'text that ends with NUL');
  return length;
}

/** Bytes that io_uring_register(2) reads or writes at its argument: a structure, and some for each of `nr`. */
const registers: Readonly<Record<string, readonly [size: number, each: number]>> = {
  register_buffers: [0, 16], register_files: [0, 4], register_eventfd: [4, 0], register_eventfd_async: [4, 0],
  register_files_update: [16, 0], register_probe: [16, 8], register_restrictions: [0, 16],
  register_files2: [32, 0], register_files_update2: [32, 0], register_buffers2: [32, 0], register_buffers_update: [32, 0],
  register_iowq_aff: [0, 1], register_iowq_max_workers: [8, 0], register_ring_fds: [0, 16], unregister_ring_fds: [0, 16],
  register_pbuf_ring: [40, 0], unregister_pbuf_ring: [40, 0], register_sync_cancel: [64, 0], register_file_alloc_range: [16, 0],
  register_pbuf_status: [40, 0], register_napi: [16, 0], unregister_napi: [16, 0], register_clock: [16, 0],
  register_clone_buffers: [32, 0], register_send_msg_ring: [64, 0], register_zcrx_ifq: [96, 0], register_resize_rings: [120, 0],
  register_mem_region: [64, 0], register_query: [40, 0],
  unregister_buffers: [0, 0], unregister_files: [0, 0], unregister_eventfd: [0, 0], register_personality: [0, 0],
  unregister_personality: [0, 0], register_enable_rings: [0, 0], unregister_iowq_aff: [0, 0],
}; // biome-ignore format: a table

/** What a ring keeps for itself: its wake-up, its registered descriptor, the size of its mappings. */
const own: readonly string[] = [
  'register_eventfd',
  'unregister_eventfd',
  'register_eventfd_async',
  'unregister_ring_fds',
  'register_resize_rings',
];

/**
 * Checks the arguments of io_uring_register(2). Addresses inside the argument are the caller's.
 * @throws EINVAL if the kernel would go beyond `arg`
 */
export function checkRegister(opcode: number, arg: Uint8Array | null, nr: number): void {
  integer('opcode', opcode, 0, 0x7fff_ffff);
  if (own.includes(registerOps[opcode]?.name ?? '')) throw invalid('opcode', opcode, 'one that the ring does not keep for itself');
  integer('nr', nr, 0, 0xffff_ffff);
  if (arg === null) return;
  if (!(arg instanceof Uint8Array)) throw invalid('argument', arg, 'a Uint8Array or null');
  const [size, each] = registers[registerOps[opcode]?.name ?? ''] ?? [0, 1];
  const needed = size + each * nr;
  if (needed > arg.byteLength) throw invalid('argument', `${arg.byteLength} bytes`, `at least ${needed} bytes`);
}

/** A file offset as node:fs takes it: a whole number or a bigint, -1 for the file's own position. @throws EINVAL */
export function fileOffset(offset: number | bigint): number | bigint {
  const whole = typeof offset === 'bigint' ? BigInt.asIntN(64, offset) === offset : Number.isSafeInteger(offset);
  if (!whole || offset < -1) throw invalid('offset', offset, 'a whole number (-1: the position of the file itself)');
  return offset;
}

/** A word of 64 bits: an offset, an address or other data. @throws EINVAL */
export function wide(what: string, value: number | bigint): number | bigint {
  const fits = typeof value === 'bigint' ? value >= -(2n ** 63n) && value < 2n ** 64n : Number.isSafeInteger(value);
  if (!fits) throw invalid(what, value, 'a whole number of 64 bits');
  return value;
}
