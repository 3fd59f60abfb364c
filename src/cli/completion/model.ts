import { groups } from '../../groups/index.js';
import { allFlags, type CommandClass } from '../command.js';
import type { CommandDoc } from '../help/help.js';
import { completionFiles } from './files.js';

/** What can stand behind an option or as an argument: fixed words, names of a kind, or something that only the user knows. */
export type Values = readonly string[] | 'file' | 'socket' | 'pci' | 'free';

export interface OptionModel {
  /** `--engine` */
  long: string;
  /** `-a` */
  short: string | undefined;
  summary: string;
  /** Undefined for an option without a value. */
  values: Values | undefined;
  repeats: boolean;
}

export interface CommandModel {
  /** `vhost-user shmem map` */
  id: string;
  summary: string;
  options: OptionModel[];
  /** What each argument may be; the last one again for those that follow if `rest`. */
  args: Values[];
  rest: boolean;
  /** The words of another program stand behind `--`. */
  passthrough: boolean;
}

/** Everything that the shells complete, from the command table. */
export interface CompletionModel {
  groups: { name: string; summary: string }[];
  commands: CommandModel[];
  /** Words that are no group: `help`, `completion`. */
  shells: readonly string[];
}

const fileLabels = /\b(?:FILE|OUT|PATH|DIR|MAP)\b/;
const fileArgs = new Set(['file', 'a', 'b', 'map', 'mapping', 'source']);
const socketArgs = new Set(['socket', 'control']);

type AnyFlag = ReturnType<typeof allFlags>[string];

function optionValues(flag: AnyFlag): Values | undefined {
  if (flag.type !== 'option') return undefined;
  if (flag.options) return flag.options;
  const label = String(flag.helpValue ?? '');
  if (/^SOCK/.test(label)) return 'socket';
  if (/^(?:DEV|BDF)\b/.test(label)) return 'pci';
  return fileLabels.test(label) ? 'file' : 'free';
}

function argValues(name: string, options: readonly string[] | undefined): Values {
  if (options) return options;
  if (/^(?:bdf|dev|pf)\b/.test(name)) return 'pci';
  if (socketArgs.has(name)) return 'socket';
  return fileArgs.has(name) ? 'file' : 'free';
}

export function completionModel(commands: readonly { doc: CommandDoc; command: CommandClass }[]): CompletionModel {
  return {
    groups: Object.entries(groups).map(([name, { summary }]) => ({ name, summary })),
    shells: Object.keys(completionFiles),
    commands: commands.map(({ doc, command }) => ({
      id: doc.id,
      summary: doc.summary,
      options: Object.entries(allFlags(command))
        .filter(([, flag]) => !flag.hidden)
        .flatMap(([name, flag]) => {
          const option: OptionModel = {
            long: `--${name}`,
            short: flag.char ? `-${flag.char}` : undefined,
            summary: flag.summary ?? '',
            values: optionValues(flag),
            repeats: flag.type === 'option' && flag.multiple === true,
          };
          const no: OptionModel = { ...option, long: `--no-${name}`, short: undefined };
          return flag.type === 'boolean' && flag.allowNo ? [option, no] : [option];
        }),
      args: Object.entries(command.args)
        .filter(([, arg]) => !arg.hidden)
        .map(([name, arg]) => argValues(name, arg.options)),
      rest: Object.values(command.args).some((arg) => arg.multiple),
      passthrough: command.passthrough !== false,
    })),
  };
}

/** Words that can follow each prefix of a command's id: '' → groups, `vhost-user` → verbs, `vhost-user shmem` → second words. */
export function nextWords(model: CompletionModel): Map<string, { word: string; summary: string }[]> {
  const next = new Map<string, { word: string; summary: string }[]>();
  for (const { id, summary } of model.commands) {
    const words = id.split(' ');
    for (let n = 1; n < words.length; n++) {
      const prefix = words.slice(0, n).join(' ');
      const list = next.get(prefix) ?? [];
      const whole = n === words.length - 1;
      if (!list.some(({ word }) => word === words[n])) list.push({ word: words[n]!, summary: whole ? summary : `${words[n]} commands` });
      next.set(prefix, list);
    }
  }
  return next;
}
