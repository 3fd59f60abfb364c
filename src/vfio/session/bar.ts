import { Exit, usage, VioError } from '../../common/errors.js';
import { printable } from '../../common/escape.js';
import type { Space } from './space.js';

/** Access widths, as flags spell them. */
export const writeWidths = ['1', '2', '4', '8'] as const;
const romRegion = 6;
/** Bytes of one access of a dump: what every device's registers allow. */
const word = 4;

/** Region index of `0`…`5` or `rom`. @throws VioError (usage) */
export function barIndex(text: string): number {
  if (text.toLowerCase() === 'rom') return romRegion;
  if (!/^[0-5]$/.test(text)) throw usage(`not a BAR: "${printable(text)}"`, 'BARs are 0 to 5, and rom');
  return Number(text);
}

/**
 * Copies a range of a BAR by 4-byte accesses (a device need not answer others); both ends must be multiples of 4.
 * @param size to the end of the BAR unless given
 */
export function dumpRange(session: Space, index: number, offset: number, size: number | undefined): Buffer {
  const region = session.region(index);
  if (!region || region.size === 0n)
    throw new VioError(`${session.bdf}: no BAR ${index}`, { code: 'ENXIO', exit: Exit.usage, hint: `vioctl vfio show ${session.bdf}` });
  const count = size ?? Number(region.size) - offset;
  if (offset % word || count % word || count <= 0) throw usage('offset and size of a dump are multiples of 4');
  if (index === romRegion) return session.read(index, offset, count);
  const bytes = Buffer.alloc(count);
  for (let at = 0; at < count; at += word) bytes.writeUInt32LE(Number(session.load(index, offset + at, word)), at);
  return bytes;
}
