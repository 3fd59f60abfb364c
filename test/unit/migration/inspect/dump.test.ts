// Fields as text: against a plain model that makes the line of every value before it asks whether that fits.
import fc from 'fast-check';
import { eventLines } from '../../../../src/migration/inspect/dump.js';
import type { Fields, Value } from '../../../../src/migration/stream/model.js';

const isTree = (value: Value): value is Value[] | Fields => typeof value === 'object' && value !== null && !(value instanceof Uint8Array);

function short(value: Value): string {
  if (value instanceof Uint8Array) return Buffer.from(value).toString('hex');
  if (typeof value === 'bigint') return `0x${value.toString(16)}`;
  if (Array.isArray(value)) return `[${value.map(short).join(' ')}]`;
  if (!isTree(value)) return value === null ? 'none' : String(value);
  return `{${Object.entries(value)
    .map(([name, item]) => `${name}: ${short(item)}`)
    .join(', ')}}`;
}

function lines(fields: Fields, indent: string): string[] {
  return Object.entries(fields).flatMap(([name, value]) => {
    const line = short(value);
    if (!isTree(value) || line.length + indent.length + name.length < 100) return [`${indent}${name} = ${line}`];
    const inner = Array.isArray(value) ? Object.fromEntries(value.map((item, i) => [`[${i}]`, item])) : value;
    return [`${indent}${name}:`, ...lines(inner, `${indent}  `)];
  });
}

const shown = (fields: Fields): string[] =>
  eventLines({
    ...{ type: 'section', record: 'full', id: 1, name: 'dev', instance: 0, version: 1, offset: 0n, size: 1, footer: true },
    ...{ bounded: 'description', fields },
  }).slice(1);

const name = fc.string({ unit: fc.constantFrom(...'abcxyz'), minLength: 1, maxLength: 12 });
const { fields } = fc.letrec<{ value: Value; fields: Fields }>((tie) => ({
  value: fc.oneof(
    { depthSize: 'large' },
    fc.integer(),
    fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
    fc.boolean(),
    fc.constant(null),
    fc.string({ unit: fc.constantFrom(...'abc '), maxLength: 40 }),
    fc.uint8Array({ maxLength: 30 }),
    fc.array(tie('value'), { maxLength: 12 }),
    tie('fields'),
  ),
  fields: fc.dictionary(name, tie('value'), { maxKeys: 6, noNullPrototype: true }),
}));

test('a value that fits stands on the line of its name, any other part by part', () => {
  const indent = ' '.repeat(14);
  expect(shown({ a: [], b: {}, c: ['', ''], d: [[1], { e: 2n }] })).toEqual(
    ['a = []', 'b = {}', 'c = [ ]', 'd = [[1] {e: 0x2}]'].map((line) => indent + line),
  );
  fc.assert(fc.property(fields, (one) => expect(shown(one)).toEqual(lines(one, indent))));
});

test('the line has less than 100 columns', () => {
  for (const length of [80, 81, 82, 83]) {
    const fields = { a: ['x'.repeat(length)] };
    expect(shown(fields)).toEqual(lines(fields, ' '.repeat(14)));
  }
});
