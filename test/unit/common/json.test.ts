import fc from 'fast-check';
import { toJson } from '../../../src/common/json.js';

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
    '{"size":255,"len":1152921504606846976,"length":0,"offset":"0x0","sizes":["0x1"]}',
  );
  const counts = { capacity: 8n, total: 1n, max_size: 2n, pageSize: 3n, errorCount: 4n, nr_blocks: 5n };
  expect(JSON.parse(toJson(counts))).toEqual({ capacity: 8, total: 1, max_size: 2, pageSize: 3, errorCount: 4, nr_blocks: 5 });
  const words = { features: 1n, guest_cid: 2n, blockset: 3n, sizeOf: 4n };
  expect(JSON.parse(toJson(words))).toEqual({ features: '0x1', guest_cid: '0x2', blockset: '0x3', sizeOf: '0x4' });
  expect(toJson({ at: new Date(0) })).toBe('{"at":"1970-01-01T00:00:00.000Z"}');
  expect(toJson(undefined)).toBe('null');
});

test('sizes above 2^53 in full, at any depth and with any indent; other 64-bit values beside them as ever', () => {
  const big = (1n << 63n) + 1n;
  const value = {
    a: [{ size: big, at: big, note: `"${big}"` }, { bytes: 0n }],
    b: Buffer.from([1]),
    c: undefined,
    d: [undefined],
    e: {},
    f: [],
  };
  const text = `{"a":[{"size":${big},"at":"0x8000000000000001","note":"\\"${big}\\""},{"bytes":0}],"b":"01","d":[null],"e":{},"f":[]}`;
  expect(toJson(value)).toBe(text);
  // the same document, only laid out
  expect(toJson(value, 2).replace(/\n */g, '').replaceAll('": ', '":')).toBe(text);
  expect(toJson(value, 2).split('\n').slice(0, 4)).toEqual(['{', '  "a": [', '    {', `      "size": ${big},`]);
  fc.assert(
    fc.property(fc.jsonValue(), (other) => {
      for (const indent of [0, 2]) {
        const both = toJson({ size: big, other }, indent);
        expect(both).toBe(
          JSON.stringify({ size: 0, other }, undefined, indent).replace(/"size":( ?)0/, (_all, blank) => `"size":${blank}${big}`),
        );
      }
    }),
  );
});

test('keys of any name, values shared and not, control characters of both sets', () => {
  expect(toJson(JSON.parse('{"__proto__":{"a":1}}'))).toBe('{"__proto__":{"a":1}}');
  const own = Object.fromEntries([
    ['__proto__', { a: 1n }],
    ['b', 2n],
  ]);
  expect(toJson(own)).toBe('{"__proto__":{"a":"0x1"},"b":"0x2"}');
  expect(Object.getOwnPropertyDescriptor(own, '__proto__')?.value).toEqual({ a: 1n });
  const shared = { at: 1n };
  expect(toJson([shared, shared])).toBe('[{"at":"0x1"},{"at":"0x1"}]');
  expect(shared).toEqual({ at: 1n });
  expect(toJson('\x00\x1b\x7f\x9b')).toBe('"\\u0000\\u001b\\u007f\\u009b"');
});

test('nothing is left in the prototypes, and a value that contains itself is refused', () => {
  const loop: { self?: unknown; size?: bigint } = {};
  loop.self = loop;
  expect(() => toJson(loop)).toThrow(/circular/);
  expect(() => JSON.stringify(1n)).toThrow(TypeError);
  expect(JSON.stringify(Buffer.from([1]))).toBe('{"type":"Buffer","data":[1]}');
});

test('documents have the same values as lines, whatever the way they are written', () => {
  const documents: unknown[] = [
    { at: 1n, size: 2n, list: [3n, Buffer.from([4]), new Uint8Array([5]), null, undefined], deep: { length: 1n << 60n } },
    { path: 'n\udcff', list: ['n\udcff'], literal: '\\ud800', bytes: 7n },
    { at: { toJSON: () => 8n }, when: new Date(0), words: new BigUint64Array([9n]), none: undefined },
    1n,
    'x\ud800',
    Buffer.from([1]),
    undefined,
  ];
  for (const one of documents) expect(JSON.parse(toJson(one, 2))).toEqual(JSON.parse(toJson(one)));
  expect(toJson({ path: 'n\udcff', at: 1n }, 2, true)).toBe('{\n  "path": "n\\udcff",\n  "at": "0x1"\n}');
  const loop: { self?: unknown; at: bigint } = { at: 1n };
  loop.self = loop;
  expect(() => toJson(loop, 2)).toThrow(/circular/);
  expect(() => JSON.stringify(1n)).toThrow(TypeError);
  expect(JSON.stringify(Buffer.from([1]))).toBe('{"type":"Buffer","data":[1]}');
});
