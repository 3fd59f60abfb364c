const NARROWEST = 40;

/** Columns of the terminal on stdout: COLUMNS where it is set, else its own width, else 80; never below 40. */
export function terminalWidth(env: NodeJS.ProcessEnv): number {
  return Math.max(NARROWEST, Number(env.COLUMNS) || process.stdout.columns || 80);
}
