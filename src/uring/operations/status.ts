/** What stat(2) tells. Times are nanoseconds since 1970. */
export interface Status {
  mode: number;
  size: bigint;
  blocks: bigint;
  blockSize: number;
  links: number;
  uid: number;
  gid: number;
  inode: bigint;
  device: { major: number; minor: number };
  accessed: bigint;
  modified: bigint;
  changed: bigint;
}

/** @param out struct statx */
export function decodeStatx(out: Buffer): Status {
  const time = (at: number): bigint => out.readBigInt64LE(at) * 1_000_000_000n + BigInt(out.readUInt32LE(at + 8));
  return {
    mode: out.readUInt16LE(28),
    size: out.readBigUInt64LE(40),
    blocks: out.readBigUInt64LE(48),
    blockSize: out.readUInt32LE(4),
    links: out.readUInt32LE(16),
    uid: out.readUInt32LE(20),
    gid: out.readUInt32LE(24),
    inode: out.readBigUInt64LE(32),
    device: { major: out.readUInt32LE(136), minor: out.readUInt32LE(140) },
    accessed: time(64),
    changed: time(96),
    modified: time(112),
  };
}
