import fs from 'node:fs';
import { collectList } from '../../cli/streams/input.js';
import { wrap } from '../../common/errors.js';

/** Lines of a file of mappings; of stdin for `-`. */
async function linesOf(file: string): Promise<string[]> {
  if (file === '-') return collectList(['-'], { null: false, orStdin: false });
  try {
    return fs.readFileSync(file, 'utf8').split('\n');
  } catch (err) {
    throw wrap(`read ${file}`, err);
  }
}

/**
 * The mappings of a command line: each word, and for `@FILE` each line of the file. Blanks around a line, empty lines and those
 * that begin with # mean nothing.
 * @throws VioError of the file
 */
export async function specWords(words: readonly string[]): Promise<string[]> {
  if (!words.some((word) => word.startsWith('@'))) return [...words];
  const found: string[] = [];
  for (const word of words) {
    if (!word.startsWith('@')) found.push(word);
    else for (const line of await linesOf(word.slice(1))) if (/^\s*[^#\s]/.test(line)) found.push(line.trim());
  }
  return found;
}
