import type { CommandClass } from '../cli/command.js';

/** One verb of a group: its summary (help of the group needs no more) and where its class is loaded from. */
export interface Verb {
  summary: string;
  load: () => Promise<{ default: CommandClass }>;
}

/** A group of commands: `vfio`, with verbs such as `bind` or, two words deep, `shmem serve`. */
export interface Group {
  summary: string;
  verbs: Record<string, Verb>;
}
