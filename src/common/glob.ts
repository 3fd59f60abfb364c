import { usage } from './errors.js';
import { printable } from './escape.js';

/** Characters of a bracket expression that mean something to RegExp as well. */
const inBrackets = (text: string): string => text.replace(/[\\[\]^]/g, '\\$&');

/**
 * A shell pattern as the source of a regular expression: `*` (any text without `/`), `**` (any text), `?`, `[abc]`, `[a-c]`,
 * `[!abc]`, and `\` in front of a character that stands for itself. A `[` without `]` stands for itself too.
 */
function expression(pattern: string, anyText: string): string {
  let out = '';
  for (let i = 0; i < pattern.length; i++) {
    const c = pattern[i]!;
    if (c === '*') {
      const deep = pattern[i + 1] === '*';
      if (deep) i++;
      out += deep ? '.*' : `${anyText}*`;
    } else if (c === '?') {
      out += anyText;
    } else if (c === '\\' && i + 1 < pattern.length) {
      out += pattern[++i]!.replace(/[^\w]/, '\\$&');
    } else if (c === '[') {
      const not = pattern[i + 1] === '!' || pattern[i + 1] === '^';
      const from = i + (not ? 2 : 1);
      const end = pattern.indexOf(']', from + 1); // a ] in first place is a member
      if (end < 0) {
        out += '\\[';
        continue;
      }
      out += `[${not ? '^' : ''}${inBrackets(pattern.slice(from, end))}]`;
      i = end;
    } else {
      out += c.replace(/[.+^${}()|\]/\\-]/, '\\$&');
    }
  }
  return out;
}

/** How a pattern is read. */
export interface GlobOptions {
  /** Letters match whatever their case. */
  ignoreCase?: boolean;
  /** The texts are paths: `*` and `?` stop at `/`, `**` does not. */
  paths?: boolean;
}

/** A function that tells whether a whole text matches a shell pattern. @throws usage error for `[z-a]` */
export function glob(pattern: string, options: GlobOptions = {}): (text: string) => boolean {
  try {
    const regexp = new RegExp(`^${expression(pattern, options.paths ? '[^/]' : '.')}$`, options.ignoreCase ? 'is' : 's');
    return (text) => regexp.test(text);
  } catch {
    throw usage(`not a pattern: "${printable(pattern)}"`, 'patterns have *, **, ?, [abc], [a-c] and [!abc]');
  }
}

/** A function that tells whether a text matches one of several patterns; every text if there are none. */
export function globs(patterns: readonly string[], options: GlobOptions = {}): (text: string) => boolean {
  const all = patterns.map((pattern) => glob(pattern, options));
  return (text) => all.length === 0 || all.some((matches) => matches(text));
}
