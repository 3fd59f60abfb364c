import fc from 'fast-check';
import {
  ascii,
  bits,
  bytesOf,
  type Fields,
  listOf,
  pad,
  Struct,
  struct,
  terminated,
  text,
  u8,
  u16,
  u128,
  WireError,
} from '../../../src/common/struct.js';
import * as nvme from '../../../src/nvme/wire/index.js';
import * as vhostUser from '../../../src/vhost-user/wire/messages.js';

const tables = Object.entries({ ...vhostUser, ...nvme } as object).filter(
  (entry): entry is [string, Struct<Fields>] => entry[1] instanceof Struct && !entry[1].variable && entry[1].size > 0,
);

test('there are tables to test', () => expect(tables.length).toBeGreaterThan(30));

test.each(tables)('%s: decode and encode are inverse on any bytes (7 bits: text is UTF-8), and fields share no bit', (_name, table) => {
  fc.assert(
    fc.property(fc.infiniteStream(fc.integer({ min: 0, max: 127 })), (stream) => {
      const raw = Buffer.from([...stream.take(Math.min(table.size, 256))]);
      const full = Buffer.alloc(table.size);
      raw.copy(full);
      const values = table.decode(full);
      const again = table.encode(values);
      expect(table.decode(again)).toEqual(values);
    }),
    { numRuns: 20 },
  );
  // A field that is written alone leaves all other fields zero (fctype is the low byte of nsid: both names of one place).
  const zero = table.decode(Buffer.alloc(table.size));
  const all = Buffer.alloc(table.size, 0xff);
  const ones = table.decode(all);
  for (const key of Object.keys(ones)) {
    if (key === 'nsid' || key === 'fctype' || typeof ones[key] === 'string') continue;
    const alone = table.decode(table.encode({ [key]: ones[key] }));
    expect({ ...alone, [key]: undefined }).toEqual({ ...zero, [key]: undefined });
    expect(alone[key]).toEqual(ones[key]);
  }
});

test('short input is an error that names where', () => {
  const table = new Struct('thing', 8, { a: u16(6) });
  expect(() => table.decode(Buffer.alloc(7))).toThrow(WireError);
  expect(() => table.decode(Buffer.alloc(12), 5)).toThrow('thing needs 8 bytes, 7 are there');
  expect(() => table.encode({ a: 1 }, Buffer.alloc(7))).toThrow('thing needs 8 bytes');
});

test('a table with a field beyond its size is refused', () => {
  expect(() => new Struct('bad', 4, { a: u16(3) })).toThrow('bad.a lies beyond 4 bytes');
});

test('values that do not fit are refused, never cut', () => {
  const table = new Struct('thing', 32, { a: u8(0), b: bits(1, 1, 2, 3), c: text(4, 2), d: u128(8), e: ascii(4, 24) });
  expect(() => table.encode({ a: 256 })).toThrow('out of range');
  expect(() => table.encode({ b: 8 })).toThrow('8 does not fit 3 bits');
  expect(() => table.encode({ c: 'äää' })).toThrow('does not fit 4');
  expect(() => table.encode({ d: 1n << 128n })).toThrow('out of range');
  expect(table.decode(table.encode({ e: 'ab' }))).toMatchObject({ e: 'ab' });
  expect(table.encode({ e: 'ab' }).toString('latin1', 24)).toBe('ab  \0\0\0\0');
});

test('text without NUL is read to its end and not beyond', () => {
  const table = new Struct('thing', 8, { a: text(4, 0), b: u8(4) });
  const raw = Buffer.from('abcdXYZ\0');
  expect(table.get(raw, 'a')).toBe('abcd');
  expect(terminated(table.fields.a, raw)).toBe(false);
  expect(terminated(table.fields.a, Buffer.from('abc\0XYZ\0'))).toBe(true);
});

test('fields that follow each other, with counted parts: nothing may be missing or left over', () => {
  const point = struct('point', { x: u8(), y: u16() });
  const table = struct('thing', { count: u8(), length: u8(), _: pad(1), points: listOf('count', point), data: bytesOf('length') });
  const value = {
    count: 2,
    length: 3,
    points: [
      { x: 1, y: 0x203 },
      { x: 4, y: 5 },
    ],
    data: Buffer.from('abc'),
  };
  const raw = Buffer.from([2, 3, 0, 1, 3, 2, 4, 5, 0, 97, 98, 99]);
  expect(table.encode(value)).toEqual(raw);
  expect(table.decode(raw)).toEqual(value);
  for (let cut = 0; cut < raw.length; cut++) expect(() => table.decode(raw.subarray(0, cut))).toThrow(WireError);
  expect(() => table.decode(Buffer.concat([raw, raw]))).toThrow('thing ends, 12 bytes are left over, at byte 12');
  expect(() => table.decode(Buffer.from([255, 0, 0, 1, 2, 3]))).toThrow('count says 255 entries of 3 bytes, 3 bytes are there');
});
