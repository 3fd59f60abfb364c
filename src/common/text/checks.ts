/** Checks of a document that a user has written: one function for each kind of value, one table for each kind of object. */
import { Exit, VioError } from '../errors.js';
import { printable } from '../escape.js';
import { suggest } from './suggest.js';

/** Where a value stands. */
export interface Place {
  /** `nvmf.json.subsystems[0].nqn` */
  at: string;
  /** Numbers, true and false come as text: the file is YAML, whose own types would turn 0011 into a number. */
  texts: boolean;
}

/** Takes a value, gives what it means. @throws VioError naming its place */
export type Check<T = unknown> = (value: unknown, place: Place) => T;
/** A check for each key of an object; a key of the description that has none does not compile. */
export type Checks<T> = { readonly [Key in keyof Required<T>]: Check };

/** What is wrong at a place: usage. */
export const bad = ({ at }: Place, what: string, hint?: string): VioError =>
  new VioError(`${printable(at)}: ${what}`, { code: 'CONFIG', exit: Exit.usage, hint });

/** A text that is not empty. */
export const text: Check<string> = (v, place) => {
  if (typeof v !== 'string' || v === '') throw bad(place, 'must be a text');
  if (v.includes('\0')) throw bad(place, 'must not contain a NUL character');
  return v;
};
/** A text that another function checks, and perhaps turns into something else. */
export const checked =
  <T>(check: (value: string) => T): Check<T> =>
  (v, place) => {
    try {
      return check(text(v, place));
    } catch (err) {
      if (!(err instanceof VioError) || err.code !== 'USAGE') throw err;
      throw bad(place, printable(err.message.replace(/^[a-z0-9]+=[^:]*: /, '')), err.hint); // the key says it
    }
  };
/** True or false. */
export const flag: Check<boolean> = (v, place) => {
  const value = place.texts && (v === 'true' || v === 'false') ? v === 'true' : v;
  if (typeof value !== 'boolean') throw bad(place, 'must be true or false');
  return value;
};
/** One of these words. */
export const oneOf =
  <T extends string>(...values: readonly T[]): Check<T> =>
  (v, place) => {
    if (!values.includes(v as T)) throw bad(place, `must be ${values.join(' or ')}`);
    return v as T;
  };
/** A number that YAML gives as text. */
export const asNumber = (v: unknown, { texts }: Place): unknown => (texts && typeof v === 'string' && /^\d{1,15}$/.test(v) ? Number(v) : v);
/** A whole number within limits, both included. */
export const number =
  (min: number, max: number): Check<number> =>
  (v, place) => {
    const value = asNumber(v, place);
    if (!Number.isInteger(value) || (value as number) < min || (value as number) > max)
      throw bad(place, `must be a number from ${min} to ${max}`);
    return value as number;
  };
/** A list of such items. */
export const list =
  <T>(check: Check<T>): Check<T[]> =>
  (v, place) => {
    if (!Array.isArray(v)) throw bad(place, 'must be a list');
    return v.map((item, i) => check(item, { ...place, at: `${place.at}[${i}]` }));
  };
/** A list without two items of the same kind. @param of what two items must not share */
export const distinct =
  <T>(check: Check<T>, what: string, of: (item: T) => unknown): Check<T[]> =>
  (v, place) => {
    const items = list(check)(v, place);
    const seen = new Map<unknown, number>();
    for (const [i, item] of items.entries()) {
      const key = of(item);
      const before = seen.get(key);
      if (key !== undefined && before !== undefined)
        throw bad({ ...place, at: `${place.at}[${i}]` }, `${what} ${printable(String(key))} is that of [${before}] too`);
      seen.set(key, i);
    }
    return items;
  };
/** An object with these keys. @param required of them */
export const object =
  <T>(checks: Checks<T>, required: readonly (keyof T & string)[]): Check<T> =>
  (v, place) => {
    if (typeof v !== 'object' || v === null || Array.isArray(v)) throw bad(place, 'must be an object');
    for (const key of required) if (!Object.hasOwn(v, key)) throw bad(place, `"${key}" is missing`);
    return Object.fromEntries(
      Object.entries(v).map(([key, value]) => {
        const at = { ...place, at: `${place.at}.${key}` };
        if (!Object.hasOwn(checks, key)) {
          const known = Object.keys(checks);
          const meant = suggest(key, known);
          throw bad(at, `is not known; known are ${known.join(', ')}`, meant === undefined ? undefined : `did you mean "${meant}"?`);
        }
        return [key, checks[key as keyof typeof checks](value, at)];
      }),
    ) as T;
  };
