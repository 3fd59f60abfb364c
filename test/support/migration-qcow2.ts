// qcow2 images with internal snapshots, by the format's description, for tests that need one with something wrong.

/** What is otherwise in an image. */
export interface Change {
  header?: (b: Buffer) => void;
  /** the first entry of the snapshot table */
  entry?: (b: Buffer) => void;
  l1?: (b: Buffer) => void;
  l2?: (b: Buffer) => void;
  version?: 2 | 3;
  clusterBits?: number;
  /** extended L2 entries: subclusters of zeros are not allocated or read as zeros, and other bytes lie in their place */
  extended?: boolean;
  /** id and name of each snapshot: all share the VM state */
  snapshots?: readonly (readonly [id: string, name: string])[];
}
/** A qcow2 image with internal snapshots whose VM state is `state`. */
export function qcow2(state: Buffer, change: Change = {}): Buffer {
  const { version = 3, clusterBits = 16, snapshots = [['1', 'first']], extended = false } = change;
  const C = 1 << clusterBits;
  const entrySize = extended ? 16 : 8;
  const clusters = Math.ceil(state.length / C);
  const tables = Math.ceil(clusters / (C / entrySize));
  const data = 3 + tables; // header, snapshots, L1, L2 tables, then the VM state
  const image = Buffer.alloc((data + clusters) * C);
  image.write('QFI\xfb', 0, 'latin1');
  image.writeUInt32BE(version, 4);
  image.writeUInt32BE(clusterBits, 20);
  image.writeBigUInt64BE(BigInt(C), 24); // the disk: one cluster, so one L1 entry
  image.writeUInt32BE(snapshots.length, 60);
  image.writeBigUInt64BE(BigInt(C), 64);
  if (version === 3) image.writeUInt32BE(104, 100);
  if (extended) image.writeBigUInt64BE(0x10n, 72);
  change.header?.(image);
  let at = C;
  for (const [id, name] of snapshots) {
    const entry = image.subarray(at);
    const extra = version === 3 ? 16 : 0;
    entry.writeBigUInt64BE(BigInt(2 * C), 0);
    entry.writeUInt32BE(1 + tables, 8);
    entry.writeUInt16BE(id.length, 12);
    entry.writeUInt16BE(name.length, 14);
    entry.writeUInt32BE(state.length, 32);
    entry.writeUInt32BE(extra, 36);
    if (extra > 0) {
      entry.writeBigUInt64BE(BigInt(state.length), 40);
      entry.writeBigUInt64BE(BigInt(C), 48);
    }
    entry.write(id + name, 40 + extra);
    at += (40 + extra + id.length + name.length + 7) & ~7;
  }
  change.entry?.(image.subarray(C));
  const l1 = image.subarray(2 * C);
  for (let i = 0; i < tables; i++) l1.writeBigUInt64BE(BigInt((3 + i) * C), 8 + 8 * i); // behind the entry of the disk
  change.l1?.(l1);
  const l2 = image.subarray(3 * C);
  for (let i = 0; i < clusters; i++) l2.writeBigUInt64BE((1n << 63n) | BigInt((data + i) * C), i * entrySize);
  state.copy(image, data * C);
  for (let i = 0; extended && i < clusters * 32; i++) {
    const part = image.subarray(data * C + (i * C) / 32, data * C + ((i + 1) * C) / 32);
    const [zero, allocated] = [(i >> 5) * 16 + 8, (i >> 5) * 16 + 12];
    const bit = (at: number) => l2.writeUInt32BE((l2.readUInt32BE(at) | (1 << (i & 31))) >>> 0, at);
    if (!part.every((b) => b === 0)) bit(allocated);
    else {
      if (i % 2 === 0) bit(zero);
      part.fill(0xee);
    }
  }
  change.l2?.(l2);
  return image;
}
