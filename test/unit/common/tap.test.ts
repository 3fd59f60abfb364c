import { tapHead, tapPoint } from '../../../src/common/tap.js';

test('version 14: plan first, directives, escaped names, a YAML block for what is not ok', () => {
  expect(tapHead(3)).toBe('TAP version 14\n1..3');
  expect(tapPoint({ ok: true, name: 'a #1 \x1b[0m', details: { got: 'x' } }, 1)).toBe('ok 1 - a \\#1 \\x1b[0m');
  expect(tapPoint({ ok: true, name: 'b', skip: 'no # here' }, 2)).toBe('ok 2 - b # SKIP no \\# here');
  expect(tapPoint({ ok: false, name: 'c', details: { expected: 'a: "b"', ms: 1.5 } }, 3)).toBe(
    'not ok 3 - c\n  ---\n  expected: "a: \\"b\\""\n  ms: 1.5\n  ...',
  );
});
