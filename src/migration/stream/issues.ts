import { printable } from '../../common/escape.js';
import { hex64 } from '../../common/units.js';
import { limits } from './format.js';

export type Severity = 'error' | 'warning' | 'note';

/** Something about the input that a reader must know: where, in which record, what was expected and what was there. */
export interface Issue {
  severity: Severity;
  /** stable name for scripts */
  code: string;
  /** absolute, in the stream */
  offset: bigint;
  /** the record: `ram/pc.ram`, `0000:00:02.0/virtio-net (9)` */
  path: string;
  message: string;
  expected?: string;
  found?: string;
  /** what was done about it */
  recovered?: string;
}

/** An issue as an event of a walk. */
export function report(
  severity: Severity,
  code: string,
  offset: number | bigint,
  path: string,
  message: string,
  more: Partial<Issue> = {},
): { type: 'issue'; issue: Issue } {
  return { type: 'issue', issue: { severity, code, offset: BigInt(offset), path, message, ...more } };
}

/** `0x1a2b: ram/pc.ram: message (expected X, found Y); recovered`. */
export function issueText(issue: Issue): string {
  const facts = [issue.expected && `expected ${issue.expected}`, issue.found && `found ${issue.found}`].filter(Boolean).join(', ');
  const where = `${hex64(issue.offset)}${issue.path ? `: ${printable(issue.path)}` : ''}`;
  return `${where}: ${printable(issue.message)}${facts ? ` (${printable(facts)})` : ''}${issue.recovered ? `; ${issue.recovered}` : ''}`;
}

/** Collects issues: the first ones of each severity whole, so that no flood of one hides another; the rest counted. */
export class Issues {
  readonly list: Issue[] = [];
  readonly #count: Record<Severity, number> = { error: 0, warning: 0, note: 0 };
  #dropped = 0;

  add(issue: Issue): void {
    this.#count[issue.severity] += 1;
    if (this.#count[issue.severity] <= limits.issues) this.list.push(issue);
    else this.#dropped += 1;
  }

  get errors(): number {
    return this.#count.error;
  }

  /** Issues counted only. */
  get dropped(): number {
    return this.#dropped;
  }
}
