import { formatDuration, formatSize } from '../../common/units.js';
import { groups } from '../../groups/index.js';
import { allFlags, type CommandClass } from '../command.js';
import { type Arg, labelOf } from '../oclif.js';
import { wrapText } from './wrap.js';

/** One flag or argument as help and man page show it. */
export interface Term {
  label: string;
  text: string;
}

/** Everything that help, man page and completion say of a command: one model, several renderers. */
export interface CommandDoc {
  id: string;
  summary: string;
  usage: string;
  paragraphs: string[];
  args: Term[];
  flags: Term[];
  examples: CommandClass['examples'];
}

type AnyFlag = ReturnType<typeof allFlags>[string];

/** A default as a user would write it. */
const asTyped = (value: unknown, kind: unknown): string =>
  typeof value === 'number' && kind === 'TIME'
    ? formatDuration(value)
    : typeof value === 'number' && kind === 'SIZE'
      ? formatSize(value)
      : String(value);

/** `-n, --nqn NQN` and what it does, with default, choices and environment variable. */
function flagTerm(name: string, flag: AnyFlag): Term {
  const short = flag.char ? `-${flag.char}, ` : '    ';
  let label = `${short}--${flag.type === 'boolean' && flag.allowNo ? '[no-]' : ''}${name}`;
  let text = flag.summary ?? flag.description ?? '';
  if (flag.type === 'option') {
    label += ` ${flag.helpValue ?? (flag.options ? flag.options.join('|') : name.toUpperCase().replace(/^.*-/, ''))}`;
    if (flag.multiple) text += ' (may be repeated)';
    const shown = flag.defaultHelp ?? flag.default;
    if (shown !== undefined && typeof shown !== 'function' && typeof shown !== 'object')
      text += ` [default: ${asTyped(shown, flag.helpValue)}]`;
    if (flag.required) text += ' (required)';
  }
  if (flag.env) text += ` [env: ${flag.env}]`;
  return { label, text };
}

/** `BDF…`, `[FILE]` */
function argLabel(name: string, arg: Arg<unknown>): string {
  const label = labelOf(name) + (arg.multiple ? '…' : '');
  return arg.required ? label : `[${label}]`;
}

/** The documentation model of a command. */
export function describeCommand(id: string, summary: string, command: CommandClass): CommandDoc {
  const args = Object.entries(command.args).filter(([, arg]) => !arg.hidden) as [string, Arg<unknown>][];
  const flags = Object.entries(allFlags(command)).filter(([, flag]) => !flag.hidden);
  const usage = [
    'vioctl',
    id,
    '[OPTION]…',
    ...args.map(([name, arg]) => argLabel(name, arg)),
    ...(command.passthrough ? [command.passthrough === 'required' ? '-- CMD [ARG]…' : '[-- CMD [ARG]…]'] : []),
  ].join(' ');
  return {
    id,
    summary,
    usage,
    paragraphs:
      command.description.trim() === ''
        ? []
        : command.description
            .trim()
            .split(/\n\s*\n/)
            .map((p) => p.replace(/\s*\n\s*/g, ' ')),
    args: args.map(([name, arg]) => ({ label: name.toUpperCase(), text: arg.description ?? '' })),
    flags: flags.map(([name, flag]) => flagTerm(name, flag)),
    examples: command.examples,
  };
}

/** What help is printed for. */
export interface HelpPage {
  width: number;
  /** Spells what a terminal outside UTF-8 cannot show; before lines are broken, since it can be longer. */
  spell?: (text: string) => string;
}

const asIs = (text: string): string => text;

/** Breaks paragraphs for a page. */
const wrapperOf =
  ({ width, spell = asIs }: HelpPage) =>
  (text: string): string[] =>
    wrapText(spell(text), width);

function terms(unspelled: Term[], { width, spell = asIs }: HelpPage): string[] {
  const list = unspelled.map(({ label, text }) => ({ label: spell(label), text: spell(text) }));
  const longest = list.reduce((max, { label }) => Math.max(max, label.length), 0) + 4;
  const indent = Math.min(30, longest, Math.floor(width / 2));
  return list.flatMap(({ label, text }) => {
    const lines = wrapText(text, width - indent);
    const head = wrapText(label, width - 10).map((part, i) => `${' '.repeat(i === 0 ? 2 : 10)}${part}`);
    const first = head.length > 1 || head[0]!.length + 2 > indent ? head : [head[0]!.padEnd(indent) + lines.shift()!];
    return [...first, ...lines.map((line) => ' '.repeat(indent) + line)];
  });
}

/** Help of one command. */
export function commandHelp(doc: CommandDoc, page: HelpPage): string {
  const { width, spell = asIs } = page;
  const wrapped = wrapperOf(page);
  const out = [...wrapped(`vioctl ${doc.id} - ${doc.summary}`), '', ...wrapped(`Usage: ${doc.usage}`)];
  for (const paragraph of doc.paragraphs) out.push('', ...wrapped(paragraph));
  if (doc.args.length) out.push('', 'Arguments:', ...terms(doc.args, page));
  out.push('', 'Options:', ...terms(doc.flags, page));
  if (doc.examples.length)
    out.push(
      '',
      'Examples:',
      ...doc.examples.flatMap(([line, what]) => [`  ${spell(line)}`, ...wrapText(spell(what), width - 6).map((text) => `      ${text}`)]),
    );
  return `${out.join('\n')}\n`;
}

/** Help of one group: its verbs. */
export function groupHelp(name: string, page: HelpPage): string {
  const wrapped = wrapperOf(page);
  const group = groups[name]!;
  const verbs = Object.entries(group.verbs).map(([verb, { summary }]) => ({ label: verb, text: summary }));
  const out = [...wrapped(`vioctl ${name} - ${group.summary}`), '', ...wrapped(`Usage: vioctl ${name} VERB [OPTION]… [ARGUMENT]…`)];
  out.push('', 'Verbs:', ...terms(verbs, page), '', ...wrapped(`"vioctl ${name} VERB --help" describes a verb and its options.`));
  return `${out.join('\n')}\n`;
}

/** Help of the whole program. */
export function rootHelp(page: HelpPage): string {
  const wrapped = wrapperOf(page);
  const list = Object.entries(groups).map(([name, { summary }]) => ({ label: name, text: summary }));
  const others = [
    { label: '-h, --help', text: 'print help for vioctl, a group or a verb' },
    { label: '-V, --version', text: 'print the version' },
    { label: 'help [--man] …', text: 'print the help, or show the manual page, of a group and verb' },
    { label: 'completion SHELL', text: 'print the completion script for bash, zsh or fish' },
  ];
  const statuses =
    'Exit status: 0 done, 1 failed, 2 wrong usage, 3 refused by a safety check, 4 differences found, 5 damaged input or broken ' +
    'protocol, 6 permission missing, 7 not supported here, 8 failed and not fully restored, 124 timed out.';
  return `${[
    ...wrapped('vioctl - user-space I/O for Linux virtualization and storage hosts'),
    '',
    ...wrapped('Usage: vioctl GROUP VERB [OPTION]… [ARGUMENT]…'),
    '',
    'Groups:',
    ...terms(list, page),
    '',
    'Other words and options:',
    ...terms(others, page),
    '',
    ...wrapped(statuses),
  ].join('\n')}\n`;
}
