/** `sources:` of a configuration: which sources the control socket may open. */
import fs from 'node:fs';
import path from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { Exit, VioError } from '../../common/errors.js';
import { printable } from '../../common/escape.js';
import { globs } from '../../common/glob.js';
import { placeText } from '../../common/text/place.js';
import { type SourceOptions, sourcePath } from '../source.js';
import { fileOptions, isFile, parseNvme } from '../uri.js';

/** The path of a file without symbolic links; of one that is not there, at least those of its folder. */
function realPath(file: string): string {
  try {
    return fs.realpathSync(file);
  } catch {
    try {
      return path.join(fs.realpathSync(path.dirname(file)), path.basename(file));
    } catch {
      return file;
    }
  }
}

/** A source as patterns see it. */
function realName(source: string): string {
  const image = /^qcow2:(.*)$/s.exec(source)?.[1];
  if (image !== undefined) return `qcow2:${realPath(image)}`;
  return isFile(source) ? realPath(source) : source;
}

/** All that is opened for a source: itself, the files that its options name, and its other addresses. */
function opened({ source, remote = {} }: SourceOptions): string[] {
  const files = fileOptions.flatMap((key) => (remote[key] === undefined ? [] : [realPath(path.resolve(remote[key]))]));
  // What a discovery service names may be opened if the service itself may be asked.
  const others = [...(remote.paths ?? []), ...(remote.discovery ?? [])].map(({ host, port }) => {
    const { nqn, nsid } = parseNvme(source);
    return `nvme+tcp://${placeText({ address: host, port })}/${nqn}/${nsid}`;
  });
  return [realName(source), ...files, ...others];
}

/**
 * Whether a source of the control socket, with everything that its options name, may be opened.
 * @param patterns undefined allows every source
 * @returns the options with the source in the form that is opened
 * @throws VioError (3), or a usage error for a source that is none
 */
export function checkAllowed<T extends SourceOptions>(patterns: readonly string[] | undefined, options: T): T {
  const checked = { ...options, source: sourcePath(options.source) };
  checkNames(patterns, () => opened(checked));
  return checked;
}

/** The same for a file that is no source. @throws VioError (3) */
export const checkAllowedFile = (patterns: readonly string[] | undefined, file: string): void =>
  checkNames(patterns, () => [realPath(file)]);

function checkNames(patterns: readonly string[] | undefined, names: () => string[]): void {
  if (patterns === undefined) return;
  const allowed = patterns.length > 0 ? globs(patterns, { paths: true }) : () => false;
  const bad = names().find((name) => !allowed(name));
  if (bad === undefined) return;
  throw new VioError(`${printable(bad)}: the server's list of sources does not allow it`, {
    code: 'NOT_ALLOWED',
    exit: Exit.refused,
    hint: `sources: in the server's configuration has ${patterns.map((one) => printable(one)).join(', ') || 'no pattern'}`,
  });
}

/** Refuses other patterns that come over the control socket. @param now those of the server @throws VioError (3) */
export function checkPatterns(now: readonly string[] | undefined, wanted: readonly string[] | undefined): void {
  if (isDeepStrictEqual(wanted, now)) return;
  throw new VioError('sources cannot change over the control socket', {
    code: 'NOT_ALLOWED',
    exit: Exit.refused,
    hint: 'change the file of --config, and send the server SIGHUP',
  });
}

/**
 * Whether a source is served already, with as much as is wanted of it: the server's own file may have any source, and what it has may
 * stay, but not get more out of it than the file gives.
 */
export const gives = (served: readonly SourceOptions[], { source, readonly = false, remote }: SourceOptions): boolean =>
  served.some((one) => one.source === source && (readonly || !one.readonly) && isDeepStrictEqual(one.remote, remote));
