/** The bytes of a field do not have the form that its type should have: the field is shown raw. */
export class BadForm extends Error {}

/** What an error says of the form, if it is about that; DataView and Buffer tell of missing bytes by a RangeError. */
export function badForm(err: unknown): string | undefined {
  if (err instanceof RangeError) return 'fewer bytes than its form has';
  return err instanceof BadForm ? err.message : undefined;
}

/**
 * Reads a device's bytes in order; every read is checked and throws what badForm() knows when there are fewer. No slice per
 * value, and no more than the least bytecode: a guest has thousands, and V8 would begin to optimise for the rest of 50 ms.
 */
export class Cursor {
  readonly bytes: Buffer;
  readonly #view: DataView;
  at = 0;
  constructor(bytes: Buffer) {
    this.bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  }
  get left(): number {
    return this.bytes.length - this.at;
  }
  /** The next n bytes. */
  take(n: number): Buffer {
    if (n > this.left) throw new BadForm(`${n} bytes wanted, ${this.left} left`);
    this.at += n;
    return this.bytes.subarray(this.at - n, this.at);
  }
  u8(): number {
    const value = this.#view.getUint8(this.at);
    this.at += 1;
    return value;
  }
  be16(): number {
    const value = this.#view.getUint16(this.at);
    this.at += 2;
    return value;
  }
  be32(): number {
    const value = this.#view.getUint32(this.at);
    this.at += 4;
    return value;
  }
  be64(): bigint {
    const value = this.#view.getBigUint64(this.at);
    this.at += 8;
    return value;
  }
  double(): number {
    const value = this.#view.getFloat64(this.at);
    this.at += 8;
    return value;
  }
  bool(): boolean {
    return this.u8() !== 0;
  }
}

/** `0x1af4` */
export const hex = (value: number, digits: number): string => `0x${value.toString(16).padStart(digits, '0')}`;

/**
 * `0-3,7`: the bits that are set, as runs; undefined if there are more of those than `most`.
 * @param byteOf the byte that holds bits 8i to 8i + 7, the lowest first
 */
export function bitRuns(bytes: number, byteOf: (i: number) => number, most = Number.POSITIVE_INFINITY): string | undefined {
  const runs: string[] = [];
  let start = -1;
  for (let i = 0; i <= bytes; i++) {
    const byte = i < bytes ? byteOf(i) : 0;
    if (byte === (start < 0 ? 0 : 0xff)) continue; // nothing begins or ends in it
    for (let bit = i * 8; bit < i * 8 + 8; bit++) {
      const set = ((byte >> (bit & 7)) & 1) === 1;
      if (set === start >= 0) continue;
      if (set) start = bit;
      else {
        if (runs.length === most) return undefined;
        runs.push(start === bit - 1 ? `${start}` : `${start}-${bit - 1}`);
        start = -1;
      }
    }
  }
  return runs.join(',');
}

const zeros = Buffer.alloc(4096);

/** Bytes without the zeros at their end, of which there may be many: blocks are compared at once. */
export function trimZeros(bytes: Uint8Array): Uint8Array {
  let end = bytes.length;
  for (let block = zeros.length; block >= 32; block >>= 1)
    while (end >= block && zeros.compare(bytes, end - block, end, 0, block) === 0) end -= block;
  while (end > 0 && bytes[end - 1] === 0) end--;
  return bytes.subarray(0, end);
}

/** True if the bytes are all zero; false also for more than are compared at once. */
const allZero = (bytes: Buffer, at: number, length: number): boolean =>
  length <= zeros.length && bytes.compare(zeros, 0, length, at, at + length) === 0;

/**
 * Indices of the entries that are not all zero among `count` of `size` bytes each from `at` on, in order. Large parts are
 * compared at once: tables for 1024 queues hold three. `some`: it is known that there is one.
 */
export function* nonzero(bytes: Buffer, at: number, size: number, count: number, first = 0, some = false): Generator<number> {
  if (count === 0 || (!some && allZero(bytes, at, size * count))) return;
  if (count === 1) {
    yield first;
    return;
  }
  const half = count >> 1;
  const none = allZero(bytes, at, size * half);
  if (!none) yield* nonzero(bytes, at, size, half, first, size * half <= zeros.length);
  yield* nonzero(bytes, at + size * half, size, count - half, first + half, none && (some || size * count <= zeros.length));
}
