import { type Engine, engineAliases, engines } from '../common/engines.js';
import { usage } from '../common/errors.js';
import { parseDecimal } from '../common/units.js';
import type { Rate } from '../native/storage.js';
import { parseRate } from './limits.js';
import { canonicalSource, checkRemote, isRemote, kindOf, type RemoteOptions, remoteOptions, sourceForms } from './uri.js';

/** What to serve and how, the same for every server. */
export interface SourceOptions {
  /** Full path of a file or block device, `ram:BYTES`, or the URI of a remote source (uri.ts). */
  source: string;
  readonly?: boolean;
  /** Bytes of a logical block. */
  blockSize?: number;
  /** Serve the bytes of the file as they are, whatever format they have. */
  format?: 'raw';
  /** Share it with other servers that share it too. */
  shared?: boolean;
  /** Past the page cache (O_DIRECT). */
  direct?: boolean;
  /** Who does its I/O that waits: threads although the server has a ring (sync), or a ring and nothing else (uring). */
  engine?: Exclude<Engine, 'auto'>;
  /** Writes of zeroes: a hole stays a hole unless given; `unmap` makes one, `off` writes them. */
  zero?: 'unmap' | 'off';
  /** I/O operations and bytes per second (limits.ts); null: no limit, as `none` asks for. */
  iops?: Rate | null | undefined;
  bps?: Rate | null | undefined;
  /** Lock it later, with claimSource(): somebody else may use it until then. */
  later?: boolean;
  /** Although it is in use, or of another format. */
  force?: boolean;
  /** What only a remote source is told. */
  remote?: RemoteOptions;
}

const oneOf =
  <T extends string>(...values: T[]) =>
  (value: string | undefined, name: string): T => {
    if (values.includes(value as T)) return value as T;
    throw usage(`${name}=${value ?? ''}: must be ${values.join(' or ')}`);
  };

/** A decimal number. @throws usage error */
export const decimal = (value: string | undefined, name: string): number => {
  const number = parseDecimal(value);
  if (number === undefined) throw usage(`${name}=${value ?? ''}: must be a number`);
  return number;
};

/** Takes the value of one option (undefined where none was given) and sets what it means. @throws usage error */
export type SourceOption<T> = (options: T, value: string | undefined) => void;

const onOff = (value: string | undefined, name: string): boolean => value === undefined || oneOf('on', 'off')(value, name) === 'on';

/** Options that every server knows, by their names. */
export const commonOptions: Readonly<Record<string, SourceOption<SourceOptions>>> = {
  ro: (o, value) => {
    o.readonly = onOff(value, 'ro');
  },
  bs: (o, value) => {
    o.blockSize = decimal(value, 'bs');
  },
  format: (o, value) => {
    o.format = oneOf('raw')(value, 'format');
  },
  direct: (o, value) => {
    o.direct = onOff(value, 'direct');
  },
  engine: (o, value) => {
    const engine = engineAliases.get(value ?? '') ?? oneOf(...engines)(value, 'engine');
    if (engine === 'auto') delete o.engine;
    else o.engine = engine;
  },
  zero: (o, value) => {
    o.zero = oneOf('unmap', 'off')(value, 'zero');
  },
  shared: (o, value) => {
    o.shared = onOff(value, 'shared');
  },
  iops: (o, value) => {
    o.iops = parseRate('iops', value) ?? null;
  },
  bps: (o, value) => {
    o.bps = parseRate('bps', value) ?? null;
  },
};

/** Options that make no sense for a kind of source. */
const without: Readonly<Record<string, string>> = {
  direct: 'bypasses a page cache that only files have',
  engine: 'chooses who does the I/O of files',
};

/**
 * A source of the command line: `FILE`, `ram:SIZE` or a URI, with options behind it: `,ro`, `,bs=4096`. A doubled comma is a comma
 * of its name. In the name of a file a single one is as well, unless an option that is known follows it; behind a URI there are only
 * options.
 * @param defaults of the whole command line
 * @param more options of one kind of server
 * @throws usage error
 */
export function parseSourceText<T extends SourceOptions = SourceOptions>(
  text: string,
  defaults: Partial<T> = {},
  more: Readonly<Record<string, SourceOption<T>>> = {},
): T {
  if (text === '') throw usage('the name of a source is empty', `sources are ${sourceForms}`);
  const kind = kindOf(text);
  const own = Object.entries(remoteOptions[kind]).map(([name, set]): [string, SourceOption<T>] => [
    name,
    (o, value) => {
      o.remote = { ...o.remote };
      set(o.remote, value);
    },
  ]);
  const known: Readonly<Record<string, SourceOption<T>>> = { ...commonOptions, ...more, ...Object.fromEntries(own) };
  const options = { source: text, ...defaults } as T;
  const found: { apply: SourceOption<T>; value: string | undefined }[] = [];
  for (let name = text; ; ) {
    const match = /^(.*[^,](?:,,)*),([a-z0-9-]+)(?:=([^,]*))?$/s.exec(name);
    const option = match?.[2] ?? '';
    const apply = Object.hasOwn(known, option) ? known[option] : undefined;
    if (!match || !apply) {
      if (isRemote(text) && kind !== 'qcow2') checkRest(name, Object.keys(known));
      options.source = name.replaceAll(',,', ',');
      break;
    }
    if (isRemote(text) && kind !== 'qcow2' && option in without) throw usage(`${option}: ${without[option]}`);
    found.unshift({ apply, value: match[3] });
    name = match[1]!;
  }
  for (const { apply, value } of found) apply(options, value);
  if (options.remote) checkRemote(options.remote);
  options.source = sourcePath(options.source);
  return options;
}

/** What is left of a URI when its options are taken off must not have a single comma. @throws usage error */
function checkRest(name: string, known: readonly string[]): void {
  const bad = /(?:^|[^,])(?:,,)*,(?!,)([^,]*)/.exec(name)?.[1];
  if (bad === undefined) return;
  throw usage(`"${bad.replace(/=.*/s, '')}" is no option of this source; known are ${known.join(', ')}`, 'write a comma of a name twice');
}

/** `ram:BYTES`, a URI, or the full path of a file. `./ram:x` and `./rbd:x` are files. @throws usage error */
export const sourcePath = (source: string, folder = '.'): string => canonicalSource(source, folder);

/** Options without those that say what goes without saying: one that is off is the same as one that is not there. */
export const withoutOff = <T extends object>(options: T): T =>
  Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined && value !== false)) as T;
