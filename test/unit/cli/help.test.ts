import stringWidth from 'string-width';
import { commandHelp, groupHelp, type HelpPage, rootHelp } from '../../../src/cli/help/help.js';
import { allCommands } from '../../../src/cli/help/man.js';
import { wrapText } from '../../../src/cli/help/wrap.js';
import { toAscii } from '../../../src/cli/output/locale.js';
import { groups } from '../../../src/groups/index.js';

const pages: HelpPage[] = [40, 80, 120].flatMap((width) => [{ width }, { width, spell: toAscii }]);

/** Lines that do not fit, but for examples: those are pasted, and stay whole. */
const tooWide = (text: string, width: number): string[] => {
  const examples = text.indexOf('\nExamples:');
  const [own, pasted] = examples < 0 ? [text, ''] : [text.slice(0, examples), text.slice(examples)];
  const notes = pasted.split('\n').filter((line) => line.startsWith('      '));
  return [...own.split('\n'), ...notes].filter((line) => stringWidth(line) > width && line.trim().includes(' '));
};

test.each(pages)('help fits $width columns, spelled for the terminal', async (page) => {
  const wrong: string[] = [];
  const judge = (what: string, text: string) => {
    wrong.push(...tooWide(text, page.width).map((line) => `${what}: ${line}`));
    if (page.spell && /[^\n -~]/.test(text)) wrong.push(`${what}: not ASCII: ${/[^\n -~]/.exec(text)![0]}`);
  };
  judge('vioctl', rootHelp(page));
  for (const group of Object.keys(groups)) judge(group, groupHelp(group, page));
  for (const { doc } of await allCommands()) judge(doc.id, commandHelp(doc, page));
  expect(wrong).toEqual([]);
});

test('what is as wide as a line breaks where its parts meet, and keeps every character', () => {
  const word = 'NAME=SIZE|FILE[,align=2M][,iova=0x…][,below4g][,temp][,huge=2M][,ro]…';
  for (const width of [12, 20, 40]) {
    const lines = wrapText(`a mapping, ${word}, or @FILE`, width);
    expect(lines.join('').replaceAll(' ', '')).toBe(`a mapping, ${word}, or @FILE`.replaceAll(' ', ''));
    expect(lines.filter((line) => line.length > width)).toEqual([]);
  }
  expect(wrapText('/a/name/without/any/place/to/break', 10)).toEqual(['/a/name/without/any/place/to/break']);
  expect(wrapText('x', 10)).toEqual(['x']);
  expect(wrapText('', 10)).toEqual(['']);
});
