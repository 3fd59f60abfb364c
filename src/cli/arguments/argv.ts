import { isUtf8 } from 'node:buffer';
import fs from 'node:fs';
import { usage } from '../../common/errors.js';
import { shellBytes } from '../../common/escape.js';
import { textOfName } from '../../common/text/names.js';

/**
 * File names among the arguments as the caller gave them: text, or bytes if they are not UTF-8. Node decodes its arguments
 * and puts U+FFFD for what is not UTF-8; the bytes are in /proc/self/cmdline.
 * @param args arguments in their order on the command line
 */
export function argumentBytes(args: readonly string[]): (string | Buffer)[] {
  if (!args.some((arg) => arg.includes('\ufffd'))) return [...args];
  const bytes = new Map<string, Buffer[]>();
  for (const word of words()) {
    if (isUtf8(word)) continue;
    const text = word.toString('utf8');
    bytes.set(text, [...(bytes.get(text) ?? []), word]);
  }
  // Names that look the same as text come in the order of the command line.
  return args.map((arg) => bytes.get(arg)?.shift() ?? arg);
}

/** The same as text that keeps such names (common/text/names.ts). */
export const argumentTexts = (args: readonly string[]): string[] =>
  argumentBytes(args).map((word) => (typeof word === 'string' ? word : textOfName(word)));

/**
 * Refuses words that are not UTF-8: Node gives a program other ones.
 * @throws usage error
 */
export function requireText(args: readonly string[]): void {
  const bytes = argumentBytes(args).find((word) => typeof word !== 'string');
  if (bytes === undefined) return;
  const what = 'not UTF-8; the program would get another argument';
  throw usage(`${shellBytes(bytes as Buffer)}: ${what}`, 'give the file a second name: ln -s FILE NAME');
}

function words(): Buffer[] {
  const line = fs.readFileSync('/proc/self/cmdline');
  const found: Buffer[] = [];
  for (let at = 0; at < line.length; ) {
    const end = line.indexOf(0, at);
    const stop = end < 0 ? line.length : end;
    found.push(line.subarray(at, stop));
    at = stop + 1;
  }
  return found.slice(-Math.max(1, process.argv.length - 2));
}
