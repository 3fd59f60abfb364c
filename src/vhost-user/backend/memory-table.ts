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
/** Regions that a log line lists. */
const shownRegions = 8;
/** What helps if the memory of the machine cannot be used. */
export const shareHint = 'is the memory of the VM shared (share=on of its memory backend)?';

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

/** Mappings of a process (proc_pid_maps(5)); none where they may not be read. */
function mapsOf(pid: number): { start: bigint; end: bigint; private: boolean; inode: number }[] {
  let text: string;
  try {
    text = fs.readFileSync(`/proc/${pid}/maps`, 'latin1');
  } catch {
    return []; // another user's, another namespace's, or gone
  }
  return [...text.matchAll(/^([0-9a-f]+)-([0-9a-f]+) ...([ps]) [0-9a-f]+ [0-9a-f]+:[0-9a-f]+ ([1-9]\d*)/gm)].map(
    ([, start, end, kind, inode]) => ({
      start: BigInt(`0x${start}`),
      end: BigInt(`0x${end}`),
      private: kind === 'p',
      inode: Number(inode),
    }),
  );
}

const isPrivate = (maps: ReturnType<typeof mapsOf>, { uva }: Region, inode: number): boolean =>
  maps.some((map) => map.private && map.inode === inode && map.start <= uva && uva < map.end);

/** The memory of the front-end's machine as this back-end knows it. Every change is complete or has not happened. */
export class MemoryTable {
  #slots: Slot[] = [];
  #mapped: NativeMemory | undefined;
  /** Why the last change was refused, in words. */
  detail: string | undefined;

  get mapped(): NativeMemory | undefined {
    return this.#mapped;
  }

  /** Regions that the front-end itself has mapped privately: what its guest writes there cannot be seen here. @param pid of it */
  private(pid: number): Region[] {
    const maps = mapsOf(pid);
    return this.#slots.filter(({ region, fd }) => isPrivate(maps, region, fs.fstatSync(fd.fd).ino)).map(({ region }) => region);
  }

  get regions(): readonly Region[] {
    return this.#slots.map((s) => s.region);
  }

  /** SET_MEM_TABLE: all regions anew. Takes the descriptors in any case. */
  set(regions: readonly Region[], fds: OwnedFd[]): Errno | undefined {
    this.detail = regions.length !== fds.length ? `${regions.length} regions came with ${fds.length} descriptors: ${shareHint}` : undefined;
    const errno = this.detail !== undefined ? 'EINVAL' : this.#replace(regions.map((region, i) => ({ region, fd: fds[i]! })));
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

  /** The regions for the log: `regions: 0x0-0x7fffffff`. @param physical guest addresses, not those of the front-end */
  describe(physical: boolean): string {
    const hex = (at: bigint): string => `0x${at.toString(16)}`;
    const spans = this.#slots.map(({ region }) => {
      const start = physical ? region.gpa : region.uva;
      return `${hex(start)}-${hex(start + region.size - 1n)}`;
    });
    if (spans.length === 0) return `there are none: ${shareHint}`;
    const more = spans.length > shownRegions ? ` and ${spans.length - shownRegions} more` : '';
    return `regions: ${spans.slice(0, shownRegions).join(', ')}${more}`;
  }

  close(): void {
    this.#replace([]);
  }

  #replace(slots: Slot[]): Errno | undefined {
    for (const [i, { region, fd }] of slots.entries()) {
      const errno = unfit(region, fd);
      if (errno) {
        const what = `region ${i} at 0x${region.gpa.toString(16)}, ${region.size} bytes`;
        this.detail = errno === 'ENODEV' ? `${what}: its descriptor is no file: ${shareHint}` : what;
        return errno;
      }
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
