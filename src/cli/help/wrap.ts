/** Where a word that is wider than a line may break: before an optional part, behind a comma or a bar. */
const breaks = /(?=\[)|(?<=[,|])/;

/** A word in pieces of at most `width` columns, if it has places to break at. */
function pieces(word: string, width: number): string[] {
  if (word.length <= width) return [word];
  const found: string[] = [];
  for (const part of word.split(breaks)) {
    const last = found.at(-1);
    if (last !== undefined && last.length + part.length <= width) found[found.length - 1] = last + part;
    else found.push(part);
  }
  return found;
}

/** Breaks text at blanks to lines of at most `width` columns. A word that is wider breaks where its parts meet, or stays whole. */
export function wrapText(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else line = line === '' ? word : `${line} ${word}`;
    const parts = pieces(line, width);
    if (parts.length > 1 && line === word) {
      lines.push(...parts.slice(0, -1));
      line = parts.at(-1)!;
    }
  }
  return [...lines, line];
}
