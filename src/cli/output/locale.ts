/** Whether the locale's character set is UTF-8: the first of LC_ALL, LC_CTYPE and LANG that is set decides (locale(7)). */
export function speaksUtf8(env: NodeJS.ProcessEnv): boolean {
  const locale = env.LC_ALL || env.LC_CTYPE || env.LANG || 'C';
  return /\.utf-?8\b/i.test(locale);
}

/** ASCII for the characters that vioctl itself prints. Names of users and peers may hold others: those stay. */
const spelled: Readonly<Record<string, string>> = {
  '…': '...',
  '–': '-',
  '—': '-',
  '×': 'x',
  '≤': '<=',
  '≥': '>=',
  '→': '->',
  '←': '<-',
  µ: 'u',
  '·': '.',
  '█': '#',
  '░': ':',
  '├': '|',
  '└': '`',
  '│': '|',
  '─': '-',
};
const spellable = new RegExp(`[${Object.keys(spelled).join('')}]`, 'g');

/** Spells typographic characters in ASCII, for locales without UTF-8. */
export const toAscii = (text: string): string => text.replace(spellable, (c) => spelled[c]!);
