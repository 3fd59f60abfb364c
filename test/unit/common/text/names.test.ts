import fc from 'fast-check';
import { harmless, printable, shellWord } from '../../../../src/common/escape.js';
import { toJson } from '../../../../src/common/json.js';
import { bytesOfName, textOfName } from '../../../../src/common/text/names.js';

const name = fc.uint8Array({ minLength: 1, maxLength: 40 }).map((bytes) => Buffer.from(bytes.map((byte) => byte || 1)));
/** Bytes that are nearly UTF-8: parts of characters, overlong forms, surrogates and what is above U+10FFFF between whole characters. */
const broken = fc
  .array(
    fc.constantFrom(
      'é',
      '€',
      '😀',
      'a',
      '\xff',
      '\xc3',
      '\x80',
      '\xc0\xaf',
      '\xed\xa0\x80',
      '\xf4\x90\x80\x80',
      '\xe2\x82',
      '\xf0\x9f\x98',
    ),
  )
  .map((parts) => Buffer.concat(parts.map((part) => Buffer.from(part, /^[é€😀a]$/u.test(part) ? 'utf8' : 'latin1'))));

test('names come back as they were, whatever their bytes', () => {
  fc.assert(
    fc.property(fc.oneof(name, broken), (bytes) => {
      const text = textOfName(bytes);
      expect((bytesOfName(text) ?? Buffer.from(text, 'utf8')).toString('hex')).toBe(bytes.toString('hex'));
    }),
    { numRuns: 2000 },
  );
});

test('names that are UTF-8 are the text that they say', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), (text) => {
      expect(textOfName(Buffer.from(text, 'utf8'))).toBe(text.toWellFormed());
      expect(bytesOfName(text.toWellFormed())).toBeUndefined();
    }),
  );
});

test.each([
  ['ff', '\udcff'],
  ['636166e9', 'caf\udce9'],
  ['c0af', '\udcc0\udcaf'],
  ['eda080', '\udced\udca0\udc80'],
  ['f09f98', '\udcf0\udc9f\udc98'],
  ['f09f988061', '😀a'],
])('%s', (hex, text) => {
  expect(textOfName(Buffer.from(hex, 'hex'))).toBe(text);
});

test('a surrogate that stands for no byte is none', () => {
  expect(bytesOfName('\ud800')).toBeUndefined();
  expect(bytesOfName('\udc00x')).toBeUndefined();
});

test('messages show the bytes, hints can be pasted, and JSON has them as hex', () => {
  const text = 'caf\udce9 \\';
  expect(printable(text)).toBe('caf\\xe9 \\\\');
  expect(harmless('n\udcff')).toBe('n\\xff');
  expect(shellWord(text)).toBe("$'caf\\xe9 \\x5c'");
  expect(JSON.parse(toJson({ path: 'n\udcff', list: ['n\udcff'], other: 'n' }))).toEqual({
    ...{ path: 'n\ufffd', pathHex: '6eff', list: ['n\ufffd'], other: 'n' },
  });
  expect(toJson({ path: 'n\udcff' }, 0, true)).toBe('{"path":"n\\udcff"}');
});
