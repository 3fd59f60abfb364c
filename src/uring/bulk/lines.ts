import { isUtf8 } from 'node:buffer';
import type { Name } from './name.js';

interface Algorithm {
  /** The name in BSD lines (--tag). */
  tag: string;
  /** Hexadecimal digits of a digest. */
  digits: number;
  /** What stands before the digest in plain lines. */
  prefix?: string;
}

/** Algorithms by name. */
export const algorithms: Readonly<Record<string, Algorithm>> = {
  crc32c: { tag: 'CRC32C', digits: 8 },
  md5: { tag: 'MD5', digits: 32 },
  sha1: { tag: 'SHA1', digits: 40 },
  sha224: { tag: 'SHA224', digits: 56 },
  sha256: { tag: 'SHA256', digits: 64 },
  sha384: { tag: 'SHA384', digits: 96 },
  sha512: { tag: 'SHA512', digits: 128 },
  blake2b512: { tag: 'BLAKE2b', digits: 128 },
  blake3: { tag: 'BLAKE3', digits: 64 },
  xxh32: { tag: 'XXH32', digits: 8 },
  xxh64: { tag: 'XXH64', digits: 16 },
  xxh128: { tag: 'XXH128', digits: 32 },
  xxh3: { tag: 'XXH3', digits: 16, prefix: 'XXH3_' },
};

/** Algorithms of plain lines that name none, by the digits of their digest; others must be asked for. */
const byDigits: Readonly<Record<number, string>> = { 32: 'md5', 40: 'sha1', 56: 'sha224', 64: 'sha256', 96: 'sha384', 128: 'sha512' };
const byTag = new Map(Object.entries(algorithms).map(([name, { tag }]) => [tag, name]));

const specialBytes = /[\\\n\r]/;
const escaped = (text: string): string => text.replace(/[\\\n\r]/g, (c) => (c === '\\' ? '\\\\' : c === '\n' ? '\\n' : '\\r'));

/** A name as a line shows it. Only ASCII is looked for and put in, so bytes that are not UTF-8 pass as Latin-1. */
const lineText = (name: Name): string => (typeof name === 'string' ? name : name.toString('latin1'));
const asName = (line: string, name: Name): Name => (typeof name === 'string' ? line : Buffer.from(line, 'latin1'));

/** How lines of checksums look. */
export interface LineForm {
  zero: boolean;
  tag: boolean;
  algorithm: string;
}

/**
 * A line as coreutils' checksum programs, b3sum and xxhsum print and read it: `digest  name`. A name with a newline,
 * carriage return or backslash is escaped and the line begins with a backslash.
 * @param form.zero NUL-terminated, nothing escaped
 * @param form.tag the BSD form: `SHA256 (name) = digest`
 */
export function sumLine(name: Name, digest: string, form: LineForm): Name {
  const { tag, prefix = '' } = algorithms[form.algorithm]!;
  const [before, behind] = form.tag ? [`${tag} (`, `) = ${digest}`] : [`${prefix}${digest}  `, ''];
  const text = lineText(name);
  const special = !form.zero && specialBytes.test(text);
  return asName(`${special ? '\\' : ''}${before}${special ? escaped(text) : text}${behind}${form.zero ? '\0' : '\n'}`, name);
}

/** `name: OK` and the like: coreutils' programs escape a name with a newline, b3sum also one with a backslash. */
export function verdictLine(name: Name, verdict: string, algorithm: string): Name {
  const text = lineText(name);
  const special = text.includes('\n') || (algorithm === 'blake3' && text.includes('\\'));
  return asName(`${special ? '\\' : ''}${special ? escaped(text) : text}: ${verdict}\n`, name);
}

/** What a line of a list of checksums says. */
export interface Expected {
  name: Name;
  algorithm: string;
  /** In lower case. */
  digest: string;
}

/**
 * Reads a line without its end: plain, with `*` for binary or without (`digest name` too, as old BSD programs print), BSD
 * and OpenSSL forms, escaped or not.
 * @param algorithm the one that was asked for; unless given, a BSD line names it and the digits of a plain line tell it
 * @returns undefined if the line has no such form; 'blank' for empty lines and comments, which count as nothing
 */
export function parseLine(line: Buffer, algorithm: string | undefined, zero: boolean): Expected | 'blank' | undefined {
  let text = line.toString('latin1');
  if (!zero && text.endsWith('\r')) text = text.slice(0, -1);
  if (text === '' || text.startsWith('#')) return 'blank';
  text = text.replace(/^[ \t]+/, '');
  const special = !zero && text.startsWith('\\');
  if (special) text = text.slice(1);
  const found = bsdLine(text) ?? plainLine(text, algorithm);
  if (found === undefined || (algorithm !== undefined && found.algorithm !== algorithm)) return undefined;
  const name = special ? unescaped(found.name) : found.name;
  if (name === undefined || name === '' || name.includes('\0')) return undefined;
  const bytes = Buffer.from(name, 'latin1');
  return { ...found, name: isUtf8(bytes) ? bytes.toString('utf8') : bytes };
}

interface Found {
  name: string;
  algorithm: string;
  digest: string;
}

function bsdLine(text: string): Found | undefined {
  const match = /^([A-Z][A-Za-z0-9]*) ?\((.*)\)[ \t]*=[ \t]*([0-9a-fA-F]+)[ \t]*$/s.exec(text);
  const algorithm = match && byTag.get(match[1]!);
  if (!algorithm || match[3]!.length !== algorithms[algorithm]!.digits) return undefined;
  return { name: match[2]!, algorithm, digest: match[3]!.toLowerCase() };
}

function plainLine(text: string, asked: string | undefined): Found | undefined {
  const match = /^(XXH3_)?([0-9a-fA-F]+)[ \t](.*)$/s.exec(text);
  if (!match) return undefined;
  const digest = match[2]!.toLowerCase();
  const algorithm = match[1] !== undefined ? 'xxh3' : (asked ?? byDigits[digest.length]);
  if (algorithm === undefined || digest.length !== algorithms[algorithm]!.digits) return undefined;
  const rest = match[3]!;
  return { name: /^[ *]/.test(rest) ? rest.slice(1) : rest, algorithm, digest };
}

function unescaped(text: string): string | undefined {
  if (/\\(?![\\nr])/.test(text.replaceAll('\\\\', ''))) return undefined;
  return text.replace(/\\([\\nr])/g, (_, c: string) => (c === '\\' ? '\\' : c === 'n' ? '\n' : '\r'));
}
