import path from 'node:path';
import { usage } from '../common/errors.js';
import { parseDecimal, parseSize } from '../common/units.js';
import type { Rate } from '../native/storage.js';
import { parseRate } from './limits.js';

/** What to serve and how, the same for every server. */
export interface SourceOptions {
  /** Full path of a file or block device, or `ram:BYTES`. */
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
  /** Writes of zeroes: a hole stays a hole unless given; `unmap` makes one, `off` writes them. */
  zero?: 'unmap' | 'off';
  /** I/O operations and bytes per second (limits.ts); null: no limit, as `none` asks for. */
  iops?: Rate | null | undefined;
  bps?: Rate | null | undefined;
  /** Lock it later, with claimSource(): somebody else may use it until then. */
  later?: boolean;
  /** Although it is in use, or of another format. */
  force?: boolean;
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

/**
 * A source of the command line: `FILE` or `ram:SIZE`, with options behind it: `,ro`, `,bs=4096`. A doubled comma is a comma
 * of the file's name; a single one is as well, unless an option that is known follows it.
 * @param defaults of the whole command line
 * @param more options of one kind of server
 * @throws usage error
 */
export function parseSourceText<T extends SourceOptions = SourceOptions>(
  text: string,
  defaults: Partial<T> = {},
  more: Readonly<Record<string, SourceOption<T>>> = {},
): T {
  const known: Readonly<Record<string, SourceOption<T>>> = { ...commonOptions, ...more };
  const options = { source: text, ...defaults } as T;
  const found: { apply: SourceOption<T>; value: string | undefined }[] = [];
  for (let name = text; ; ) {
    const match = /^(.*[^,](?:,,)*),([a-z0-9]+)(?:=([^,]*))?$/s.exec(name);
    const apply = match && Object.hasOwn(known, match[2]!) ? known[match[2]!] : undefined;
    if (!match || !apply) {
      options.source = name.replaceAll(',,', ',');
      break;
    }
    found.unshift({ apply, value: match[3] });
    name = match[1]!;
  }
  for (const { apply, value } of found) apply(options, value);
  options.source = sourcePath(options.source);
  return options;
}

/** `ram:BYTES`, or the full path of a file. `./ram:x` is a file. @throws usage error for a size */
export function sourcePath(source: string, folder = '.'): string {
  const ram = /^ram:(.*)$/.exec(source);
  return ram ? `ram:${parseSize(ram[1]!)}` : path.resolve(folder, source);
}
