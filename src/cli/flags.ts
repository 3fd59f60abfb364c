/**
 * The flag and argument builders of all commands: oclif's, plus the contract's own types. Every repeatable
 * option takes one value per use, and the parser does not read stdin (see oclif.ts).
 */

import { defaultSpin, engineAliases, engines, maxSpin } from '../common/engines.js';
import { logFormats } from '../common/text/log.js';
import { parseDuration, parseSize, parseSizeBig, parseU64 } from '../common/units.js';
import { boolean, custom, customArg, integer, option, string, stringArg, withValueAliases } from './oclif.js';

export const Flags = {
  boolean,
  integer,
  option,
  string,
  custom,
  /** Size in bytes (number): 512, 4K, 64M, 0x… */
  size: custom<number>({ parse: async (text) => parseSize(text), helpValue: 'SIZE' }),
  /** Size in bytes (bigint), up to 2^63-1. */
  sizeBig: custom<bigint>({ parse: async (text) => parseSizeBig(text), helpValue: 'SIZE' }),
  /** Unsigned 64-bit number, decimal or 0x… */
  u64: custom<bigint>({ parse: async (text) => parseU64(text), helpValue: 'NUMBER' }),
  /** Duration in milliseconds: 500ms, 10s, 2m */
  duration: custom<number>({ parse: async (text) => parseDuration(text), helpValue: 'TIME' }),
};

/** `--engine` of everything that does I/O by io_uring or by plain system calls: the same values everywhere. */
export const engineFlag = (summary: string) =>
  withValueAliases(Flags.option({ options: engines, default: 'auto', helpValue: 'ENGINE', summary })(), engineAliases);

/** `--spin` of every server of disks. */
export const spinFlag = Flags.integer({
  min: 0,
  max: maxSpin,
  helpValue: 'US',
  summary: `busy-poll time before sleeping, in µs [default: ${defaultSpin}]`,
});

/** `--log-format` of every server. */
export const logFormatFlag = Flags.option({
  options: logFormats,
  default: 'text',
  helpValue: 'FORMAT',
  summary: 'messages on standard error: text, or one JSON object a line',
})();

/** `-0, --null` of every command that reads a list from stdin. (oclif's types allow letters only; its parser takes any.) */
export const nullFlag = boolean({ char: '0' as 'a', summary: 'items of the list on stdin end with NUL instead of newline' });

export const Args = { string: stringArg, custom: customArg };
