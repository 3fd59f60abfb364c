import { bar, barWidth, histogram, histogramLines, span } from '../../../../src/cli/output/bars.js';
import { toAscii } from '../../../../src/cli/output/locale.js';

test('a bar is in proportion, never empty for a value above zero, and full for the greatest alone', () => {
  expect([0, 1, 50, 99, 100].map((n) => bar(n, 100, 10).length)).toEqual([0, 1, 5, 9, 10]);
  for (const [value, greatest] of [
    [0, 0],
    [Number.NaN, 1],
    [-1, 5],
  ] as const)
    expect(bar(value, greatest, 10)).toBe('');
  expect(bar(7, 5, 10)).toHaveLength(10);
});

test('bars are ASCII where the locale is', () => {
  expect(toAscii(`${bar(1, 1, 3)}${bar(1, 1, 2, '░')}`)).toBe('###::');
});

test('bars leave room for text on every terminal', () => {
  expect([40, 80, 120, 400].map(barWidth)).toEqual([6, 13, 20, 24]);
});

test('a span lies on its line, whatever its times are', () => {
  expect(span(0, 10, 0, 10, 10)).toBe('█'.repeat(10));
  expect(span(5, 5, 0, 10, 10)).toBe('     █');
  expect(span(10, 10, 0, 10, 10)).toBe('         █');
  for (const [from, to, start, end] of [
    [3, 3, 3, 3],
    [5, 1, 0, 10],
    [-50, 500, 0, 10],
    [0, 1e300, 0, 1e-300],
  ] as const)
    expect(span(from, to, start, end, 8)).toMatch(/^ {0,7}█+$/);
});

describe('histogram', () => {
  test.each([
    ['equal values', [7, 7, 7]],
    ['close values', [410, 455, 470, 620]],
    ['an outlier', [90, 100, 110, 65_000]],
    ['zero and more', [0, 1, 3, 900]],
    ['fractions', [0.1, 0.5, 0.9]],
    ['large', [1e9, 2e9, 4e15]],
  ])('%s: each value is in one bucket, the buckets touch, and are few', (_, values) => {
    const buckets = histogram(values);
    expect(buckets.map(({ from, to }) => values.filter((v) => v >= from && v < to).length)).toEqual(buckets.map(({ count }) => count));
    expect(buckets.reduce((sum, { count }) => sum + count, 0)).toBe(values.length);
    expect(buckets.slice(1).map(({ from }) => from)).toEqual(buckets.slice(0, -1).map(({ to }) => to));
    expect(buckets.length).toBeLessThanOrEqual(30);
    expect(buckets[0]!.count * buckets.at(-1)!.count).toBeGreaterThan(0);
  });

  test('values that are there several times count so often', () => {
    const values = [410, 455, 470, 620];
    const counts = [3, 0, 7, 1];
    const each = values.flatMap((v, i) => Array.from({ length: counts[i]! }, () => v));
    expect(histogram(values, counts)).toEqual(histogram(each));
  });

  test('nothing has no buckets', () => expect(histogram([])).toEqual([]));

  test.each([40, 80, 200])('the lines fit %d columns', (room) => {
    const lines = histogramLines(histogram([90, 100, 110, 65_000]), 'us', room);
    for (const line of lines) expect(line.length).toBeLessThanOrEqual(room);
    expect(lines.filter((line) => line.includes('█'))).toHaveLength(3);
  });
});
