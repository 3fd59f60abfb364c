// Fields of devices from bytes and description: each vmstate type by a known answer, descriptions that do not fit, and the
// block-wise searches against the plain ones.
import fc from 'fast-check';
import { toJson } from '../../../../src/common/json.js';
import { nonzero, trimZeros } from '../../../../src/migration/devices/cursor.js';
import { decodeDevice } from '../../../../src/migration/devices/fields.js';
import type { FieldDesc, StateDesc } from '../../../../src/migration/devices/vmdesc.js';
import * as m from '../../../support/migration.js';

const hex = (text: string): Buffer => Buffer.from(text.replaceAll(' ', ''), 'hex');
const decode = (fields: FieldDesc[], bytes: Buffer, subsections?: StateDesc[]) =>
  decodeDevice({ name: 'dev', instance_id: 0, vmsd_name: 'dev', version: 1, fields, ...(subsections && { subsections }) }, bytes);
/** The value of one field that takes all of the bytes. */
const one = (type: string, bytes: Buffer, more: Partial<FieldDesc> = {}): unknown =>
  decode([{ name: 'f', type, size: bytes.length, ...more }], bytes).f;

// Numbers are big-endian whatever their type says ("le" is a comparison); values by hand.
test.each<[string, string, unknown]>([
  ['bool', '01', true],
  ['bool', '00', false],
  ['uint8', 'ff', 255],
  ['int8', 'ff', -1],
  ['uint16', '8001', 0x8001],
  ['int16', '8001', -0x7fff],
  ['uint32', 'fffffffe', 0xfffffffe],
  ['int32', 'fffffffe', -2],
  ['uint64', 'ffffffffffffffff', 0xffffffffffffffffn],
  ['int64', 'fffffffffffffffe', -2],
  ['int64', '7fffffffffffffff', '9223372036854775807'],
  ['uint8 equal', '07', 7],
  ['uint32 equal', '00000007', 7],
  ['int32 le', '00000102', 0x102],
  ['timer', 'ffffffffffffffff', null],
  ['timer', '0000000000003039', 12345],
  ['float64', '3ff8000000000000', 1.5],
  ['CPU_Double_U', 'bff8000000000000', -1.5],
  ['CPU_Double_U', '0000000000000001', 2 ** -1074],
  // What JSON has no number for is shown by its bits: a NaN that carries something, infinities, negative zero.
  ['CPU_Double_U', '7ff8000000001234', 0x7ff8000000001234n],
  ['float64', '7ff0000000000000', 0x7ff0000000000000n],
  ['float64', 'fff0000000000000', 0xfff0000000000000n],
  ['float64', '8000000000000000', 0x8000000000000000n],
  ['nullptr', '30', null],
  ['ptr-marker', '31', true],
  ['capability', '03786263', 'xbc'],
  ['bitmap', '000000000000008f', '0-3,7'],
  ['bitmap', '8000000000000000 0000000000000001', '63-64'],
  ['buffer', '51454d5500000000', 'QEMU'],
  ['buffer', '51454d55000001', hex('51454d55000001')],
  ['pci irq state', '00000000 00000001 00000000 00000001', [0, 1, 0, 1]],
  ['scsi-requests', '00', []],
  ['some type of later', '0102', hex('0102')],
])('%s of %s is %j', (type, bytes, wanted) => {
  expect(one(type, hex(bytes))).toEqual(wanted);
});

test('an x87 register is a number beside its parts', () => {
  const fields: FieldDesc[] = [
    { name: 'tmp_mant', type: 'uint64', size: 8 },
    { name: 'tmp_exp', type: 'uint16', size: 2 },
  ];
  // 1.0: integer bit set, biased exponent 16383; -0.5; infinity and NaN have no number (Intel SDM 1, 4.2)
  for (const [bytes, value] of [
    ['8000000000000000 3fff', 1],
    ['8000000000000000 bffe', -0.5],
    ['8000000000000000 7fff', undefined],
    ['c000000000000000 7fff', undefined],
  ] as const)
    expect((one('tmp', hex(bytes), { fields }) as { value?: number }).value).toBe(value);
});

test('a list: one marker and one element each; its bytes where it does not end with its field', () => {
  const fields: FieldDesc[] = [{ name: 'n', type: 'uint16', size: 2 }];
  expect(one('qtailq', hex('01 0005 01 0006 00'), { fields })).toEqual([{ n: 5 }, { n: 6 }]);
  for (const bad of ['01 0005 01 0006 00 00', '01 0005 01 0006 01', '01 0005 01', '01 0005'])
    expect(one('qtailq', hex(bad), { fields })).toEqual(hex(bad));
});

describe('descriptions that do not fit their types', () => {
  // A field that is smaller than its type must not be completed from its neighbour.
  test.each(['bool', 'uint8', 'uint16', 'uint32', 'uint64', 'int64', 'timer', 'float64', 'ptr-marker', 'CPU_Double_U'])('%s', (type) => {
    for (const size of [0, 3, 5, 7]) {
      const got = decode(
        [
          { name: 'f', type, size },
          { name: 'next', type: 'uint64', size: 8 },
        ],
        Buffer.concat([Buffer.alloc(size, 1), hex('ffffffffffffffff')]),
      );
      expect(got).toEqual({ f: Buffer.alloc(size, 1), next: 0xffffffffffffffffn });
    }
  });

  test('bytes that end early: the fields before the end', () => {
    const fields: FieldDesc[] = [
      { name: 'a', type: 'uint32', size: 4 },
      { name: 'b', type: 'uint32', size: 4 },
    ];
    for (let size = 4; size < 8; size++) expect(decode(fields, hex('00000001 00000002').subarray(0, size))).toEqual({ a: 1 });
  });

  test('a name that objects inherit, or that comes twice, loses no value', () => {
    const names = ['a', 'a', 'constructor', '__proto__', 'toString', 'a#2'];
    const fields = names.map((name): FieldDesc => ({ name, type: 'uint8', size: 1 }));
    const got = decode(fields, hex('010203040506'));
    expect(Object.values(got)).toEqual([1, 2, 3, 4, 5, 6]);
    expect(Object.getPrototypeOf(got)).toBe(Object.prototype);
    const state: StateDesc = { vmsd_name: '__proto__', version: 1, fields: [{ name: 'x', type: 'uint8', size: 1 }] };
    const indexed: FieldDesc = { name: '__proto__', type: 'uint8', size: 1, index: 0 };
    const bytes = Buffer.concat([hex('07 05 09'), Buffer.from('__proto__'), hex('00000001 2a')]);
    expect(JSON.parse(toJson(decode([indexed], bytes, [state])))).toEqual({ '__proto__#2': [7], '__proto__#3': { x: 42 } });
  });

  test('a name that comes a hundred thousand times, in a time that grows with that', () => {
    const fields = Array.from({ length: 100_000 }, (): FieldDesc => ({ name: 'a', type: 'uint8', size: 1 }));
    const started = Date.now();
    const got = decode(fields, Buffer.alloc(fields.length, 7));
    expect(Date.now() - started).toBeLessThan(30_000);
    expect(Object.keys(got).length).toBe(fields.length);
    expect(got).toMatchObject({ a: 7, 'a#2': 7, 'a#100000': 7 });
  });

  test('values without bytes: as many as are allowed', () => {
    const none: StateDesc = { vmsd_name: 's', version: 1, fields: [] };
    const nothing: FieldDesc = { name: 'n', type: 'uint8', size: 0 };
    let nested: FieldDesc = { name: 'f', type: 'struct', size: 0, array_len: 64, struct: none };
    expect(decode([nested], Buffer.alloc(0)).f).toEqual(Array.from({ length: 64 }, () => ({})));
    for (let i = 0; i < 10; i++) nested = { ...nested, struct: { ...none, fields: [nested] } };
    const listed = m.cat(Buffer.alloc(100_000, 1), m.u8(0));
    const cases: [FieldDesc[], Buffer][] = [
      [[{ ...nested, array_len: 1e12 }], Buffer.alloc(0)],
      [[nested], Buffer.alloc(0)],
      [[{ name: 'q', type: 'qtailq', size: listed.length, fields: Array.from({ length: 20_000 }, () => nothing) }], listed],
    ];
    for (const [fields, bytes] of cases) {
      const allowance = { left: 1000 };
      const got = decodeDevice({ name: 'd', instance_id: 0, vmsd_name: 'd', version: 1, fields }, bytes, allowance);
      expect(allowance.left).toBeLessThan(0);
      expect(toJson(got).length).toBeLessThan(1 << 20);
    }
  });

  test('a bitmap of more runs than anyone reads is shown as bytes', () => {
    const bytes = Buffer.alloc(1 << 20, 0x55);
    expect(one('bitmap', bytes)).toEqual(bytes);
  });

  test('a type that objects inherit is shown as bytes', () => {
    for (const type of ['constructor', '__proto__', 'toString']) expect(one(type, hex('0102'))).toEqual(hex('0102'));
  });
});

test('arrays: few that are not zero by their index, many as they are', () => {
  const bytes = Buffer.alloc(400);
  bytes.writeUInt32BE(7, 4 * 99);
  bytes.writeUInt32BE(8, 0);
  const field: FieldDesc = { name: 'f', type: 'uint32', size: 4, array_len: 100 };
  expect(decode([field], bytes).f).toEqual({ count: 100, nonzero: { 0: 8, 99: 7 } });
  for (let i = 0; i < 26; i++) bytes.writeUInt32BE(i + 1, 4 * i);
  expect(decode([field], bytes).f).toEqual(Array.from({ length: 100 }, (_, i) => (i < 26 ? i + 1 : i === 99 ? 7 : 0)));
});

describe('block-wise searches find what the plain ones find', () => {
  /** Long stretches of zeros with something here and there, as devices have them. */
  const sparse = fc
    .tuple(fc.nat(40_000), fc.array(fc.tuple(fc.nat(40_000), fc.integer({ min: 1, max: 255 })), { maxLength: 6 }))
    .map(([size, set]) => {
      const bytes = Buffer.alloc(size);
      for (const [at, value] of set) if (at < size) bytes[at] = value;
      return bytes;
    });

  test('zeros at the end', () => {
    fc.assert(
      fc.property(sparse, (bytes) => {
        const last = bytes.findLastIndex((b) => b !== 0);
        expect(trimZeros(bytes).length).toBe(last + 1);
      }),
      { numRuns: 300 },
    );
  });

  test('entries that are not zero', () => {
    fc.assert(
      fc.property(sparse, fc.integer({ min: 1, max: 5000 }), fc.nat(50), (bytes, size, at) => {
        const from = Math.min(at, bytes.length);
        const count = Math.floor((bytes.length - from) / size);
        const wanted: number[] = [];
        for (let i = 0; i < count; i++) if (bytes.subarray(from + i * size, from + (i + 1) * size).some((b) => b !== 0)) wanted.push(i);
        // An entry that is larger than what is compared at once is given whatever it holds.
        const found = [...nonzero(bytes, from, size, count)];
        if (size <= 4096) expect(found).toEqual(wanted);
        else expect(found.filter((i) => wanted.includes(i))).toEqual(wanted);
      }),
      { numRuns: 300 },
    );
  });

  test('bits of a bitmap', () => {
    fc.assert(
      fc.property(fc.array(fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }), { minLength: 1, maxLength: 6 }), (words) => {
        const bytes = Buffer.alloc(words.length * 8);
        words.forEach((w, i) => {
          bytes.writeBigUInt64BE(w, i * 8);
        });
        const set = words.flatMap((w, i) =>
          Array.from({ length: 64 }, (_, b) => b).flatMap((b) => ((w >> BigInt(b)) & 1n ? [i * 64 + b] : [])),
        );
        const shown = String(one('bitmap', bytes))
          .split(',')
          .filter(Boolean)
          .flatMap((run) => {
            const [first, last = first] = run.split('-').map(Number) as [number, number?];
            return Array.from({ length: last! - first + 1 }, (_, i) => first + i);
          });
        expect(shown).toEqual(set);
      }),
    );
  });
});
