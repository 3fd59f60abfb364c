import type { Value } from './model.js';
import { BadForm, Cursor, nonzero, trimZeros } from './types/cursor.js';
import { irqState, msix, msixCount, pciConfig } from './types/pci.js';
import { virtio } from './types/virtio.js';
import { type DeviceDesc, type FieldDesc, type StateDesc, stateSize } from './vmdesc.js';

/** A device section with its fields. */
export interface Device {
  fields: { [name: string]: Value };
  /** false if the bytes ended before the description did */
  complete: boolean;
}

type Decode = (bytes: Buffer, field: FieldDesc) => Value;

const signed = (bytes: Buffer): Value => {
  if (bytes.length <= 6) return bytes.readIntBE(0, bytes.length);
  const value = bytes.readBigInt64BE();
  return Number.isSafeInteger(Number(value)) ? Number(value) : value.toString();
};
const unsigned = (bytes: Buffer): Value => (bytes.length <= 6 ? bytes.readUIntBE(0, bytes.length) : bytes.readBigUInt64BE());

/** Text if that is what a buffer holds: printable characters, then zeros. */
function text(bytes: Buffer): string | undefined {
  const end = bytes.indexOf(0);
  const chars = bytes.subarray(0, end < 0 ? bytes.length : end);
  if (chars.length < 2 || trimZeros(bytes).length !== chars.length) return undefined;
  return chars.every((b) => b >= 0x20 && b < 0x7f) ? chars.toString('latin1') : undefined;
}

/** Extended-precision float of an x87 register: 64-bit significand, sign and 15-bit exponent. */
function float80(significand: bigint, exponent: number): number {
  const sign = exponent & 0x8000 ? -1 : 1;
  const biased = exponent & 0x7fff;
  if (biased === 0x7fff) return (significand & ((1n << 63n) - 1n)) === 0n ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return sign * Number(significand) * 2 ** (biased - 16383 - 63);
}

/** `0-3,7`: the bits that are set in 64-bit big-endian words. */
function bits(bytes: Buffer): string {
  const runs: string[] = [];
  let start = -1;
  const count = bytes.length * 8;
  for (let i = 0; i <= count; i++) {
    // word i/64 is big-endian: its low bits are in its last byte
    const set = i < count && ((bytes[(i >> 6) * 8 + 7 - ((i & 63) >> 3)]! >> (i & 7)) & 1) === 1;
    if (set && start < 0) start = i;
    if (!set && start >= 0) {
      runs.push(start === i - 1 ? `${start}` : `${start}-${i - 1}`);
      start = -1;
    }
  }
  return runs.join(',');
}

/** Elements of a QTAILQ: 1 and an element each, then 0. All have the layout that the description has of the last. */
function list(bytes: Buffer, field: FieldDesc): Value {
  const c = new Cursor(bytes);
  const items: Value[] = [];
  while (c.u8() === 1) {
    if (!field.fields) throw new BadForm('no description of the elements');
    items.push(state(c.bytes.subarray(c.at), field as unknown as StateDesc, () => {}));
    c.take(stateSize(field as unknown as StateDesc));
  }
  if (c.left > 0) throw new BadForm('bytes behind the end of the list');
  return items;
}

/** Decoders by vmstate type. A type that is not here is shown as bytes. */
const decoders: Record<string, Decode> = {
  bool: (b) => b[0] !== 0,
  int8: signed,
  int16: signed,
  int32: signed,
  int64: signed,
  uint8: unsigned,
  uint16: unsigned,
  uint32: unsigned,
  uint64: unsigned,
  'int32 equal': signed,
  'int64 equal': signed,
  'uint8 equal': unsigned,
  'uint16 equal': unsigned,
  'uint32 equal': unsigned,
  // "le" is "less or equal": a check of QEMU's, not an order of bytes
  'int32 le': signed,
  CPU_Double_U: (b) => b.readDoubleBE(),
  float64: (b) => b.readDoubleBE(),
  timer: (b) => (b.readBigInt64BE() === -1n ? null : signed(b)),
  bitmap: (b) => bits(b),
  buffer: (b) => text(b) ?? b,
  unused_buffer: (b) => trimZeros(b),
  nullptr: () => null,
  'ptr-marker': (b) => b[0] !== 0x30,
  capability: (b) => b.subarray(1).toString('latin1'),
  qtailq: list,
  qlist: list,
  tmp: (b, field) => {
    const inner = state(b, field as unknown as StateDesc, () => {});
    const { tmp_mant: mant, tmp_exp: exp } = inner;
    return typeof mant === 'bigint' && typeof exp === 'number' ? { value: float80(mant, exp), significand: mant, exponent: exp } : inner;
  },
  'pci config': pciConfig,
  'pci irq state': (b) => irqState(new Cursor(b)),
  'msix state': (b) => msix(new Cursor(b), msixCount(b.length)),
  'scsi-requests': (b) => (b.length === 1 && b[0] === 0 ? [] : b),
  virtio,
};

/** One element of a field. */
function element(bytes: Buffer, field: FieldDesc, cut: () => void): Value {
  if (field.struct) return state(bytes, field.struct, cut);
  const decode = decoders[field.type];
  if (!decode) return bytes;
  try {
    return decode(bytes, field);
  } catch (err) {
    if (!(err instanceof BadForm) && !(err instanceof RangeError)) throw err;
    return bytes;
  }
}

/** A long array of numbers: the elements that are not zero, by index, if they are few. */
function sparse(bytes: Buffer, field: FieldDesc, count: number, cut: () => void): Value {
  const { size } = field;
  const set: [number, Value][] = [];
  for (const i of nonzero(bytes, 0, size, count)) set.push([i, element(bytes.subarray(i * size, (i + 1) * size), field, cut)]);
  if (set.length <= count / 4) return { count, nonzero: Object.fromEntries(set) };
  return Array.from({ length: count }, (_, i) => element(bytes.subarray(i * size, (i + 1) * size), field, cut));
}

/** All of a field: one element or an array of them. */
function value(bytes: Buffer, field: FieldDesc, cut: () => void): Value {
  const count = field.array_len;
  if (count === undefined) return element(bytes, field, cut);
  if (field.size === 1 && field.type === 'uint8' && count > 8) return text(bytes) ?? bytes;
  if (count > 64 && !field.struct && field.size <= 8) return sparse(bytes, field, count, cut);
  return Array.from({ length: count }, (_, i) => element(bytes.subarray(i * field.size, (i + 1) * field.size), field, cut));
}

/** The fields and subsections of a state. `cut` is called when the bytes end before it. */
function state(bytes: Buffer, desc: StateDesc, cut: () => void): { [name: string]: Value } {
  const out: { [name: string]: Value } = {};
  let at = 0;
  for (const field of desc.fields ?? []) {
    const size = field.size * (field.array_len ?? 1);
    if (at + size > bytes.length) {
      cut();
      return out;
    }
    const decoded = value(bytes.subarray(at, at + size), field, cut);
    at += size;
    if (field.type === 'unused_buffer' && (decoded as Uint8Array).length === 0) continue;
    const before = out[field.name];
    if (field.index !== undefined) {
      if (Array.isArray(before)) before.push(decoded);
      else out[field.name] = [decoded];
    } else {
      let name = field.name;
      for (let n = 2; name in out; n++) name = `${field.name}#${n}`;
      out[name] = decoded;
    }
  }
  for (const sub of desc.subsections ?? []) {
    const head = 6 + Buffer.byteLength(sub.vmsd_name, 'latin1');
    const size = stateSize(sub);
    if (at + head + size > bytes.length || bytes[at] !== 0x05) {
      cut();
      return out;
    }
    out[sub.vmsd_name] = state(bytes.subarray(at + head, at + head + size), sub, cut);
    at += head + size;
  }
  return out;
}

/** The fields of a device section by name, from its bytes and its description. Sizes must have been checked (stateSize). */
export function decodeDevice(desc: DeviceDesc, bytes: Buffer): Device {
  let complete = true;
  const fields = state(bytes, desc, () => {
    complete = false;
  });
  return { fields, complete };
}
