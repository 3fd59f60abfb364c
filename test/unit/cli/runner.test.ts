import { route } from '../../../src/cli/runner.js';
import { suggest } from '../../../src/common/text/suggest.js';
import { groups } from '../../../src/groups/index.js';

test('help and version, in every spelling', () => {
  for (const argv of [[], ['--help'], ['-h'], ['help']]) expect(route(argv)).toEqual({ kind: 'help' });
  for (const argv of [['--version'], ['-V'], ['version']]) expect(route(argv)).toEqual({ kind: 'version' });
  for (const name of Object.keys(groups)) {
    for (const argv of [[name], [name, '-h'], [name, '--help'], ['help', name]]) expect(route(argv)).toEqual({ kind: 'help', group: name });
  }
});

test('typing errors get a suggestion and status 2', () => {
  expect(() => route(['vfoi'])).toThrow(expect.objectContaining({ exit: 2, hint: 'did you mean "vfio"?' }));
  expect(() => route(['constructor'])).toThrow(expect.objectContaining({ exit: 2, hint: 'vioctl --help' }));
  expect(() => route(['--frob'])).toThrow(expect.objectContaining({ exit: 2 }));
  expect(suggest('lsit', ['list', 'show'])).toBe('list');
  expect(suggest('xyz', ['list', 'show'])).toBeUndefined();
});
