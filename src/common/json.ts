import { type ExitStatus, VioError, type VioErrorOptions } from './errors.js';
import { printable } from './escape.js';
import { bytesOfName } from './text/names.js';
import { hex64 } from './units.js';

/** Keys whose values count something or measure a size: `size`, `max_size`, `pageSize`, `errorCount`. */
const counted =
  /(^|_)(size|len|length|bytes|capacity|total|count|blocks|pages|sectors|align)$|(Size|Bytes|Length|Capacity|Total|Count|Blocks|Pages|Sectors)$/;
const known = new Map<string, boolean>();

/** Whether a key has a count or a size: numbers by the contract, while addresses, offsets and words of bits are strings. */
export function isCount(key: string): boolean {
  let count = known.get(key);
  if (count === undefined) {
    count = counted.test(key);
    if (known.size < mostKnown) known.set(key, count);
  }
  return count;
}
/** Keys remembered; those of a migration stream are not ours. */
const mostKnown = 1000;

/** Whether something in a value needs a form of ours. Decides which objects are copied: most records have nothing to convert. */
const foreign = (value: unknown): boolean =>
  typeof value === 'string' ? !value.isWellFormed() : typeof value === 'bigint' || (typeof value === 'object' && value !== null);

/** A size above 2^53: JSON.stringify has no way to write it. */
const isLarge = (value: bigint, key: string): boolean => isCount(key) && value > BigInt(Number.MAX_SAFE_INTEGER);

/** What a walk over a value has met. */
interface Met {
  large: boolean;
  /** Whether names that are not UTF-8 stay as they are, for a document that this program reads again. */
  readonly exact: boolean;
}

/** A value with everything that JSON.stringify does not know turned into what it does; unchanged parts are shared. */
function converted(value: unknown, key: string, met: Met, above: object[]): unknown {
  if (typeof value === 'bigint') {
    if (isLarge(value, key)) met.large = true;
    return isCount(key) && value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : hex64(value);
  }
  if (typeof value === 'string') return met.exact ? value : value.toWellFormed();
  if (typeof value !== 'object' || value === null) return value;
  if (value instanceof Uint8Array) return Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString('hex');
  if (typeof (value as { toJSON?: unknown }).toJSON === 'function')
    return converted((value as { toJSON(key: string): unknown }).toJSON(key), key, met, above);
  if (above.includes(value)) throw new TypeError('Converting circular structure to JSON');
  above.push(value);
  let copy: Record<string, unknown> | undefined;
  for (const [at, item] of Array.isArray(value) ? value.entries() : Object.entries(value)) {
    if (!foreign(item)) continue;
    const name = String(at);
    const now = converted(item, name, met, above);
    if (now === item) continue;
    copy ??= (Array.isArray(value) ? [...value] : { ...value }) as Record<string, unknown>;
    copy[name] = now; // an own member of the copy already, even a key of __proto__
    const bytes = typeof item === 'string' && !Array.isArray(value) ? bytesOfName(item) : undefined;
    if (bytes) copy[`${name}Hex`] = bytes.toString('hex');
  }
  above.pop();
  return copy ?? value;
}

/** Writes a value piece by piece, with sizes in full. */
function written(value: unknown, key: string, indent: number, margin: string): string | undefined {
  if (typeof value === 'bigint' && isLarge(value, key)) return value.toString();
  if (typeof value !== 'object' || value === null || value instanceof Uint8Array)
    return JSON.stringify(converted(value, key, { large: false, exact: false }, []));
  if (typeof (value as { toJSON?: unknown }).toJSON === 'function')
    return written((value as { toJSON(key: string): unknown }).toJSON(key), key, indent, margin);
  const inner = margin + ' '.repeat(indent);
  const parts = Array.isArray(value)
    ? value.map((item, i) => written(item, String(i), indent, inner) ?? 'null')
    : Object.entries(value).flatMap(([name, item]) => {
        const text = written(item, name, indent, inner);
        return text === undefined ? [] : [`${JSON.stringify(name)}:${indent > 0 ? ' ' : ''}${text}`];
      });
  const [open, close] = Array.isArray(value) ? '[]' : '{}';
  if (parts.length === 0) return `${open}${close}`;
  return indent > 0 ? `${open}\n${inner}${parts.join(`,\n${inner}`)}\n${margin}${close}` : `${open}${parts.join(',')}${close}`;
}

/** The forms of values that JSON.stringify does not know, as the `toJSON` that it asks for. */
const forms: readonly [prototype: object, toJSON: (this: never, key: string) => unknown][] = [
  [
    BigInt.prototype,
    function (this: bigint, key) {
      const value = BigInt(this);
      if (isLarge(value, key)) throw new RangeError('no number of JSON.stringify');
      return converted(value, key, { large: false, exact: false }, []);
    },
  ],
  ...[Uint8Array.prototype, Buffer.prototype].map((prototype): (typeof forms)[number] => [
    prototype,
    function (this: Uint8Array) {
      return Buffer.from(this.buffer, this.byteOffset, this.byteLength).toString('hex');
    },
  ]),
];

/**
 * A document as JSON.stringify writes it while the forms stand in the prototypes: it walks a document much faster than converted(), whose
 * compilation alone takes longer than that. Not for small values, as each change of a prototype costs as well.
 * @returns undefined where a value needs more than that
 */
function stringified(value: unknown, indent: number, exact: boolean): string | undefined {
  const before = forms.map(([prototype]) => Object.getOwnPropertyDescriptor(prototype, 'toJSON'));
  for (const [prototype, toJSON] of forms) Object.defineProperty(prototype, 'toJSON', { value: toJSON, configurable: true });
  try {
    const text = JSON.stringify(value, undefined, indent) ?? 'null';
    return !exact && text.includes('\\ud') ? undefined : text; // perhaps a surrogate, of a name that is not UTF-8
  } catch {
    return undefined;
  } finally {
    forms.forEach(([prototype], i) => {
      if (before[i]) Object.defineProperty(prototype, 'toJSON', before[i]);
      else Reflect.deleteProperty(prototype, 'toJSON');
    });
  }
}

/** The same for all values, by way of a copy in which they have their form. */
function stringifiedCopy(value: unknown, indent: number, exact: boolean): string {
  const met: Met = { large: false, exact };
  const plain = converted(value, '', met, []);
  return (met.large ? written(value, '', indent, '') : JSON.stringify(plain, undefined, indent)) ?? 'null';
}

/**
 * JSON of the contract: 64-bit values (bigint) as "0x…", but sizes as numbers, in full above 2^53 too; undefined left out, bytes
 * as hex, C1 control characters escaped. A name that is not UTF-8 also appears as hex: `path` and `pathHex`.
 * @param exact keeps such names, for a document that is read again @throws TypeError for a value that contains itself
 */
export function toJson(value: unknown, indent = 0, exact = false): string {
  const text = (indent > 0 ? stringified(value, indent, exact) : undefined) ?? stringifiedCopy(value, indent, exact);
  // JSON itself escapes C0 only; what is outside of ASCII here stands in strings.
  return text.replace(/[\x7f-\x9f]/g, (c) => `\\u00${c.charCodeAt(0).toString(16)}`);
}

/**
 * Reads JSON that a user wrote.
 * @param name of the file, for errors
 * @param options code and hint of the error, unless they are the usual ones
 * @throws VioError BAD_FILE with the line, where the engine tells it; never in the engine's words
 */
export function parseJson(text: string, name: string, exit: ExitStatus, options: Pick<VioErrorOptions, 'code' | 'hint'> = {}): unknown {
  try {
    return JSON.parse(text);
  } catch (err) {
    if (text.trim() === '')
      throw new VioError(`${printable(name)}: the file is empty`, { code: 'BAD_FILE', exit, ...options, hint: undefined });
    const at = /position (\d+)/.exec((err as Error).message)?.[1];
    const place = at === undefined ? '' : ` (line ${text.slice(0, Number(at)).split('\n').length})`;
    throw new VioError(`${printable(name)}: not valid JSON${place}`, {
      code: 'BAD_FILE',
      exit,
      hint: 'jq . FILE shows the place',
      ...options,
    });
  }
}
