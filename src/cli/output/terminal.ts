import { isTerminal } from '../../common/terminal.js';

const narrowest = 40;

/** Columns of the terminal on stdout: COLUMNS where it is set, else its own width, else 80; never below 40. A stream is made of stdout only where it is a terminal: that costs a start. */
export function terminalWidth(env: NodeJS.ProcessEnv): number {
  return Math.max(narrowest, Number(env.COLUMNS) || (isTerminal(1) && process.stdout.columns) || 80);
}
