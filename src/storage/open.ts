import fs from 'node:fs';
import { codeOf, Exit, VioError, wrap } from '../common/errors.js';
import { printable } from '../common/escape.js';
import { Sysroot } from '../common/sysroot.js';
import { native } from '../native/index.js';
import type { Store } from '../native/storage.js';
import { formatOf, toRaw } from './formats.js';
import type { SourceOptions } from './source.js';
import { lockHolder, quote, type User, userOf } from './users.js';

/** A refusal that `--force` turns off: somebody else uses the source. */
const inUse = (source: string, user: User | undefined): VioError =>
  new VioError(`${printable(source)}: already in use${user?.text ?? ' by another process'}`, {
    code: 'IN_USE',
    exit: Exit.refused,
    hint: user ? user.fix : `fuser -v ${quote(source)}`,
  });

/**
 * Opens what is to be served, after all checks: nobody else writes to it, and it is a raw disk.
 * @param root where /proc and /sys are looked at
 * @throws VioError: 3 (IN_USE, FORMAT) for a refusal, else the system's error
 */
export function openSource(options: SourceOptions, root = new Sysroot()): Store {
  const { source, readonly = false, shared = false, force = false } = options;
  const ram = /^ram:(\d+)$/.exec(source);
  if (ram) {
    try {
      return native().storage.ram(Number(ram[1]));
    } catch (err) {
      throw wrap(`open ${source}`, err);
    }
  }
  const store = openFile(source, { readonly, shared, force }, root);
  if (force || options.format === 'raw') return store;
  try {
    const format = formatOf(store, readonly);
    if (format === undefined) return store;
    throw new VioError(`${printable(source)}: this is no raw disk but ${format}; append ,format=raw to serve its bytes as they are`, {
      code: 'FORMAT',
      exit: Exit.refused,
      hint: toRaw(format, source),
    });
  } catch (err) {
    native().storage.close(store);
    throw wrap(`read ${printable(source)}`, err);
  }
}

function openFile(source: string, options: { readonly: boolean; shared: boolean; force: boolean }, root: Sysroot): Store {
  let stat: fs.BigIntStats;
  try {
    stat = fs.statSync(source, { bigint: true });
  } catch (err) {
    throw notFound(source, err);
  }
  if (!options.readonly && !options.force) {
    const user = userOf(root, source, stat);
    if (user) throw inUse(source, user);
  }
  try {
    return native().storage.open(source, options);
  } catch (err) {
    if (codeOf(err) === 'EBUSY') throw inUse(source, lockHolder(root, stat));
    throw notFound(source, err);
  }
}

function notFound(source: string, err: unknown): VioError {
  const option = /,([a-z]+=[^,/]*)$/.exec(source)?.[1];
  const missing = codeOf(err) === 'ENOENT';
  return wrap(`open ${printable(source)}`, err, {
    hint: !missing ? undefined : option === undefined ? `make it: truncate -s 1G ${quote(source)}` : `"${printable(option)}" is no option`,
  });
}

/** What is said once when a sync of a source has failed. */
export const lostText = (source: string, code: string): string =>
  `${printable(source)}: data may be lost (${code} of a sync): every flush fails from now on, until the source is opened anew`;
