/** What the notes of all architectures are made of: fields of a CPU's section as numbers, and numbers as bytes. */
import type { Fields } from '../devices/fields.js';
import type { Value } from '../stream/model.js';

export const big = (v: Value | undefined): bigint => {
  if (typeof v === 'bigint') return BigInt.asUintN(64, v);
  if (typeof v === 'number') return BigInt.asUintN(64, BigInt(Math.trunc(v)));
  // Fields of a type that nothing decodes are bytes in the order of the stream.
  return v instanceof Uint8Array && v.length <= 8 ? BigInt(`0x0${Buffer.from(v).toString('hex')}`) : 0n;
};

/** Element `i` of an array, or of one of which only the elements other than zero were kept. */
export function at(v: Value | undefined, i: number): bigint {
  if (Array.isArray(v)) return big(v[i]);
  const sparse = (v as { nonzero?: { [index: string]: Value } } | undefined)?.nonzero;
  return sparse ? big(sparse[String(i)]) : 0n;
}

export const list = (v: Value | undefined, count: number): bigint[] => Array.from({ length: count }, (_, i) => at(v, i));

/** A number of a note and its bytes. */
export type Word = readonly [value: bigint, bytes: number];
export const words = (values: readonly bigint[], bytes: number): Word[] => values.map((v) => [v, bytes] as const);
/** Bytes that have no meaning, or whose meaning nothing in the stream tells. */
export const zeros = (bytes: number): Word => [0n, bytes];

/** A note of a CPU beside NT_PRSTATUS. */
export interface CpuNote {
  name: 'CORE' | 'LINUX';
  type: number;
  words: Word[];
}

/** Registers of one architecture: those of elf_prstatus from pr_reg to its end, and the notes behind it. */
export interface Layout {
  bits: 32 | 64;
  registers: (f: Fields) => Word[];
  more?: (f: Fields) => CpuNote[];
}

/** A subsection of a CPU's state. */
export const sub = (f: Fields, name: string): Fields | undefined => {
  const inner = f[name];
  return inner !== null && typeof inner === 'object' && !Array.isArray(inner) && !(inner instanceof Uint8Array) ? inner : undefined;
};

export const wide = (high: bigint, low: bigint): bigint => (high << 64n) | low;

/** A note with the floating-point registers of an architecture (Linux include/uapi/linux/elf.h). */
export const NT_PRFPREG = 2;
