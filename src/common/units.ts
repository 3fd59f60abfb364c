import { usage } from './errors.js';

const factors: Record<string, bigint> = { '': 1n, K: 1n << 10n, M: 1n << 20n, G: 1n << 30n, T: 1n << 40n, P: 1n << 50n };

/** `whole.fraction` times a factor; undefined where that is no whole number. */
function scaled(whole: string, fraction: string, factor: bigint): bigint | undefined {
  const digits = BigInt(10 ** fraction.length);
  const product = BigInt(whole + fraction) * factor;
  return product % digits === 0n ? product / digits : undefined;
}

/**
 * Parses a size: `512`, `4K`, `1.5G`, `2T` (powers of 1024; `KiB`, `k` and `KB` are read as `K`) or `0x1000`. A fraction must
 * come to whole bytes.
 * @returns bytes
 * @throws VioError (usage) when the text is not a size or is above 2^63-1
 */
export function parseSizeBig(text: string): bigint {
  const hex = /^0x([0-9a-f]{1,16})$/i.exec(text);
  const dec = /^([0-9]{1,40})(?:\.([0-9]{1,6}))?([KMGTP]?)(i?B)?$/i.exec(text);
  const value = hex ? BigInt(text) : dec ? scaled(dec[1]!, dec[2] ?? '', factors[dec[3]!.toUpperCase()]!) : undefined;
  if (value === undefined) throw usage(`not a size: "${text}"`, 'sizes are 512, 4K, 64M, 1.5G, 2T or 0x1000');
  if (value > 0x7fff_ffff_ffff_ffffn) throw usage(`size too large: "${text}"`, 'at most 8191P');
  return value;
}

/** As parseSizeBig, for sizes that fit a double exactly (below 2^53). */
export function parseSize(text: string): number {
  const value = parseSizeBig(text);
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw usage(`size too large: "${text}"`, 'at most 8P');
  return Number(value);
}

/** Parses an unsigned 64-bit number, decimal or 0x… (IOVA, LBA, offset). */
export function parseU64(text: string): bigint {
  if (!/^(0x[0-9a-f]{1,16}|[0-9]{1,20})$/i.test(text)) throw usage(`not a number: "${text}"`, 'numbers are decimal or 0x…');
  const value = BigInt(text);
  if (value > 0xffff_ffff_ffff_ffffn) throw usage(`number above 64 bits: "${text}"`);
  return value;
}

/**
 * Parses a duration: `500ms`, `10s`, `2m`, `1h`; a bare number is seconds.
 * @returns milliseconds
 */
export function parseDuration(text: string): number {
  const match = /^([0-9]{1,9}(?:\.[0-9]{1,6})?)(ms|s|m|h)?$/.exec(text);
  if (!match) throw usage(`not a duration: "${text}"`, 'durations are 500ms, 10s, 2m, 1h');
  return Number(match[1]) * { ms: 1, s: 1000, m: 60_000, h: 3_600_000 }[(match[2] ?? 's') as 'ms'];
}

/** A duration as parseDuration reads it: `500ms`, `10s`, `2m`. @param ms milliseconds */
export function formatDuration(ms: number): string {
  for (const [unit, factor] of [
    ['h', 3_600_000],
    ['m', 60_000],
    ['s', 1000],
  ] as const)
    if (ms >= factor && ms % factor === 0) return `${ms / factor}${unit}`;
  return `${ms}ms`;
}

/** Bytes for people: `4K`, `1.5G`; exact multiples without a fraction. */
export function formatSize(bytes: number | bigint): string {
  let value = Number(bytes);
  for (const unit of ['', 'K', 'M', 'G', 'T']) {
    if (value < 1024) return `${Number.isInteger(value) ? value : value.toFixed(1)}${unit}`;
    value /= 1024;
  }
  return `${Number.isInteger(value) ? value : value.toFixed(1)}P`;
}

/** 64-bit values as the JSON contract wants them: `"0x…"`. */
export const hex64 = (value: bigint | number): string => `0x${value.toString(16)}`;

/** A count or size for JSON: a number where a double holds it exactly, else the bigint. */
export const exact = (value: bigint): number | bigint => (value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : value);

/** `1 device`, `2 devices`: a number and the noun that goes with it. @param many the plural, if it is not the noun with an s */
export const counted = (count: number, one: string, many = `${one}s`): string => `${count} ${count === 1 ? one : many}`;

/** A whole decimal number that a double holds exactly; undefined for any other text. */
export const parseDecimal = (text: string | undefined): number | undefined =>
  text !== undefined && /^\d{1,15}$/.test(text) ? Number(text) : undefined;
