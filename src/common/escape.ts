import { bytesOfName, shownName } from './text/names.js';

/** What a terminal may act on: C0, DEL and C1 controls, direction marks and overrides, line separators, broken surrogates. */
const unsafe = /[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufffd]/g;

/** Most text: what is shown as it is. */
const harmlessAscii = /^[\x20-\x5b\x5d-\x7e]*$/;

const code = (c: string): string => {
  const point = c.codePointAt(0)!;
  return point < 0x100 ? `\\x${point.toString(16).padStart(2, '0')}` : `\\u{${point.toString(16)}}`;
};

const byteCode = (byte: number): string => code(String.fromCharCode(byte));

/**
 * Makes an untrusted string (NQN, block name, idstr, file name) safe for a terminal and a log line, reversibly: unsafe
 * characters become `\xNN` or `\u{…}`, backslash is doubled.
 */
export const printable = (text: string): string =>
  harmlessAscii.test(text) ? text : shownName(text.replaceAll('\\', '\\\\'), byteCode).replace(unsafe, code);

/** The beginning of a text that is longer than a message should be. @param most characters that are shown */
export const beginning = (text: string, most = 60): string => (text.length > most ? `${text.slice(0, most)}…` : text);

/** Names in a message: each printable and not long, the first ones of many. */
export function printableNames(names: readonly string[]): string {
  const [many, long] = [16, 100];
  const shown = names.slice(0, many).map((name) => printable(beginning(name, long)));
  return shown.concat(names.length > many ? [`and ${names.length - many} more`] : []).join(', ');
}

/** The last guard of a message that was put together of safe parts: the same without doubling backslashes. */
export const harmless = (text: string): string => shownName(text, byteCode).replace(unsafe, code);

/** Bytes that are not UTF-8 as a word of bash, zsh and ksh: `$'n\xff'`. */
export const shellBytes = (bytes: Uint8Array): string =>
  `$'${Buffer.from(bytes)
    .toString('latin1')
    .replace(/['\\]|[^ -~]/g, code)}'`;

/** A word as a POSIX shell takes it: as it is if no character of it is special, else in single quotes. */
export function shellWord(text: string): string {
  if (/^[\w./:@,=+-]+$/.test(text)) return text;
  const bytes = bytesOfName(text);
  return bytes ? shellBytes(bytes) : `'${text.replaceAll("'", "'\\''")}'`;
}

/** A file's name as an argument that no program takes for an option. */
export const shellFile = (name: string): string => shellWord(name.startsWith('-') ? `./${name}` : name);
