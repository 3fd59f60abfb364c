// Words for the shell, read back by the real one; untrusted text on a terminal.
import { spawnSync } from 'node:child_process';
import fc from 'fast-check';
import { harmless, printable, shellFile, shellWord } from '../../../src/common/escape.js';

test('a shell reads each word as it was', () => {
  const texts = fc.sample(
    fc.string({ unit: 'binary', maxLength: 30 }).filter((s) => !s.includes('\0') && s.isWellFormed()),
    300,
  );
  const all = [...texts, '', ' ', "it's", '$(id)', '`id`', 'a;b', '*', '~', '!!', '-rf', 'a\nb', '#x', '{a,b}'];
  const { stdout } = spawnSync('sh', ['-c', `printf '%s\\0' ${all.map(shellWord).join(' ')}`], { encoding: 'utf8' });
  expect(stdout.split('\0').slice(0, -1)).toEqual(all);
});

test('plain words stay plain, a file never looks like an option', () => {
  expect(shellWord('/var/lib/disk-1.img')).toBe('/var/lib/disk-1.img');
  expect(shellFile('-rf.img')).toBe('./-rf.img');
  expect(shellFile('my disk')).toBe("'my disk'");
});

test('printable is reversible, harmless leaves backslashes alone; neither passes a control', () => {
  expect(printable('a\\b\x1b[2J\u202e')).toBe('a\\\\b\\x1b[2J\\u{202e}');
  expect(harmless('a\\b\x1b')).toBe('a\\b\\x1b');
});
