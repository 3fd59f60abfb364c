/**
 * Checks the words that ship against WRITING's rules, as far as a program can: `node --import tsx scripts/prose.ts`. Forbidden
 * phrases everywhere; the length of sentences in documents, help texts and comments. Fails with file, line and phrase.
 */
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import { allCommands } from '../src/cli/help/man.js';

/** Words on average, and the share of sentences above LONG. */
const MEAN = 18;
const LONG = 30;
const MOST_LONG = 0.05;

/** Phrases that a reader must parse twice, and terms that the field does not use; each with what to write. */
const forbidden: readonly (readonly [pattern: RegExp, instead: string])[] = [
  [/\bthat which\b/i, 'a noun'],
  [/\bwhat is so already\b|\b(is|was) so already\b|\balready so\b/i, 'already done'],
  [/\bread on although\b/i, 'continue even if'],
  [/\bso many (bytes|blocks|pages|items)\b/i, 'SIZE bytes'],
  [/\bwhere it is free\b|\bnone for none\b/i, 'default: …; "none" disables it'],
  [/\blet this safety check fail\b/i, 'ignore this safety check'],
  [/\bprove DMA both ways\b/i, 'test DMA in both directions'],
  [/\bwithout anything of value\b/i, 'a scratch …: its data is overwritten'],
  [/\bhas no thread for either\b/i, 'if the kernel cannot start a worker'],
  [/\bbe the front-end\b/i, 'act as the front-end'],
  [/\bhow (large|long|big|many) (it|they) (is|are)\b/i, 'the size, the number'],
  [/\bon which there (is|are)\b/i, 'with'],
  [/\bhuge pages?\b/i, 'hugepages'],
  [/\b[Bb]locksizes?\b/, 'block size'],
  [/\bIO_uring\b|\bIo_uring\b|\bIO_URING\b(?!_)/, 'io_uring'],
  [/\bfront ?ends?\b/i, 'front-end'],
  [/(?<!memory[ -])\bback ?ends?\b/i, 'back-end'],
  [/\bcommand[- ]line flags?\b/i, 'options'],
];

/** Those that users alone must be spared. */
const forbiddenToUsers: typeof forbidden = [
  [/\bthat nobody (uses|serves|reads|has)\b/i, 'unused, free'],
  [/\b(is|are) what\b/i, 'subject, verb, object'],
  [/\bthe most that\b/i, 'at most'],
  [/\bwhere there (is|are) (none|one|no)\b/i, 'if, without'],
  [/(?<!set-up )\bflags?\b/i, 'option'],
];

/** Documents about the code and its interfaces, which have flags. */
const developers = /^(ARCHITECTURE|CONTRIBUTING|docs\/uring-api|docs\/examples)/;

interface Text {
  where: string;
  text: string;
}

/** Sentences of running text. Abbreviations with a point are few in ours: e.g., i.e., vs. */
export function sentences(text: string): string[] {
  return text
    .replace(/`[^`]*`/g, 'X')
    .replace(/\[([^\]]*)\]\([^)]*\)/g, '$1')
    .replace(/\b(e\.g|i\.e|vs|etc)\./g, '$1')
    .split(/(?<=[.!?:;])\s+(?=[A-Z"'(`-])|(?<=[.!?])$/)
    .map((one) => one.trim())
    .filter((one) => one.split(/\s+/).length > 2);
}
const wordsOf = (sentence: string): number => sentence.split(/\s+/).filter((word) => /\w/.test(word)).length;

/** Paragraphs and list items of a Markdown document, without code, tables, headings and generated parts. */
export function paragraphs(markdown: string): string[] {
  return markdown
    .replace(/<!--[\s\S]*?-->/g, '')
    .replace(/^```[\s\S]*?^```/gm, '')
    .split(/\n\s*\n|\n(?=\s*(?:[-*]|\d+\.) )/)
    .filter((block) => !/^\s*(#|\||>)/.test(block))
    .map((block) =>
      block
        .replace(/^\s*(?:[-*]|\d+\.) /, '')
        .replace(/\s*\n\s*/g, ' ')
        .trim(),
    )
    .filter((block) => block !== '');
}

/** Comments of TypeScript and C++ as running text. */
export function comments(code: string): { line: number; text: string }[] {
  const found: { line: number; text: string }[] = [];
  const lines = code.split('\n');
  let run: { line: number; text: string } | undefined;
  let block = false;
  lines.forEach((line, i) => {
    const whole = /^\s*\/\/ ?(.*)$/.exec(line);
    const opens = /^\s*\/\*\*? ?(.*?)(\*\/)?$/.exec(line);
    let text: string | undefined;
    if (block) {
      text = line.replace(/^\s*\* ?/, '').replace(/\*\/.*$/, '');
      if (line.includes('*/')) block = false;
    } else if (whole) text = whole[1]!;
    else if (opens) {
      text = opens[1]!.replace(/\*\/.*$/, '');
      block = !line.includes('*/');
    }
    if (text === undefined) run = undefined;
    else if (run && text.trim() !== '') run.text += ` ${text.trim()}`;
    else if (text.trim() !== '') found.push((run = { line: i + 1, text: text.trim() }));
    else run = undefined;
  });
  return found.map(({ line, text }) => ({ line, text: text.replace(/@(param|returns|throws)\b/g, '. $1') }));
}

/** Where errors of ours are made, and hints given. */
const made = /\b(?:VioError|usage|wrap|refused|damaged)\(|\bhint: /g;
const literal = /'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*"|`(?:[^`\\]|\\.)*`/g;

/** Messages and hints of the errors in a file: the literals of at least two words in the statement, values as X. */
export function messages(code: string): { line: number; text: string }[] {
  const found = new Map<number, string>();
  for (const { index } of code.matchAll(made)) {
    const end = code.indexOf(';\n', index);
    for (const match of code.slice(index, end < 0 ? undefined : end).matchAll(literal)) {
      const text = match[0].slice(1, -1).replace(/\$\{[^}]*\}/g, 'X');
      if (/\S\s+\S/.test(text)) found.set(index + match.index, text);
    }
  }
  return [...found].map(([at, text]) => ({ line: code.slice(0, at).split('\n').length, text }));
}

const tracked = execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard'], { encoding: 'utf8' }).trim().split('\n');

/** All texts by kind. */
async function collect(): Promise<Map<string, Text[]>> {
  const documents = tracked
    .filter((file) => /\.md$/.test(file) && !file.startsWith('test/') && file !== 'CHANGELOG.md')
    .flatMap((file) => paragraphs(fs.readFileSync(file, 'utf8')).map((text) => ({ where: file, text })));
  const help = (await allCommands()).flatMap(({ doc }) => [
    ...doc.paragraphs.map((text) => ({ where: `vioctl ${doc.id} --help`, text })),
    ...[...doc.flags, ...doc.args].map(({ label, text }) => ({ where: `vioctl ${doc.id} ${label.trim()}`, text })),
    ...doc.examples.map(([, text]) => ({ where: `vioctl ${doc.id}, example`, text })),
    { where: `vioctl ${doc.id}`, text: doc.summary },
  ]);
  const sources = tracked.filter((file) => /^(src|native|scripts|test|bin)\/.*\.(ts|cc|h|mjs|js)$/.test(file) && fs.existsSync(file));
  const code = sources.flatMap((file) =>
    comments(fs.readFileSync(file, 'utf8')).map(({ line, text }) => ({ where: `${file}:${line}`, text })),
  );
  const errors = sources
    .filter((file) => /^src\/.*\.ts$/.test(file))
    .flatMap((file) => messages(fs.readFileSync(file, 'utf8')).map(({ line, text }) => ({ where: `${file}:${line}`, text })));
  return new Map([
    ['errors', errors],
    ['documents', documents],
    ['help', help],
    ['comments', code],
  ]);
}

/** All that is wrong, as lines. */
export async function faults(verbose = false): Promise<string[]> {
  const found: string[] = [];
  for (const [kind, texts] of await collect()) {
    const lengths: number[] = [];
    const long: string[] = [];
    for (const { where, text } of texts) {
      for (const [pattern, instead] of kind === 'comments' || developers.test(where) ? forbidden : [...forbidden, ...forbiddenToUsers]) {
        const match = pattern.exec(text.replace(/`[^`]*`/g, ''));
        if (match) found.push(`${where}: "${match[0]}": write ${instead}`);
      }
      for (const sentence of sentences(text)) {
        const count = wordsOf(sentence);
        lengths.push(count);
        if (count > LONG) long.push(`${where}: ${count} words: ${sentence}`);
      }
    }
    const mean = lengths.reduce((sum, n) => sum + n, 0) / (lengths.length || 1);
    const share = long.length / (lengths.length || 1);
    if (verbose)
      console.log(`${kind}: ${lengths.length} sentences, ${mean.toFixed(1)} words on average, ${(share * 100).toFixed(1)} % above ${LONG}`);
    if (mean > MEAN) found.push(`${kind}: ${mean.toFixed(1)} words in a sentence on average, ${MEAN} at most`);
    if (share > MOST_LONG) found.push(`${kind}: ${(share * 100).toFixed(1)} % of the sentences have more than ${LONG} words`, ...long);
  }
  return found;
}

if (process.argv[1]?.endsWith('prose.ts')) {
  const found = await faults(process.argv.includes('--verbose'));
  for (const fault of found) console.error(fault);
  process.exitCode = found.length > 0 ? 1 : 0;
}
