import { setAside } from '../../../../src/cli/arguments/positionals.js';

const flags = {
  aw: { type: 'option', name: 'aw' },
  count: { type: 'option', char: 'n', name: 'count' },
  json: { type: 'boolean', name: 'json' },
  color: { type: 'boolean', name: 'color', allowNo: true },
  null: { type: 'boolean', char: '0', name: 'null' },
} as never;
const args = { device: {}, map: { multiple: true } } as never;
const many = Array.from({ length: 100 }, (_, i) => `m${i}`);

test('few words, or an argument that takes one, are left to the parser', () => {
  expect(setAside(['a', 'b', 'c'], flags, args)).toMatchObject({ argv: ['a', 'b', 'c'], words: [], name: undefined });
  expect(setAside(many, flags, { device: {} } as never).words).toEqual([]);
});

test('options and their values stay, wherever they stand', () => {
  const argv = [
    '--aw',
    '48',
    'dev',
    '-n',
    '5',
    ...many.slice(0, 50),
    '--json',
    ...many.slice(50),
    '--no-color',
    '-0',
    '--aw=39',
    '-n7',
    '-',
  ];
  expect(setAside(argv, flags, args)).toEqual({
    argv: ['--aw', '48', 'dev', '-n', '5', 'm0', '--json', '--no-color', '-0', '--aw=39', '-n7'],
    name: 'map',
    words: [...many.slice(1), '-'],
  });
});

test('what only looks like an option: negative numbers, and everything behind --', () => {
  expect(setAside(['dev', ...many, '-5', '--', '--aw', '-n'], flags, args)).toEqual({
    argv: ['dev', 'm0', '--'],
    name: 'map',
    words: [...many.slice(1), '-5', '--aw', '-n'],
  });
});

test('unknown options are left to the parser, which refuses them', () => {
  expect(setAside(['dev', ...many, '--jsno', '-x'], flags, args).argv).toEqual(['dev', 'm0', '--jsno', '-x']);
});

test('letters that stand together: the last one takes the next word', () => {
  expect(setAside([...many, '-0n', '7'], flags, args)).toMatchObject({ argv: ['m0', 'm1', '-0n', '7'], words: many.slice(2) });
  expect(setAside(['-0n', '7', ...many], flags, args)).toMatchObject({ argv: ['-0n', '7', 'm0', 'm1'], words: many.slice(2) });
  expect(setAside([...many, '-n07'], flags, args).argv).toEqual(['m0', 'm1', '-n07']);
});
