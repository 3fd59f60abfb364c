import fc from 'fast-check';
import { printable } from '../../../src/common/escape.js';
import { formatSize, hex64, parseDecimal, parseDuration, parseSize, parseSizeBig, parseU64 } from '../../../src/common/units.js';

test.each([
  ['512', 512],
  ['4K', 4096],
  ['4k', 4096],
  ['4KiB', 4096],
  ['64M', 67108864],
  ['1G', 1073741824],
  ['2T', 2199023255552],
  ['0x1000', 4096],
  ['0', 0],
  ['1.5G', 1610612736],
  ['0.25K', 256],
  ['2.000000M', 2097152],
])('size %s', (text, bytes) => expect(parseSize(text)).toBe(bytes));

test.each(['', '-1', '1.3', '1.1K', '1.', '4 K', 'K', '0x', '4Q', '1e9', '9007199254740993', '99999999999P'])(
  'size "%s" is refused',
  (text) => {
    expect(() => parseSize(text)).toThrow(expect.objectContaining({ exit: 2 }));
  },
);

test('sizes up to 2^63-1, numbers up to 2^64-1', () => {
  expect(parseSizeBig('0x7fffffffffffffff')).toBe(0x7fffffffffffffffn);
  expect(() => parseSizeBig('0x8000000000000000')).toThrow(expect.objectContaining({ exit: 2 }));
  expect(parseU64('18446744073709551615')).toBe(0xffffffffffffffffn);
  expect(() => parseU64('18446744073709551616')).toThrow(expect.objectContaining({ exit: 2 }));
  expect(hex64(0xfee00000n)).toBe('0xfee00000');
});

test.each([
  ['500ms', 500],
  ['10s', 10000],
  ['2m', 120000],
  ['1h', 3600000],
  ['1.5s', 1500],
  ['3', 3000],
])('duration %s', (text, ms) => expect(parseDuration(text)).toBe(ms));
test.each(['', '10 s', '-1s', '1d', 's'])('duration "%s" is refused', (text) =>
  expect(() => parseDuration(text)).toThrow(expect.objectContaining({ exit: 2 })),
);

test('formatSize', () => {
  expect([0, 1023, 1024, 1536, 1 << 30, 2 ** 50].map(formatSize)).toEqual(['0', '1023', '1K', '1.5K', '1G', '1P']);
});

test('printable leaves nothing that a terminal acts on', () => {
  expect(printable('nqn.a\x1b[31m\n\u202e\\')).toBe('nqn.a\\x1b[31m\\x0a\\u{202e}\\\\');
  fc.assert(fc.property(fc.string({ unit: 'binary' }), (text) => !/[\x00-\x1f\x7f-\x9f\u202a-\u202e]/.test(printable(text))));
});

test.each([
  ['0', 0],
  ['007', 7],
  ['999999999999999', 999_999_999_999_999],
])('a decimal number: %j', (text, value) => expect(parseDecimal(text)).toBe(value));
test.each([undefined, '', '-1', '+1', '1.5', '1e3', '0x10', ' 1', '1 ', '1\n', '1000000000000000', 'x'])('no decimal number: %j', (text) =>
  expect(parseDecimal(text)).toBeUndefined(),
);
