import { printable } from '../../common/escape.js';
import { glob } from '../../common/glob.js';

/** Names of sections that a warning lists. */
const listed = 12;
/** Names that are kept to be counted: a damaged stream may have any number. */
const many = 1000;

/** Which sections are wanted; `idle` says of each pattern that matched none, once the stream was walked. */
export function sectionFilter(patterns: readonly string[]) {
  const uses = patterns.map((pattern) => ({ pattern, matches: glob(pattern), used: false }));
  const names = new Set<string>();
  return {
    filtered: patterns.length > 0,
    wanted(name: string): boolean {
      if (names.size < many) names.add(name);
      for (const use of uses) use.used ||= use.matches(name);
      return uses.length === 0 || uses.some((use) => use.matches(name));
    },
    idle(): string[] {
      const there = [...names].slice(0, listed).map(printable).join(', ');
      const more = names.size > listed ? ` and ${names.size - listed} more` : '';
      return uses
        .filter((use) => !use.used)
        .map((use) => `no section matches "${printable(use.pattern)}"; the stream has ${there === '' ? 'none' : there}${more}`);
    },
  };
}
