import { printable } from '../common/escape.js';

/** What the load of a configuration did, or would do. */
export interface LoadReport {
  /** false: the server was already as the file says */
  changed: boolean;
  dryRun?: true;
  /** changes made, or with --dry-run, the changes that would be made */
  changes: string[];
  /** parts of another program's file that vioctl ignores */
  notes?: string[];
}

/** How people see it. */
export const loadLines = ({ changes, notes = [], dryRun }: LoadReport): string[] => [
  ...notes.map(printable),
  ...(changes.length === 0 ? ['nothing differs'] : changes.map((change) => `${dryRun ? 'would ' : ''}${printable(change)}`)),
];
