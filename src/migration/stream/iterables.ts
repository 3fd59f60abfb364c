/** Bodies of iterable sections other than `ram`: they say themselves where they end. */
import { limits, Type } from './format.js';
import type { Detail } from './model.js';
import type { StreamReader } from './reader.js';

/** A body that breaks its format. */
export class BadBody extends Error {
  readonly at: number;
  readonly expected: string;
  readonly found: string;
  constructor(at: number, message: string, expected: string, found: string) {
    super(message);
    this.at = at;
    this.expected = expected;
    this.found = found;
  }
}

type Body = (reader: StreamReader, record: 'start' | 'part' | 'end' | 'full') => Detail;

/** dirty-bitmap v1 (QEMU migration/block-dirty-bitmap.c): records of flags and what they announce, until EOS. */
function dirtyBitmap(reader: StreamReader): Detail {
  const bitmaps: { node: string; name: string; granularity: number; flags: number }[] = [];
  let node = '';
  let name = '';
  let records = 0;
  let bytes = 0;
  for (;;) {
    const at = reader.position;
    let flags = reader.u8('dirty-bitmap flags');
    if (flags & 0x80) {
      flags = ((flags & 0x7f) << 8) | reader.u8('dirty-bitmap flags');
      if (flags & 0x4000) flags = ((flags & 0x3fff) << 16) | reader.be16('dirty-bitmap flags');
    }
    records += 1;
    if (flags & 0x08) node = reader.string8('dirty-bitmap node alias');
    if (flags & 0x04) name = reader.string8('dirty-bitmap name');
    if (flags & 0x01) {
      if (flags !== 0x01) throw new BadBody(at, 'dirty-bitmap: EOS with other flags', '0x01', `0x${flags.toString(16)}`);
      break;
    }
    if (flags & 0x10) {
      if (bitmaps.length === limits.bitmaps)
        throw new BadBody(at, 'dirty-bitmap: more bitmaps than a guest has', `at most ${limits.bitmaps}`, 'one more');
      const granularity = reader.be32('dirty-bitmap granularity');
      bitmaps.push({ node, name, granularity, flags: reader.u8('dirty-bitmap flags') });
    } else if (flags & 0x40) {
      reader.be64('dirty-bitmap first sector');
      reader.be32('dirty-bitmap sectors');
      if (!(flags & 0x02)) {
        const size = reader.be64('dirty-bitmap size');
        reader.skip(size, 'dirty-bitmap bits');
        bytes += Number(size);
      }
    } else if (!(flags & 0x20) || flags & ~0x2c) {
      throw new BadBody(at, 'dirty-bitmap: unknown flags', 'EOS, START, COMPLETE or BITS', `0x${flags.toString(16)}`);
    }
  }
  return { records, bytes, ...(bitmaps.length > 0 && { bitmaps }) };
}

/** block v1 (disk contents; up to QEMU 9.0). */
function block(reader: StreamReader): Detail {
  let chunks = 0;
  let zero = 0;
  const devices = new Set<string>();
  for (;;) {
    const at = reader.position;
    const word = reader.be64('block header');
    const flags = Number(word & 0x1ffn);
    if (flags & 0x01) {
      devices.add(reader.string8('block device name'));
      if (flags & 0x08) zero += 1;
      else reader.skip(1 << 20, 'block chunk');
      chunks += 1;
    } else if (flags & 0x02) {
      return { chunks, zero, devices: [...devices] };
    } else if (!(flags & 0x04)) {
      throw new BadBody(at, 'block: unknown flags', 'DEVICE_BLOCK, EOS or PROGRESS', `0x${flags.toString(16)}`);
    }
  }
}

/** spapr/htab v1 (the hash page table of pseries). */
function htab(reader: StreamReader): Detail {
  const header = reader.be32('htab header');
  if (header === 0xffffffff) return { hpt: false };
  if (header > 0) return { hashShift: header };
  let valid = 0;
  let invalid = 0;
  for (;;) {
    const index = reader.be32('htab index');
    const some = reader.be16('htab valid');
    const gone = reader.be16('htab invalid');
    if (index === 0 && some === 0 && gone === 0) return { valid, invalid };
    reader.skip(some * 16, 'htab entries');
    valid += some;
    invalid += gone;
  }
}

/** States of a page by the low bits of its storage attribute, and the bit of a page without DAT tables (Linux asm/pgtable.h, _PGSTE_GPS). */
const usages = ['stable', 'unused', 'potentiallyVolatile', 'volatile'] as const;
const noDatFlag = 0x40;

/** s390-storage_attributes: a byte for each page of the runs that are sent (QEMU hw/s390x/s390-stattrib.c). */
function storageAttributes(reader: StreamReader): Detail {
  let bytes = 0;
  const counts = [0, 0, 0, 0];
  let noDat = 0;
  let first: bigint | undefined;
  const detail = (): Detail => ({
    bytes,
    ...(first !== undefined && { first }),
    ...Object.fromEntries(usages.flatMap((name, i) => (counts[i]! > 0 ? [[name, counts[i]!]] : []))),
    ...(noDat > 0 && { noDat }),
  });
  for (;;) {
    const at = reader.position;
    const header = reader.be64('storage attributes header');
    const flags = Number(header & 0xfffn);
    if (flags & 0x04) throw new BadBody(at, 'storage attributes: the source reported an error', 'no ERROR flag', `0x${flags.toString(16)}`);
    if (flags & 0x02) {
      const count = Number(reader.be64('storage attributes count'));
      first ??= header & ~0xfffn;
      for (const piece of reader.pieces(count, 'storage attributes')) {
        for (const attribute of piece) {
          counts[attribute & 3]! += 1;
          if (attribute & noDatFlag) noDat += 1;
        }
      }
      bytes += count;
    } else if (flags & 0x08) {
      // DONE: an EOS may follow, or the footer at once
      if (reader.next(1) === Type.footer) return { ...detail(), done: true };
    } else if (flags & 0x01) {
      return detail();
    } else {
      throw new BadBody(at, 'storage attributes: unknown flags', 'EOS, MORE or DONE', `0x${flags.toString(16)}`);
    }
  }
}

const vfioEnd = Buffer.from('ffffffffef100001', 'hex');

/** Goes to the next END_OF_STATE word of a VFIO device. @throws StreamEnd */
function toVfioEnd(reader: StreamReader): void {
  // The next word is mostly near: a stream full of them is not looked at 64 KiB at a time.
  for (let most = 4 << 10; ; most = 64 << 10) {
    const bytes = reader.peek(most);
    const found = bytes.indexOf(vfioEnd);
    if (found >= 0) {
      reader.skip(found, 'VFIO device configuration');
      return;
    }
    const last = bytes.length < most;
    reader.skip(last ? bytes.length : bytes.length - vfioEnd.length + 1, 'VFIO device configuration');
    if (last) reader.skip(1, 'VFIO device configuration'); // which tells why it ends
  }
}

/** VFIO device state (QEMU hw/vfio/migration.c): flag words until END_OF_STATE. */
function vfio(reader: StreamReader): Detail {
  const detail: { data: number; config?: number; initialDataSent?: boolean } = { data: 0 };
  for (;;) {
    const at = reader.position;
    const word = reader.be64('VFIO state flags');
    if (word >> 32n !== 0xffffffffn) throw new BadBody(at, 'vfio: not a flags word', '0xffffffffef10000x', `0x${word.toString(16)}`);
    switch (word & 0xffffffffn) {
      case 0xef100001n:
        return detail as Detail;
      case 0xef100002n: {
        // The PCI device's configuration has no length: it ends at the END_OF_STATE word.
        const from = reader.position;
        toVfioEnd(reader);
        detail.config = reader.position - from;
        break;
      }
      case 0xef100003n: // SETUP
        break;
      case 0xef100004n: {
        const size = reader.be64('VFIO data size');
        reader.skip(size, 'VFIO device data');
        detail.data += Number(size);
        break;
      }
      case 0xef100005n:
        detail.initialDataSent = true;
        break;
      default:
        throw new BadBody(at, 'vfio: unknown flags', '0xffffffffef10000[1-5]', `0x${word.toString(16)}`);
    }
  }
}

/** pbs-state of Proxmox: be64 length and bytes. */
function lengthAndBytes(reader: StreamReader): Detail {
  const size = reader.be64('length');
  reader.skip(size, 'bytes');
  return { bytes: Number(size) };
}

/** Whether a section is the state of a VFIO device. */
export const isVfio = (name: string): boolean => name.endsWith('/vfio') || name === 'vfio';

/** The parser of an iterable section's body, by its idstr. */
export function iterableBody(name: string): Body | undefined {
  if (name === 'dirty-bitmap') return dirtyBitmap;
  if (name === 'block') return block;
  if (name === 'spapr/htab') return htab;
  if (name === 's390-storage_attributes') return storageAttributes;
  if (name === 'pbs-state') return lengthAndBytes;
  if (isVfio(name)) return vfio;
  return undefined;
}
