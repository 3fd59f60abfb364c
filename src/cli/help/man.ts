import { isDeepStrictEqual } from 'node:util';
import { exitStatuses } from '../../common/errors.js';
import { groups } from '../../groups/index.js';
import type { Verb } from '../../groups/types.js';
import type { CommandClass } from '../command.js';
import { bashCompletion } from '../completion/bash.js';
import { completionFiles } from '../completion/files.js';
import { fishCompletion } from '../completion/fish.js';
import { completionModel } from '../completion/model.js';
import { zshCompletion } from '../completion/zsh.js';
import { type CommandDoc, describeCommand } from './help.js';
import { commonEnvironment, manualOf, manuals } from './manual.js';

/** Every command of the table with its documentation model. */
export async function allCommands(): Promise<{ doc: CommandDoc; verb: Verb; command: CommandClass }[]> {
  const all = [];
  for (const [name, group] of Object.entries(groups)) {
    for (const [verbName, verb] of Object.entries(group.verbs)) {
      const command = (await verb.load()).default;
      all.push({ doc: describeCommand(`${name} ${verbName}`, verb.summary, command), verb, command });
    }
  }
  return all;
}

/** Text for roff: backslashes, hyphens that must stay hyphens. */
const escaped = (text: string): string => text.replaceAll('\\', '\\e').replaceAll('-', '\\-').replaceAll('…', '...');

/** A line that roff would take for a request begins with an empty character. */
const guarded = (text: string): string => text.replace(/^([.'])/, '\\&$1');

/** One line of roff. */
export const line = (text: string): string => guarded(escaped(text));

/** Longest line of a page's source; mandoc complains about more than 80 bytes. */
const sourceWidth = 76;

/** A paragraph as short lines; roff fills them anyway. */
export const roff = (text: string): string => escaped(text).split(' ').reduce<string[]>(joined, []).map(guarded).join('\n');

/** Adds a word to the last of the lines, or begins a line with it. */
function joined(lines: string[], word: string): string[] {
  const last = lines.at(-1);
  if (last !== undefined && last.length + 1 + word.length <= sourceWidth) lines[lines.length - 1] = `${last} ${word}`;
  else lines.push(word);
  return lines;
}

/** Bold, as a macro's only argument: blanks and quotes stay. */
export const bold = (text: string): string => `.B "${line(text).replaceAll('"', '\\(dq')}"`;

export const section = (title: string, lines: string[]): string[] => (lines.length ? [`.SH ${title}`, ...lines] : []);

/** Date on the pages: that of the release they describe. */
const released = '2026-11-20';

/** Title lines: man(7) macros, which every man program renders alike. */
export const title = (name: string, chapter = 1): string[] => [
  `.TH ${line(name.toUpperCase())} ${chapter} ${released} vioctl "${chapter === 1 ? 'User Commands' : 'File Formats'}"`,
];

const entries = (list: readonly (readonly [string, string, ...unknown[]])[]): string[] =>
  list.flatMap(([term, text]) => ['.TP', bold(term), roff(text)]);

const pageOf = (id: string): string => `vioctl-${id.replaceAll(' ', '-')}(1)`;

/** References to pages, separated by commas. */
export const seeAlso = (pages: readonly string[]): string[] =>
  pages.map((page, i) => {
    const [, name, number] = /^(.*)\((\d)\)$/.exec(page)!;
    return `.BR ${line(name!)} (${number})${i < pages.length - 1 ? ',' : ''}`;
  });

/** Keys of the JSON that a command prints, and of a line of NDJSON if that is another object. */
export interface DocumentKeys {
  keys: readonly { name: string; text: string }[];
  record: readonly { name: string; text: string }[] | undefined;
}

/** The section about JSON. @param schema file of the JSON Schema */
function jsonSection({ keys, record }: DocumentKeys, schema: string): string[] {
  const list = (all: DocumentKeys['keys']) => all.flatMap(({ name, text }) => ['.TP', bold(name), roff(text)]);
  const same = isDeepStrictEqual(keys, record);
  return [
    ...(keys.length > 0 ? [roff(`The document of --json${same ? ', and a line of --ndjson,' : ''} has these keys:`), ...list(keys)] : []),
    ...(record?.length && !same ? [...(keys.length > 0 ? ['.PP'] : []), roff('A line of --ndjson has these keys:'), ...list(record)] : []),
    ...(keys.length > 0 || record?.length ? ['.PP'] : []),
    roff(`schemas/${schema} of the package is the JSON Schema.`),
  ];
}

/** The manual page of one command. @param siblings ids of the commands of its group */
export function commandPage(doc: CommandDoc, siblings: readonly string[], documents?: DocumentKeys): string {
  const name = `vioctl-${doc.id.replaceAll(' ', '-')}`;
  const [group, ...verb] = doc.id.split(' ');
  const { files, environment, notes, seeAlso: others } = manualOf(group!, verb.join(' '));
  const terms = (list: { label: string; text: string }[]) => list.flatMap(({ label, text }) => ['.TP', bold(label.trim()), roff(text)]);
  const lines = [
    ...title(name),
    ...section('NAME', [roff(`${name} - ${doc.summary}`)]),
    ...section('SYNOPSIS', [bold(doc.usage)]),
    ...section(
      'DESCRIPTION',
      doc.paragraphs.flatMap((paragraph, i) => (i === 0 ? [roff(paragraph)] : ['.PP', roff(paragraph)])),
    ),
    ...section('ARGUMENTS', terms(doc.args)),
    ...section('OPTIONS', terms(doc.flags)),
    ...section(
      'EXAMPLES',
      doc.examples.flatMap(([example, what]) => ['.TP', bold(example), roff(what)]),
    ),
    ...section('JSON', documents ? jsonSection(documents, `${doc.id.replaceAll(' ', '-')}.json`) : []),
    ...section('FILES', entries(files)),
    ...section('ENVIRONMENT', entries([...environment, ...commonEnvironment])),
    ...section('EXIT STATUS', ['See', '.BR vioctl (1).']),
    ...section(
      'NOTES',
      notes.flatMap((note, i) => (i === 0 ? [roff(note)] : ['.PP', roff(note)])),
    ),
    ...section('SEE ALSO', seeAlso(['vioctl(1)', ...siblings.filter((id) => id !== doc.id).map(pageOf), ...others])),
  ];
  return `${lines.join('\n')}\n`;
}

/** vioctl(1): groups, verbs, streams, exit statuses. */
export function rootPage(docs: CommandDoc[]): string {
  const lines = [
    ...title('vioctl'),
    ...section('NAME', ['vioctl \\- user\\-space I/O for Linux virtualization and storage hosts']),
    ...section('SYNOPSIS', ['.B vioctl', 'GROUP VERB [OPTION]... [ARGUMENT]...']),
    ...section('DESCRIPTION', [
      roff(
        'Binds PCI devices to VFIO and maps memory for their DMA, registers files on io_uring, serves and uses NVMe over TCP ' +
          'without kernel modules, looks into and serves vhost-user back-ends, and reads QEMU migration files. Data goes to ' +
          'stdout, prose and progress to stderr; --json prints one JSON document, --ndjson one object per line.',
      ),
    ]),
    ...section(
      'COMMANDS',
      docs.flatMap((doc) => ['.TP', `.BR ${line(`vioctl-${doc.id.replaceAll(' ', '-')}`)} (1)`, roff(doc.summary)]),
    ),
    ...section(
      'EXIT STATUS',
      exitStatuses.flatMap(([status, text]) => ['.TP', `.B ${status}`, roff(text)]),
    ),
    ...section('FILES', entries(Object.values(manuals).flatMap(({ files }) => files))),
    ...section('ENVIRONMENT', [
      ...['.TP', '.B NO_COLOR, FORCE_COLOR, CLICOLOR, CLICOLOR_FORCE, TERM=dumb', 'Colours, as usual; \\-\\-color comes first.'],
      ...['.TP', '.B COLUMNS', 'Width of help texts.'],
      ...['.TP', '.B XDG_CACHE_HOME', 'Where compiled code is kept between runs (vioctl/code), else ~/.cache.'],
      ...['.TP', '.B TMPDIR', 'Where what must be spooled goes, under no name.'],
      ...['.TP', '.B VIOCTL_DEBUG', 'With 1, an error prints where it happened.'],
    ]),
    ...section('NOTES', [
      roff('vioctl help --man GROUP VERB shows the page of a command. docs/ of the repository explains each group and its subject.'),
      '.PP',
      roff('Names of files may be any bytes. In JSON, a name that is not UTF-8 also appears in hex: "pathHex" beside "path".'),
    ]),
    ...section('SEE ALSO', seeAlso(docs.map(({ id }) => pageOf(id)))),
  ];
  return `${lines.join('\n')}\n`;
}

/** The README with its tables of commands and exit statuses renewed between their markers. */
function readmeWith(readme: string, docs: CommandDoc[]): string {
  const rows = docs.map((doc) => `| [${doc.id}](man/vioctl-${doc.id.replaceAll(' ', '-')}.1) | ${doc.summary.replaceAll('|', '\\|')} |`);
  const table = ['| command | what it does |', '|---|---|', ...rows].join('\n');
  const statuses = ['| status | meaning |', '|---|---|', ...exitStatuses.map(([status, text]) => `| ${status} | ${text} |`)].join('\n');
  const between = (text: string, name: string, content: string): string =>
    text.replace(
      new RegExp(`(<!-- ${name}:.*-->\\n)[\\s\\S]*?(<!-- /${name} -->)`),
      (_all, begin: string, end: string) => `${begin}${content}\n${end}`,
    );
  return between(between(readme, 'commands', table), 'exit statuses', statuses);
}

/** Generated documents and completions: path below the repository's root and text. @param readme the README as it stands @param documents keys of the JSON of each command */
export async function generated(readme: string, documents: ReadonlyMap<string, DocumentKeys>): Promise<Map<string, string>> {
  const commands = await allCommands();
  const model = completionModel(commands);
  const siblingsOf = (id: string): string[] =>
    commands.map(({ doc }) => doc.id).filter((other) => other.split(' ')[0] === id.split(' ')[0]);
  return new Map([
    [
      'README.md',
      readmeWith(
        readme,
        commands.map(({ doc }) => doc),
      ),
    ],
    ['man/vioctl.1', rootPage(commands.map(({ doc }) => doc))],
    ...commands.map(
      ({ doc }) => [`man/vioctl-${doc.id.replaceAll(' ', '-')}.1`, commandPage(doc, siblingsOf(doc.id), documents.get(doc.id))] as const,
    ),
    [`completions/${completionFiles.bash}`, bashCompletion(model)],
    [`completions/${completionFiles.zsh}`, zshCompletion(model)],
    [`completions/${completionFiles.fish}`, fishCompletion(model)],
  ]);
}
