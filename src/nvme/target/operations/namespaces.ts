/** Subsystems and namespaces that come, go and change. */
import { VioError } from '../../../common/errors.js';
import { native as addon } from '../../../native/index.js';
import type { NvmeNative } from '../../../native/nvme.js';
import { changedLimits, type LimitTexts } from '../../../storage/limits.js';
import { openSourceLater, type Source } from '../../../storage/open.js';
import type { Namespace, NamespaceOptions } from '../model.js';
import { Subsystem, type SubsystemOptions } from '../subsystem.js';
import type { Target } from '../target.js';
import { namespaceOf } from './access.js';
import { type Change, nothing } from './change.js';

/** A subsystem with all that it is to have. */
export interface NewSubsystem extends Omit<SubsystemOptions, 'state'> {
  namespaces?: readonly NamespaceOptions[] | undefined;
  /** Sources of the namespaces that openFor() has opened, in their order. */
  sources?: readonly (Source | undefined)[] | undefined;
  /** States of ANA groups on all ports. */
  ana?: readonly { group: number; state: number }[] | undefined;
}

/**
 * Adds a subsystem. Its sources are open and locked from now on: apply or abandon the change.
 * @throws VioError: EEXIST for an NQN that is taken, errors of sources
 */
export function addSubsystem(native: NvmeNative, target: Target, options: NewSubsystem): Change & { subsystem: Subsystem } {
  const { namespaces = [], sources: opened = [], ana = [], ...rest } = options;
  const subsystem = filled(native, target, rest, namespaces, opened);
  for (const { group, state } of ana) subsystem.ana.set(group, state);
  const sources = namespaces.map(({ source }) => source);
  return {
    subsystem,
    todo: [`add subsystem ${rest.nqn}${sources.length > 0 ? ` with ${sources.join(', ')}` : ''}`],
    apply: () => target.addSubsystem(subsystem),
    abandon: () => subsystem.close(),
  };
}

/** A subsystem with its namespaces. Whatever fails, no source stays open. */
function filled(
  native: NvmeNative,
  target: Target,
  options: SubsystemOptions,
  namespaces: readonly NamespaceOptions[],
  opened: readonly (Source | undefined)[],
): Subsystem {
  let taken = 0;
  let subsystem: Subsystem | undefined;
  try {
    if (target.subsystems.has(options.nqn)) throw new VioError(`subsystem ${options.nqn} exists already`, { code: 'EEXIST' });
    subsystem = new Subsystem(native, { ...options, state: target.state });
    for (const namespace of namespaces) subsystem.adopt(subsystem.prepare(namespace, opened[taken++]));
    return subsystem;
  } catch (err) {
    subsystem?.close();
    for (const source of opened.slice(taken)) closeSource(source);
    throw err;
  }
}

/** Removes a subsystem, if it is there, and ends its associations. */
export function removeSubsystem(target: Target, nqn: string): Change {
  const subsystem = target.subsystems.get(nqn);
  if (!subsystem) return nothing;
  return { todo: [`remove subsystem ${nqn}`], apply: () => target.removeSubsystem(subsystem) };
}

/** The error of what was to be added. A source that is served with other options is in use: the hint says how to change it. */
function withHint(err: unknown, subsystem: Subsystem | undefined, options: NamespaceOptions): unknown {
  const hint = subsystem?.otherwise(options);
  if (!(err instanceof VioError) || hint === undefined || !['IN_USE', 'EEXIST'].includes(err.code)) return err;
  return new VioError(err.message, { code: err.code, exit: err.exit, hint, cause: err });
}

/** Sources that are being opened for each target. */
const opening = new WeakMap<Target, Map<string, Promise<unknown>>>();

/**
 * Opens what is to be added; undefined if that is served already. One that hangs delays nobody but those who want the same one.
 * @param subsystem that it is for; undefined if that is to be made
 * @returns who gets it closes it, or gives it to addNamespace() or addSubsystem()
 * @throws VioError
 */
export async function openFor(target: Target, subsystem: Subsystem | undefined, options: NamespaceOptions): Promise<Source | undefined> {
  const known = opening.get(target) ?? new Map<string, Promise<unknown>>();
  opening.set(target, known);
  while (known.has(options.source)) await known.get(options.source);
  if (subsystem?.same(options)) return undefined;
  try {
    subsystem?.place(options);
    const work = openSourceLater(options, undefined, target.state);
    known.set(
      options.source,
      work.catch(() => {}).finally(() => known.delete(options.source)),
    );
    return await work;
  } catch (err) {
    throw withHint(err, subsystem, options);
  }
}

/** Closes a source that was opened for nothing. */
const closeSource = (source: Source | undefined): void => {
  if (source) addon().storage.close(source.store);
};

/**
 * Adds a namespace, if there is none that has all that is asked for. Its source is open and locked from now on: apply or abandon
 * the change.
 * @param source that openFor() has opened; opened here, which may take long, if left out
 * @throws VioError
 */
export function addNamespace(target: Target, subsystem: Subsystem, options: NamespaceOptions, source?: Source): Change {
  if (subsystem.same(options)) {
    closeSource(source);
    return nothing;
  }
  let fresh: Namespace;
  try {
    fresh = subsystem.prepare(options, source);
  } catch (err) {
    throw withHint(err, subsystem, options);
  }
  return {
    todo: [`add ${fresh.source} as namespace ${fresh.nsid} of ${subsystem.nqn}`],
    apply: () => {
      target.adopt(subsystem, fresh);
    },
    abandon: () => subsystem.release(fresh),
  };
}

/** Takes a namespace away, if it is there. */
export function removeNamespace(target: Target, subsystem: Subsystem, nsid: number): Change {
  const found = subsystem.namespaces.get(nsid);
  if (!found) return nothing;
  return {
    todo: [`remove namespace ${nsid} (${found.source}) of ${subsystem.nqn}`],
    apply: () => target.remove(subsystem, nsid),
  };
}

/** Takes a size over. @param bytes what Target.measure() has found out @throws VioError (ENOENT) */
export function resizeNamespace(target: Target, subsystem: Subsystem, nsid: number, bytes: number): Change {
  const namespace = namespaceOf(subsystem, nsid);
  const size = subsystem.sizeOf(namespace, bytes);
  if (size === namespace.size) return nothing;
  return {
    todo: [`resize namespace ${nsid} from ${namespace.size} to ${size} bytes`],
    apply: () => target.resize(subsystem, namespace, bytes),
  };
}

/** Opens the source of a namespace anew: its flushes can succeed again. @throws VioError (ENOENT) */
export function reopenNamespace(target: Target, subsystem: Subsystem, nsid: number): Change {
  const { source } = namespaceOf(subsystem, nsid);
  return { todo: [`open ${source} of namespace ${nsid} anew`], apply: () => target.reopen(subsystem, nsid) };
}

/** Changes how fast a namespace may be used. @throws usage error; VioError (ENOENT) */
export function limitNamespace(subsystem: Subsystem, nsid: number, wanted: LimitTexts): Change {
  const { store } = namespaceOf(subsystem, nsid);
  const { limits, todo } = changedLimits(store, wanted);
  return {
    todo: todo.map((text) => `limit namespace ${nsid} to ${text}`),
    apply: () => addon().storage.setLimits(store, limits),
  };
}
