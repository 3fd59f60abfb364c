/** The bytes of a field do not have the form that its type should have: the field is shown raw. */
export class BadForm extends Error {}

/** Reads a device's bytes in order; every read is checked. */
export class Cursor {
  readonly bytes: Buffer;
  at = 0;
  constructor(bytes: Buffer) {
    this.bytes = bytes;
  }
  get left(): number {
    return this.bytes.length - this.at;
  }
  /** The next n bytes. @throws BadForm when there are fewer */
  take(n: number): Buffer {
    if (n > this.left) throw new BadForm(`${n} bytes wanted, ${this.left} left`);
    this.at += n;
    return this.bytes.subarray(this.at - n, this.at);
  }
  u8(): number {
    return this.take(1)[0]!;
  }
  be16(): number {
    return this.take(2).readUInt16BE();
  }
  be32(): number {
    return this.take(4).readUInt32BE();
  }
  be64(): bigint {
    return this.take(8).readBigUInt64BE();
  }
  bool(): boolean {
    return this.u8() !== 0;
  }
}

/** `0x1af4` */
export const hex = (value: number, digits: number): string => `0x${value.toString(16).padStart(digits, '0')}`;

/** Bytes without the zeros at their end. */
export function trimZeros(bytes: Uint8Array): Uint8Array {
  let end = bytes.length;
  while (end > 0 && bytes[end - 1] === 0) end--;
  return bytes.subarray(0, end);
}
