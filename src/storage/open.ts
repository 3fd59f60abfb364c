import fs from 'node:fs';
import { codeOf, Exit, VioError, wrap } from '../common/errors.js';
import { printable, shellFile } from '../common/escape.js';
import { RememberedSysroot, Sysroot } from '../common/sysroot.js';
import { native } from '../native/index.js';
import type { Geometry, Inode, OpenedLater, Part, Peeked, Store } from '../native/storage.js';
import { requireRings } from '../uring/host/unavailable.js';
import { formatOf, telling, toRaw } from './formats.js';
import { atomicWriteOf, blockSizeOf, type QueueLimits, queueLimits } from './geometry.js';
import { type SourceNames, sourceNames } from './identity.js';
import { renewQcow2 } from './qcow2/open.js';
import { openRemote } from './remote/connect.js';
import type { SourceOptions } from './source.js';
import type { IdentityState } from './state.js';
import { ask, runLater, runNow, type Steps } from './steps.js';
import { Together } from './together.js';
import { isFile, isRemote, kindOf, sourceForms } from './uri.js';
import { claimantOfDevice, KernelUsers, lockHolder, typeOf, type User, userOf } from './users.js';

/** A refusal that `--force` turns off: somebody else uses the source. */
const inUse = (source: string, user: User | undefined): VioError =>
  new VioError(`${printable(source)}: already in use${user?.text ?? ' by another process'}`, {
    code: 'IN_USE',
    exit: Exit.refused,
    hint: user ? user.fix : `fuser -v ${shellFile(source)}`,
  });

/** A source that is open and locked. Whoever gets it closes its store. */
export interface Source {
  /** As messages name it. */
  readonly name: string;
  readonly store: Store;
  readonly readonly: boolean;
  /** Bytes of a logical block, as hosts see it. */
  readonly blockSize: number;
  readonly geometry: Geometry;
  /** Largest aligned write that a power failure does not tear, bytes. */
  readonly atomicWrite: number;
  /** Of a block device. */
  readonly limits: QueueLimits | undefined;
  /** Names the source itself, not its path (identity.ts). */
  readonly identity: string;
}

/** Sources that are opened at the same time. */
const openAtOnce = 128;
/** Threads among which few sources are divided; of many, a thread gets a group at a time, which costs less than one by one. */
const openThreads = 8;
const openGroup = 16;

/** What the checks of a source, or of several that are opened together, know of the system. */
class Around {
  readonly root: Sysroot;
  /** For what does not change from one source to the next. */
  readonly once: Sysroot;
  readonly reach: Together<string, Inode>;
  readonly open: Together<OpenedLater, OpenedStore>;
  #users: Promise<KernelUsers> | undefined;

  /** @param count sources that are opened */
  constructor(root: Sysroot, count = 1) {
    this.root = root;
    this.once = new RememberedSysroot(root.root);
    const { storage } = native();
    const together = Math.min(openGroup, Math.ceil(count / openThreads));
    this.reach = new Together((paths) => storage.reach(paths), together);
    this.open = new Together<OpenedLater, OpenedStore>((files) => storage.openLater(files), together);
  }

  usersNow(): KernelUsers {
    return new KernelUsers(this.root);
  }

  usersLater(): Promise<KernelUsers> {
    this.#users ??= KernelUsers.look(this.root);
    return this.#users;
  }
}

/** A source that is open, and what it could be called. */
interface Opened {
  source: Omit<Source, 'identity'>;
  names: SourceNames;
}

/**
 * Opens what is to be served, after all checks: nobody else writes to it, and it is a raw disk.
 * @param root where /proc and /sys are looked at
 * @param state what sources were called before; without it, each is called what it is called now
 * @throws VioError: 2 for a block size, 3 (IN_USE, FORMAT) for a refusal, else the system's error
 */
export function openSource(options: SourceOptions, root = new Sysroot(), state?: IdentityState): Source {
  return named([runNow(openSteps(options, new Around(root)))], state)[0]!;
}

/** The same without waiting for a source that hangs. Remote sources are opened only so. @throws as openSource() does */
export async function openSourceLater(options: SourceOptions, root = new Sysroot(), state?: IdentityState): Promise<Source> {
  return (await openSources([options], root, state))[0]!;
}

/** The same for several sources: all are open, or none is. @throws as openSource() does, of the first one that cannot be opened */
export async function openSources(list: readonly SourceOptions[], root = new Sysroot(), state?: IdentityState): Promise<Source[]> {
  const around = new Around(root, list.length);
  const opened: Opened[] = [];
  const failures: { at: number; err: unknown }[] = [];
  let next = 0;
  const open = async (): Promise<void> => {
    while (next < list.length && failures.length === 0) {
      const at = next++;
      try {
        opened[at] = await runLater(openSteps(list[at]!, around));
      } catch (err) {
        failures.push({ at, err });
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(openAtOnce, list.length) }, open));
  const [failed] = failures.sort((a, b) => a.at - b.at);
  if (!failed) return named(opened, state);
  for (const one of opened) if (one) native().storage.close(one.source.store);
  throw failed.err;
}

/** Finds out what sources are called. Closes all if that fails. */
function named(opened: readonly Opened[], state: IdentityState | undefined): Source[] {
  try {
    // memory has no name to remember
    const remembered = state ? opened.filter(({ names }) => names.strong.length + names.weak.length > 0) : [];
    const identities = new Map(state?.identities(remembered.map(({ names }) => names)).map((identity, i) => [remembered[i], identity]));
    return opened.map((one) => ({ ...one.source, identity: identities.get(one) ?? one.names.identity }));
  } catch (err) {
    for (const { source } of opened) native().storage.close(source.store);
    throw wrap(`open ${printable(opened[0]!.source.name)}`, err);
  }
}

/** A store, and what was read of the parts that tell its format, if that is known already. */
interface OpenedStore {
  store: Store;
  parts?: Peeked;
}

function* openSteps(options: SourceOptions, around: Around): Steps<Opened> {
  const { source } = options;
  const { storage } = native();
  const { once } = around;
  const ram = /^ram:(\d+)$/.exec(source);
  const remote = isRemote(source);
  const looks = !ram && !options.force && options.format !== 'raw';
  const { store, parts }: OpenedStore = ram
    ? { store: openRam(Number(ram[1])) }
    : remote
      ? { store: yield* openRemote(options) }
      : yield* openFile(options, around, looks ? telling : []);
  try {
    const readonly = (options.readonly ?? false) || (remote && storage.geometry(store).readonly);
    if (looks) yield* refuseFormat(source, store, readonly, parts);
    const geometry = storage.geometry(store);
    if (options.engine === 'uring' && !ram) checkRing(geometry, around.root);
    const identity = storage.identity(store);
    const names = remote ? remoteNames(source, store) : sourceNames(once, ram ? undefined : source, identity);
    if (options.iops || options.bps) storage.setLimits(store, { iops: options.iops ?? undefined, bps: options.bps ?? undefined });
    const blockSize = blockSizeOf(source, geometry, options.blockSize, options.direct);
    return {
      source: {
        name: source,
        store,
        readonly,
        blockSize,
        geometry,
        atomicWrite: atomicWriteOf(once, geometry, identity?.device),
        limits: queueLimits(once, geometry, identity?.device),
      },
      names,
    };
  } catch (err) {
    storage.close(store);
    throw wrap(`open ${printable(source)}`, err);
  }
}

/** A remote source says itself what it is called. */
function remoteNames(source: string, store: Store): SourceNames {
  const name = `${kindOf(source)} ${native().storage.lastingName(store)}`;
  return { identity: name, strong: [name], weak: [] };
}

/** @throws VioError (7) if io_uring cannot do the I/O of a file that asks for it */
function checkRing({ withoutRing }: Geometry, root: Sysroot): void {
  requireRings(root);
  if (withoutRing !== undefined)
    throw new VioError(`io_uring cannot do its I/O on ${withoutRing}`, {
      code: 'UNAVAILABLE',
      exit: Exit.unsupported,
      hint: 'leave ,engine=uring out',
    });
}

function openRam(size: number): Store {
  try {
    return native().storage.ram(size);
  } catch (err) {
    throw wrap(`open ram:${size}`, err);
  }
}

function* refuseFormat(source: string, store: Store, readonly: boolean, parts: Peeked | undefined): Steps<void> {
  const format = yield* formatOf(store, readonly, parts);
  if (format === undefined) return;
  throw new VioError(`${printable(source)}: this is no raw disk but ${format}; append ,format=raw to serve its bytes as they are`, {
    code: 'FORMAT',
    exit: Exit.refused,
    hint: isFile(source) ? toRaw(format, source) : undefined,
  });
}

function* openFile(options: SourceOptions, around: Around, parts: readonly Part[]): Steps<OpenedStore> {
  const { root } = around;
  const { source, readonly = false, shared = false, force = false, direct = false, later = false, zero, engine } = options;
  const { storage } = native();
  let stat: Inode;
  try {
    stat = yield* ask<Inode>({ now: () => fs.statSync(source, { bigint: true }), later: () => around.reach.ask(source) });
  } catch (err) {
    throw notFound(source, err);
  }
  const odd = oddTypes.get(typeOf(stat));
  if (odd !== undefined)
    throw new VioError(`${printable(source)}: ${odd}, neither a regular file nor a block device`, {
      code: 'EOPNOTSUPP',
      exit: Exit.unsupported,
    });
  if (!readonly && !force) {
    const user = yield* ask({
      now: () => userOf(root, source, stat, { kernelOnly: later, users: around.usersNow() }),
      later: async () => userOf(root, source, stat, { kernelOnly: later, users: await around.usersLater() }),
    });
    if (user) throw inUse(source, user);
  }
  try {
    const wanted = { readonly, shared, force, direct, zero, claim: !later, ring: engine !== 'sync' };
    return yield* ask<OpenedStore>({
      now: () => ({ store: storage.open(source, wanted) }),
      later: () => around.open.ask({ path: source, options: wanted, parts }),
    });
  } catch (err) {
    if (codeOf(err) === 'EBUSY') throw inUse(source, lockHolder(root, stat) ?? claimantOfDevice(root, stat));
    if (direct && codeOf(err) === 'EINVAL' && (err as NodeJS.ErrnoException).syscall === 'open')
      throw new VioError(`${printable(source)}: its file system does not support direct=on (EINVAL of O_DIRECT)`, {
        code: 'EINVAL',
        exit: Exit.unsupported,
      });
    throw notFound(source, err);
  }
}

/** Files that cannot be served. */
const { S_IFIFO, S_IFSOCK, S_IFCHR } = fs.constants;
const oddTypes: ReadonlyMap<number, string> = new Map([
  [S_IFIFO, 'a FIFO'],
  [S_IFSOCK, 'a socket'],
  [S_IFCHR, 'a character device'],
]);

function notFound(source: string, err: unknown): VioError {
  return wrap(`open ${printable(source)}`, err, { hint: codeOf(err) === 'ENOENT' ? missingHint(source) : undefined });
}

/** What was meant by the name of a file that does not exist: an option, another kind of source, or a new file. */
function missingHint(source: string): string {
  const option = /,([a-z0-9-]+=[^,/]*)$/.exec(source)?.[1];
  if (option !== undefined) return `"${printable(option)}" is no option`;
  if (/\/[a-z][a-z0-9+.-]*:\/[^/]/.test(source)) return `sources are ${sourceForms}`;
  return `make it: truncate -s 1G ${shellFile(source)}`;
}

/** Why a source that is open cannot be locked or opened again. @param own whether this process may be the one in the way */
async function unavailable(what: string, { name }: Source, err: unknown, root: Sysroot, own: boolean, hint?: string): Promise<VioError> {
  if (codeOf(err) !== 'EBUSY') return wrap(`${what} ${printable(name)}`, err, { hint: codeOf(err) === 'ESTALE' ? hint : undefined });
  if (!isFile(name)) return inUse(name, { text: ' by another client', fix: undefined });
  const stat = fs.statSync(name, { bigint: true, throwIfNoEntry: false }); // it has just answered, with EBUSY
  return inUse(
    name,
    stat &&
      (userOf(root, name, stat, { users: await KernelUsers.look(root) }) ?? lockHolder(root, stat, own) ?? claimantOfDevice(root, stat)),
  );
}

/**
 * Locks a source that was opened to be locked later, or that was released.
 * @throws VioError: 3 (IN_USE) if somebody else uses it, else the system's error
 */
export async function claimSource(source: Source, root = new Sysroot()): Promise<void> {
  try {
    await native().storage.claim(source.store);
  } catch (err) {
    throw await unavailable('lock', source, err, root, true);
  }
}

/**
 * Opens a source anew, so that its flushes can succeed again.
 * @param otherwise what to do if another file has its name by now
 * @throws VioError: 3 (IN_USE) if somebody else uses it, else the system's error
 */
export async function reopenSource(source: Source, otherwise: string, root = new Sysroot()): Promise<void> {
  try {
    if (kindOf(source.name) === 'qcow2') await renewQcow2(source.store);
    await native().storage.reopen(source.store);
  } catch (err) {
    throw await unavailable('open', source, err, root, false, `another file has this name now: ${otherwise}`);
  }
}

/** Milliseconds that an answer waits for sources that it has let go of. */
const letGoTime = 1000;

/** Waits, for a while, until sources that were closed can be used by others. */
export const sourcesGone = (): Promise<unknown> => native().storage.farewells(letGoTime);

/** What is said once when a sync of a source has failed. */
export const lostText = (source: string, code: string): string =>
  `${printable(source)}: data may be lost (${code} of a sync): every flush fails from now on, until the source is opened anew`;
