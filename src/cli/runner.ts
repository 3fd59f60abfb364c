import { readFileSync } from 'node:fs';
import { usage } from '../common/errors.js';
import { printable } from '../common/escape.js';
import { suggest } from '../common/text/suggest.js';
import { groups } from '../groups/index.js';
import type { Verb } from '../groups/types.js';
import { groupPointer, verbPointer } from './arguments/pointers.js';
import { splitWords } from './arguments/words.js';
import { allFlags, type Command, type CommandClass } from './command.js';
import { completionFiles } from './completion/files.js';
import { describe, format } from './errors.js';
import type { HelpPage } from './help/help.js';
import { UnknownOptions } from './oclif.js';
import { speaksUtf8, toAscii } from './output/locale.js';
import { ClosedPipe, FdWriter, hurryOutput, messagesLeft, stderr, WriteError } from './output/stdio.js';
import { terminalWidth } from './output/terminal.js';

/** Where an argv leads: a help text, the version, or a command with the rest of the words. */
export type Route =
  | { kind: 'help'; group?: string }
  | { kind: 'manual'; words: string[] }
  | { kind: 'version' }
  | { kind: 'completion'; file: string }
  | CommandRoute;
/** A command and the words that are left for it. */
export interface CommandRoute {
  kind: 'command';
  id: string;
  verb: Verb;
  argv: string[];
}

const isHelp = (word: string | undefined): boolean => word === '--help' || word === '-h';

/** @param pointer a hint that is better than a similar word */
function unknown(what: string, typed: string, candidates: string[], help: string, pointer?: string): never {
  const meant = pointer === undefined ? suggest(typed, candidates) : undefined;
  throw usage(`no such ${what}: "${printable(typed)}"`, pointer ?? (meant === undefined ? help : `did you mean "${meant}"?`));
}

/** The verbs of each group. */
const verbsOf = (): Map<string, string[]> => new Map(Object.entries(groups).map(([group, { verbs }]) => [group, Object.keys(verbs)]));

/** The page of a command, or of all: checked like a command line, so that a wrong word gets the same answer. */
function manual(words: string[]): Route {
  if (words.length > 0) {
    const found = route([...words, '--help']);
    if (found.kind === 'help') throw usage('help --man takes a group and a verb', 'vioctl help --man vfio bind');
    if (found.kind === 'command') return { kind: 'manual', words: found.id.split(' ') };
  }
  return { kind: 'manual', words: [] };
}

/** Finds the command of an argv. Verbs may be two words (`shmem serve`). @throws usage with a did-you-mean */
export function route(argv: string[]): Route {
  const [name, ...rest] = argv;
  if (name === 'help' && rest.includes('--man')) return manual(rest.filter((word) => word !== '--man'));
  if (name === 'help') {
    const found = route([...rest, '--help']);
    if (found.kind !== 'command') return found;
    const more = found.argv.find((word) => !isHelp(word));
    if (more !== undefined) throw usage(`help takes a group and a verb, and not "${printable(more)}"`, `vioctl help ${found.id}`);
    return found;
  }
  if (name === undefined || isHelp(name)) return { kind: 'help' };
  if (name === '--version' || name === '-V' || name === 'version') return { kind: 'version' };
  if (name === 'completion') {
    const [shell = '', ...more] = rest;
    if (isHelp(shell)) return { kind: 'help' };
    const file = new Map<string, string>(Object.entries(completionFiles)).get(shell);
    if (more.length > 0 || file === undefined) throw usage('completion takes one shell: bash, zsh or fish', 'vioctl completion bash');
    return { kind: 'completion', file };
  }
  const group = Object.hasOwn(groups, name) ? groups[name] : undefined;
  if (!group) {
    if (name.startsWith('-')) throw usage(`no such option: "${printable(name)}"`, 'vioctl --help');
    return unknown('group', name, Object.keys(groups), 'vioctl --help', groupPointer(name, verbsOf()));
  }
  const [first, second] = rest;
  if (first === undefined || isHelp(first)) return { kind: 'help', group: name };
  for (const [words, verb] of [
    [1, first],
    [2, `${first} ${second}`],
  ] as const) {
    if (Object.hasOwn(group.verbs, verb))
      return { kind: 'command', id: `${name} ${verb}`, verb: group.verbs[verb]!, argv: rest.slice(words) };
  }
  if (first.startsWith('-')) throw usage(`no such option: "${printable(first)}"`, `vioctl ${name} --help`);
  const verbs = Object.keys(group.verbs);
  const deeper = verbs.filter((verb) => verb.startsWith(`${first} `));
  if (deeper.length) {
    if (second === undefined || isHelp(second)) return { kind: 'help', group: name };
    return unknown('verb', `${first} ${second}`, deeper, `vioctl ${name} --help`);
  }
  return unknown('verb', first, verbs, `vioctl ${name} --help`, verbPointer(name, first));
}

/** True if the user asked for machine-readable output: errors are JSON then, even where parsing failed. */
const asksForJson = (argv: string[]): boolean => splitWords(argv).own.some((word) => word === '--json' || word === '--ndjson');

/** Longest line of help: wider text reads badly. */
const maxHelpWidth = 100;
const helpPage = (env: NodeJS.ProcessEnv): HelpPage => ({
  width: Math.min(maxHelpWidth, terminalWidth(env)),
  ...(!speaksUtf8(env) && { spell: toAscii }),
});

async function print(text: string, env: NodeJS.ProcessEnv): Promise<void> {
  const writer = new FdWriter(1);
  writer.write(speaksUtf8(env) ? text : toAscii(text));
  await writer.flush();
}

/** An unknown option with the one that was probably meant; any other error as it is. */
function withMeant(err: unknown, command: CommandClass): unknown {
  const typed = err instanceof UnknownOptions ? /^--([\w-]+)/.exec(err.options[0] ?? '')?.[1] : undefined;
  const meant = typed === undefined ? undefined : suggest(typed, Object.keys(allFlags(command)));
  return meant === undefined ? err : usage((err as Error).message, `did you mean "--${meant}"?`);
}

/** The version in package.json. */
const versionOf = (home: string): string => (JSON.parse(readFileSync(`${home}/package.json`, 'utf8')) as { version: string }).version;

/**
 * Runs one command line and returns the exit status. Everything that was written has left when it returns; nothing in
 * here or below ends the process.
 * @param home the package's root
 */
export async function run(argv: string[], env: NodeJS.ProcessEnv, home: string): Promise<number> {
  const status = await runLine(argv, env, home);
  await messagesLeft();
  return status;
}

async function runLine(argv: string[], env: NodeJS.ProcessEnv, home: string): Promise<number> {
  let id = '';
  try {
    const target = route(argv);
    if (target.kind === 'version') {
      await print(`vioctl ${versionOf(home)}\n`, env);
      return 0;
    }
    if (target.kind === 'completion') {
      await print(readFileSync(`${home}/completions/${target.file}`, 'utf8'), env);
      return 0;
    }
    if (target.kind === 'manual') return (await import('./help/page.js')).showManual(target.words, home);
    if (target.kind === 'help') {
      const help = await import('./help/help.js');
      await print(target.group === undefined ? help.rootHelp(helpPage(env)) : help.groupHelp(target.group, helpPage(env)), env);
      return 0;
    }
    id = target.id;
    return await runCommand(target, env);
  } catch (err) {
    return failed(err, id, argv, env);
  }
}

/** Runs a command as the runner has found it. @returns its exit status @throws what it throws */
export async function runCommand({ id, verb, argv }: CommandRoute, env: NodeJS.ProcessEnv): Promise<number> {
  const { default: CommandType } = await verb.load();
  if (splitWords(argv).own.some(isHelp)) {
    const help = await import('./help/help.js');
    await print(help.commandHelp(help.describeCommand(id, verb.summary, CommandType), helpPage(env)), env);
    return 0;
  }
  const command = new CommandType({ id, argv, env });
  const { life } = command;
  let status: number | undefined;
  let failure: unknown;
  const attempt = async (step: () => Promise<void>): Promise<void> => {
    try {
      await step();
    } catch (err) {
      if (!life.cutShort(err)) failure ??= err;
    }
  };
  await attempt(async () => {
    status = await untilDone(command, CommandType);
  });
  // Whoever is left behind by a signal breaks off in whatever way: the signal is the reason, and the status tells it.
  if (life.status !== undefined && !CommandType.finishes) failure = undefined;
  if (CommandType.server) hurryOutput(); // a reader that rests must not keep a device, a socket, a disk
  await attempt(() => command.finish()); // what was printed before a failure leaves as well
  await attempt(() => life.end());
  if (failure === undefined) return life.status ?? status ?? 0;
  return failed(withMeant(failure, CommandType), id, argv, env);
}

/** Runs a command. One that neither serves nor has to bring what it began to an end is left behind soon after a signal. */
async function untilDone(command: Command, { server, finishes }: CommandClass): Promise<number | undefined> {
  const running = Promise.resolve(command.run()) as Promise<number | undefined>;
  return server || finishes ? running : Promise.race([running, command.life.overdue()]);
}

function failed(err: unknown, id: string, argv: string[], env: NodeJS.ProcessEnv): number {
  if (err instanceof ClosedPipe) return 141;
  const cause = err instanceof WriteError ? err.cause : err;
  const report = describe(cause, id);
  if (err instanceof WriteError) report.message = `write error: ${report.message}`;
  stderr(format(report, id, asksForJson(argv), err, env.VIOCTL_DEBUG === '1'));
  return report.exit;
}
