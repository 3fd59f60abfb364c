/** Guessing where a record begins: for going on behind damage. */

const printableName = (bytes: Buffer): boolean => bytes.every((b) => b >= 0x20 && b <= 0x7e);

/** Length of a START or FULL header at `at` in `bytes` that looks right, or 0. */
export function sectionHeaderAt(bytes: Buffer, at: number): number {
  const type = bytes[at];
  if (type !== 0x01 && type !== 0x04) return 0;
  if (at + 6 > bytes.length) return 0;
  const length = bytes[at + 5]!;
  const end = at + 6 + length + 8;
  if (length === 0 || end > bytes.length) return 0;
  if (!printableName(bytes.subarray(at + 6, at + 6 + length))) return 0;
  // Ids, instances and versions that QEMU gives are small; instance ids of -1 never reach the stream.
  const id = bytes.readUInt32BE(at + 1);
  const version = bytes.readUInt32BE(end - 4);
  return id < 0x10000 && version < 0x1000 ? end - at : 0;
}

/**
 * Where the next record begins in `bytes`, from `from` on: behind a footer of a known section, or at a START or FULL.
 * @returns the index of the footer or header, or -1
 */
export function findRecord(bytes: Buffer, from: number, known: (id: number) => boolean): number {
  for (let at = from; at < bytes.length; at++) {
    const type = bytes[at]!;
    if (type === 0x7e && at + 5 <= bytes.length && known(bytes.readUInt32BE(at + 1))) return at;
    if ((type === 0x01 || type === 0x04) && sectionHeaderAt(bytes, at) > 0) return at;
  }
  return -1;
}
