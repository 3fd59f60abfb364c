/** Pictures of numbers in text: bars of whole cells, which locale.ts spells as `#` and `:` without UTF-8. */

/** Cells of the longest bar next to other columns, on a narrow and on a wide terminal. */
const shortest = 6;
const longest = 24;

export const solid = '█';
/** For what cannot be used: reserved addresses. */
export const shaded = '░';

/** Cells for bars next to columns that take most of a line. @param room columns of the terminal */
export const barWidth = (room: number): number => Math.max(shortest, Math.min(longest, Math.floor(room / 6)));

/**
 * A bar in proportion to `value`, without the blanks behind it. Whatever is above zero has a cell, and only the greatest fills
 * the width. @param width in cells
 */
export function bar(value: number, greatest: number, width: number, fill = solid): string {
  if (!(value > 0) || !(greatest > 0)) return '';
  return fill.repeat(Math.max(1, Math.min(width, Math.floor((value / greatest) * width))));
}

/** A bar that begins where `from` lies between `start` and `end`, as on a time line. @param width of the line, in cells */
export function span(from: number, to: number, start: number, end: number, width: number): string {
  const at = (value: number) => (end > start ? Math.floor(((value - start) / (end - start)) * width) : 0);
  const first = Math.max(0, Math.min(width - 1, at(from)));
  const last = Math.max(first, Math.min(width - 1, at(to)));
  return ' '.repeat(first) + solid.repeat(last - first + 1);
}

/** One bar of a histogram: the values from `from` (included) to `to` (excluded). */
export interface Bucket {
  from: number;
  to: number;
  count: number;
}

/** Buckets of a histogram of evenly spread values, and the spread from which they grow instead. */
const evenBuckets = 10;
const wideSpread = 20;

/** 1, 2, 5, 10, 20, 50 …: the first that is not below `least`. */
function roundStep(least: number): number {
  const power = 10 ** Math.floor(Math.log10(least));
  return [1, 2, 5, 10].map((digit) => digit * power).find((step) => step >= least) ?? 10 * power;
}

/**
 * Counts values in buckets with round borders: of one size, or of sizes 1, 2, 5, 10 … where the greatest value is many times the
 * least. Every bucket between the least and the greatest value is given, also the empty ones. @param values at least 0
 * @param counts how often each value is there, if not once
 */
export function histogram(values: readonly number[], counts?: readonly number[]): Bucket[] {
  if (values.length === 0) return [];
  const least = values.reduce((a, b) => Math.min(a, b));
  const greatest = values.reduce((a, b) => Math.max(a, b));
  const borders: number[] = [];
  if (greatest > wideSpread * Math.max(1, least)) {
    let border = least < 1 ? 0 : 1;
    while (border > 0 && roundStep(border + border / 2) <= least) border = roundStep(border + border / 2);
    for (; border <= greatest; border = roundStep(border === 0 ? 1 : border + border / 2)) borders.push(border);
    borders.push(border);
  } else {
    const step = Math.max(1, roundStep(Math.max(1, (greatest - least) / evenBuckets)));
    let border = Math.floor(least / step) * step;
    for (; border <= greatest; border += step) borders.push(border);
    borders.push(border);
  }
  const buckets = borders.slice(1).map((to, i) => ({ from: borders[i]!, to, count: 0 }));
  for (const [i, value] of values.entries()) buckets.findLast(({ from }) => value >= from)!.count += counts?.[i] ?? 1;
  return buckets;
}

/** A histogram as lines: the range of each bucket, its count, and a bar. @param unit behind the ranges */
export function histogramLines(buckets: readonly Bucket[], unit: string, room: number): string[] {
  const ranges = buckets.map(({ from, to }) => `${from}-${to} ${unit}`);
  const wide = ranges.reduce((width, text) => Math.max(width, text.length), 0);
  const counts = buckets.reduce((width, { count }) => Math.max(width, String(count).length), 0);
  const most = buckets.reduce((max, { count }) => Math.max(max, count), 0);
  const width = Math.max(shortest, Math.min(2 * longest, room - wide - counts - 4));
  return buckets.map(({ count }, i) =>
    `${ranges[i]!.padStart(wide)}  ${String(count).padStart(counts)}  ${bar(count, most, width)}`.trimEnd(),
  );
}
