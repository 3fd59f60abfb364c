// How a table fits its terminal: columns shrink, the widest first, and cells wrap; what still has no room is left out,
// the columns of least priority first and among those the last.
import stringWidth from 'string-width';

/** The narrowest useful column, in cells, unless its content is narrower or the column says otherwise. */
const narrowest = 8;
const framePerColumn = 3; // a bar and a blank on both sides
const frame = 1; // the last bar

const graphemes = new Intl.Segmenter(undefined, { granularity: 'grapheme' });

/** Cells that a text takes on a terminal: wide characters take two, combining ones none. */
export const cells = (text: string): number => (/^[\x20-\x7e]*$/.test(text) ? text.length : stringWidth(text));

/** Pads a text to a width in cells. */
export function pad(text: string, width: number, align: 'left' | 'right' = 'left'): string {
  const blanks = ' '.repeat(Math.max(0, width - cells(text)));
  return align === 'right' ? blanks + text : text + blanks;
}

/** Breaks a text into lines of at most `width` cells: behind blanks, commas, slashes, colons and dashes where there are some, else anywhere. */
export function wrapCell(text: string, width: number): string {
  if (cells(text) <= width) return text;
  const lines: string[] = [];
  let line = '';
  let used = 0;
  let breakAt = 0; // length of `line` up to its last good place to break
  for (const { segment } of graphemes.segment(text)) {
    const size = cells(segment);
    // Twice where what is left behind a good place is as wide as a line.
    while (used + size > width && line !== '') {
      const end = breakAt > 0 ? breakAt : line.length;
      lines.push(line.slice(0, end).trimEnd());
      line = line.slice(end).trimStart();
      used = cells(line);
      breakAt = 0;
    }
    if (line === '' && segment === ' ' && lines.length > 0) continue;
    line += segment;
    used += size;
    if (/[ ,/:;-]/.test(segment)) breakAt = line.length;
  }
  return [...lines, line].filter((l) => l !== '').join('\n');
}

/** Columns that the lines behind the first one of a broken line stand further in. */
const hanging = 2;

/** Breaks a line, which may have colours, into lines of at most `width` cells: at its blanks, and further in from the second on. */
export function wrapLine(text: string, width: number): string {
  if (cells(text) <= width) return text;
  const margin = ' '.repeat(Math.min(/^ */.exec(text)![0].length + hanging, Math.floor(width / 2)));
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(/(?<=\S)(?= )/)) {
    if (line !== '' && cells(line + word) > width) {
      lines.push(line);
      line = margin + word.trimStart();
    } else line += word;
    // A word that is longer than a line: a name, a list.
    while (cells(line) > width) {
      const [first = '', ...rest] = wrapCell(line.trimStart(), width - (lines.length > 0 ? margin.length : 0)).split('\n');
      if (rest.length === 0) break;
      lines.push((lines.length > 0 ? margin : '') + first);
      line = margin + rest.join('');
    }
  }
  return [...lines, line].join('\n');
}

/** What the layout needs to know of a column. */
export interface Fitting {
  /** Cells of its widest content. */
  natural: number;
  /** Cells below which it is left out instead of shrunk. */
  min?: number | undefined;
  /** Columns of lower priority are left out first; 0 unless given. */
  priority?: number | undefined;
}

/**
 * Widths of the columns of a framed table on a terminal of `width` cells; undefined for a column that is left out. The
 * first column of the highest priority always stays.
 */
export function fitColumns(columns: readonly Fitting[], width: number): (number | undefined)[] {
  const shown = columns.map((column, i) => ({ i, ...column, least: Math.min(column.natural, column.min ?? narrowest) }));
  const room = () => width - frame - framePerColumn * shown.length;
  const sum = (numbers: number[]) => numbers.reduce((total, n) => total + n, 0);
  while (shown.length > 1 && sum(shown.map((c) => c.least)) > room()) {
    const lowest = Math.min(...shown.map((c) => c.priority ?? 0));
    shown.splice(shown.map((c) => c.priority ?? 0).lastIndexOf(lowest), 1);
  }
  // The greatest cap under which all fit: widths are min(natural, cap), but never below the least.
  let cap = Math.max(1, ...shown.map((c) => c.natural));
  const under = (limit: number) => shown.map((c) => Math.max(c.least, Math.min(c.natural, limit)));
  while (cap > 1 && sum(under(cap)) > room()) cap--;
  const fitted = under(cap);
  // A cap lowers all wide columns together: what that frees beyond need goes to the first of them.
  let spare = room() - sum(fitted);
  const widths: (number | undefined)[] = columns.map(() => undefined);
  shown.forEach((column, at) => {
    const more = Math.max(0, Math.min(spare, column.natural - fitted[at]!));
    spare -= more;
    widths[column.i] = Math.max(1, shown.length === 1 ? Math.min(fitted[at]! + more, room()) : fitted[at]! + more);
  });
  return widths;
}
