// Which locales have UTF-8, and what replaces our characters where they do not.
import { speaksUtf8, toAscii } from '../../../../src/cli/output/locale.js';

test.each([
  [{ LC_ALL: 'C.UTF-8' }, true],
  [{ LANG: 'de_DE.utf8' }, true],
  [{ LC_CTYPE: 'en_US.UTF-8', LANG: 'C' }, true],
  [{ LC_ALL: 'ja_JP.UTF-8@variant' }, true],
  [{ LC_ALL: 'C' }, false],
  [{ LC_ALL: 'POSIX', LANG: 'de_DE.UTF-8' }, false],
  [{ LC_CTYPE: 'de_DE.ISO-8859-1', LANG: 'de_DE.UTF-8' }, false],
  [{ LC_ALL: '', LC_CTYPE: '', LANG: 'C.UTF-8' }, true],
  [{}, false],
])('%j: %s', (env, expected) => expect(speaksUtf8(env)).toBe(expected));

test('our characters become ASCII, names keep theirs', () => {
  expect(toAscii('[OPTION]… 4×2 → größe.img, 3 µs')).toBe('[OPTION]... 4x2 -> größe.img, 3 us');
});
