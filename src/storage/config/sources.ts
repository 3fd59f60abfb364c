/** `sources:` of a configuration: which sources the control socket may open. */
import fs from 'node:fs';
import path from 'node:path';
import { Exit, VioError } from '../../common/errors.js';
import { printable } from '../../common/escape.js';
import { globs } from '../../common/glob.js';

/** The name of a source without symbolic links; of a file that is not there, at least those of its folder. */
function realName(source: string): string {
  if (source.startsWith('qcow2:')) return `qcow2:${realName(source.slice('qcow2:'.length))}`;
  if (!source.startsWith('/')) return source;
  try {
    return fs.realpathSync(source);
  } catch {
    try {
      return path.join(fs.realpathSync(path.dirname(source)), path.basename(source));
    } catch {
      return source;
    }
  }
}

/** @param patterns undefined allows every source @throws VioError (3) */
export function checkAllowed(patterns: readonly string[] | undefined, source: string): void {
  if (patterns === undefined) return;
  const name = realName(source);
  if (patterns.length > 0 && globs(patterns, { paths: true })(name)) return;
  throw new VioError(`${printable(source)}: the server's list of sources does not allow it`, {
    code: 'NOT_ALLOWED',
    exit: Exit.refused,
    hint: `sources: in the server's configuration has ${patterns.map((one) => printable(one)).join(', ') || 'no pattern'}`,
  });
}
