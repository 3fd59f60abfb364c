import { printable } from '../common/escape.js';

/** What the load of a configuration did, or would do. */
export interface LoadReport {
  changed: boolean;
  dryRun?: true;
  /** What was changed; with dryRun, what would be. */
  changes: string[];
  /** What was left out of a file of another program. */
  notes?: string[];
}

/** How people see it. */
export const loadLines = ({ changes, notes = [], dryRun }: LoadReport): string[] => [
  ...notes.map(printable),
  ...(changes.length === 0 ? ['nothing differs'] : changes.map((change) => `${dryRun ? 'would ' : ''}${printable(change)}`)),
];
