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

/** Any thrown value to a report. Parser errors lose oclif's own trailer and lists: one line, then a hint. */
export function describe(err: unknown, id: string): Report {
  if (err instanceof VioError) return { exit: err.exit, code: err.code, message: err.message, hint: err.hint, details: err.details };
  if (isParserError(err)) {
    const [first = 'wrong usage', ...rest] = err.message.replace(/\n?See more help with --help/, '').split('\n');
    const names = rest.flatMap((line) => /^\s*([A-Za-z][\w.-]*)\s/.exec(`${line} `)?.[1] ?? []);
    const told = rest.map((line) => line.trim()).find((line) => line.startsWith('--'));
    const message = first.endsWith(':') ? (names.length ? `${first} ${names.join(', ')}` : (told ?? first)) : first;
    return {
      exit: Exit.usage,
      code: 'USAGE',
      message: printable(message),
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
