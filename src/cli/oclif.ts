/**
 * The only file that imports @oclif/core: its builders of options and arguments, its parser, and its errors, told in the words
 * of the help. The bundle leaves out what the parser does not need (scripts/bundle.mjs).
 */
import { custom as customArg, string as stringArg } from '@oclif/core/args';
import { CLIError } from '@oclif/core/errors';
import { boolean, custom, option, string } from '@oclif/core/flags';
import type { Arg, ArgInput, FlagInput } from '@oclif/core/interfaces';
import { parse as parseWords } from '@oclif/core/parser';
import { Exit, usage, VioError } from '../common/errors.js';
import { printable } from '../common/escape.js';

export type { Arg, ArgInput, FlagInput };
export { boolean, custom, customArg, option, string, stringArg };

/** What the value of an option is, for its own parser and for our words about it. */
type Flag = FlagInput[string];

/** Why the value of an option is not taken. Thrown through oclif's parser, which changes the message of what it passes on. */
class WrongValue extends Error {
  readonly option: string;
  readonly reason: Error;

  constructor(name: string, reason: Error) {
    super();
    this.option = name;
    this.reason = reason;
  }
}

/** An integer; `min` and `max` are allowed too. */
export const integer = custom<number, { min?: number; max?: number }>({
  parse: async (text, _context, { min, max }) => {
    const number = Number(text);
    if (!/^-?\d+$/.test(text)) throw usage(`not a whole number: "${printable(text)}"`);
    if (number < (min ?? -Infinity) || number > (max ?? Infinity)) {
      const range = min === undefined ? `at most ${max}` : max === undefined ? `at least ${min}` : `${min} to ${max}`;
      throw usage(`must be ${range}, not ${text}`);
    }
    return number;
  },
});

/** `auto, uring or sync` */
const oneOf = (values: readonly string[]): string =>
  values.length < 2 ? values.join('') : `${values.slice(0, -1).join(', ')} or ${values.at(-1)}`;

/** Other spellings of an option's values, which no help names. */
const aliases = new WeakMap<object, ReadonlyMap<string, string>>();

/** Lets an option take other spellings of its values: spelling to value. */
export function withValueAliases<T extends object>(flag: T, spellings: ReadonlyMap<string, string>): T {
  aliases.set(flag, spellings);
  return flag;
}

/** Options whose value names a file, a socket or an address: the system's own error for an empty name leads astray. */
const namesThing = /^(\[[^\]]*\])?(FILE|PATH|SOCK|DIR|DEST|OUT|ADDR)/;
/** Where an empty word comes from, nearly always. */
const emptyHint = 'is a variable of the shell unset?';

/** An option as the parser gets it: one value for each use, choices and values checked by us. */
function prepared(name: string, flag: Flag): Flag {
  if (flag.type !== 'option') return { ...flag, name };
  const { options, parse: ownParse } = flag;
  const parse: typeof ownParse = async (typed, context, opts) => {
    const text = aliases.get(flag)?.get(typed) ?? typed;
    try {
      if (text === '' && namesThing.test([flag.helpValue].flat()[0] ?? '')) throw usage('the value is empty', emptyHint);
      if (options && !options.includes(text)) throw usage(`takes ${oneOf(options)}, not "${printable(text)}"`);
      return await ownParse(text, context, opts);
    } catch (err) {
      throw new WrongValue(name, err as Error);
    }
  };
  const { options: _choices, ...rest } = flag;
  return { ...rest, name, parse, multipleNonGreedy: true } as Flag;
}

/** The same for an argument. */
const preparedArg = (name: string, arg: Arg<unknown>): Arg<unknown> => {
  const { options, parse: ownParse } = arg;
  const parse: typeof ownParse = async (text, context, opts) => {
    if (text === '' && !arg.multiple) throw new WrongUsage(`${labelOf(name)} is empty`, emptyHint);
    if (options && !options.includes(text)) throw new WrongUsage(`${labelOf(name)} is ${oneOf(options)}, not "${printable(text)}"`);
    return ownParse(text, context, opts);
  };
  const { options: _choices, ...rest } = arg;
  return { ...rest, name, parse, ignoreStdin: true } as Arg<unknown>;
};

/** Name of an argument as the synopsis has it. */
export const labelOf = (name: string): string => name.toUpperCase();

/** What oclif's parser makes of words. */
export interface Parsed {
  flags: Record<string, unknown>;
  args: Record<string, unknown>;
}

/**
 * Parses words against options and arguments.
 * @param setAside words of the last argument that the parser need not see
 * @throws VioError (usage) in the words of the help
 */
export async function parse(
  argv: string[],
  spec: { flags: FlagInput; args: ArgInput },
  setAside: { name: string | undefined; words: readonly string[] },
): Promise<Parsed> {
  const flags = Object.fromEntries(Object.entries(spec.flags).map(([name, flag]) => [name, prepared(name, flag)]));
  const args = Object.fromEntries(Object.entries(spec.args).map(([name, arg]) => [name, preparedArg(name, arg as Arg<unknown>)]));
  const overdone = switchWithValue(argv, spec.flags);
  if (overdone !== undefined) throw new WrongUsage(`--${overdone} takes no value`);
  try {
    const parsed = (await parseWords(argv, { flags, args, strict: true, '--': true, context: {} as never })) as Parsed;
    if (setAside.name !== undefined) {
      const arg = args[setAside.name]!;
      parsed.args[setAside.name] ??= [];
      const taken = parsed.args[setAside.name] as unknown[];
      for (const word of setAside.words) taken.push(await arg.parse(word, {} as never, arg));
    }
    return parsed;
  } catch (err) {
    throw told(err, argv, spec.flags) ?? err;
  }
}

/** Fields that oclif's errors carry, by their classes; none of these is exported. */
interface ParserError {
  /** NonExistentFlagsError: the words. */
  flags?: string[];
  /** RequiredArgsError: the arguments; UnexpectedArgsError: the words. */
  args?: (string | { name: string })[];
  /** What was parsed, of FailedFlagValidationError and others. */
  parse?: {
    input: { flags: FlagInput };
    output: { flags: Record<string, unknown>; metadata: { flags?: Record<string, { setFromDefault?: boolean }> } };
  };
}

/** A list of options or arguments behind a word in the singular. */
const several = (what: string, names: readonly string[]): string => `${what}${names.length > 1 ? 's' : ''}: ${names.join(', ')}`;

/** An error of the parser in our words; undefined for what is not one. */
function told(err: unknown, argv: readonly string[], flags: FlagInput): VioError | undefined {
  if (err instanceof WrongValue) {
    const { message, hint } = err.reason as VioError;
    return new WrongUsage(message.startsWith('takes ') ? `--${err.option} ${message}` : `--${err.option}: ${message}`, hint);
  }
  if (!(err instanceof CLIError)) return undefined;
  const { flags: unknown, args, parse: made } = err as unknown as ParserError;
  if (unknown) return new UnknownOptions(unknown.map(printable));
  if (args) {
    const words = args.map((arg) => (typeof arg === 'string' ? `"${printable(arg)}"` : labelOf(arg.name)));
    return new WrongUsage(typeof args[0] === 'string' ? `too many arguments: ${words.join(', ')}` : several('missing argument', words));
  }
  if (made && Object.keys(made).length > 0) {
    const broken = violations(made);
    if (broken) return new WrongUsage(broken);
  }
  return new WrongUsage(misused(argv, flags) ?? 'wrong usage');
}

/** A command line that the command does not take: without a hint of its own, its help is the hint. */
export class WrongUsage extends VioError {
  constructor(message: string, hint?: string) {
    super(message, { code: 'USAGE', exit: Exit.usage, hint });
  }
}

/** Options that the command does not have: the runner looks what was meant. */
export class UnknownOptions extends WrongUsage {
  /** As they were typed: `--jsno`. */
  readonly options: readonly string[];

  constructor(options: readonly string[]) {
    super(several('unknown option', options));
    this.options = options;
  }
}

/** Required options that are missing, and options that exclude each other. */
function violations({ input, output }: NonNullable<ParserError['parse']>): string | undefined {
  const given = (name: string): boolean => output.flags[name] !== undefined && output.metadata.flags?.[name]?.setFromDefault !== true;
  const said: string[] = [];
  const missing = Object.entries(input.flags).filter(([name, flag]) => flag.required && output.flags[name] === undefined);
  for (const [name, flag] of Object.entries(input.flags))
    for (const other of flag.exclusive ?? [])
      if (typeof other === 'string' && given(name) && given(other)) said.push(`--${other} and --${name} exclude each other`);
  for (const [name, flag] of Object.entries(input.flags))
    for (const other of flag.dependsOn ?? [])
      if (typeof other === 'string' && given(name) && !given(other)) said.push(`--${name} needs --${other}`);
  if (missing.length > 0)
    said.push(
      several(
        'missing option',
        missing.map(([name]) => `--${name}`),
      ),
    );
  return said.length > 0 ? said.join('; ') : undefined;
}

/** An option without value that is given one, `--json=1`: oclif would take the value for an argument. */
function switchWithValue(argv: readonly string[], flags: FlagInput): string | undefined {
  for (let i = 0; i < argv.length && argv[i] !== '--'; i++) {
    const [, name = '', value] = /^--([\w-]+)(=)?/.exec(argv[i]!) ?? [];
    const flag = Object.hasOwn(flags, name) ? flags[name] : undefined;
    if (flag?.type === 'boolean' && value !== undefined) return name;
    if (flag?.type === 'option' && value === undefined) i++; // its value, whatever it looks like
  }
  return undefined;
}

/** What is wrong with the use of an option that takes a value: it has none, or is there twice. */
function misused(argv: readonly string[], flags: FlagInput): string | undefined {
  const seen = new Set<string>();
  const optionOf = (word: string): string | undefined =>
    Object.entries(flags).find(
      ([name, { char }]) => word === `--${name}` || word.startsWith(`--${name}=`) || (char !== undefined && word.startsWith(`-${char}`)),
    )?.[0];
  for (let i = 0; i < argv.length && argv[i] !== '--'; i++) {
    const word = argv[i]!;
    const name = optionOf(word);
    const flag = name === undefined ? undefined : flags[name]!;
    if (name === undefined || flag?.type !== 'option') continue;
    if (seen.has(name) && !flag.multiple) return `--${name} can be given only once`;
    seen.add(name);
    const apart = word === `--${name}` || word === `-${flag.char}`;
    if (!apart) continue;
    const value = argv[++i];
    if (value === undefined || optionOf(value) !== undefined)
      return `--${name} ${flag.options ? `takes ${oneOf(flag.options)}` : `needs a value: ${[flag.helpValue].flat()[0] ?? labelOf(name)}`}`;
  }
  return undefined;
}
