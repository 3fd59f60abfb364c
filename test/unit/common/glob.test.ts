import fc from 'fast-check';
import { glob, globs } from '../../../src/common/glob.js';

test.each([
  ['io*', ['io', 'io01', 'io/x'], ['xio', 'IO1']],
  ['h20?', ['h201', 'h20?'], ['h20', 'h2011']],
  ['[abc]x', ['ax', 'cx'], ['dx', '[abc]x', 'x']],
  ['[!abc]x', ['dx', '!x', '^x'], ['ax', 'x']],
  ['[^abc]x', ['dx'], ['ax']],
  ['[a-c0-9]', ['b', '7'], ['d', '-', '']],
  ['[]x]', [']', 'x'], ['[', '[]x]']],
  ['[!]x]', ['a'], [']', 'x']],
  ['[\\^-]', ['^', '-', '\\'], ['a']],
  ['a[b', ['a[b'], ['ab']],
  ['a\\*b', ['a*b'], ['axb', 'a\\*b']],
  ['a.b+(c)|{d}$^', ['a.b+(c)|{d}$^'], ['aXb']],
  ['*.{raw}', ['x.{raw}'], ['x.raw']],
  ['**/x', ['a/b/x'], ['x']],
  ['', [''], ['a']],
  ['a\n*', ['a\nb\nc'], ['ab']],
])('%s', (pattern, right, wrong) => {
  const matches = glob(pattern);
  expect(right.filter((text) => !matches(text))).toEqual([]);
  expect(wrong.filter(matches)).toEqual([]);
});

test('paths: * and ? stop at a slash, ** does not', () => {
  const matches = glob('a/*/c?', { paths: true });
  expect(['a/b/c1', 'a//c1'].filter(matches)).toEqual(['a/b/c1', 'a//c1']);
  expect(['a/b/x/c1', 'a/b/c/', 'a/b/c'].filter(matches)).toEqual([]);
  expect(['a/c', 'a/b/c', 'a/b/b/c'].filter(glob('a/**c', { paths: true }))).toEqual(['a/c', 'a/b/c', 'a/b/b/c']);
});

test('case on request; several patterns; none is all; a wrong range is wrong usage', () => {
  expect(glob('0000:AB:*', { ignoreCase: true })('0000:ab:00.0')).toBe(true);
  expect(['a1', 'b1', 'c1'].filter(globs(['a*', 'c*']))).toEqual(['a1', 'c1']);
  expect(globs([])('anything')).toBe(true);
  expect(() => glob('[z-a]')).toThrow(expect.objectContaining({ exit: 2 }));
});

test('a text as an escaped pattern matches itself and nothing else', () => {
  fc.assert(
    fc.property(fc.string(), fc.string(), (text, other) => {
      const matches = glob(text.replace(/[*?[\]\\]/g, '\\$&'));
      return matches(text) && (other === text || !matches(other));
    }),
  );
});
