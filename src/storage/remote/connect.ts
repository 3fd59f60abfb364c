import { codeOf, Exit, VioError, wrap } from '../../common/errors.js';
import { printable } from '../../common/escape.js';
import { native } from '../../native/index.js';
import type { Store } from '../../native/storage.js';
import { openQcow2 } from '../qcow2/open.js';
import type { SourceOptions } from '../source.js';
import { ask, type Steps } from '../steps.js';
import { kindOf, parseRbd, type SourceKind } from '../uri.js';
import { openNvme } from './nvme.js';

/** How long a request waits for a source that does not answer, in milliseconds. */
export const defaultTimeout = 30_000;

/** Opens a source of one kind. It waits off the event loop, no longer than the time-out. @throws the system's error */
type Opener = (options: SourceOptions) => Promise<Store>;

/** Where a kind's library comes from, in Debian. */
interface Engine {
  open: Opener;
  /** '' where it is part of vioctl */
  package: string;
}

const openNbd: Opener = ({ source, readonly = false, shared = false, zero, remote }) =>
  native().storage.openNbd({ uri: source, readonly, shared, zero, timeout: remote?.timeout ?? defaultTimeout });

const openRbd: Opener = ({ source, readonly = false, shared = false, force = false, later = false, zero, remote }) => {
  const { conf, id, keyring, timeout = defaultTimeout } = remote ?? {};
  return native().storage.openRbd({ ...parseRbd(source), conf, id, keyring, readonly, shared, force, later, zero, timeout });
};

const engines: Readonly<Partial<Record<SourceKind, Engine>>> = {
  nbd: { open: openNbd, package: 'libnbd0' },
  rbd: { open: openRbd, package: 'librbd1' },
  nvme: { open: openNvme, package: '' },
  qcow2: { open: (options) => openQcow2(options, options.remote?.timeout ?? defaultTimeout), package: 'libnbd0' },
};

/**
 * Opens a remote source. Only openSourceLater() may ask for it: it can take as long as the time-out.
 * @throws VioError: 7 for a library that is missing or too old, 3 (IN_USE) for a source that others have, else the system's error
 */
export function* openRemote(options: SourceOptions): Steps<Store> {
  const { source } = options;
  const kind = kindOf(source);
  const engine = engines[kind];
  if (!engine)
    throw new VioError(`${printable(source)}: ${kind} sources are not supported yet`, { code: 'ENOTSUP', exit: Exit.unsupported });
  const now = (): Store => {
    throw new Error('broken invariant: a remote source is opened off the event loop');
  };
  try {
    return yield* ask({ now, later: () => engine.open(options) });
  } catch (err) {
    throw explained(source, engine.package, err);
  }
}

/** The error of an engine, with what to do about it. */
function explained(source: string, debian: string, err: unknown): VioError {
  const what = `open ${printable(source)}`;
  if (err instanceof VioError)
    return new VioError(`${what}: ${err.message}`, { code: err.code, exit: err.exit, hint: err.hint, details: err.details });
  const detail = /'([^']+)'$/.exec((err as Error).message)?.[1];
  switch (codeOf(err)) {
    case 'ELIBACC':
      return new VioError(`${what}: ${detail ?? 'its library'} is not installed`, {
        code: 'ELIBACC',
        exit: Exit.unsupported,
        hint: `apt install ${debian}`,
      });
    case 'ELIBBAD':
      return new VioError(`${what}: the library is too old: it lacks ${detail ?? 'a function'}`, {
        code: 'ELIBBAD',
        exit: Exit.unsupported,
        hint: `install a newer ${debian}`,
      });
    case 'EBUSY':
      return new VioError(`${printable(source)}: already in use by another client`, { code: 'IN_USE', exit: Exit.refused });
    case 'EOPNOTSUPP':
      return wrap(what, err, { hint: /^nbd[:+]/.test(source) ? 'the server may require TLS: nbds:// or nbds+unix://' : undefined });
    default:
      return wrap(what, err);
  }
}
