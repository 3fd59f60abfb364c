import fs from 'node:fs';
import path from 'node:path';
import fc from 'fast-check';
import { harmless, printable, shellWord } from '../../../../src/common/escape.js';
import { toJson } from '../../../../src/common/json.js';
import { bytesOfName, carryNames, textOfName } from '../../../../src/common/text/names.js';

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

test('every function of node:fs that the sources call with a path carries such names', () => {
  const sources = fs.readdirSync('src', { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.ts'));
  const text = sources.map((name) => fs.readFileSync(path.join('src', name), 'utf8')).join('\n');
  // those that take a descriptor
  const descriptor = /^(f[a-z]+|close|read|readv|write|writev)(Sync)?$/;
  const called = (calls: RegExp): string[] => [...new Set([...text.matchAll(calls)].map(([, name]) => name!))];
  const ofFs = [
    ...called(/\bfs\.(\w+)\(/g),
    ...called(/import \{ ([\w, ]+) \} from 'node:fs'/g).flatMap((names) => names.split(', ')),
  ].filter((name) => !descriptor.test(name) && name !== 'constants');
  const ofPromises = called(/\bfs\.promises\.([a-z]\w*)\(/g);
  expect([ofFs, ofPromises]).toEqual([
    expect.arrayContaining(['openSync', 'readFileSync', 'existsSync', 'renameSync']),
    expect.arrayContaining(['open']),
  ]);
  const lists = [fs, fs.promises] as unknown as Record<string, unknown>[];
  const plain = lists.map((one) => ({ ...one }));
  const folder = process.cwd;
  try {
    carryNames();
    void fs.promises; // which carry them from their first use on
    const bare = (names: string[], i: number): string[] => names.filter((name) => lists[i]![name] === plain[i]![name]);
    expect([bare(ofFs, 0), bare(ofPromises, 1)]).toEqual([[], []]);
  } finally {
    for (const [i, names] of [ofFs, ofPromises].entries()) for (const name of names) lists[i]![name] = plain[i]![name];
    process.cwd = folder;
  }
});
