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

/** Bodies of the tables with this signature: by signature and a length that fits, since the block has them one behind the other. */
function tables(bytes: Buffer, signature: string): Buffer[] {
  const found: Buffer[] = [];
  for (let at = bytes.indexOf(signature, 0, 'latin1'); at >= 0; at = bytes.indexOf(signature, at + 4, 'latin1')) {
    if (at + header > bytes.length) break;
    const length = bytes.readUInt32LE(at + 4);
    if (length >= header && at + length <= bytes.length) found.push(bytes.subarray(at, at + length));
  }
  return found;
}

/** Structures of type u8 and length u8, or u16 and u16, from `at` on. */
function* structures(table: Buffer, at: number, wide: boolean): Generator<{ type: number; body: Buffer }> {
  const head = wide ? 4 : 2;
  for (let i = at; i + head <= table.length; ) {
    const type = wide ? table.readUInt16LE(i) : table[i]!;
    const length = wide ? table.readUInt16LE(i + 2) : table[i + 1]!;
    if (length < head || i + length > table.length) return;
    yield { type, body: table.subarray(i, i + length) };
    i += length;
  }
}

/** Memory by the SRAT: enabled structures, as they come. */
export function sratMemory(bytes: Buffer): SratMemory[] {
  return tables(bytes, 'SRAT').flatMap((table) =>
    [...structures(table, header + 12, false)].flatMap(({ type, body }) => {
      if (type !== 1 || body.length < 40) return [];
      const flags = body.readUInt32LE(28);
      if (!(flags & 1)) return [];
      return [
        {
          address: body.readBigUInt64LE(8),
          length: body.readBigUInt64LE(16),
          hotpluggable: (flags & 2) !== 0,
          nonVolatile: (flags & 4) !== 0,
        },
      ];
    }),
  );
}

/** Ranges of persistent memory by the NFIT: its System Physical Address Range structures. */
export function nfitRanges(bytes: Buffer): MemoryRange[] {
  return tables(bytes, 'NFIT').flatMap((table) =>
    [...structures(table, header + 4, true)].flatMap(({ type, body }) =>
      type === 0 && body.length >= 56 ? [{ address: body.readBigUInt64LE(32), length: body.readBigUInt64LE(40) }] : [],
    ),
  );
}

/** Starts of the 64-bit memory windows of PCI hosts: QWord address space descriptors in the DSDT (ACPI 6.5, 6.4.3.5.1). */
export function windowStarts(bytes: Buffer): bigint[] {
  const descriptor = Buffer.from([0x8a, 0x2b, 0x00, 0x00]);
  const starts: bigint[] = [];
  for (let at = bytes.indexOf(descriptor); at >= 0 && at + 46 <= bytes.length; at = bytes.indexOf(descriptor, at + 1)) {
    starts.push(bytes.readBigUInt64LE(at + 14));
  }
  return starts;
}
