/**
 * Structures on the wire as tables of fields: name, offset, size and kind. Encode, decode and the size come from the
 * table, so that a structure is written down once. All numbers are little-endian, as everywhere in NVMe.
 */
import { Exit, VioError } from '../../common/errors.js';

/** Bytes from a peer that are not what the specification says. */
export class WireError extends VioError {
  /** Offset of the offending byte in the structure that was read. */
  readonly offset: number;

  constructor(message: string, offset: number) {
    super(message, { code: 'EPROTO', exit: Exit.damaged, details: { offset } });
    this.name = 'WireError';
    this.offset = offset;
  }
}

/** One field: where it lies and how its value is read and written. `at` is the start of the structure. */
export interface Field<T> {
  readonly offset: number;
  readonly size: number;
  readonly get: (bytes: Buffer, at: number) => T;
  readonly set: (bytes: Buffer, at: number, value: T) => void;
}

/** @param offset byte offset in the structure */
export const u8 = (offset: number): Field<number> => ({
  offset,
  size: 1,
  get: (b, at) => b.readUInt8(at + offset),
  set: (b, at, v) => b.writeUInt8(v, at + offset),
});
export const u16 = (offset: number): Field<number> => ({
  offset,
  size: 2,
  get: (b, at) => b.readUInt16LE(at + offset),
  set: (b, at, v) => b.writeUInt16LE(v, at + offset),
});
/** Three bytes (the IEEE OUI). */
export const u24 = (offset: number): Field<number> => ({
  offset,
  size: 3,
  get: (b, at) => b.readUIntLE(at + offset, 3),
  set: (b, at, v) => b.writeUIntLE(v, at + offset, 3),
});
export const u32 = (offset: number): Field<number> => ({
  offset,
  size: 4,
  get: (b, at) => b.readUInt32LE(at + offset),
  set: (b, at, v) => b.writeUInt32LE(v, at + offset),
});
export const u64 = (offset: number): Field<bigint> => ({
  offset,
  size: 8,
  get: (b, at) => b.readBigUInt64LE(at + offset),
  set: (b, at, v) => b.writeBigUInt64LE(v, at + offset),
});
/** Sixteen bytes as one number: SMART counters and capacities. */
export const u128 = (offset: number): Field<bigint> => ({
  offset,
  size: 16,
  get: (b, at) => b.readBigUInt64LE(at + offset) | (b.readBigUInt64LE(at + offset + 8) << 64n),
  set: (b, at, v) => {
    b.writeBigUInt64LE(v & 0xffff_ffff_ffff_ffffn, at + offset);
    b.writeBigUInt64LE(v >> 64n, at + offset + 8);
  },
});
/** `count` bits from bit `low` on of the little-endian number of `width` bytes at `offset`. Leaves the other bits alone. */
export const bits = (offset: number, width: 1 | 2 | 4, low: number, count: number): Field<number> => {
  const mask = 2 ** count - 1;
  return {
    offset,
    size: width,
    get: (b, at) => Math.floor(b.readUIntLE(at + offset, width) / 2 ** low) & mask,
    set: (b, at, v) => {
      if (!Number.isInteger(v) || v < 0 || v > mask) throw new RangeError(`${v} does not fit ${count} bits`);
      const old = b.readUIntLE(at + offset, width);
      const kept = old - (Math.floor(old / 2 ** low) & mask) * 2 ** low;
      b.writeUIntLE(kept + v * 2 ** low, at + offset, width);
    },
  };
};
/** ASCII padded with spaces to its size (serial number, model); read without the padding. Too long a text is cut. */
export const ascii = (offset: number, size: number): Field<string> => ({
  offset,
  size,
  get: (b, at) => b.toString('latin1', at + offset, at + offset + size).replace(/[ \0]+$/, ''),
  set: (b, at, v) => {
    b.fill(0x20, at + offset, at + offset + size);
    b.write(v.slice(0, size), at + offset, size, 'latin1');
  },
});
/** UTF-8 text ended by NUL (NQNs). Read up to the first NUL, or all of it when there is none: see `terminated`. */
export const text = (offset: number, size: number): Field<string> => ({
  offset,
  size,
  get: (b, at) => {
    const end = b.indexOf(0, at + offset);
    return b.toString('utf8', at + offset, end < 0 || end > at + offset + size ? at + offset + size : end);
  },
  set: (b, at, v) => {
    const data = Buffer.from(v, 'utf8');
    if (data.length > size) throw new RangeError(`text of ${data.length} bytes does not fit ${size}`);
    b.fill(0, at + offset, at + offset + size);
    data.copy(b, at + offset);
  },
});
/** True when the text field at `at` holds a NUL within its size. */
export const terminated = (field: Field<string>, bytes: Buffer, at = 0): boolean =>
  bytes.subarray(at + field.offset, at + field.offset + field.size).includes(0);
/** Bytes as they are; decode returns a copy. A shorter value is padded with zeroes. */
export const bytes = (offset: number, size: number): Field<Uint8Array> => ({
  offset,
  size,
  get: (b, at) => Buffer.from(b.subarray(at + offset, at + offset + size)),
  set: (b, at, v) => {
    if (v.length > size) throw new RangeError(`${v.length} bytes do not fit ${size}`);
    b.fill(0, at + offset, at + offset + size);
    b.set(v, at + offset);
  },
});
/** `count` 32-bit numbers in a row (command effects, namespace lists). Fewer may be given; the rest is zero. */
export const u32s = (offset: number, count: number): Field<number[]> => ({
  offset,
  size: 4 * count,
  get: (b, at) => Array.from({ length: count }, (_, i) => b.readUInt32LE(at + offset + 4 * i)),
  set: (b, at, v) => {
    if (v.length > count) throw new RangeError(`${v.length} numbers do not fit ${count}`);
    b.fill(0, at + offset, at + offset + 4 * count);
    for (const [i, n] of v.entries()) b.writeUInt32LE(n, at + offset + 4 * i);
  },
});
/** `count` structures in a row. */
export const structs = <S extends Fields>(offset: number, count: number, of: Struct<S>): Field<Values<S>[]> => ({
  offset,
  size: of.size * count,
  get: (b, at) => Array.from({ length: count }, (_, i) => of.decode(b, at + offset + of.size * i)),
  set: (b, at, v) => {
    if (v.length > count) throw new RangeError(`${v.length} structures do not fit ${count}`);
    b.fill(0, at + offset, at + offset + of.size * count);
    for (const [i, one] of v.entries()) of.encode(one, b, at + offset + of.size * i);
  },
});

// biome-ignore lint/suspicious/noExplicitAny: a table holds fields of all types; Values<> gives each its own again
export type Fields = Record<string, Field<any>>;
/** The decoded form of a table. */
export type Values<S extends Fields> = { [K in keyof S]: S[K] extends Field<infer T> ? T : never };

/** A structure of fixed size. */
export class Struct<S extends Fields> {
  readonly name: string;
  readonly size: number;
  readonly fields: S;
  readonly #entries: [keyof S, S[keyof S]][];

  /** @throws RangeError if a field of the table lies beyond the size: a mistake in the table itself */
  constructor(name: string, size: number, fields: S) {
    this.name = name;
    this.size = size;
    this.fields = fields;
    this.#entries = Object.entries(fields) as [keyof S, S[keyof S]][];
    for (const [key, field] of this.#entries)
      if (field.offset + field.size > size) throw new RangeError(`${name}.${String(key)} lies beyond ${size} bytes`);
  }

  /** Reads the structure at `at`. @throws WireError when fewer than `size` bytes are there */
  decode(from: Uint8Array, at = 0): Values<S> {
    const b = asBuffer(from);
    if (at < 0 || b.length - at < this.size)
      throw new WireError(`${this.name} needs ${this.size} bytes, ${Math.max(0, b.length - at)} are there`, b.length);
    const result = {} as Values<S>;
    for (const [key, field] of this.#entries) result[key] = field.get(b, at);
    return result;
  }

  /** Writes the given fields; without `into`, in new bytes that are zero elsewhere. @returns the bytes written to */
  encode(values: Partial<Values<S>>, into: Buffer = Buffer.alloc(this.size), at = 0): Buffer {
    if (into.length - at < this.size) throw new RangeError(`${this.name} needs ${this.size} bytes`);
    for (const [key, value] of Object.entries(values)) {
      const field = this.fields[key];
      if (!field) throw new RangeError(`${this.name} has no field ${key}`);
      if (value !== undefined) field.set(into, at, value);
    }
    return into;
  }

  /** Reads one field. */
  get<K extends keyof S>(from: Buffer, key: K, at = 0): Values<S>[K] {
    return this.fields[key]!.get(from, at);
  }

  /** Writes one field. */
  set<K extends keyof S>(into: Buffer, key: K, value: Values<S>[K], at = 0): void {
    this.fields[key]!.set(into, at, value);
  }
}

/** The same memory as a Buffer. */
export const asBuffer = (b: Uint8Array): Buffer => (Buffer.isBuffer(b) ? b : Buffer.from(b.buffer, b.byteOffset, b.byteLength));
