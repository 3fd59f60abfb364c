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

function terms(list: Term[], width: number): string[] {
  const longest = list.reduce((max, { label }) => Math.max(max, label.length), 0) + 4;
  const indent = Math.min(30, longest, Math.floor(width / 2));
  return list.flatMap(({ label, text }) => {
    const lines = wrapText(text, width - indent);
    const head = `  ${label}`;
    const first = head.length + 2 > indent ? [head] : [head.padEnd(indent) + lines.shift()!];
    return [...first, ...lines.map((line) => ' '.repeat(indent) + line)];
  });
}

/** Help of one command. */
export function commandHelp(doc: CommandDoc, width: number): string {
  const out = [...wrapText(`vioctl ${doc.id} - ${doc.summary}`, width), '', ...wrapText(`Usage: ${doc.usage}`, width)];
  for (const paragraph of doc.paragraphs) out.push('', ...wrapText(paragraph, width));
  if (doc.args.length) out.push('', 'Arguments:', ...terms(doc.args, width));
  out.push('', 'Options:', ...terms(doc.flags, width));
  if (doc.examples.length)
    out.push(
      '',
      'Examples:',
      ...doc.examples.flatMap(([line, what]) => [`  ${line}`, ...wrapText(what, width - 6).map((text) => `      ${text}`)]),
    );
  return `${out.join('\n')}\n`;
}

/** Help of one group: its verbs. */
export function groupHelp(name: string, width: number): string {
  const group = groups[name]!;
  const verbs = Object.entries(group.verbs).map(([verb, { summary }]) => ({ label: verb, text: summary }));
  return `${[...wrapText(`vioctl ${name} - ${group.summary}`, width), '', ...wrapText(`Usage: vioctl ${name} VERB [OPTION]… [ARGUMENT]…`, width), '', 'Verbs:', ...terms(verbs, width), '', `"vioctl ${name} VERB --help" tells more of each.`].join('\n')}\n`;
}

/** Help of the whole program. */
export function rootHelp(width: number): string {
  const list = Object.entries(groups).map(([name, { summary }]) => ({ label: name, text: summary }));
  return `${[
    ...wrapText('vioctl - user-space I/O for Linux virtualization and storage hosts', width),
    '',
    ...wrapText('Usage: vioctl GROUP VERB [OPTION]… [ARGUMENT]…', width),
    '',
    'Groups:',
    ...terms(list, width),
    '',
    'Options and other words:',
    ...terms(
      [
        { label: '-h, --help', text: 'print help; behind a group or a verb, of that' },
        { label: '-V, --version', text: 'print the version' },
        { label: 'help [--man] …', text: 'print help, or show the manual page, of a group and verb' },
        { label: 'completion SHELL', text: 'print the completion for bash, zsh or fish' },
      ],
      width,
    ),
    '',
    ...wrapText(
      'Exit status: 0 done, 1 failed, 2 wrong usage, 3 refused by a safety check, 4 differences found, 5 damaged input or broken ' +
        'protocol, 6 permission missing, 7 not supported here, 8 failed and not fully restored, 124 timed out.',
      width,
    ),
  ].join('\n')}\n`;
}
