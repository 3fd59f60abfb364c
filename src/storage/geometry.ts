import path from 'node:path';
import { Exit, VioError } from '../common/errors.js';
import { printable } from '../common/escape.js';
import type { Sysroot } from '../common/sysroot.js';
import type { Geometry } from '../native/storage.js';
import { majorMinor } from '../vfio/census/processes.js';

/** Block sizes that can be asked for; a device's own is served whatever it is. */
const sizes = [512, 4096];
/** What sysfs counts in, bytes. */
const sector = 512;

/** Limits of a block device's queue (Documentation/ABI/stable/sysfs-block). Bytes; 0 where there is no such operation. */
export interface QueueLimits {
  discardGranularity: number;
  discardMax: number;
  zeroesMax: number;
  /** I/O that crosses a multiple of it costs more; 0 where there is none, or where the source does not begin at one. */
  chunk: number;
}

/** The folders of a block device in sysfs: its own, and that of its queue, which a partition shares with its disk. */
const sysfsOf = (root: Sysroot, device: bigint): { own: string; queue: string } | undefined =>
  root.once(`folders of ${device}`, () => {
    const link = root.readlink(`/sys/dev/block/${majorMinor(Number(device))}`);
    if (link === undefined) return undefined;
    const own = path.resolve('/sys/dev/block', link);
    return { own, queue: root.exists(`${own}/queue`) ? `${own}/queue` : `${path.dirname(own)}/queue` };
  });

/** Looks at sysfs; undefined for a file. */
export function queueLimits(root: Sysroot, geometry: Geometry, device: bigint | undefined): QueueLimits | undefined {
  if (!geometry.device || device === undefined) return undefined;
  const at = sysfsOf(root, device);
  const value = (file: string): number => Number((at && root.attr(file)) ?? 0);
  const chunk = value(`${at?.queue}/chunk_sectors`) * sector;
  return {
    discardGranularity: value(`${at?.queue}/discard_granularity`),
    discardMax: value(`${at?.queue}/discard_max_bytes`),
    zeroesMax: value(`${at?.queue}/write_zeroes_max_bytes`),
    chunk: chunk > 0 && (value(`${at?.own}/start`) * sector) % chunk === 0 ? chunk : 0,
  };
}

/**
 * The largest aligned write that a power failure does not tear, in bytes. The kernel's word for it is the physical block
 * (Documentation/ABI/stable/sysfs-block); a file has that of the device below, as far as its file system keeps such blocks
 * together. What statx(2) promises beyond it holds for writes with RWF_ATOMIC alone, and those are aligned powers of two: hosts
 * may write any number of blocks up to what they are told.
 * @param device of the source, or of the file system that a file is on
 */
export function atomicWriteOf(root: Sysroot, geometry: Geometry, device: bigint | undefined): number {
  const { logical, physical, alignmentOffset } = geometry;
  if (geometry.device) return alignmentOffset === 0 ? physical : logical;
  const at = device === undefined ? undefined : sysfsOf(root, device);
  if (!at || Number(root.attr(`${at.own}/alignment_offset`) ?? 0) !== 0) return logical;
  return Math.max(logical, Math.min(physical, Number(root.attr(`${at.queue}/physical_block_size`) ?? 0)));
}

/**
 * The block size that hosts see: the one asked for, else the source's own. A smaller one than the device's would make every
 * write of a host a read, a change and a write, which no crash may tear.
 * @param direct I/O past the page cache: no smaller than what the kernel takes
 * @throws VioError (2)
 */
export function blockSizeOf(source: string, geometry: Geometry, wanted: number | undefined, direct = false): number {
  const bad = (why: string): VioError =>
    new VioError(`${printable(source)}: block size ${wanted}: ${why}`, { code: 'BAD_BLOCK_SIZE', exit: Exit.usage });
  const least = direct ? Math.max(geometry.logical, geometry.directOffset) : geometry.logical;
  if (wanted === undefined) return least;
  if (wanted !== geometry.logical && !sizes.includes(wanted)) throw bad(`must be ${sizes.join(' or ')}`);
  if (wanted < geometry.logical) throw bad(`the device has blocks of ${geometry.logical} bytes`);
  if (wanted < least) throw bad(`direct=on needs at least ${least} bytes here`);
  return wanted;
}
