// Ten important commands on terminals of three widths, against the screens of docs/screens (npx tsx scripts/screens.ts).
import fs from 'node:fs';
import path from 'node:path';
import stringWidth from 'string-width';
import { plain, screens, svg, takeScreens, widths } from '../support/screens.js';

const dir = path.resolve(__dirname, '../../docs/screens');
const read = (file: string) => fs.readFileSync(path.join(dir, file), 'utf8');
let taken: Map<string, string>;
beforeAll(() => {
  taken = takeScreens();
});

describe.each(screens)('%s', (name, command) => {
  test.each(widths)('%d columns: no line is wider, and the screen is as ever', (width) => {
    const screen = plain(taken.get(`${name}.${width}`)!);
    expect(screen).not.toBe('');
    // What can be pasted is not broken: it may be longer.
    const wide = screen.split('\n').filter((line) => stringWidth(line) > width && !/^ {2}vioctl |^vioctl: |^hint: /.test(line));
    expect(wide).toEqual([]);
    expect(screen).toBe(read(`${name}.${width}.txt`));
  });

  test('the picture shows the same', () => {
    expect(svg(command, taken.get(`${name}.80`)!, 80)).toBe(read(`${name}.svg`));
  });
});

test('a picture has colours, and no character that XML minds', () => {
  const picture = svg('a <b>', '\x1b[1mNAME\x1b[22m & \x1b[32mok\x1b[39m\n', 40);
  expect(picture).toContain('<tspan font-weight="bold">NAME</tspan> &amp; <tspan fill="#a6e3a1">ok</tspan></text>');
  expect(picture).toContain('$ a &lt;b&gt;');
});
