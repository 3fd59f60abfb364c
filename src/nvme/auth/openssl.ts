/** What needs functions of OpenSSL that a Node may be built without. */
import { codeOf, Exit, VioError } from '../../common/errors.js';

function explained(err: unknown): unknown {
  const { syscall } = err as { syscall?: unknown };
  if (codeOf(err) !== 'EOPNOTSUPP' || (syscall !== 'TLS' && syscall !== 'Diffie-Hellman')) return err;
  return new VioError(`${syscall}: this Node does not export the functions of OpenSSL`, {
    code: 'ENOTSUP',
    exit: Exit.unsupported,
    hint: 'use a Node with its own OpenSSL, as those of nodejs.org are',
    cause: err,
  });
}

/** Calls the addon. @throws VioError (exit 7) with the reason on a Node without the functions, else what `call` throws */
export function withOpenssl<T>(call: () => T): T {
  try {
    return call();
  } catch (err) {
    throw explained(err);
  }
}

/** The same for a promise. */
export const awaitOpenssl = <T>(call: () => Promise<T>): Promise<T> =>
  withOpenssl(call).catch((err: unknown) => {
    throw explained(err);
  });
