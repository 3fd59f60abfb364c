import { Chalk, type ChalkInstance } from 'chalk';
import { isTerminal } from '../../common/terminal.js';

export type ColorChoice = 'auto' | 'always' | 'never';

/**
 * Whether a stream gets colours: the flag, then NO_COLOR (non-empty), FORCE_COLOR (`0` and `false` mean no),
 * CLICOLOR_FORCE, CLICOLOR=0, TERM=dumb, then a terminal. chalk itself knows neither NO_COLOR nor one stream from the other, so nobody else imports it.
 */
export function wantsColor(fd: number, choice: ColorChoice, env: NodeJS.ProcessEnv, tty = isTerminal(fd)): boolean {
  if (choice !== 'auto') return choice === 'always';
  if (env.NO_COLOR) return false;
  const forced = env.FORCE_COLOR;
  if (forced !== undefined && forced !== '') return forced !== '0' && forced !== 'false';
  if (env.CLICOLOR_FORCE && env.CLICOLOR_FORCE !== '0') return true;
  if (env.CLICOLOR === '0') return false;
  return tty && env.TERM !== 'dumb';
}

/** The one chalk instance of a stream: 16 colours or none. */
export const chalkFor = (colored: boolean): ChalkInstance => new Chalk({ level: colored ? 1 : 0 });
