/**
 * All commands as classes that stock oclif loads (package.json: oclif.commands, strategy "explicit"), so that its own tools work
 * on them: manifest, readme, plugins. The program itself starts with main.ts, which is faster.
 */
import { allFlags, type CommandClass } from './cli/command.js';
import type { ArgInput, FlagInput } from './cli/oclif.js';
import { messagesLeft } from './cli/output/stdio.js';
import { runCommand } from './cli/runner.js';
import { carryNames } from './common/text/names.js';
import { groups } from './groups/index.js';
import type { Verb } from './groups/types.js';

carryNames();

/** What stock oclif reads of a command. */
interface StockCommand {
  id: string;
  summary: string;
  description: string;
  args: ArgInput;
  flags: FlagInput;
  examples: { command: string; description: string }[];
  aliases: string[];
  hiddenAliases: string[];
  hidden: boolean;
  strict: boolean;
  run(argv?: string[]): Promise<void>;
}

/** A status that is not 0, as stock oclif ends by it: silently, since the error has been told. */
class Ended extends Error {
  readonly code = 'EEXIT';
  readonly skipOclifErrorHandling = true;
  readonly oclif: { exit: number };

  constructor(exit: number) {
    super(`EEXIT: ${exit}`);
    this.oclif = { exit };
  }
}

function adapt(id: string, verb: Verb, command: CommandClass): StockCommand {
  return {
    id: id.replaceAll(' ', ':'),
    summary: verb.summary,
    description: command.description.trim(),
    args: command.args,
    flags: allFlags(command),
    examples: command.examples.map(([line, what]) => ({ command: line, description: what })),
    aliases: [],
    hiddenAliases: [],
    hidden: false,
    strict: !command.passthrough,
    async run(argv = process.argv.slice(2)) {
      const status = await runCommand({ kind: 'command', id, verb, argv }, process.env);
      await messagesLeft();
      if (status !== 0) throw new Ended(status);
    },
  };
}

/** Commands by oclif's identifiers: `vfio:list`, `vhost-user:shmem:serve`. */
export const COMMANDS: Record<string, StockCommand> = {};
for (const [group, { verbs }] of Object.entries(groups))
  for (const [name, verb] of Object.entries(verbs)) {
    const command = adapt(`${group} ${name}`, verb, (await verb.load()).default);
    COMMANDS[command.id] = command;
  }
