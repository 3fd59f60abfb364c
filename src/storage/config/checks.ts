/** Checks of what the configuration files of all servers have in common. */
import { type Engine, engineAliases, engines } from '../../common/engines.js';
import { Exit, VioError } from '../../common/errors.js';
import { bad, type Check, type Checks, checked, flag, number, oneOf, text } from '../../common/text/checks.js';
import type { Rate } from '../../native/storage.js';
import { parseRate, rateText } from '../limits.js';
import { type SourceOptions, sourcePath } from '../source.js';
import type { SourceEntry } from './entry.js';

const blockSize: Check<number> = (v, place) => {
  const value = number(512, 65536)(v, place);
  if ((value & (value - 1)) !== 0) throw bad(place, 'must be a power of two');
  return value;
};
/** Name of an engine. */
export const engineCheck: Check<Engine> = (v, place) => engineAliases.get(v as string) ?? oneOf(...engines)(v, place);
/** A number, or a text as behind a source. */
const rate = (name: 'iops' | 'bps'): Check => {
  const parse = checked((value) => parseRate(name, value) ?? null);
  return (v, place) => parse(typeof v === 'number' ? String(v) : v, place);
};

/** Of a source. Rates come back parsed. */
export const sourceChecks: Checks<SourceEntry> = {
  source: text,
  blockSize,
  readOnly: flag,
  force: flag,
  format: oneOf('raw'),
  shared: flag,
  direct: flag,
  zero: oneOf('unmap', 'off'),
  iops: rate('iops'),
  bps: rate('bps'),
};

/**
 * What to serve, from a source that was checked.
 * @param folder of its relative path @param place of the entry, for errors
 * @throws VioError (2) for a size of memory
 */
export function sourceOf({ source, readOnly, iops, bps, ...rest }: SourceEntry, folder: string, place: string): SourceOptions {
  let full: string;
  try {
    full = sourcePath(source, folder);
  } catch (err) {
    if (!(err instanceof VioError)) throw err;
    throw new VioError(`${place}.source: ${err.message}`, { code: 'CONFIG', exit: Exit.usage, hint: err.hint });
  }
  return {
    ...rest,
    source: full,
    ...(readOnly !== undefined && { readonly: readOnly }),
    ...(iops !== undefined && { iops: iops as unknown as Rate | null }),
    ...(bps !== undefined && { bps: bps as unknown as Rate | null }),
  };
}

/** The entry of a source: what sourceOf() reads. Options of a server beside those of a source stay out. */
export function sourceEntry({ readonly, later: _later, iops, bps, ...rest }: SourceOptions): SourceEntry {
  return {
    ...rest,
    ...(readonly !== undefined && { readOnly: readonly }),
    ...(iops && { iops: rateText('iops', iops) }),
    ...(bps && { bps: rateText('bps', bps) }),
  };
}
