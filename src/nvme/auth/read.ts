/** Keys from where options say that they are. */
import { VioError } from '../../common/errors.js';
import { printable } from '../../common/escape.js';
import { type Key, parseChapKey, parseTlsKey } from './keys.js';
import { readSecret, wipe } from './secret.js';

function readKey(from: string, what: string, parse: (text: Uint8Array) => Key): Key {
  const text = readSecret(from, what);
  try {
    return parse(text);
  } catch (err) {
    if (!(err instanceof VioError)) throw err;
    throw new VioError(`${printable(from)}: ${err.message}`, { code: err.code, exit: err.exit, hint: err.hint });
  } finally {
    wipe(text);
  }
}

/** A DHHC-1 key of a file, `env:NAME`, `fd:N` or `-`. @param what names it in errors @throws VioError that names the place, never a byte of the key */
export const readChapKey = (from: string, what: string): Key => readKey(from, what, parseChapKey);

/** An NVMeTLSkey-1 key, likewise. */
export const readTlsKey = (from: string, what: string): Key => readKey(from, what, parseTlsKey);
