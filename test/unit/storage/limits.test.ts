import { limitWords, parseRate, rateText } from '../../../src/storage/limits.js';
import { parseSourceText } from '../../../src/storage/source.js';

test.each([
  ['iops', '1000', { average: 1000, burst: 0, seconds: 1 }, '1000'],
  ['iops', '1000/4000', { average: 1000, burst: 4000, seconds: 1 }, '1000/4000'],
  ['iops', '1000/4000/10', { average: 1000, burst: 4000, seconds: 10 }, '1000/4000/10'],
  ['iops', '1000/4000/2m', { average: 1000, burst: 4000, seconds: 120 }, '1000/4000/120'],
  ['bps', '100M/0x10000000/1', { average: 100 << 20, burst: 256 << 20, seconds: 1 }, '100M/256M'],
  ['bps', '1.5K', { average: 1536, burst: 0, seconds: 1 }, '1536'],
  ['bps', 'none', undefined, 'none'],
] as const)('%s=%s', (name, text, rate, shown) => {
  expect(parseRate(name, text)).toEqual(rate);
  expect(rateText(name, rate)).toBe(shown);
  expect(parseRate(name, shown)).toEqual(rate);
});

test.each([
  ['iops', undefined],
  ['iops', ''],
  ['iops', '0'],
  ['iops', '1K'],
  ['iops', '-1'],
  ['iops', '1.5'],
  ['iops', '1000/'],
  ['iops', '1000/10'],
  ['iops', '1000/4000/0'],
  ['iops', '1000/4000/0.5s'],
  ['iops', '1000/4000/2h'],
  ['iops', '1000/4000/1/1'],
  ['bps', '0x8000000000000'],
  ['bps', 'fast'],
] as const)('%s=%s: wrong usage', (name, text) => {
  expect(() => parseRate(name, text)).toThrow(expect.objectContaining({ exit: 2 }));
});

test('behind a source, and as words of a command line', () => {
  expect(parseSourceText('/a,iops=10,bps=1M/2M')).toEqual({
    source: '/a',
    iops: { average: 10, burst: 0, seconds: 1 },
    bps: { average: 1 << 20, burst: 2 << 20, seconds: 1 },
  });
  expect(limitWords(['bps=none', 'iops=5'])).toEqual({ bps: 'none', iops: '5' });
  for (const words of [[], ['iops'], ['iops=1', 'iops=2'], ['size=1'], ['bps=x']])
    expect(() => limitWords(words)).toThrow(expect.objectContaining({ exit: 2 }));
});
