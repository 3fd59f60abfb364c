/**
 * Changes a running target to what a configuration says. Everything that can fail comes first; then what differs is changed, and
 * nothing else. If a step fails that had to wait for an earlier one, the target goes back to the configuration it had.
 */
import { isDeepStrictEqual } from 'node:util';
import { Exit, VioError } from '../../../common/errors.js';
import { printable } from '../../../common/escape.js';
import { placeText } from '../../../common/text/place.js';
import { native as addon } from '../../../native/index.js';
import type { NvmeNative } from '../../../native/nvme.js';
import { rateText } from '../../../storage/limits.js';
import { claimSource, openSourceLater, type Source, sourcesGone } from '../../../storage/open.js';
import { anaStateNames } from '../../wire/index.js';
import { defaultLimits } from '../admission/limits.js';
import type { Listener } from '../discovery.js';
import type { Namespace } from '../model.js';
import * as operations from '../operations/index.js';
import type { FreshKeys } from '../security/keyring.js';
import { checkChoice, defaultMode, tlsText } from '../security/tls.js';
import type { NumberedNamespace, SubsystemConfig, TargetConfig } from '../serve/config.js';
import type { BoundSocket } from '../sockets.js';
import { bindSocket } from '../sockets.js';
import { Subsystem } from '../subsystem.js';
import type { Target, TargetLog } from '../target.js';
import { anaTexts, checkAnaListeners, setStates, wantedAna } from './ana.js';
import { checkFixed, fixedKeys, sameNamespace, sameSubsystem, stayingKeys } from './compare.js';
import {
  compareListeners,
  doneWithout,
  listenOn,
  type PortsOfPlaces,
  socketFor,
  type WantedListener,
  wantedListeners,
} from './listeners.js';
import { askedOf, liveConfig } from './live.js';

/** What a reload works on. */
export interface Loading {
  native: NvmeNative;
  target: Target;
  /** What the target was started with, or last loaded. */
  settings: TargetConfig;
  log: TargetLog;
  /** The target is about to stop: nothing waits any more, and nothing is restored. */
  ended: boolean;
}

/** Why a change is not made any more. */
export const ending = (): VioError => new VioError('the server ends', { code: 'ECANCELED' });

/** How long the source of a namespace that was removed may stay locked by commands under way, and the pause between two looks (ms). */
const claimTime = 10_000;
/** How long a source may take to open, in milliseconds. */
const openTime = 30_000;
const claimPause = 20;

/** What there is to do, in the order in which it is done. */
class LoadPlan {
  readonly todo: string[] = [];
  /** Subsystems that stay. */
  readonly kept = new Set<string>();
  /** Namespaces and subsystems that go. Memory is lost with them: it goes when nothing can fail any more. */
  readonly early: (() => Promise<void>)[] = [];
  readonly late: (() => Promise<void>)[] = [];
  /** Names of the sources (Source.identity) that go early: their locks go with them. */
  readonly leaving = new Set<string>();
  /** Sources that are locked by what goes early. */
  readonly claims: Source[] = [];
  /** Listeners that go, and those that need a port of theirs. */
  readonly surplus: Listener[] = [];
  readonly deferred: WantedListener[] = [];
  readonly bound: { wanted: WantedListener; socket: BoundSocket }[] = [];
  readonly changes: operations.Change[] = [];
  /** What keeps hosts out: before anything lets more of them in. Cannot fail. */
  readonly guards: (() => void)[] = [];
  /** What comes: cannot fail. */
  readonly arrivals: (() => void)[] = [];
  /** What is done when listeners are there. */
  readonly last: (() => operations.Change)[] = [];
  readonly abandon: (() => void)[] = [];

  change(change: operations.Change): void {
    if (change.todo.length === 0) return;
    this.changes.push(change);
    this.todo.push(...change.todo);
  }
}

/** What a reload has found out. */
export interface Loaded {
  /** What is changed, for people. */
  todo: string[];
  /** Does it. @throws VioError; nothing has changed then, or (8) what could not be restored is named */
  apply(): Promise<void>;
  /** Gives back what was opened, if it is not applied. */
  abandon(): void;
}

/** Opens the source of a namespace that comes. If a namespace that goes has it locked, it is locked later. */
async function open(loading: Loading, plan: LoadPlan, options: NumberedNamespace): Promise<Source> {
  const { state } = loading.target;
  try {
    return await inTime(openSourceLater(options, undefined, state), options);
  } catch (err) {
    if (plan.leaving.size === 0 || !(err instanceof VioError) || err.code !== 'IN_USE') throw err;
    const source = await inTime(openSourceLater({ ...options, later: true }, undefined, state), options);
    if (!plan.leaving.has(source.identity)) {
      addon().storage.close(source.store); // somebody else has it: nothing may be taken away for it
      throw err;
    }
    plan.claims.push(source);
    return source;
  }
}

/** A source that hangs must not keep the target from being changed for ever. @throws VioError (ETIMEDOUT) */
async function inTime(work: Promise<Source>, { source }: { source: string }): Promise<Source> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<undefined>((resolve) => {
    timer = setTimeout(() => resolve(undefined), openTime);
  });
  const opened = await Promise.race([work, late]).finally(() => clearTimeout(timer));
  if (opened) return opened;
  work.then(
    ({ store }) => addon().storage.close(store),
    () => {},
  );
  throw new VioError(`open ${printable(source)}: no answer within ${openTime / 1000} s`, { code: 'ETIMEDOUT' });
}

const isMemory = ({ source }: { source: string }): boolean => /^ram:/.test(source);

/** Plans for the subsystems. */
async function planSubsystems(loading: Loading, plan: LoadPlan, wanted: readonly SubsystemConfig[]): Promise<void> {
  const { target, native } = loading;
  const kept = new Map<SubsystemConfig, Subsystem>();
  for (const subsystem of target.subsystems.values()) {
    const config = wanted.find(({ nqn }) => nqn === subsystem.nqn);
    if (config && sameSubsystem(subsystem, config)) {
      kept.set(config, subsystem);
      plan.kept.add(config.nqn);
      continue;
    }
    plan.todo.push(config ? `replace subsystem ${subsystem.nqn}` : `remove subsystem ${subsystem.nqn}`);
    // its files at once, for whoever gets them; its memory when nothing can fail any more
    const all = [...subsystem.namespaces.values()];
    for (const one of all) if (!isMemory(one)) plan.leaving.add(one.identity);
    if (all.some(isMemory)) {
      for (const one of all.filter((ns) => !isMemory(ns))) plan.early.push(() => target.remove(subsystem, one.nsid, false));
      plan.late.push(() => target.removeSubsystem(subsystem, false));
    } else plan.early.push(() => target.removeSubsystem(subsystem, false));
  }
  const gone = new Map<Subsystem, Set<number>>();
  for (const [config, subsystem] of kept) gone.set(subsystem, planRemovals(plan, target, subsystem, config));
  for (const config of wanted) {
    const subsystem = kept.get(config);
    if (subsystem) await planNamespaces(loading, plan, subsystem, config, gone.get(subsystem)!);
    else await planNew(loading, plan, config, native);
  }
}

/** Namespaces that go, or come back as others. @returns their numbers */
function planRemovals(plan: LoadPlan, target: Target, subsystem: Subsystem, config: SubsystemConfig): Set<number> {
  const gone = new Set<number>();
  for (const namespace of subsystem.namespaces.values()) {
    const wanted = config.namespaces.find(({ nsid }) => nsid === namespace.nsid);
    if (wanted && sameNamespace(subsystem, namespace, wanted)) continue;
    gone.add(namespace.nsid);
    plan.todo.push(`remove namespace ${namespace.nsid} (${namespace.source}) of ${subsystem.nqn}`);
    if (!isMemory(namespace)) plan.leaving.add(namespace.identity);
    (isMemory(namespace) ? plan.late : plan.early).push(() => target.remove(subsystem, namespace.nsid, false));
  }
  return gone;
}

async function planNamespaces(
  loading: Loading,
  plan: LoadPlan,
  subsystem: Subsystem,
  config: SubsystemConfig,
  gone: ReadonlySet<number>,
): Promise<void> {
  const { target, native } = loading;
  // stands for the subsystem as it will be, so that numbers and identifiers are checked against what stays
  const shadow = new Subsystem(native, { nqn: subsystem.nqn, state: target.state });
  for (const namespace of subsystem.namespaces.values()) if (!gone.has(namespace.nsid)) shadow.adopt(namespace);
  for (const wanted of config.namespaces) {
    const now = shadow.namespaces.get(wanted.nsid);
    if (now) {
      planInPlace(plan, target, subsystem, now, wanted);
      continue;
    }
    const fresh = shadow.prepare(wanted, await open(loading, plan, wanted));
    shadow.adopt(fresh);
    plan.abandon.push(() => subsystem.release(fresh));
    plan.todo.push(`add ${wanted.source} as namespace ${wanted.nsid} of ${subsystem.nqn}`);
    plan.arrivals.push(() => void target.adopt(subsystem, fresh));
  }
  planHosts(plan, target, subsystem, config);
}

/** What changes in a namespace that stays. */
function planInPlace(plan: LoadPlan, target: Target, subsystem: Subsystem, now: Namespace, wanted: NumberedNamespace): void {
  const { nsid } = now;
  plan.change(operations.setMask(target, subsystem, nsid, wanted.hosts));
  const texts = { iops: rateText('iops', wanted.iops ?? undefined), bps: rateText('bps', wanted.bps ?? undefined) };
  plan.change(operations.limitNamespace(subsystem, nsid, texts));
  plan.arrivals.push(() => {
    now.options = wanted;
  });
}

function planHosts(plan: LoadPlan, target: Target, subsystem: Subsystem, config: SubsystemConfig): void {
  const wanted = config.allowHosts ?? [];
  const any = config.anyHost ?? config.allowHosts === undefined;
  const hosts = new Set(wanted);
  // the list first: a host that stays on it must not be disconnected when the others are shut out
  plan.change(operations.addHosts(target, subsystem, wanted));
  if (any) plan.change(operations.setAnyHost(target, subsystem, true));
  plan.change(
    operations.removeHosts(
      target,
      subsystem,
      [...subsystem.access.hosts].filter((host) => !hosts.has(host)),
    ),
  );
  if (!any) plan.change(operations.setAnyHost(target, subsystem, false));
}

/** A subsystem that comes. */
async function planNew(loading: Loading, plan: LoadPlan, config: SubsystemConfig, native: NvmeNative): Promise<void> {
  const { target } = loading;
  const { nqn, serial, model, cntlids, allowHosts, anyHost, namespaces } = config;
  const subsystem = new Subsystem(native, {
    nqn,
    state: target.state,
    ...(serial !== undefined && { serial }),
    ...(model !== undefined && { model }),
    ...(cntlids !== undefined && { cntlids }),
    allowed: allowHosts,
    anyHost,
  });
  plan.abandon.push(() => subsystem.close());
  for (const one of namespaces) subsystem.adopt(subsystem.prepare(one, await open(loading, plan, one)));
  plan.todo.push(`add subsystem ${nqn}`);
  plan.arrivals.push(() => target.addSubsystem(subsystem));
}

/** States of ANA groups: on all ports first, then on single ones, when all listeners are there. */
function planAna(loading: Loading, plan: LoadPlan, wanted: TargetConfig): void {
  const { target } = loading;
  const optimized = [...anaStateNames.keys()][0]!;
  for (const { nqn, ana = [] } of wanted.subsystems) {
    const now = plan.kept.has(nqn) ? target.subsystems.get(nqn) : undefined;
    const groups = new Map<number, number>(now?.ana.common().map(([group]) => [group, optimized]) ?? []);
    for (const { group, state, listener } of ana) if (listener === undefined) groups.set(group, state);
    const differs = now === undefined ? false : !isDeepStrictEqual(anaTexts(target, now), wantedAna(target, ana));
    if (differs) plan.todo.push(`set ANA states of ${nqn}`);
    if (now !== undefined && !differs) continue;
    plan.last.push(() => ({ todo: [''], apply: () => setStates(target, nqn, groups, ana) }));
  }
}

/** Listeners that come and go. Sockets are bound now, and take connections later. */
/** @param keys whether there are some for TLS then */
async function planListeners(loading: Loading, plan: LoadPlan, wanted: TargetConfig, keys: { readonly tls: boolean }): Promise<void> {
  const { target, log } = loading;
  const all = await wantedListeners(wanted);
  for (const { tls } of all) checkChoice(tls, keys);
  const { missing, renamed, surplus } = compareListeners(target, all, askedOf);
  for (const { listener, wanted: to } of renamed) {
    if (!isDeepStrictEqual(listener.advertise, to.advertise))
      plan.todo.push(`tell hosts ${placeText(to.advertise ?? to)} for ${placeText(to)}`);
    if (listener.askedTls !== to.tls)
      plan.todo.push(`${tlsText(to.tls ?? target.tlsMode ?? 'off')} on ${placeText(to)} for new connections`);
    plan.arrivals.push(() => target.rename(listener, to.asked, to.advertise, to.tls));
  }
  plan.surplus.push(...surplus);
  plan.todo.push(...surplus.map((one) => `no longer listen on ${placeText(one)}`));
  const ports: PortsOfPlaces = new Map();
  for (const one of missing) {
    const blocked = surplus.some(({ port }) => port === one.port);
    try {
      if (blocked) plan.deferred.push(one);
      else {
        const socket = socketFor(one, [], ports);
        plan.abandon.push(() => socket.fd.close());
        plan.bound.push({ wanted: one, socket });
      }
      plan.todo.push(`listen on ${placeText(one)}${one.discoveryOnly ? ' for discovery' : ''}`);
    } catch (err) {
      if (!doneWithout(one, err, log)) throw err;
    }
  }
  checkAnaListeners(wanted, all);
}

/** Keys of hosts, and what they are for. They are read first: nothing changes for a key that cannot be used. @returns the keys */
function planSecurity({ target, settings }: Loading, plan: LoadPlan, wanted: TargetConfig): FreshKeys {
  const keys = target.keys.read(wanted.keys ?? settings.keys);
  plan.abandon.push(() => keys.drop());
  plan.todo.push(...operations.newKeys(keys.changed));
  const policy = wanted.chapPolicy ?? settings.chapPolicy;
  if (!isDeepStrictEqual(policy, target.chapPolicy)) plan.todo.push('use other hash functions or groups for DH-HMAC-CHAP');
  const mode = defaultMode(wanted.tls ?? settings.tls, keys);
  if (mode !== target.tlsMode) plan.todo.push(`${tlsText(mode ?? 'off')} for new connections`);
  (keys.any ? plan.guards : plan.arrivals).push(() => {
    keys.use();
    target.chapPolicy = policy;
    target.setTlsMode(mode);
  });
  return keys;
}

function planTarget({ target }: Loading, plan: LoadPlan, wanted: TargetConfig): void {
  plan.change(
    operations.setLimits(target, {
      controllers: wanted.maxControllers ?? defaultLimits.controllers,
      connections: wanted.maxConnections ?? defaultLimits.connections,
      queues: wanted.maxQueues ?? defaultLimits.queues,
    }),
  );
  const hosts = new Map((wanted.hostLimits ?? []).map(({ host, ...limits }) => [host, limits]));
  for (const host of new Set([...target.hostLimits.keys(), ...hosts.keys()]))
    plan.change(
      operations.setHostLimits(target, host, { connections: undefined, queues: undefined, bytes: undefined, ...hosts.get(host) }),
    );
  if (!isDeepStrictEqual([...target.referrals], wanted.referrals)) {
    const todo = [`refer hosts to ${wanted.referrals.map(placeText).join(', ') || 'no other service'}`];
    plan.change({ todo, apply: () => target.setReferrals(wanted.referrals) });
  }
}

/** Waits for the lock of a source whose namespace was removed: commands under way keep it. */
async function claim(loading: Loading, source: Source): Promise<void> {
  const until = performance.now() + claimTime;
  for (;;) {
    if (loading.ended) throw ending();
    try {
      await claimSource(source);
      return;
    } catch (err) {
      if (!(err instanceof VioError) || err.code !== 'IN_USE' || performance.now() > until) throw err;
    }
    await new Promise((resolve) => setTimeout(resolve, claimPause));
  }
}

/**
 * Finds out what a configuration changes, and opens what it needs.
 * @param options.security false: keys and what they are for stay as they are
 * @throws VioError; nothing has changed and nothing stays open
 */
export async function planLoad(loading: Loading, wanted: TargetConfig, { security = true } = {}): Promise<Loaded> {
  checkFixed(loading.settings, wanted);
  const plan = new LoadPlan();
  const abandon = () => {
    for (const undo of plan.abandon.splice(0)) undo();
  };
  try {
    const keys = security ? planSecurity(loading, plan, wanted) : loading.target.keys;
    await planListeners(loading, plan, wanted, keys);
    await planSubsystems(loading, plan, wanted.subsystems);
    planAna(loading, plan, wanted);
    planTarget(loading, plan, wanted);
  } catch (err) {
    abandon();
    throw err;
  }
  return { todo: plan.todo, abandon, apply: () => applyPlan(loading, plan, wanted) };
}

/** Binds a port that a listener had which is closed by now. @throws VioError */
function bindLate({ log }: Loading, plan: LoadPlan, wanted: WantedListener): void {
  try {
    const socket = bindSocket(wanted.address, wanted.port);
    plan.abandon.push(() => socket.fd.close());
    plan.bound.push({ wanted, socket });
  } catch (err) {
    if (!doneWithout(wanted, err, log)) throw err;
  }
}

async function applyPlan(loading: Loading, plan: LoadPlan, wanted: TargetConfig): Promise<void> {
  const { target } = loading;
  const before = liveConfig(target, loading.settings);
  const opened: Listener[] = [];
  try {
    for (const remove of plan.early) await remove();
    if (plan.early.length > 0) await sourcesGone(); // once for all: one that hangs is waited for as long as that takes
    for (const source of plan.claims) await claim(loading, source);
    for (const listener of plan.surplus) await target.unlisten(listener);
    for (const one of plan.deferred) bindLate(loading, plan, one);
    for (const { wanted: one, socket } of plan.bound) {
      const listener = listenOn(target, one, socket);
      listener.opening = true; // it may fail, so it comes before what cannot be taken back
      opened.push(listener);
    }
  } catch (err) {
    for (const listener of opened) await target.unlisten(listener);
    for (const undo of plan.abandon.splice(0)) undo();
    if (!loading.ended) await restore(loading, before, err as Error);
    throw err;
  }
  plan.abandon.length = 0;
  try {
    for (const guard of plan.guards) guard();
    for (const remove of plan.late) await remove();
    await operations.applyAll(plan.changes);
    for (const arrive of plan.arrivals) arrive();
    target.listenersChanged = false;
    for (const change of plan.last) await change().apply();
  } finally {
    for (const listener of opened) listener.opening = false; // hosts must not be told to wait for ever
  }
  const { notes: _notes, ...settings } = wanted;
  const now = loading.settings;
  const kept = (keys: readonly (keyof TargetConfig)[]) => Object.fromEntries(keys.map((key) => [key, now[key]]));
  loading.settings = { ...kept(stayingKeys), ...settings, ...kept(fixedKeys) };
}

/** Brings the earlier configuration back. @throws VioError (8) */
async function restore(loading: Loading, before: TargetConfig, reason: Error): Promise<void> {
  try {
    await (await planLoad(loading, before, { security: false })).apply(); // they change last, so they are as before
  } catch (err) {
    throw new VioError(`${reason.message}; then: ${(err as Error).message}`, {
      code: 'NOT_RESTORED',
      exit: Exit.notRestored,
      hint: 'vioctl nvmf ctl SOCK list shows what is served now',
      cause: err,
    });
  }
}
