import fs from 'node:fs';
import type { ValuesOf } from '../../common/struct.js';
import { native } from '../../native/index.js';
import { type OwnedFd } from '../../native/owned-fd.js';
import { Seal } from '../../native/vhost-user.js';
import { describeFd } from '../wire/fds.js';
import { MapFlag, type mmap } from '../wire/messages.js';
import type { Errno } from '../wire/status.js';
import { errnoOf } from '../wire/status.js';

/** Size of a page of this kernel: mappings consist of whole ones. */
export const pageSize = (): bigint => BigInt(native().common.pageSize());
/** QEMU 11.1 takes no more regions on a PCI device, and their sum must be a power of two. */
export const qemuRegions = 3;
const maxU64 = 1n << 64n;

export type MapRequest = ValuesOf<typeof mmap>;

/** A mapping that stands in a region; it owns its file. */
export interface ShmemMapping {
  readonly shmid: number;
  readonly shmOffset: bigint;
  readonly fdOffset: bigint;
  readonly len: bigint;
  readonly writable: boolean;
  readonly fd: OwnedFd;
}

export const isPowerOfTwo = (n: bigint): boolean => n > 0n && (n & (n - 1n)) === 0n;

/**
 * What a front-end of today would make of these region sizes.
 * @returns errors (the specification forbids it) and warnings (the specification allows it, QEMU 11.1 does not take it)
 */
export function judgeRegions(sizes: ReadonlyMap<number, bigint>): { errors: string[]; warnings: string[] } {
  const errors: string[] = [];
  const warnings: string[] = [];
  for (const [id, size] of sizes) if (size % pageSize() !== 0n) errors.push(`region ${id}: size ${size} is no multiple of the page size`);
  const total = [...sizes.values()].reduce((sum, size) => sum + size, 0n);
  if (sizes.size > qemuRegions) warnings.push(`${sizes.size} regions: QEMU 11.1 takes at most ${qemuRegions} on a PCI device`);
  if (sizes.size > 0 && !isPowerOfTwo(total)) warnings.push(`the regions add up to ${total} bytes: QEMU 11.1 takes powers of two only`);
  return { errors, warnings };
}

/** Whether [offset, offset + len) lies in `size` bytes; no sum can wrap. */
const inside = (offset: bigint, len: bigint, size: bigint): boolean => len <= size && offset <= size - len;

/** Checks of a mapping that need no region and no file; also what a back-end asks before it sends one. */
export function checkRange(request: MapRequest, kind: 'map' | 'unmap'): Errno | undefined {
  if (kind === 'map' && (request.flags & ~MapFlag.readWrite) !== 0n) return 'EINVAL';
  if (request.len === 0n) return 'EINVAL';
  if (request.shmOffset + request.len > maxU64) return 'EOVERFLOW';
  if (kind === 'map' && request.fdOffset + request.len > maxU64) return 'EOVERFLOW';
  if (request.shmOffset % pageSize() !== 0n || request.len % pageSize() !== 0n) return 'EINVAL';
  if (kind === 'map' && request.fdOffset % pageSize() !== 0n) return 'EINVAL';
  return undefined;
}

/** Checks of the file behind a mapping. The mapping is tried and undone: nothing else proves that it can be made. */
export function checkFile(fd: number, offset: bigint, len: bigint, writable: boolean): Errno | undefined {
  const info = describeFd(fd);
  if (info.size === undefined) return 'ENODEV';
  if (info.access === 'w' || (writable && info.access !== 'rw')) return 'EACCES';
  const page = info.size % pageSize() === 0n ? info.size : info.size - (info.size % pageSize()) + pageSize();
  if (!inside(offset, len, page)) return 'ENXIO';
  try {
    native().vhostUser.tryMap(fd, offset, len, writable);
  } catch (err) {
    return errnoOf(err);
  }
  return undefined;
}

/**
 * The front-end's side of shared memory: regions and the mappings that stand in them. Nothing is mapped into this process;
 * read() and write() go through the file, so a peer that cuts it short causes an error and no signal.
 */
export class ShmemRegions {
  readonly sizes: ReadonlyMap<number, bigint>;
  readonly #maps = new Map<number, Map<bigint, ShmemMapping>>();

  constructor(sizes: ReadonlyMap<number, bigint>) {
    this.sizes = sizes;
    for (const id of sizes.keys()) this.#maps.set(id, new Map());
  }

  /** Adds a mapping and takes its file; on an error nothing has changed and the file is still the caller's. */
  map(request: MapRequest, fd: OwnedFd): Errno | undefined {
    const size = this.sizes.get(request.shmid);
    if (size === undefined) return 'ENOENT';
    const bad = checkRange(request, 'map');
    if (bad) return bad;
    if (!inside(request.shmOffset, request.len, size)) return 'ERANGE';
    const maps = this.#maps.get(request.shmid)!;
    for (const other of maps.values())
      if (request.shmOffset < other.shmOffset + other.len && other.shmOffset < request.shmOffset + request.len) return 'EEXIST';
    const writable = (request.flags & MapFlag.readWrite) !== 0n;
    const unfit = checkFile(fd.fd, request.fdOffset, request.len, writable);
    if (unfit) return unfit;
    const { shmid, shmOffset, fdOffset, len } = request;
    maps.set(shmOffset, { shmid, shmOffset, fdOffset, len, writable, fd });
    return undefined;
  }

  /** Removes exactly one whole mapping. */
  unmap(request: MapRequest): Errno | undefined {
    if (!this.sizes.has(request.shmid)) return 'ENOENT';
    const bad = checkRange(request, 'unmap');
    if (bad) return bad;
    const found = this.#maps.get(request.shmid)!.get(request.shmOffset);
    if (!found || found.len !== request.len) return 'ENOENT';
    this.#remove(found);
    return undefined;
  }

  /** Device reset, disconnect, end: all mappings go the way an unmap goes. */
  clear(): void {
    for (const mapping of this.list()) this.#remove(mapping);
  }

  list(): ShmemMapping[] {
    return [...this.#maps.values()].flatMap((maps) => [...maps.values()]);
  }

  /** The mapping that covers an offset. */
  find(shmid: number, offset: bigint): ShmemMapping | undefined {
    return this.list().find((m) => m.shmid === shmid && offset >= m.shmOffset && offset < m.shmOffset + m.len);
  }

  /** Reads through the window. @throws the system's error; short where the mapping or the file ends */
  read(shmid: number, offset: bigint, size: number): Buffer {
    const mapping = this.find(shmid, offset);
    if (!mapping) return Buffer.alloc(0);
    const room = mapping.shmOffset + mapping.len - offset;
    const data = Buffer.alloc(Number(room < BigInt(size) ? room : BigInt(size)));
    const got = fs.readSync(mapping.fd.fd, data, 0, data.length, Number(mapping.fdOffset + offset - mapping.shmOffset));
    return data.subarray(0, got);
  }

  #remove(mapping: ShmemMapping): void {
    this.#maps.get(mapping.shmid)!.delete(mapping.shmOffset);
    mapping.fd.close();
  }
}

/** Seals that keep a mapped file from getting shorter under its users. */
export const keepSize = Seal.shrink | Seal.grow | Seal.seal;
