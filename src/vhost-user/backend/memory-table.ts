import fs from 'node:fs';
import type { ValuesOf } from '../../common/struct.js';
import { native } from '../../native/index.js';
import { closeAll, OwnedFd } from '../../native/owned-fd.js';
import type { NativeMemory } from '../../native/vhost-user.js';
import type { region } from '../wire/messages.js';
import type { Errno } from '../wire/status.js';
import { errnoOf } from '../wire/status.js';

export type Region = ValuesOf<typeof region>;
/** Slots of ADD_MEM_REG. */
export const memSlots = 256;
const maxU64 = 1n << 64n;

interface Slot {
  region: Region;
  fd: OwnedFd;
}

const overlap = (a: bigint, aSize: bigint, b: bigint, bSize: bigint): boolean => a < b + bSize && b < a + aSize;

/** Checks of one region against its file. */
function unfit(region: Region, fd: OwnedFd): Errno | undefined {
  if (region.size === 0n) return 'EINVAL';
  if (region.gpa + region.size > maxU64 || region.uva + region.size > maxU64 || region.offset + region.size > maxU64) return 'EOVERFLOW';
  const stat = fs.fstatSync(fd.fd, { bigint: true });
  if (!stat.isFile()) return 'ENODEV';
  if (region.offset + region.size > stat.size) return 'ERANGE';
  return undefined;
}

/** The memory of the front-end's machine as this back-end knows it. Every change is complete or has not happened. */
export class MemoryTable {
  #slots: Slot[] = [];
  #mapped: NativeMemory | undefined;

  get mapped(): NativeMemory | undefined {
    return this.#mapped;
  }

  get regions(): readonly Region[] {
    return this.#slots.map((s) => s.region);
  }

  /** SET_MEM_TABLE: all regions anew. Takes the descriptors in any case. */
  set(regions: readonly Region[], fds: OwnedFd[]): Errno | undefined {
    const errno = regions.length !== fds.length ? 'EINVAL' : this.#replace(regions.map((region, i) => ({ region, fd: fds[i]! })));
    if (errno) closeAll(fds);
    return errno;
  }

  /** ADD_MEM_REG. Takes the descriptor in any case. */
  add(region: Region, fd: OwnedFd): Errno | undefined {
    const errno = this.#slots.length >= memSlots ? 'ENOSPC' : this.#replace([...this.#slots, { region, fd }]);
    if (errno) fd.close();
    return errno;
  }

  /** REM_MEM_REG: the region with these addresses and this size. */
  remove(region: Region): Errno | undefined {
    const same = (s: Slot): boolean => s.region.gpa === region.gpa && s.region.uva === region.uva && s.region.size === region.size;
    const index = this.#slots.findIndex(same);
    return index < 0 ? 'ENOENT' : this.#replace(this.#slots.filter((_, i) => i !== index));
  }

  close(): void {
    this.#replace([]);
  }

  #replace(slots: Slot[]): Errno | undefined {
    for (const [i, { region, fd }] of slots.entries()) {
      const errno = unfit(region, fd);
      if (errno) return errno;
      for (const other of slots.slice(0, i).map((s) => s.region))
        if (overlap(region.gpa, region.size, other.gpa, other.size) || overlap(region.uva, region.size, other.uva, other.size))
          return 'EINVAL';
    }
    let mapped: NativeMemory | undefined;
    try {
      const regions = slots.map((s) => s.region);
      const fds = slots.map((s) => s.fd.fd);
      if (slots.length > 0) mapped = native().vhostUser.guestMemory(regions, fds);
    } catch (err) {
      return errnoOf(err);
    }
    this.#mapped?.close();
    this.#mapped = mapped;
    const kept = new Set(slots.map((s) => s.fd));
    for (const { fd } of this.#slots) if (!kept.has(fd)) fd.close();
    this.#slots = slots;
    return undefined;
  }
}
