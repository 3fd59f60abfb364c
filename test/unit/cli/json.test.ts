import fc from 'fast-check';
import { toJson } from '../../../src/cli/output.js';

test('what JSON has comes out as JSON.stringify writes it, pretty or on one line', () => {
  fc.assert(
    fc.property(fc.jsonValue(), (value) => {
      expect(toJson(value)).toBe(JSON.stringify(value));
      expect(toJson(value, 2)).toBe(JSON.stringify(value, undefined, 2));
    }),
  );
});

test('bytes of any kind are hex, 64-bit values strings, undefined left out', () => {
  const bytes = Buffer.from([0, 0xab, 0xff, 1]);
  const value = { a: bytes, b: bytes.subarray(1, 3), c: new Uint8Array([7]), d: 255n, e: undefined, f: [undefined, Number.NaN, []], g: {} };
  expect(toJson(value)).toBe('{"a":"00abff01","b":"abff","c":"07","d":"0xff","f":[null,null,[]],"g":{}}');
  expect(toJson({ size: 255n, len: 1n << 60n, length: 0n, offset: 0n, sizes: [1n] })).toBe(
    '{"size":255,"len":"0x1000000000000000","length":0,"offset":"0x0","sizes":["0x1"]}',
  );
  expect(toJson({ at: new Date(0) })).toBe('{"at":"1970-01-01T00:00:00.000Z"}');
  expect(toJson(undefined)).toBe('null');
});

test('the forms are gone when the text is made, also after a failure', () => {
  const loop: { self?: unknown } = {};
  loop.self = loop;
  expect(() => toJson(loop)).toThrow(/circular/);
  expect(JSON.stringify(Buffer.from([1]))).toBe('{"type":"Buffer","data":[1]}');
  expect(JSON.stringify(new Uint8Array([1]))).toBe('{"0":1}');
  expect(() => JSON.stringify(1n)).toThrow(TypeError);
});
