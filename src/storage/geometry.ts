import path from 'node:path';
import { Exit, VioError } from '../common/errors.js';
import { printable } from '../common/escape.js';
import type { Sysroot } from '../common/sysroot.js';
import type { Geometry } from '../native/storage.js';
import { majorMinor } from '../vfio/census/processes.js';

/** Block sizes that can be asked for; a device's own is served whatever it is. */
const sizes = [512, 4096];

/** Limits of a block device's queue (Documentation/ABI/stable/sysfs-block). Bytes; 0 where there is no such operation. */
export interface QueueLimits {
  discardGranularity: number;
  discardMax: number;
  zeroesMax: number;
}

/** Looks at sysfs; undefined for a file. */
export function queueLimits(root: Sysroot, geometry: Geometry, device: bigint | undefined): QueueLimits | undefined {
  if (!geometry.device || device === undefined) return undefined;
  const at = path.resolve('/sys/dev/block', root.readlink(`/sys/dev/block/${majorMinor(Number(device))}`) ?? '');
  // a partition has the queue of its disk
  const queue = root.exists(`${at}/queue`) ? `${at}/queue` : `${path.dirname(at)}/queue`;
  const value = (name: string): number => Number(root.attr(`${queue}/${name}`) ?? 0);
  return {
    discardGranularity: value('discard_granularity'),
    discardMax: value('discard_max_bytes'),
    zeroesMax: value('write_zeroes_max_bytes'),
  };
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
