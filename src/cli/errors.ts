import { codeOf, Exit, type ExitStatus, exitOfErrno, reason, VioError } from '../common/errors.js';
import { harmless } from '../common/escape.js';
import { toJson } from '../common/json.js';
import { WrongUsage } from './oclif.js';

/** What the user is told of an error and the status the program ends with. */
export interface Report {
  exit: ExitStatus;
  code: string;
  message: string;
  hint: string | undefined;
  details: Record<string, unknown> | undefined;
}

/** Any thrown value to a report. */
export function describe(err: unknown, id: string): Report {
  if (err instanceof VioError) {
    const hint = err.hint ?? (err instanceof WrongUsage ? `vioctl ${id} --help`.replace('  ', ' ') : undefined);
    return { exit: err.exit, code: err.code, message: err.message, hint, details: err.details };
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
