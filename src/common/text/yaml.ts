import loader from 'js-yaml/lib/js-yaml/loader.js';
import failsafe from 'js-yaml/lib/js-yaml/schema/failsafe.js';
import { Exit, type ExitStatus, VioError } from '../errors.js';
import { printable } from '../escape.js';

/**
 * A YAML document whose scalars are all text (failsafe schema): with the types of YAML 1.1 an address such as 01:00.0 would be
 * a number of base 60.
 * @throws VioError with line and column
 */
export function load(text: string, name: string, exit: ExitStatus = Exit.damaged): unknown {
  try {
    return loader.safeLoad(text, { schema: failsafe });
  } catch (err) {
    const { reason, mark } = err as { reason?: string; mark?: { line: number; column: number } };
    if (reason === undefined) throw err;
    const where = mark === undefined ? '' : `:${mark.line + 1}:${mark.column + 1}`;
    throw new VioError(`${printable(name)}${where}: ${printable(reason)}`, { code: 'BAD_FILE', exit, cause: err });
  }
}
