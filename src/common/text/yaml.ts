import loader from 'js-yaml/lib/js-yaml/loader.js';
import failsafe from 'js-yaml/lib/js-yaml/schema/failsafe.js';
import { Exit, type ExitStatus, VioError } from '../errors.js';
import { printable } from '../escape.js';

/** What the loader says, and what it means to somebody who wrote the file. */
const meanings: readonly [said: RegExp, meaning: string][] = [
  [/^duplicated mapping key/, 'the key is given twice'],
  [/^tab characters/, 'a tab cannot indent: use blanks'],
  [/flow collection|flow sequence|flow mapping|missed comma between/, 'a list in [ ] or an object in { } has no end, or lacks a comma'],
  [/quoted scalar/, 'a quotation mark is missing'],
  [
    /indentation|implicit (mapping pair|key)|block mapping entry|document separator|block sequence/,
    'wrong indentation, or a key without ": "',
  ],
  [/alias|anchor/, 'an anchor (&) or alias (*) is wrong: quote the value if it is text'],
  [/tag/, 'a tag (!) is wrong: quote the value if it is text'],
  [/single document/, 'the file has several documents (---)'],
  [/non-printable/, 'a control character'],
];

/**
 * A YAML document whose scalars are all text (failsafe schema): with the types of YAML 1.1 an address such as 01:00.0 would be
 * a number of base 60.
 * @throws VioError with line and column
 */
export function load(text: string, name: string, exit: ExitStatus = Exit.damaged): unknown {
  try {
    return loader.safeLoad(text, { schema: failsafe });
  } catch (err) {
    const { reason, mark } = err as { reason?: string; mark?: { line: number; column: number } };
    if (reason === undefined) throw err;
    const where = mark === undefined ? '' : `:${mark.line + 1}:${mark.column + 1}`;
    const meaning = meanings.find(([said]) => said.test(reason))?.[1];
    const what = `not valid YAML${meaning === undefined ? '' : `: ${meaning}`}`;
    throw new VioError(`${printable(name)}${where}: ${what}`, { code: 'BAD_FILE', exit, cause: err });
  }
}
