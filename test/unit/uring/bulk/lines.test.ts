import fc from 'fast-check';
import { algorithms, parseLine, sumLine, verdictLine } from '../../../../src/uring/bulk/lines.js';

const digest = (digits: number): string => 'a0'.repeat(digits / 2);
const parse = (line: string, algorithm?: string, zero = false) => parseLine(Buffer.from(line, 'latin1'), algorithm, zero);

test.each<[string, string, string | undefined, string, string]>([
  ['plain', `${digest(64)}  name`, undefined, 'sha256', 'name'],
  ['binary', `${digest(64)} *name`, undefined, 'sha256', 'name'],
  ['one blank, as old BSD programs print', `${digest(32)} name`, undefined, 'md5', 'name'],
  ['blanks in front, upper case', ` \t${digest(40).toUpperCase()}  a b`, undefined, 'sha1', 'a b'],
  ['a name that begins with a blank', `${digest(96)}   name`, undefined, 'sha384', ' name'],
  ['BSD', `SHA512 (a) b) = ${digest(128)}`, undefined, 'sha512', 'a) b'],
  ['OpenSSL', `MD5(name)= ${digest(32)}`, undefined, 'md5', 'name'],
  ['escaped', `\\${digest(64)}  a\\nb\\\\c\\rd`, undefined, 'sha256', 'a\nb\\c\rd'],
  ['escaped, BSD', `\\SHA1 (a\\nb) = ${digest(40)}`, undefined, 'sha1', 'a\nb'],
  ['b3sum', `${digest(64)}  name`, 'blake3', 'blake3', 'name'],
  ['xxhsum', `${digest(16)}  name`, 'xxh64', 'xxh64', 'name'],
  ['xxhsum -H3', `XXH3_${digest(16)}  name`, undefined, 'xxh3', 'name'],
  ['carriage return at the end', `${digest(64)}  name\r`, undefined, 'sha256', 'name'],
])('%s', (_, line, asked, algorithm, name) => {
  expect(parse(line, asked)).toEqual({ name, algorithm, digest: expect.stringMatching(/^(a0)+$/) });
});

test.each([
  `${digest(62)}  name`,
  `${digest(64)}name`,
  `${digest(64)}  `,
  `${digest(64)}`,
  `g${digest(64).slice(1)}  name`,
  `SHA256 (name) = ${digest(40)}`,
  `SHA3 (name) = ${digest(64)}`,
  `SHA256 name = ${digest(64)}`,
  `\\${digest(64)}  a\\xb`,
  `\\${digest(64)}  a\\`,
  'no checksum',
  `${digest(8)}  name`, // CRC-32C or XXH32: it must be asked for
])('malformed: %j', (line) => {
  expect(parse(line)).toBeUndefined();
});

test('a line of another algorithm than the one asked for is malformed; comments and empty lines are nothing', () => {
  expect(parse(`MD5 (name) = ${digest(32)}`, 'sha256')).toBeUndefined();
  expect(parse(`${digest(32)}  name`, 'sha256')).toBeUndefined();
  for (const line of ['', '# comment', '\r']) expect(parse(line)).toBe('blank');
});

test('whatever the name: what is printed is read again', () => {
  const bytes = fc.uint8Array({ minLength: 1, maxLength: 40 }).filter((name) => !name.includes(0));
  fc.assert(
    fc.property(bytes, fc.constantFrom(...Object.keys(algorithms)), fc.boolean(), fc.boolean(), (raw, algorithm, tag, zero) => {
      const name = Buffer.from(raw);
      const line = Buffer.from(sumLine(name, digest(algorithms[algorithm]!.digits), { zero, tag, algorithm }));
      expect(line.at(-1)).toBe(zero ? 0 : 10);
      const found = parseLine(line.subarray(0, -1), algorithm, zero);
      if (found === undefined || found === 'blank') throw new Error(`not read: ${JSON.stringify(line.toString('latin1'))}`);
      expect(Buffer.from(found.name)).toEqual(name);
      expect(found.algorithm).toBe(algorithm);
    }),
  );
});

test('verdicts name files as coreutils do', () => {
  expect(verdictLine('a', 'OK', 'md5')).toBe('a: OK\n');
  expect(verdictLine('a\\b', 'OK', 'md5')).toBe('a\\b: OK\n');
  expect(verdictLine('a\\\nb', 'FAILED', 'md5')).toBe('\\a\\\\\\nb: FAILED\n');
  expect(verdictLine('a\\b', 'OK', 'blake3')).toBe('\\a\\\\b: OK\n');
  expect(verdictLine(Buffer.from([0xff]), 'OK', 'md5')).toEqual(Buffer.from('\xff: OK\n', 'latin1'));
});
