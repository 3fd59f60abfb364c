import { isUtf8 } from 'node:buffer';
import fs from 'node:fs';

/**
 * File names are bytes, and text in JavaScript is not. A name that is not UTF-8 is text in which each byte that belongs to no character is
 * U+DC80 to U+DCFF, a lone surrogate: the "surrogateescape" of Python (PEP 383). Such text goes through the program like any other; where it
 * leaves, it becomes bytes again: node:fs (carryNames), the addon (native/binding/core/values.cc), JSON and messages.
 */

const escapes = /([\udc80-\udcff])/u;
const everyEscape = new RegExp(escapes, 'gu');
const first = 0xdc00;

/** Bytes that a character has by its first byte; 1 where none begins. */
const lengthOf = (byte: number): number => (byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc0 ? 2 : 1);

/** A file's name as text. UTF-8 is what it says. */
export function textOfName(bytes: Buffer): string {
  if (isUtf8(bytes)) return bytes.toString('utf8');
  let text = '';
  for (let at = 0; at < bytes.length; ) {
    const character = bytes.subarray(at, at + lengthOf(bytes[at]!));
    const whole = isUtf8(character);
    text += whole ? character.toString('utf8') : String.fromCharCode(first + bytes[at]!);
    at += whole ? character.length : 1;
  }
  return text;
}

/** The bytes of a name that is not UTF-8; undefined for all other text. */
export function bytesOfName(text: string): Buffer | undefined {
  if (text.isWellFormed() || !escapes.test(text)) return undefined;
  return Buffer.concat(
    text.split(escapes).map((part, i) => (i % 2 === 0 ? Buffer.from(part, 'utf8') : Buffer.of(part.charCodeAt(0) - first))),
  );
}

/** Text that can be shown: bytes of a name that is not UTF-8 as `show` has them, other lone surrogates as U+FFFD. */
export const shownName = (text: string, show: (byte: number) => string): string =>
  text.isWellFormed() ? text : text.replace(everyEscape, (c) => show(c.charCodeAt(0) - first)).toWellFormed();

/** Functions of node:fs whose first argument is a path, and those with two. */
const onePath = [
  ...['accessSync', 'chmodSync', 'chownSync', 'createReadStream', 'createWriteStream', 'existsSync', 'lstatSync', 'mkdirSync'],
  ...['mkdtempSync', 'open', 'openSync', 'readdirSync', 'readFileSync', 'rmSync', 'statfsSync', 'statSync', 'unlinkSync', 'writeFileSync'],
] as const;
const twoPaths = ['linkSync', 'renameSync'] as const;
/** Those that return a path. */
const toPath = ['readlinkSync', 'realpathSync'] as const;

type AnyFunction = (...args: unknown[]) => unknown;

/**
 * Lets node:fs take names of bytes as text, and give them: for the whole process, since they come from everywhere. Also from the working
 * directory, below which relative names lie.
 */
export function carryNames(): void {
  const functions = fs as unknown as Record<string, AnyFunction>;
  const given = (value: unknown): unknown => (typeof value === 'string' ? (bytesOfName(value) ?? value) : value);
  const carry = (from: Record<string, AnyFunction>, name: string, paths: number): void => {
    const plain = from[name]!;
    from[name] = Object.assign((...args: unknown[]) => plain(...args.map((arg, i) => (i < paths ? given(arg) : arg))), plain);
  };
  for (const name of onePath) carry(functions, name, 1);
  for (const name of twoPaths) carry(functions, name, 2);
  // At their first use: loading them takes longer than all the rest of a start.
  const { get } = Object.getOwnPropertyDescriptor(fs, 'promises') as { get: () => typeof fs.promises };
  const ofPromises = { configurable: true, enumerable: true };
  const promises = (): typeof fs.promises => {
    const value = get.call(fs);
    Object.defineProperty(fs, 'promises', { ...ofPromises, value });
    for (const name of ['open', 'readdir']) carry(value as unknown as Record<string, AnyFunction>, name, 1);
    return value;
  };
  Object.defineProperty(fs, 'promises', { ...ofPromises, get: promises });
  for (const name of toPath) {
    const plain = functions[name]!;
    const exact = name === 'realpathSync' ? fs.realpathSync.native : fs[name];
    const carried: AnyFunction = (path, ...options) => {
      const bytes = given(path);
      if (options.length > 0) return plain(bytes, ...options); // asks for a form of its own
      const found = typeof bytes === 'string' ? String(plain(bytes)) : '\ufffd';
      return found.includes('\ufffd') ? textOfName(exact(bytes as string, 'buffer') as unknown as Buffer) : found;
    };
    functions[name] = Object.assign(carried, plain);
  }
  const folder = process.cwd;
  process.cwd = () => {
    const name = folder();
    return name.includes('\ufffd') ? fs.readlinkSync('/proc/self/cwd') : name;
  };
}
