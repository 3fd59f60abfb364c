// How tables fit a terminal: widths by known answers and by properties, cells that wrap without losing a character.
import fc from 'fast-check';
import { cells, fitColumns, pad, wrapCell, wrapLine } from '../../../../src/cli/output/layout.js';

const drawn = (widths: (number | undefined)[]) => widths.reduce<number>((sum, w) => (w === undefined ? sum : sum + w + 3), 1);

test.each([
  ['all fit', [5, 10, 20], 80, [5, 10, 20]],
  ['the widest shrinks', [5, 10, 100], 80, [5, 10, 55]],
  ['two wide ones share', [5, 100, 100], 80, [5, 33, 32]],
  ['the last one leaves', [20, 20, 20, 20], 40, [10, 10, 10, undefined]],
] as const)('%s', (_what, natural, width, expected) => {
  expect(
    fitColumns(
      natural.map((n) => ({ natural: n })),
      width,
    ),
  ).toEqual(expected);
});

test('a column of low priority leaves before the last one', () => {
  const columns = [
    { natural: 12, min: 12, priority: 9 },
    { natural: 30, priority: 1 },
    { natural: 30, priority: 5 },
  ];
  expect(fitColumns(columns, 40)).toEqual([12, 9, 9]);
  expect(fitColumns(columns, 36)).toEqual([12, undefined, 17]);
});

const column = fc.record({
  natural: fc.integer({ min: 1, max: 300 }),
  min: fc.option(fc.integer({ min: 1, max: 24 }), { nil: undefined }),
  priority: fc.option(fc.integer({ min: 0, max: 9 }), { nil: undefined }),
});

test('no table is wider than its terminal, and none is smaller than it need be', () => {
  fc.assert(
    fc.property(fc.array(column, { minLength: 1, maxLength: 12 }), fc.integer({ min: 40, max: 250 }), (columns, width) => {
      const widths = fitColumns(columns, width);
      const total = drawn(widths);
      expect(total).toBeLessThanOrEqual(width);
      const whole = widths.every((w, i) => w === columns[i]!.natural);
      if (drawn(columns.map((c) => c.natural)) <= width) expect(whole).toBe(true);
      // room is left over only where every column that is shown has all it wants
      if (total < width) expect(widths.every((w, i) => w === undefined || w === columns[i]!.natural)).toBe(true);
      const kept = columns.flatMap((c, i) => (widths[i] === undefined ? [] : [c.priority ?? 0]));
      const left = columns.flatMap((c, i) => (widths[i] === undefined ? [c.priority ?? 0] : []));
      if (left.length > 0) expect(Math.max(...left)).toBeLessThanOrEqual(Math.min(...kept));
    }),
  );
});

test('a wrapped cell holds every character but the blanks at which it broke', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme', maxLength: 80 }), fc.integer({ min: 2, max: 40 }), (text, width) => {
      const lines = wrapCell(text, width).split('\n');
      const solid = (s: string) => s.replace(/\s/g, '');
      expect(solid(lines.join(''))).toBe(solid(text));
      const single = (line: string) => [...new Intl.Segmenter().segment(line)].length === 1; // wider than the column, cannot be broken
      for (const line of lines) expect(cells(line) <= width || single(line)).toBe(true);
    }),
  );
});

test('cells break where words do, wide characters count twice', () => {
  expect(wrapCell(' 0⺀', 2)).toBe('0\n⺀');
  expect(wrapCell('vfio-pci with a long name', 10)).toBe('vfio-pci\nwith a\nlong name');
  expect(wrapCell('nqn.2026-01.org.example:storage', 12)).toBe('nqn.2026-\n01.org.examp\nle:storage');
  expect(wrapCell('日本語のディスク', 6)).toBe('日本語\nのディ\nスク');
  expect(cells('日本')).toBe(4);
  expect(cells('e\u0301')).toBe(1);
  expect(pad('日本', 6)).toBe('日本  ');
  expect(pad('7', 3, 'right')).toBe('  7');
});

test('a line of text is broken at blanks, and goes on further in', () => {
  expect(wrapLine('  member  0000:01:00.0  nvme  BLOCKS the group', 30)).toBe('  member  0000:01:00.0  nvme\n    BLOCKS the group');
  expect(wrapLine('short', 40)).toBe('short');
  const coloured = wrapLine('\x1b[1mone two three four five\x1b[22m six seven', 20);
  for (const line of coloured.split('\n')) expect(cells(line)).toBeLessThanOrEqual(20);
  expect(coloured.replace(/\n {2}/g, ' ')).toBe('\x1b[1mone two three four five\x1b[22m six seven');
});

test('no line is wider than the terminal, whatever the words', () => {
  fc.assert(
    fc.property(
      fc.array(fc.stringMatching(/^[a-z,/:]{1,60}$/), { minLength: 1, maxLength: 12 }),
      fc.integer({ min: 40, max: 90 }),
      (words, width) => {
        const text = wrapLine(words.join(' '), width);
        for (const line of text.split('\n')) expect(cells(line)).toBeLessThanOrEqual(width);
        expect(text.replace(/\s/g, '')).toBe(words.join(''));
      },
    ),
  );
});
