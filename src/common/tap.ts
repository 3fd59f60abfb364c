/** The Test Anything Protocol, version 14. */
import { printable } from './escape.js';

/** One test point. */
export interface TapPoint {
  ok: boolean;
  name: string;
  /** Why it was skipped. */
  skip?: string | undefined;
  /** What a point that is not ok tells more, as a YAML block. */
  details?: Record<string, unknown>;
}

/** `#` begins a directive and `\` escapes, so that both are escaped in free text. */
const clean = (text: string): string => printable(text).replaceAll('#', '\\#');

/** The first lines of a document of so many points. */
export const tapHead = (count: number): string => `TAP version 14\n1..${count}`;

/** The lines of a test point. */
export function tapPoint({ ok, name, skip, details = {} }: TapPoint, number: number): string {
  const head = `${ok ? 'ok' : 'not ok'} ${number} - ${clean(name)}`;
  if (skip !== undefined) return `${head} # SKIP ${clean(skip)}`;
  if (ok) return head;
  const block = Object.entries(details).map(([key, value]) => `  ${key}: ${JSON.stringify(value)}`);
  return [head, '  ---', ...block, '  ...'].join('\n');
}
