import { Exit, VioError } from '../../common/errors.js';

/**
 * Fixed layouts as tables of fields. One definition gives the size, the decoder, the encoder and the TypeScript type.
 * vhost-user is in the byte order of the host; all hosts that vioctl runs on (x86-64, arm64) are little-endian.
 */

/** A field: how it is read and written, and its size in bytes where that is fixed. */
export interface Field<T> {
  /** Bytes; undefined where another field of the same struct counts it. */
  readonly size: number | undefined;
  /** For documentation: `u64`, `bytes`. */
  readonly type: string;
  read(view: DataView, at: number, before: Record<string, unknown>): { value: T; size: number };
  write(value: T): Uint8Array;
}

/** Bytes that carry nothing: written as zeroes, not returned. */
export interface Pad {
  readonly pad: number;
}

export type Fields = Record<string, Field<unknown> | Pad>;
type Value<F> = F extends Field<infer T> ? T : never;
type Kept<F extends Fields> = { [K in keyof F as F[K] extends Pad ? never : K]: Value<F[K]> };
/** The values of a struct definition. */
export type Values<S> = S extends Struct<infer F> ? Kept<F> : never;

/** Bytes that do not fit the layout: exit 5, with the offset at which the reader stood. */
export class DecodeError extends VioError {
  readonly offset: number;
  constructor(what: string, offset: number) {
    super(`${what} at byte ${offset}`, { code: 'EPROTO', exit: Exit.damaged, details: { offset } });
    this.name = 'DecodeError';
    this.offset = offset;
  }
}

const scalar = <T>(size: number, read: (view: DataView, at: number) => T, set: (view: DataView, value: T) => void): Field<T> => ({
  size,
  type: `u${size * 8}`,
  read: (view, at) => ({ value: read(view, at), size }),
  write: (value) => {
    const bytes = new Uint8Array(size);
    set(new DataView(bytes.buffer), value);
    return bytes;
  },
});

export const u8: Field<number> = scalar(
  1,
  (v, at) => v.getUint8(at),
  (v, n) => v.setUint8(0, n),
);
export const u16: Field<number> = scalar(
  2,
  (v, at) => v.getUint16(at, true),
  (v, n) => v.setUint16(0, n, true),
);
export const u32: Field<number> = scalar(
  4,
  (v, at) => v.getUint32(at, true),
  (v, n) => v.setUint32(0, n, true),
);
export const u64: Field<bigint> = scalar(
  8,
  (v, at) => v.getBigUint64(at, true),
  (v, n) => v.setBigUint64(0, n, true),
);
export const pad = (size: number): Pad => ({ pad: size });

/** Exactly `size` bytes. */
export const bytes = (size: number): Field<Uint8Array> => ({
  size,
  type: `u8[${size}]`,
  read: (view, at) => ({ value: new Uint8Array(view.buffer, view.byteOffset + at, size).slice(), size }),
  write: (value) => {
    if (value.length !== size) throw new RangeError(`field takes ${size} bytes, not ${value.length}`);
    return value;
  },
});

/** A name in `size` bytes, filled up with NUL. */
export const text = (size: number): Field<string> => ({
  size,
  type: `char[${size}]`,
  read: (view, at) => ({
    value: Buffer.from(view.buffer, view.byteOffset + at, size)
      .toString('utf8')
      .replace(/\0.*$/s, ''),
    size,
  }),
  write: (value) => {
    const out = new Uint8Array(size);
    const data = Buffer.from(value, 'utf8');
    if (data.length > size) throw new RangeError(`field takes ${size} bytes, not ${data.length}`);
    out.set(data);
    return out;
  },
});

/** A fixed number of u64. */
export const u64s = (count: number): Field<bigint[]> => ({
  size: count * 8,
  type: `u64[${count}]`,
  read: (view, at) => ({ value: Array.from({ length: count }, (_, i) => view.getBigUint64(at + i * 8, true)), size: count * 8 }),
  write: (value) => {
    if (value.length > count) throw new RangeError(`field takes ${count} numbers, not ${value.length}`);
    const out = new DataView(new ArrayBuffer(count * 8));
    value.forEach((n, i) => {
      out.setBigUint64(i * 8, n, true);
    });
    return new Uint8Array(out.buffer);
  },
});

/** Bytes counted by an earlier field. */
export const bytesOf = (counter: string): Field<Uint8Array> => ({
  size: undefined,
  type: `u8[${counter}]`,
  read: (view, at, before) => {
    const size = before[counter] as number;
    if (size > view.byteLength - at) throw new DecodeError(`${counter} says ${size} bytes, ${view.byteLength - at} are there`, at);
    return { value: new Uint8Array(view.buffer, view.byteOffset + at, size).slice(), size };
  },
  write: (value) => value,
});

/** Structs counted by an earlier field. */
export const listOf = <F extends Fields>(counter: string, item: Struct<F>): Field<Kept<F>[]> => ({
  size: undefined,
  type: `${item.name}[${counter}]`,
  read: (view, at, before) => {
    const count = before[counter] as number;
    const each = item.size;
    if (count > (view.byteLength - at) / each)
      throw new DecodeError(`${counter} says ${count} entries of ${each} bytes, ${view.byteLength - at} bytes are there`, at);
    const value = Array.from({ length: count }, (_, i) => item.readAt(view, at + i * each).value);
    return { value, size: count * each };
  },
  write: (value) => Buffer.concat(value.map((v) => item.encode(v))),
});

/** A struct nested in another. */
export const nested = <F extends Fields>(item: Struct<F>): Field<Kept<F>> => ({
  size: item.size,
  type: item.name,
  read: (view, at) => item.readAt(view, at),
  write: (value) => item.encode(value),
});

const isPad = (field: Field<unknown> | Pad): field is Pad => 'pad' in field;

/** A layout: a name for documentation and its fields in order. */
export class Struct<F extends Fields = Fields> {
  readonly name: string;
  readonly fields: F;
  /** Bytes of the fixed part: the smallest size. */
  readonly size: number;
  /** Whether it has counted parts behind the fixed one. */
  readonly variable: boolean;
  /** Padding at the end that some peers leave out: a decoder takes both sizes. */
  readonly optional: number;

  constructor(name: string, fields: F, optional = 0) {
    this.optional = optional;
    this.name = name;
    this.fields = fields;
    const all = Object.values(fields);
    this.size = all.reduce((sum, f) => sum + (isPad(f) ? f.pad : (f.size ?? 0)), 0);
    this.variable = all.some((f) => !isPad(f) && f.size === undefined);
  }

  /** Reads one struct at an offset. @throws DecodeError when the bytes end before it does */
  readAt(view: DataView, start: number): { value: Kept<F>; size: number } {
    if (view.byteLength - start < this.size)
      throw new DecodeError(`${this.name} takes ${this.size} bytes, ${view.byteLength - start} are there`, start);
    const values: Record<string, unknown> = {};
    let at = start;
    for (const [key, field] of Object.entries(this.fields)) {
      if (isPad(field)) {
        at += field.pad;
        continue;
      }
      const { value, size } = field.read(view, at, values);
      values[key] = value;
      at += size;
    }
    return { value: values as Kept<F>, size: at - start };
  }

  /** Reads a struct that fills the bytes exactly. @throws DecodeError when they are too few or too many */
  decode(data: Uint8Array): Kept<F> {
    if (this.optional > 0 && data.byteLength === this.size - this.optional) data = Buffer.concat([data], this.size);
    const { value, size } = this.readAt(new DataView(data.buffer, data.byteOffset, data.byteLength), 0);
    if (size !== data.byteLength) throw new DecodeError(`${this.name} ends, ${data.byteLength - size} bytes are left over`, size);
    return value;
  }

  /** Bytes of the values; padding is zero. */
  encode(values: Kept<F>): Uint8Array {
    return Buffer.concat(
      Object.entries(this.fields).map(([key, field]) =>
        isPad(field) ? new Uint8Array(field.pad) : field.write((values as Record<string, unknown>)[key]),
      ),
    );
  }
}

/** Defines a layout. @param optional padding at its end that may be missing */
export const struct = <F extends Fields>(name: string, fields: F, optional = 0): Struct<F> => new Struct(name, fields, optional);
