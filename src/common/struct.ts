/**
 * Structures on the wire as tables of fields. Size, encoder, decoder and TypeScript type come from the table, so that a
 * structure is written down once. All numbers are little-endian.
 *
 * Two ways to write a table: `new Struct(name, size, fields)`, whose fields say where they lie, for structures with gaps
 * in a fixed size (NVMe); `struct(name, fields)`, whose fields follow each other, for messages that fields fill to the
 * last byte, with counted parts at the end if need be (vhost-user).
 */
import { Exit, VioError } from './errors.js';

/** Bytes from a peer that are not what the specification says: exit 5. */
export class WireError extends VioError {
  /** Offset of the offending byte in the structure that was read. */
  readonly offset: number;

  constructor(message: string, offset: number) {
    super(message, { code: 'EPROTO', exit: Exit.damaged, details: { offset } });
    this.name = 'WireError';
    this.offset = offset;
  }
}

/** One field: how its value is read and written. `at` is where the field lies in the bytes. */
export interface Field<T> {
  /** In the structure; undefined: behind the field before it. */
  readonly offset: number | undefined;
  /** Bytes; undefined where an earlier field of the same structure counts them. */
  readonly size: number | undefined;
  /** For documentation and generated code: `u64`, `char[8]`. */
  readonly type: string;
  readonly get: (bytes: Buffer, at: number, before: Record<string, unknown>) => T;
  readonly set: (bytes: Buffer, at: number, value: T) => void;
  /** Bytes of a counted value. @param before the fields that were read already, for reading */
  readonly measure?: (value: T) => number;
}

/** Bytes that carry nothing: written as zeroes, not returned. */
export interface Pad {
  readonly pad: number;
}

const field = <T>(
  offset: number | undefined,
  size: number,
  type: string,
  get: (bytes: Buffer, at: number) => T,
  set: (bytes: Buffer, at: number, value: T) => void,
): Field<T> => ({ offset, size, type, get, set });

/** @param offset byte offset in the structure; none where fields follow each other */
export const u8 = (offset?: number): Field<number> =>
  field(
    offset,
    1,
    'u8',
    (b, at) => b.readUInt8(at),
    (b, at, v) => b.writeUInt8(v, at),
  );
export const u16 = (offset?: number): Field<number> =>
  field(
    offset,
    2,
    'u16',
    (b, at) => b.readUInt16LE(at),
    (b, at, v) => b.writeUInt16LE(v, at),
  );
/** Three bytes (the IEEE OUI). */
export const u24 = (offset?: number): Field<number> =>
  field(
    offset,
    3,
    'u24',
    (b, at) => b.readUIntLE(at, 3),
    (b, at, v) => b.writeUIntLE(v, at, 3),
  );
export const u32 = (offset?: number): Field<number> =>
  field(
    offset,
    4,
    'u32',
    (b, at) => b.readUInt32LE(at),
    (b, at, v) => b.writeUInt32LE(v, at),
  );
export const u64 = (offset?: number): Field<bigint> =>
  field(
    offset,
    8,
    'u64',
    (b, at) => b.readBigUInt64LE(at),
    (b, at, v) => b.writeBigUInt64LE(v, at),
  );
/** Sixteen bytes as one number: SMART counters and capacities. */
export const u128 = (offset?: number): Field<bigint> =>
  field(
    offset,
    16,
    'u128',
    (b, at) => b.readBigUInt64LE(at) | (b.readBigUInt64LE(at + 8) << 64n),
    (b, at, v) => {
      b.writeBigUInt64LE(v & 0xffff_ffff_ffff_ffffn, at);
      b.writeBigUInt64LE(v >> 64n, at + 8);
    },
  );
/** `count` bits from bit `low` on of the little-endian number of `width` bytes at `offset`. Leaves the other bits alone. */
export const bits = (offset: number, width: 1 | 2 | 4, low: number, count: number): Field<number> => {
  const mask = 2 ** count - 1;
  return field(
    offset,
    width,
    `u${width * 8}:${low}+${count}`,
    (b, at) => Math.floor(b.readUIntLE(at, width) / 2 ** low) & mask,
    (b, at, v) => {
      if (!Number.isInteger(v) || v < 0 || v > mask) throw new RangeError(`${v} does not fit ${count} bits`);
      const old = b.readUIntLE(at, width);
      const kept = old - (Math.floor(old / 2 ** low) & mask) * 2 ** low;
      b.writeUIntLE(kept + v * 2 ** low, at, width);
    },
  );
};
/** ASCII padded with spaces to its size (serial number, model); read without the padding. Too long a text is cut. */
export const ascii = (size: number, offset?: number): Field<string> =>
  field(
    offset,
    size,
    `char[${size}]`,
    (b, at) => b.toString('latin1', at, at + size).replace(/[ \0]+$/, ''),
    (b, at, v) => {
      b.fill(0x20, at, at + size);
      b.write(v.slice(0, size), at, size, 'latin1');
    },
  );
/** UTF-8 text ended by NUL (NQNs). Read up to the first NUL, or all of it when there is none: see `terminated`. */
export const text = (size: number, offset?: number): Field<string> =>
  field(
    offset,
    size,
    `char[${size}]`,
    (b, at) => {
      const end = b.indexOf(0, at);
      return b.toString('utf8', at, end < 0 || end > at + size ? at + size : end);
    },
    (b, at, v) => {
      const data = Buffer.from(v, 'utf8');
      if (data.length > size) throw new RangeError(`text of ${data.length} bytes does not fit ${size}`);
      b.fill(0, at, at + size);
      data.copy(b, at);
    },
  );
/** True when the text field of a structure at `at` holds a NUL within its size. */
export const terminated = (of: Field<string>, bytes: Buffer, at = 0): boolean =>
  bytes.subarray(at + (of.offset ?? 0), at + (of.offset ?? 0) + (of.size ?? 0)).includes(0);
/** Bytes as they are; decode returns a copy. A shorter value is padded with zeroes. */
export const bytes = (size: number, offset?: number): Field<Uint8Array> =>
  field<Uint8Array>(
    offset,
    size,
    `u8[${size}]`,
    (b, at) => Buffer.from(b.subarray(at, at + size)),
    (b, at, v) => {
      if (v.length > size) throw new RangeError(`${v.length} bytes do not fit ${size}`);
      b.fill(0, at, at + size);
      b.set(v, at);
    },
  );

/** `count` numbers in a row. Fewer may be given; the rest is zero. */
const row = <T>(one: Field<T>, count: number, offset?: number): Field<T[]> => {
  const each = one.size as number;
  return field(
    offset,
    each * count,
    `${one.type}[${count}]`,
    (b, at) => Array.from({ length: count }, (_, i) => one.get(b, at + each * i, {})),
    (b, at, v) => {
      if (v.length > count) throw new RangeError(`${v.length} numbers do not fit ${count}`);
      b.fill(0, at, at + each * count);
      for (const [i, n] of v.entries()) one.set(b, at + each * i, n);
    },
  );
};
/** `count` 32-bit numbers in a row (command effects, namespace lists). */
export const u32s = (count: number, offset?: number): Field<number[]> => row(u32(), count, offset);
export const u64s = (count: number, offset?: number): Field<bigint[]> => row(u64(), count, offset);
/** `count` structures in a row. */
export const structs = <S extends Fields>(of: Struct<S>, count: number, offset?: number): Field<Values<S>[]> =>
  row(nested(of), count, offset);

/** A structure within another. */
export const nested = <S extends Fields>(of: Struct<S>, offset?: number): Field<Values<S>> =>
  field(
    offset,
    of.size,
    of.name,
    (b, at) => of.readAt(b, at).value,
    (b, at, v) => void of.encode(v as never, b, at),
  );

/** Bytes counted by an earlier field. */
export const bytesOf = (counter: string): Field<Uint8Array> => ({
  offset: undefined,
  size: undefined,
  type: `u8[${counter}]`,
  get: (b, at, before) => {
    const size = before[counter] as number;
    if (size > b.length - at) throw new WireError(`${counter} says ${size} bytes, ${b.length - at} are there, at byte ${at}`, at);
    return Buffer.from(b.subarray(at, at + size));
  },
  set: (b, at, v) => b.set(v, at),
  measure: (v) => v.length,
});

/** Structures counted by an earlier field. */
export const listOf = <S extends Fields>(counter: string, of: Struct<S>): Field<Values<S>[]> => ({
  offset: undefined,
  size: undefined,
  type: `${of.name}[${counter}]`,
  get: (b, at, before) => {
    const count = before[counter] as number;
    if (count > (b.length - at) / of.size)
      throw new WireError(`${counter} says ${count} entries of ${of.size} bytes, ${b.length - at} bytes are there, at byte ${at}`, at);
    return Array.from({ length: count }, (_, i) => of.readAt(b, at + i * of.size).value);
  },
  set: (b, at, v) => {
    for (const [i, one] of v.entries()) of.encode(one as never, b, at + i * of.size);
  },
  measure: (v) => v.length * of.size,
});

export const pad = (size: number): Pad => ({ pad: size });

// biome-ignore lint/suspicious/noExplicitAny: a table holds fields of all types; Values<> gives each its own again
export type Fields = Record<string, Field<any> | Pad>;
/** The decoded form of a table. */
export type Values<S extends Fields> = {
  // biome-ignore lint/suspicious/noExplicitAny: see Fields
  [K in keyof S as S[K] extends Pad ? never : K]: Extract<S[K], Field<any>> extends Field<infer T> ? T : never;
};
/** The decoded form of a structure. */
// biome-ignore lint/suspicious/noExplicitAny: whatever its table is
export type ValuesOf<T extends Struct<any>> = T extends Struct<infer S> ? Values<S> : never;

const isPad = (of: Field<unknown> | Pad): of is Pad => 'pad' in of;

export class Struct<S extends Fields = Fields> {
  readonly name: string;
  /** Bytes, without counted parts. */
  readonly size: number;
  readonly fields: S;
  /** Whether it has counted parts behind the fixed one. */
  readonly variable: boolean;
  /** Whether it fills the bytes that it is read from: more are an error. */
  readonly exact: boolean;
  /** Padding at the end that some peers leave out: a decoder takes both sizes. */
  readonly optional: number;
  readonly #entries: [key: string, field: Field<unknown>, offset: number][] = [];

  /** @throws RangeError if a field of the table lies beyond the size: a mistake in the table itself */
  constructor(name: string, size: number, fields: S, exact = false, optional = 0) {
    this.name = name;
    this.size = size;
    this.fields = fields;
    this.exact = exact;
    this.optional = optional;
    let next = 0;
    for (const [key, one] of Object.entries(fields)) {
      if (isPad(one)) {
        next += one.pad;
        continue;
      }
      const offset = one.offset ?? next;
      next = offset + (one.size ?? 0);
      if (next > size) throw new RangeError(`${name}.${key} lies beyond ${size} bytes`);
      this.#entries.push([key, one, offset]);
    }
    this.variable = this.#entries.some(([, one]) => one.size === undefined);
  }

  /** Reads one at `at`, counted parts included. @throws WireError when the bytes end before it does */
  readAt(b: Buffer, at: number): { value: Values<S>; size: number } {
    if (at < 0 || b.length - at < this.size)
      throw new WireError(`${this.name} needs ${this.size} bytes, ${Math.max(0, b.length - at)} are there`, b.length);
    const value: Record<string, unknown> = {};
    let counted = 0;
    for (const [key, one, offset] of this.#entries) {
      value[key] = one.get(b, at + offset + counted, value);
      if (one.measure) counted += one.measure(value[key]);
    }
    return { value: value as Values<S>, size: this.size + counted };
  }

  /** Reads the structure at `at`. @throws WireError when bytes are missing; if it is exact, also when some are left over */
  decode(from: Uint8Array, at = 0): Values<S> {
    let b = asBuffer(from);
    if (this.optional > 0 && b.length - at === this.size - this.optional) b = Buffer.concat([b], b.length + this.optional);
    const { value, size } = this.readAt(b, at);
    if (this.exact && at + size !== b.length)
      throw new WireError(`${this.name} ends, ${b.length - at - size} bytes are left over, at byte ${at + size}`, at + size);
    return value;
  }

  /** Writes the given fields; without `into`, in new bytes that are zero elsewhere. @returns the bytes written to */
  encode(values: Partial<Values<S>>, into?: Buffer, at = 0): Buffer {
    const given = values as Record<string, unknown>;
    let counted = 0;
    if (this.variable)
      for (const [key, one] of this.#entries) if (one.measure && given[key] !== undefined) counted += one.measure(given[key]);
    const b = into ?? Buffer.alloc(this.size + counted);
    if (b.length - at < this.size + counted) throw new RangeError(`${this.name} needs ${this.size + counted} bytes`);
    for (const key of Object.keys(given)) if (!(key in this.fields)) throw new RangeError(`${this.name} has no field ${key}`);
    counted = 0;
    for (const [key, one, offset] of this.#entries) {
      if (given[key] === undefined) continue;
      one.set(b, at + offset + counted, given[key]);
      if (one.measure) counted += one.measure(given[key]);
    }
    return b;
  }

  /** Reads one field. */
  get<K extends keyof Values<S>>(from: Buffer, key: K, at = 0): Values<S>[K] {
    const one = this.fields[key as string] as Field<Values<S>[K]>;
    return one.get(from, at + one.offset!, {});
  }

  /** Writes one field. */
  set<K extends keyof Values<S>>(into: Buffer, key: K, value: Values<S>[K], at = 0): void {
    const one = this.fields[key as string] as Field<Values<S>[K]>;
    one.set(into, at + one.offset!, value);
  }

  /** The fields in the order of the table, and where they lie. */
  layout(): readonly [key: string, field: Field<unknown>, offset: number][] {
    return this.#entries;
  }
}

/** A structure whose fields follow each other and fill it. @param optional padding at its end that may be missing */
export const struct = <S extends Fields>(name: string, fields: S, optional = 0): Struct<S> =>
  new Struct(
    name,
    Object.values(fields).reduce((sum, one) => sum + (isPad(one) ? one.pad : (one.size ?? 0)), 0),
    fields,
    true,
    optional,
  );

/** The same memory as a Buffer. */
export const asBuffer = (b: Uint8Array): Buffer => (Buffer.isBuffer(b) ? b : Buffer.from(b.buffer, b.byteOffset, b.byteLength));
