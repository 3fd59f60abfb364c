import type { ArgInput, FlagInput } from '../oclif.js';

/** Words that stay with oclif's parser, which looks through all of them for each. */
const few = 64;

/** Words of a command line without most of those of its last argument, and these. */
export interface SetAside {
  argv: string[];
  /** Name of the argument that takes the words; undefined if there are none. */
  name: string | undefined;
  words: string[];
}

/** What a word that begins with `-` is: an option that takes the next word, one that does not, or none. */
function optionKind(word: string, flags: FlagInput): 'takes next' | 'alone' | undefined {
  const long = /^--(?:no-)?([^=]+)(=)?/.exec(word);
  if (long) {
    const flag = flags[long[1]!] ?? flags[word.slice(2)];
    return flag?.type === 'option' && long[2] === undefined ? 'takes next' : 'alone';
  }
  // Letters may stand together: the first that takes a value has the rest of the word, or the next word, for it.
  for (let i = 1; i < word.length; i++) {
    const flag = Object.values(flags).find((one) => one.char === word[i]);
    if (!flag) return i === 1 && /^-\d/.test(word) ? undefined : 'alone'; // a negative number, or for the parser to refuse
    if (flag.type === 'option') return i === word.length - 1 ? 'takes next' : 'alone';
  }
  return 'alone';
}

/**
 * Sets aside the words of an argument that takes any number and stands last, where there are many of them: the parser takes
 * time by the square of their number.
 */
export function setAside(argv: readonly string[], flags: FlagInput, args: ArgInput): SetAside {
  const names = Object.keys(args);
  const name = names.at(-1);
  const all: SetAside = { argv: [...argv], name: undefined, words: [] };
  if (name === undefined || args[name]?.multiple !== true || argv.length <= few) return all;
  const kept: string[] = [];
  const words: string[] = [];
  let positionals = 0;
  let options = true;
  for (let i = 0; i < argv.length; i++) {
    const word = argv[i]!;
    if (options && word === '--') {
      options = false;
      kept.push(word);
      continue;
    }
    if (options && word.startsWith('-') && word !== '-') {
      const kind = optionKind(word, flags);
      if (kind !== undefined) {
        kept.push(word);
        if (kind === 'takes next' && i + 1 < argv.length) kept.push(argv[++i]!);
        continue;
      }
    }
    if (++positionals <= names.length) kept.push(word);
    else words.push(word);
  }
  return { argv: kept, name, words };
}
