import { printable } from '../common/escape.js';

const nothingToDo = 'nothing to do: already done';

/** How people see a change that was only planned, or that was made before; undefined for one that was made now. */
export function unchangedLines({ would, changed }: { would?: string[]; changed?: boolean }): string[] | undefined {
  if (would) return would.length > 0 ? would.map((line) => `would ${printable(line)}`) : [nothingToDo];
  return changed === false ? [nothingToDo] : undefined;
}
