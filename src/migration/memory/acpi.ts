/** ACPI tables that QEMU keeps in a RAM block: what they say about the guest's memory (ACPI 6.5, 5.2.16 and 5.2.25). */

/** A range of physical memory. */
export interface MemoryRange {
  address: bigint;
  length: bigint;
}

/** A memory affinity structure of the SRAT. */
export interface SratMemory extends MemoryRange {
  hotpluggable: boolean;
  nonVolatile: boolean;
}

/** The block that holds the tables, and how much of it is looked at. */
export const acpiBlock = '/rom@etc/acpi/tables';
export const acpiMost = 16 << 20;

const header = 36;

/** Tables with this signature and a length that fits, since the block has them one behind the other. No byte is in two of them. */
function* tables(bytes: Buffer, signature: string): Generator<Buffer> {
  for (let at = bytes.indexOf(signature, 0, 'latin1'); at >= 0 && at + header <= bytes.length; ) {
    const length = bytes.readUInt32LE(at + 4);
    const fits = length >= header && at + length <= bytes.length;
    if (fits) yield bytes.subarray(at, at + length);
    at = bytes.indexOf(signature, at + (fits ? length : 4), 'latin1');
  }
}

/** Structures of this type and at least this size; they have type and length as u8, or as u16, and begin at `from`. */
function* structures(table: Buffer, from: number, wide: boolean, wanted: number, least: number): Generator<Buffer> {
  const head = wide ? 4 : 2;
  for (let at = from; at + head <= table.length; ) {
    const type = wide ? table.readUInt16LE(at) : table[at]!;
    const length = wide ? table.readUInt16LE(at + 2) : table[at + 1]!;
    if (length < head || at + length > table.length) return;
    if (type === wanted && length >= least) yield table.subarray(at, at + length);
    at += length;
  }
}

/** Memory by the SRAT: enabled structures, as they come. */
export function sratMemory(bytes: Buffer): SratMemory[] {
  const found: SratMemory[] = [];
  for (const table of tables(bytes, 'SRAT')) {
    for (const body of structures(table, header + 12, false, 1, 40)) {
      const flags = body.readUInt32LE(28);
      const range = { address: body.readBigUInt64LE(8), length: body.readBigUInt64LE(16) };
      if (flags & 1) found.push({ ...range, hotpluggable: (flags & 2) !== 0, nonVolatile: (flags & 4) !== 0 });
    }
  }
  return found;
}

/** Ranges of persistent memory by the NFIT: its System Physical Address Range structures. */
export function nfitRanges(bytes: Buffer): MemoryRange[] {
  const found: MemoryRange[] = [];
  for (const table of tables(bytes, 'NFIT'))
    for (const body of structures(table, header + 4, true, 0, 56))
      found.push({ address: body.readBigUInt64LE(32), length: body.readBigUInt64LE(40) });
  return found;
}

/** Whether a PCI host has a 64-bit memory window from `start` on: QWord address space descriptors in the DSDT (ACPI 6.5, 6.4.3.5.1). */
export function hasWindowAt(bytes: Buffer, start: bigint): boolean {
  const descriptor = Buffer.from([0x8a, 0x2b, 0x00, 0x00]);
  for (let at = bytes.indexOf(descriptor); at >= 0 && at + 46 <= bytes.length; at = bytes.indexOf(descriptor, at + 1))
    if (bytes.readBigUInt64LE(at + 14) === start) return true;
  return false;
}
