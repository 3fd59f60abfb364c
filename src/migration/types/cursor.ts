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
  /** Moves on by n bytes. @returns where they begin. @throws BadForm when there are fewer */
  #pass(n: number): number {
    if (n > this.left) throw new BadForm(`${n} bytes wanted, ${this.left} left`);
    this.at += n;
    return this.at - n;
  }
  // No slice per value: a virtio device has thousands.
  u8(): number {
    return this.bytes[this.#pass(1)]!;
  }
  be16(): number {
    return this.bytes.readUInt16BE(this.#pass(2));
  }
  be32(): number {
    return this.bytes.readUInt32BE(this.#pass(4));
  }
  be64(): bigint {
    return this.bytes.readBigUInt64BE(this.#pass(8));
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

const ZEROS = Buffer.alloc(4096);

/**
 * Indices of the entries that are not all zero among `count` of `size` bytes each from `at` on, in order. Large parts are
 * compared at once: tables for 1024 queues hold three.
 */
export function* nonzero(bytes: Buffer, at: number, size: number, count: number, first = 0): Generator<number> {
  const length = size * count;
  if (count === 0 || (length <= ZEROS.length && bytes.compare(ZEROS, 0, length, at, at + length) === 0)) return;
  if (count === 1) {
    yield first;
    return;
  }
  const half = count >> 1;
  yield* nonzero(bytes, at, size, half, first);
  yield* nonzero(bytes, at + size * half, size, count - half, first + half);
}
