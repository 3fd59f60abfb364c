/** Checks of a configuration file: one function for each kind of value, one table for each kind of object. */
import { type Engine, engineAliases, engines } from '../../../common/engines.js';
import { Exit, VioError } from '../../../common/errors.js';
import { printable } from '../../../common/escape.js';
import { glob } from '../../../common/glob.js';
import { suggest } from '../../../common/text/suggest.js';
import { parseRate } from '../../../storage/limits.js';
import { anaStateNames } from '../../wire/index.js';
import { parseId } from '../identity.js';
import { maxGroups, maxNamespaces } from '../model.js';
import { checkAscii, checkHostNqn, checkSubsystemNqn, modelSize, parseCntlidRange, serialSize } from '../names.js';
import { parseAddress, parseMetricsPlace } from '../serve/listen.js';
import type { AnaEntry, ConfigFile, NamespaceEntry, ReferralEntry, SubsystemEntry } from './description.js';

/** Where a value stands. */
interface Place {
  /** `nvmf.json.subsystems[0].nqn` */
  at: string;
  /** Numbers, true and false come as text: the file is YAML, whose own types would turn 0011 into a number. */
  texts: boolean;
}

/** Takes a value, gives what it means. @throws VioError naming its place */
type Check<T = unknown> = (value: unknown, place: Place) => T;
/** A check for each key of an object; a key of the description that has none does not compile. */
type Checks<T> = { readonly [Key in keyof Required<T>]: Check };

const bad = ({ at }: Place, what: string, hint?: string): VioError =>
  new VioError(`${printable(at)}: ${what}`, { code: 'CONFIG', exit: Exit.usage, hint });

const text: Check<string> = (v, place) => {
  if (typeof v !== 'string' || v === '') throw bad(place, 'must be a text');
  if (v.includes('\0')) throw bad(place, 'must not contain a NUL character');
  return v;
};
/** A text that another function checks, and perhaps turns into something else. */
const checked =
  <T>(check: (value: string) => T): Check<T> =>
  (v, place) => {
    try {
      return check(text(v, place));
    } catch (err) {
      if (!(err instanceof VioError) || err.code !== 'USAGE') throw err;
      throw bad(place, printable(err.message.replace(/^[a-z0-9]+=[^:]*: /, '')), err.hint); // the key says it
    }
  };
const flag: Check<boolean> = (v, place) => {
  const value = place.texts && (v === 'true' || v === 'false') ? v === 'true' : v;
  if (typeof value !== 'boolean') throw bad(place, 'must be true or false');
  return value;
};
const oneOf =
  <T extends string>(...values: readonly T[]): Check<T> =>
  (v, place) => {
    if (!values.includes(v as T)) throw bad(place, `must be ${values.join(' or ')}`);
    return v as T;
  };
const asNumber = (v: unknown, { texts }: Place): unknown => (texts && typeof v === 'string' && /^\d{1,15}$/.test(v) ? Number(v) : v);
const number =
  (min: number, max: number): Check<number> =>
  (v, place) => {
    const value = asNumber(v, place);
    if (!Number.isInteger(value) || (value as number) < min || (value as number) > max)
      throw bad(place, `must be a number from ${min} to ${max}`);
    return value as number;
  };
const blockSize: Check<number> = (v, place) => {
  const value = number(512, 65536)(v, place);
  if ((value & (value - 1)) !== 0) throw bad(place, 'must be a power of two');
  return value;
};
const engine: Check<Engine> = (v, place) => engineAliases.get(v as string) ?? oneOf(...engines)(v, place);
const portOrNone: Check<number | 'none'> = (v, place) => {
  const value = asNumber(v, place);
  if (value === 'none' || (Number.isInteger(value) && (value as number) >= 0 && (value as number) <= 65535))
    return value as number | 'none';
  throw bad(place, 'must be a port, or "none"');
};
/** A number, or a text as behind a source. */
const rate = (name: 'iops' | 'bps'): Check => {
  const parse = checked((value) => parseRate(name, value) ?? null);
  return (v, place) => parse(typeof v === 'number' ? String(v) : v, place);
};
const list =
  <T>(check: Check<T>): Check<T[]> =>
  (v, place) => {
    if (!Array.isArray(v)) throw bad(place, 'must be a list');
    return v.map((item, i) => check(item, { ...place, at: `${place.at}[${i}]` }));
  };
/** A list without two items of the same kind. @param of what two items must not share */
const distinct =
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
const object =
  <T>(checks: Checks<T>, required: readonly (keyof T & string)[]): Check<T> =>
  (v, place) => {
    if (typeof v !== 'object' || v === null || Array.isArray(v)) throw bad(place, 'must be an object');
    for (const key of required) if (!Object.hasOwn(v, key)) throw bad(place, `"${key}" is missing`);
    const known = Object.keys(checks);
    return Object.fromEntries(
      Object.entries(v).map(([key, value]) => {
        const at = { ...place, at: `${place.at}.${key}` };
        if (!Object.hasOwn(checks, key)) {
          const meant = suggest(key, known);
          throw bad(at, `is not known; known are ${known.join(', ')}`, meant === undefined ? undefined : `did you mean "${meant}"?`);
        }
        return [key, checks[key as keyof typeof checks](value, at)];
      }),
    ) as T;
  };

const namespace = object<NamespaceEntry>(
  {
    source: text,
    nsid: number(1, maxNamespaces),
    blockSize,
    readOnly: flag,
    force: flag,
    format: oneOf('raw'),
    shared: flag,
    direct: flag,
    zero: oneOf('unmap', 'off'),
    iops: rate('iops'),
    bps: rate('bps'),
    group: number(1, maxGroups),
    nguid: checked((v) => parseId('nguid', v)),
    eui64: checked((v) => parseId('eui64', v)),
    uuid: checked((v) => parseId('uuid', v)),
  },
  ['source'],
);

const ana = object<AnaEntry>({ group: number(1, maxGroups), state: oneOf(...([...anaStateNames.values()] as AnaEntry['state'][])) }, [
  'group',
  'state',
]);

const subsystem = object<SubsystemEntry>(
  {
    nqn: checked(checkSubsystemNqn),
    serial: checked((v) => checkAscii(v, 'serial number', serialSize)),
    model: checked((v) => checkAscii(v, 'model', modelSize)),
    cntlids: checked(parseCntlidRange),
    allowHosts: list(checked(checkHostNqn)),
    ana: distinct(ana, 'group', (entry) => entry.group),
    namespaces: distinct(namespace, 'nsid', (entry) => entry.nsid),
  },
  ['nqn', 'namespaces'],
);

const referral = object<ReferralEntry>({ address: text, port: number(1, 65535), nqn: checked(checkHostNqn) }, ['address', 'port']);

const file = object<ConfigFile>(
  {
    $schema: text,
    listen: distinct(
      checked((v) => {
        parseAddress(v);
        return v;
      }),
      'address',
      (one) => one,
    ),
    discoveryPort: portOrNone,
    control: text,
    stateDir: text,
    metrics: checked((v) => {
      parseMetricsPlace(v);
      return v;
    }),
    threads: number(1, 64),
    spinMicroseconds: number(0, 1_000_000),
    maxConnections: number(1, 65535),
    engine,
    headerDigest: flag,
    dataDigest: flag,
    sources: list(
      checked((v) => {
        glob(v);
        return v;
      }),
    ),
    referrals: list(referral),
    subsystems: distinct(subsystem, 'the NQN', (one) => one.nqn),
  },
  ['subsystems'],
);

/**
 * Checks a whole configuration. Texts that mean something else (rates, ranges, identifiers) come back as what they mean.
 * @param name of the file, for errors
 * @param texts whether numbers, true and false come as text
 * @throws VioError (2) naming the wrong key
 */
export const checkFile = (value: unknown, name: string, texts: boolean): ConfigFile => file(value, { at: name, texts });
