/** Checks of what the configuration files of all servers have in common. */
import path from 'node:path';
import { type Engine, engineAliases, engines } from '../../common/engines.js';
import { Exit, VioError } from '../../common/errors.js';
import { bad, type Check, type Checks, checked, flag, list, number, object, oneOf, text } from '../../common/text/checks.js';
import { placeText } from '../../common/text/place.js';
import { formatDuration } from '../../common/units.js';
import type { Rate } from '../../native/storage.js';
import { parseRate, rateText } from '../limits.js';
import { type SourceOptions, sourcePath } from '../source.js';
import { checkRemote, fileOptions, kindOf, type RemoteOptions, remoteOptions } from '../uri.js';
import type { RemoteEntry, SourceEntry } from './entry.js';

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

const remote = object<RemoteEntry>(
  {
    timeout: text,
    conf: text,
    id: text,
    keyring: text,
    backing: text,
    hostnqn: text,
    hdgst: flag,
    ddgst: flag,
    queues: number(1, 64),
    dhchapSecretFile: text,
    dhchapFile: text,
    dhchapCtrlSecretFile: text,
    tls: flag,
    tlsKeyFile: text,
    paths: list(text),
    discovery: list(text),
  },
  [],
);

/** Of a source. Rates come back parsed. */
export const sourceChecks: Checks<SourceEntry> = {
  source: text,
  blockSize,
  readOnly: flag,
  force: flag,
  format: oneOf('raw'),
  shared: flag,
  direct: flag,
  engine: engineCheck,
  zero: oneOf('unmap', 'off'),
  iops: rate('iops'),
  bps: rate('bps'),
  remote,
};

/** Keys of RemoteEntry that command lines spell otherwise, and those that name files. */
const spelt = new Map<string, string>([
  ['dhchapSecretFile', 'dhchap-secret-file'],
  ['dhchapFile', 'dhchap-file'],
  ['dhchapCtrlSecretFile', 'dhchap-ctrl-secret-file'],
  ['tlsKeyFile', 'tls-key-file'],
  ['paths', 'path'],
]);
const ofFiles: ReadonlySet<string> = new Set([...fileOptions, 'dhchapFile']);

/** What the options of a remote source say, as behind its name. @throws VioError (2) */
function remoteOf(entry: RemoteEntry, source: string, folder: string, place: string): RemoteOptions {
  const kind = kindOf(source);
  const known = remoteOptions[kind];
  const options: RemoteOptions = {};
  for (const [key, value] of Object.entries(entry) as [string, string | number | boolean | string[]][]) {
    const at = { at: `${place}.remote.${key}`, texts: false };
    const set = known[spelt.get(key) ?? key];
    if (!set) throw bad(at, `is no option of this source; it has ${Object.keys(known).join(', ') || 'none'}`);
    for (const one of Array.isArray(value) ? value : [value]) {
      const word = typeof one === 'boolean' ? (one ? 'on' : 'off') : String(one);
      checked((text) => set(options, ofFiles.has(key) ? path.resolve(folder, text) : text))(word, at);
    }
  }
  checked(() => checkRemote(options))('remote', { at: `${place}.remote`, texts: false });
  return options;
}

/** The same as a file has it. */
function remoteEntry({ timeout, paths, discovery, ...rest }: RemoteOptions): RemoteEntry {
  const places = (list: { host: string; port: number }[]) => list.map(({ host, port }) => placeText({ address: host, port }));
  return {
    ...rest,
    ...(timeout !== undefined && { timeout: formatDuration(timeout) }),
    ...(paths && { paths: places(paths) }),
    ...(discovery && { discovery: places(discovery) }),
  };
}

/**
 * What to serve, from a source that was checked.
 * @param folder of its relative path @param place of the entry, for errors
 * @throws VioError (2) for a size of memory
 */
export function sourceOf(
  { source, readOnly, iops, bps, remote, engine, ...rest }: SourceEntry,
  folder: string,
  place: string,
): SourceOptions {
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
    ...(engine !== undefined && engine !== 'auto' && { engine }),
    ...(remote && { remote: remoteOf(remote, full, folder, place) }),
    ...(readOnly !== undefined && { readonly: readOnly }),
    ...(iops !== undefined && { iops: iops as unknown as Rate | null }),
    ...(bps !== undefined && { bps: bps as unknown as Rate | null }),
  };
}

/** The entry of a source: what sourceOf() reads. Options of a server beside those of a source stay out. */
export function sourceEntry({ readonly, later: _later, iops, bps, remote, ...rest }: SourceOptions): SourceEntry {
  return {
    ...rest,
    ...(remote && { remote: remoteEntry(remote) }),
    ...(readonly !== undefined && { readOnly: readonly }),
    ...(iops && { iops: rateText('iops', iops) }),
    ...(bps && { bps: rateText('bps', bps) }),
  };
}
