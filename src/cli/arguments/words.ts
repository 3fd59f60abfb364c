/** The words in front of the first `--`, and those behind it where there is one. */
export function splitWords(argv: readonly string[]): { own: string[]; rest: string[] | undefined } {
  const end = argv.indexOf('--');
  return end < 0 ? { own: [...argv], rest: undefined } : { own: argv.slice(0, end), rest: argv.slice(end + 1) };
}
