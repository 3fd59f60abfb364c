import { isUtf8 } from 'node:buffer';
import type { Name } from './name.js';

const letters: Readonly<Record<number, string>> = { 7: '\\a', 8: '\\b', 9: '\\t', 10: '\\n', 11: '\\v', 12: '\\f', 13: '\\r' };
/** What a shell takes for something else, and what would end a message's name. */
const special = /[ !"$&'()*:;<=>?[\\^`|]|^[#~]|^[{}]$/;
/** Of these, what forbids double quotes. */
const double = /[!"$&()*;<=>?[\\^`|]/;
const unprintable = /[\p{C}\p{Zl}\p{Zp}]/u;

/** The characters of a name; a byte that begins none stands alone, as its number. */
function characters(name: Name): (string | number)[] {
  if (typeof name === 'string') return [...name];
  const found: (string | number)[] = [];
  for (let at = 0; at < name.length; ) {
    let size = 1;
    while (size <= 4 && !isUtf8(name.subarray(at, at + size))) size++;
    if (size > 4 || at + size > name.length) found.push(name[at++]!);
    else {
      found.push(name.toString('utf8', at, at + size));
      at += size;
    }
  }
  return found;
}

const escapes = (bytes: Iterable<number>): string =>
  Array.from(bytes, (byte) => letters[byte] ?? `\\${byte.toString(8).padStart(3, '0')}`).join('');

/**
 * A name as coreutils' programs write it in messages: as it is if a shell would read it so, otherwise quoted for one. What is not printable becomes an
 * escape, so that no name can write to a terminal.
 */
export function quotedName(name: Name): string {
  const parts = characters(name);
  const odd = parts.some((part) => typeof part === 'number' || unprintable.test(part));
  const text = parts.filter((part) => typeof part === 'string').join('');
  if (!odd && text !== '' && !special.test(text)) return text;
  if (!odd && text.includes("'") && !double.test(text)) return `"${text}"`;
  let quoted = "'";
  let escaping = false;
  for (const part of parts) {
    if (typeof part === 'number' || unprintable.test(part)) {
      quoted += `${escaping ? '' : "'$'"}${escapes(typeof part === 'number' ? [part] : Buffer.from(part))}`;
      escaping = true;
    } else {
      quoted += part === "'" ? "'\\''" : `${escaping ? "''" : ''}${part}`;
      escaping = false;
    }
  }
  return `${quoted}'`;
}
