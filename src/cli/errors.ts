import { codeOf, Exit, type ExitStatus, exitOfErrno, reason, VioError } from '../common/errors.js';
import { harmless, printable } from '../common/escape.js';
import { toJson } from './output.js';

/** What the user is told of an error and the status the program ends with. */
export interface Report {
  exit: ExitStatus;
  code: string;
  message: string;
  hint: string | undefined;
  details: Record<string, unknown> | undefined;
}

/** oclif's parser throws its own classes; all of them mean wrong usage. */
function isParserError(err: unknown): err is Error {
  return err instanceof Error && ('oclif' in err || 'parse' in err);
}

/** oclif's parser prefixes what a flag's own parser says, also in errors of ours, and appends a trailer of its own. */
const trailer = /\n?See more help with --help/;
const parsing = /^Parsing (--\S+) \n\t/;
const ownMessage = (message: string): string => message.replace(parsing, '$1: ').replace(trailer, '');

/** One line of what oclif's parser tells in several. */
function parserMessage(text: string): string {
  const own = text.replace(trailer, '');
  if (parsing.test(own)) return own.replace(parsing, (_all, flag: string) => `${flag}: `).replace(/: Expected/, ': expected');
  const [first = 'wrong usage', ...rest] = own.split('\n');
  if (/^The following errors? occurred:$/.test(first)) {
    const said = rest.map((line) => line.trim().replace(/=true /, ' '));
    const missing = said.flatMap((line) => /^Missing required flag (\S+)$/.exec(line)?.[1] ?? []);
    const others = said.filter((line) => line !== '' && !line.startsWith('Missing required flag '));
    const needed = missing.length > 0 ? [`Missing required flag${missing.length > 1 ? 's' : ''}: --${missing.join(', --')}`] : [];
    return [...others, ...needed].join('; ');
  }
  if (!first.endsWith(':')) return first;
  const names = rest.flatMap((line) => /^\s*([A-Za-z][\w.|-]*)\s/.exec(`${line} `)?.[1] ?? []);
  return names.length > 0 ? `${first} ${names.join(', ')}` : first;
}

/** Any thrown value to a report. */
export function describe(err: unknown, id: string): Report {
  if (err instanceof VioError)
    return { exit: err.exit, code: err.code, message: ownMessage(err.message), hint: err.hint, details: err.details };
  if (isParserError(err)) {
    return {
      exit: Exit.usage,
      code: 'USAGE',
      message: printable(parserMessage(err.message)),
      hint: `vioctl ${id} --help`.replace('  ', ' '),
      details: undefined,
    };
  }
  const code = codeOf(err);
  if (code !== undefined) return { exit: exitOfErrno(code), code, message: reason(err), hint: undefined, details: undefined };
  const message = err instanceof Error ? err.message : String(err);
  return { exit: Exit.failed, code: 'INTERNAL', message, hint: 'VIOCTL_DEBUG=1 prints where it happened', details: undefined };
}

/** The report as text (`vioctl: vfio bind X: why` and `hint: …`) or as one JSON object. */
export function format(report: Report, id: string, json: boolean, err: unknown, debug: boolean): string {
  if (json) {
    const { code, message, hint, details } = report;
    return `${toJson({ error: { code, message, hint, details } })}\n`;
  }
  let text = `vioctl: ${id === '' ? '' : `${id}: `}${harmless(report.message.replace(/\n+/g, ' '))}\n`;
  if (report.hint !== undefined) text += `hint: ${harmless(report.hint)}\n`;
  if (debug && err instanceof Error && err.stack) text += `${err.stack}\n`;
  return text;
}
