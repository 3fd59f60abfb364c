import { limits } from '../stream/format.js';
import type { Fields, Value } from '../stream/model.js';
import { BadForm, badForm, bitRuns, Cursor, nonzero, trimZeros } from './cursor.js';
import { irqState, msix, msixCount, pciConfig } from './pci.js';
import { virtio } from './virtio.js';
import { type DeviceDesc, type FieldDesc, type StateDesc, stateSize } from './vmdesc.js';

export type { Fields };

/** How many values without bytes may still be made: a small description can ask for any number of them, in arrays of arrays. */
export interface Allowance {
  left: number;
}

class FieldCursor extends Cursor {
  readonly empty: Allowance;
  /** name of the device's state */
  readonly device: string;
  constructor(bytes: Buffer, empty: Allowance, device = '') {
    super(bytes);
    this.empty = empty;
    this.device = device;
  }
}

/** A floating-point number; its bits where JSON has no form for it: NaN, which may carry more, infinity, negative zero. */
const real = (c: Cursor): Value => {
  const value = c.double();
  if (Number.isFinite(value) && !Object.is(value, -0)) return value;
  c.at -= 8;
  return c.be64();
};

/** A 64-bit number as a JavaScript number where that holds it. */
const signed64 = (c: Cursor): Value => {
  const value = BigInt.asIntN(64, c.be64());
  return Number.isSafeInteger(Number(value)) ? Number(value) : value.toString();
};

/** Numbers by vmstate type: bytes, and how they are read. */
const numbers = new Map<string, readonly [size: number, read: (c: Cursor) => Value]>([
  ['bool', [1, (c) => c.bool()]],
  ['ptr-marker', [1, (c) => c.u8() !== 0x30]],
  ['CPU_Double_U', [8, real]],
  ['float64', [8, real]],
  ['timer', [8, (c) => ((v) => (v === -1 ? null : v))(signed64(c))]],
  // "le" is "less or equal": a check of QEMU's, not an order of bytes
  ...['', ' equal', ' le'].flatMap((check): [string, readonly [number, (c: Cursor) => Value]][] => [
    [`int8${check}`, [1, (c) => (c.u8() << 24) >> 24]],
    [`int16${check}`, [2, (c) => (c.be16() << 16) >> 16]],
    [`int32${check}`, [4, (c) => c.be32() | 0]],
    [`int64${check}`, [8, signed64]],
    [`uint8${check}`, [1, (c) => c.u8()]],
    [`uint16${check}`, [2, (c) => c.be16()]],
    [`uint32${check}`, [4, (c) => c.be32()]],
    [`uint64${check}`, [8, (c) => c.be64()]],
  ]),
]);

/** Text if that is what a buffer holds: printable characters, then zeros. */
function text(bytes: Buffer): string | undefined {
  const chars = trimZeros(bytes);
  if (chars.length < 2) return undefined;
  for (const b of chars) if (b < 0x20 || b >= 0x7f) return undefined;
  return bytes.toString('latin1', 0, chars.length);
}

/** Extended-precision float of an x87 register: 64-bit significand, sign and 15-bit exponent. */
function float80(significand: bigint, exponent: number): number {
  const sign = exponent & 0x8000 ? -1 : 1;
  const biased = exponent & 0x7fff;
  if (biased === 0x7fff) return (significand & ((1n << 63n) - 1n)) === 0n ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return sign * Number(significand) * 2 ** (biased - 16383 - 63);
}

/** Runs of bits that are listed; a bitmap with more of them is shown as bytes, which are shorter. */
const maxRuns = 1 << 16;

/** The bits that are set in 64-bit big-endian words, as runs. Bits 8i to 8i + 7 are in byte 7 - i of their word. */
const bits = (bytes: Buffer): Value => bitRuns(bytes.length, (i) => bytes[i ^ 7] ?? 0, maxRuns) ?? bytes;

/** Elements of a QTAILQ: 1 and an element each, then 0. All have the layout that the description has of the last. */
function list(bytes: Buffer, field: FieldDesc, empty: Allowance): Value {
  const c = new FieldCursor(bytes, empty);
  const items: Value[] = [];
  const desc = field as unknown as StateDesc;
  const size = stateSize(desc);
  while (c.u8() === 1) {
    if (!field.fields) throw new BadForm('no description of the elements');
    const next = c.at + size;
    items.push(state(c, next, desc));
    c.at = next;
  }
  if (c.left > 0) throw new BadForm('bytes behind the end of the list');
  return items;
}

/** An x87 register, where the pieces are those of one; infinity and NaN by the pieces alone, since JSON has no form for them. */
function temporary(bytes: Buffer, field: FieldDesc, empty: Allowance): Value {
  const inner = state(new FieldCursor(bytes, empty), bytes.length, field as unknown as StateDesc);
  const { tmp_mant: mant, tmp_exp: exp } = inner;
  if (typeof mant !== 'bigint' || typeof exp !== 'number') return inner;
  const value = float80(mant, exp);
  return { ...(Number.isFinite(value) && { value }), significand: mant, exponent: exp };
}

/** Decoders of the other vmstate types, from the bytes of one element. A type that is not here is shown as bytes. */
const decoders = new Map<string, (bytes: Buffer, field: FieldDesc, empty: Allowance, device: string) => Value>([
  ['bitmap', bits],
  ['buffer', (b) => text(b) ?? b],
  ['unused_buffer', trimZeros],
  ['nullptr', () => null],
  ['capability', (b) => b.toString('latin1', 1)],
  ['qtailq', list],
  ['qlist', list],
  ['tmp', temporary],
  ['pci config', pciConfig],
  ['pci irq state', (b) => irqState(new Cursor(b))],
  ['msix state', (b) => msix(new Cursor(b), msixCount(b.length))],
  ['scsi-requests', (b) => (b.length === 1 && b[0] === 0 ? [] : b)],
  ['virtio', (b, _field, _empty, device) => virtio(b, device)],
]);

/** One element of a field; the cursor is moved behind it. */
function element(c: FieldCursor, field: FieldDesc): Value {
  const number = numbers.get(field.type);
  if (number !== undefined && number[0] === field.size && !field.struct) return number[1](c);
  const next = c.at + field.size;
  if (field.struct) {
    const inner = state(c, next, field.struct);
    c.at = next;
    return inner;
  }
  const bytes = c.take(field.size);
  const decode = decoders.get(field.type);
  if (!decode) return bytes;
  try {
    return decode(bytes, field, c.empty, c.device);
  } catch (err) {
    if (badForm(err) === undefined) throw err;
    return bytes;
  }
}

function array(c: FieldCursor, field: FieldDesc, count: number): Value[] {
  const elements: Value[] = [];
  for (let i = 0; i < count; i++) {
    if (field.size === 0 && --c.empty.left < 0) break;
    elements.push(element(c, field));
  }
  return elements;
}

/** A long array of numbers: the elements that are not zero, by index, if they are few. */
function sparse(c: FieldCursor, field: FieldDesc, count: number): Value {
  const from = c.at;
  const set: Fields = {};
  let many = 0;
  for (const i of nonzero(c.bytes, from, field.size, count)) {
    many += 1;
    c.at = from + i * field.size;
    if (many <= count / 4) set[i] = element(c, field);
    else break;
  }
  c.at = from;
  if (many > count / 4) return array(c, field, count);
  c.at += count * field.size;
  return { count, nonzero: set };
}

/** All of a field: one element or an array of them. The cursor is moved behind it. */
function value(c: FieldCursor, field: FieldDesc): Value {
  const count = field.array_len;
  if (count === undefined) return element(c, field);
  if (field.size === 1 && field.type === 'uint8' && count > 8) {
    const all = c.take(count);
    return text(all) ?? all;
  }
  if (count > 64 && !field.struct && field.size <= 8) return sparse(c, field, count);
  return array(c, field, count);
}

/** The next number of each name that a state has more than once: a hostile description has the same one a million times. */
const taken = new WeakMap<Fields, Map<string, number>>();

/** Adds a value under its name, or `name#2` where that is taken; what every object inherits ("constructor") is taken as well. */
function put(out: Fields, name: string, added: Value): void {
  if (!(name in out)) {
    out[name] = added;
    return;
  }
  const counts = taken.get(out) ?? new Map<string, number>();
  taken.set(out, counts);
  let n = counts.get(name) ?? 2;
  while (`${name}#${n}` in out) n++;
  out[`${name}#${n}`] = added;
  counts.set(name, n + 1);
}

/** The fields and subsections of a state that ends at `end`, as far as its bytes go. */
function state(c: FieldCursor, end: number, desc: StateDesc): Fields {
  const out: Fields = {};
  for (const field of desc.fields ?? []) {
    const size = field.size * (field.array_len ?? 1);
    if (c.at + size > end || (size === 0 && --c.empty.left < 0)) return out;
    const decoded = value(c, field);
    if (field.type === 'unused_buffer' && (decoded as Uint8Array).length === 0) continue;
    const before = field.index === undefined ? undefined : out[field.name];
    if (Array.isArray(before)) before.push(decoded);
    else put(out, field.name, field.index === undefined ? decoded : [decoded]);
  }
  for (const sub of desc.subsections ?? []) {
    const body = c.at + 6 + Buffer.byteLength(sub.vmsd_name, 'latin1');
    const next = body + stateSize(sub);
    if (next > end || c.bytes[c.at] !== 0x05) return out;
    c.at = body;
    put(out, sub.vmsd_name, state(c, next, sub));
    c.at = next;
  }
  return out;
}

/**
 * The fields of a device section by name, from its bytes and its description. Sizes must have been checked (stateSize).
 * @param allowance counted down for each value without bytes; below 0 there were more, and they are left out
 */
export const decodeDevice = (desc: DeviceDesc, bytes: Buffer, allowance: Allowance = { left: limits.empty }): Fields =>
  state(new FieldCursor(bytes, allowance, desc.vmsd_name), bytes.length, desc);
