import loader from 'js-yaml/lib/js-yaml/loader.js';
import failsafe from 'js-yaml/lib/js-yaml/schema/failsafe.js';
import { Exit, VioError } from '../../common/errors.js';
import { printable } from '../../common/escape.js';

/**
 * A YAML document whose scalars are all text (failsafe schema): with the types of YAML 1.1 an address such as 01:00.0 would be
 * a number of base 60.
 * @throws VioError (5) with line and column
 */
export function load(text: string, name: string): unknown {
  try {
    return loader.safeLoad(text, { schema: failsafe });
  } catch (err) {
    const { reason, mark } = err as { reason?: string; mark?: { line: number; column: number } };
    if (reason === undefined) throw err;
    const where = mark === undefined ? '' : `:${mark.line + 1}:${mark.column + 1}`;
    throw new VioError(`${printable(name)}${where}: ${printable(reason)}`, { code: 'BAD_FILE', exit: Exit.damaged, cause: err });
  }
}
