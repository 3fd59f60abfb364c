import { codeOf, Exit, VioError, wrap } from '../../../common/errors.js';
import { ask } from '../../../control/client.js';
import { ControlServer } from '../../../control/server.js';
import { native as addon } from '../../../native/index.js';
import type { NvmeNative, QueueCounters } from '../../../native/nvme.js';
import { changedLimits, type LimitTexts } from '../../../storage/limits.js';
import { openSourceLater, type Source } from '../../../storage/open.js';
import { AnaState, anaStateNames } from '../../wire/index.js';
import { type ControllerState, maxGroups, type Namespace, type NamespaceOptions } from '../model.js';
import { checkHostNqn } from '../names.js';
import { Subsystem } from '../subsystem.js';
import type { Target } from '../target.js';
import { reportListeners, reportSubsystem, type SubsystemReport } from './report.js';

/** A request of `nvmf ctl`. */
export type ControlRequest =
  | { op: 'list' }
  | { op: 'stats' }
  | ((
      | { op: 'add'; nqn?: string; namespace?: NamespaceOptions; allowHosts?: string[] }
      | { op: 'remove'; nqn?: string; nsid?: number }
      | { op: 'resize'; nqn?: string; nsid: number }
      | { op: 'reopen'; nqn?: string; nsid: number }
      | { op: 'limits'; nqn?: string; nsid: number; limits: LimitTexts }
      | { op: 'ana'; nqn?: string; group: number; state: string }
      | { op: 'kick'; host?: string; cntlid?: number }
    ) & { /** All checks, and nothing done. */ dryRun?: boolean });

export interface ControllerReport {
  nqn: string;
  cntlid: number;
  hostnqn: string;
  peer: string;
  keepAlive: number;
  ready: boolean;
  queues: number;
}

export interface ControlList {
  listen: { address: string; port: number }[];
  discovery?: { address: string; port: number }[];
  subsystems: (SubsystemReport & { allowHosts?: string[]; ana: { group: number; state: string }[] })[];
  controllers: ControllerReport[];
}

const service = 'nvmf serve';

const states = new Map<string, number>([...anaStateNames].map(([state, name]) => [name, state]));

/** Answers requests at `path`, until it is closed. @throws VioError */
export function serveControl(path: string, native: NvmeNative, target: Target): ControlServer {
  try {
    return new ControlServer(path, {
      name: service,
      handle: async ({ op, args }) => ({ result: await perform({ ...args, op } as ControlRequest, native, target) }),
    });
  } catch (err) {
    if (codeOf(err) !== 'EADDRINUSE') throw err;
    const message = `listen on ${path}: EADDRINUSE (a target uses this control socket)`;
    throw new VioError(message, { code: 'EADDRINUSE', hint: (err as VioError).hint });
  }
}

/** The subsystem that a request names; without a name, the only one. */
function subsystemOf(target: Target, nqn: string | undefined): Subsystem {
  const found = nqn === undefined && target.subsystems.size === 1 ? [...target.subsystems.values()][0] : target.subsystems.get(nqn ?? '');
  if (found) return found;
  const names = [...target.subsystems.keys()];
  throw new VioError(
    nqn !== undefined ? `no subsystem ${nqn}` : names.length > 0 ? 'there are several subsystems' : 'there is no subsystem',
    {
      code: 'NO_SUBSYSTEM',
      hint: names.length > 0 ? `--nqn ${names.join(' | ')}` : 'vioctl nvmf ctl SOCK add FILE --nqn NQN makes one',
    },
  );
}

/** What a request would change: found out first, so that it can be told without doing it. */
interface Plan {
  /** What is to be done, for people; empty if it is done. */
  todo: string[];
  apply: () => unknown;
  /** What is there afterwards. */
  report: () => object;
  /** Gives back what was opened for the plan, when it is not carried out. */
  abandon?: () => void;
}

/** What sources have answered before a plan is made. */
interface Found {
  /** Of a resize: what the source of the namespace has. */
  bytes?: number;
  /** Of what is to be added, if it is not served: the plan closes it, or its namespace does. */
  source?: Source | undefined;
}

/** Answers one request; with `dryRun`, after all checks and without doing it. @throws VioError */
export async function perform(request: ControlRequest, native: NvmeNative, target: Target): Promise<unknown> {
  if (request.op === 'list') return list(target);
  if (request.op === 'stats')
    return {
      connections: target.connections,
      controllers: target.controllers().map((c) => ({ ...describe(target, c), ...c.counters() })),
    };
  // Only questions to a source can take long. What was found out then is planned and done without a pause.
  const found: Found =
    request.op === 'resize'
      ? { bytes: await measured(target, request) }
      : request.op === 'add'
        ? { source: await opened(target, request) }
        : {};
  const { todo, apply, report, abandon } = plan(request, native, target, found);
  if (request.dryRun) {
    const told = { changed: false, dryRun: true, would: todo, ...report() };
    abandon?.();
    return told;
  }
  if (todo.length > 0) await apply();
  return { changed: todo.length > 0, ...report() };
}

/** The namespace that a request names. @throws VioError */
function namespaceOf(target: Target, { nqn, nsid }: { nqn?: string; nsid: number }): { subsystem: Subsystem; namespace: Namespace } {
  const subsystem = subsystemOf(target, nqn);
  const namespace = subsystem.namespaces.get(nsid);
  if (!namespace) throw new VioError(`${subsystem.nqn} has no namespace ${nsid}`, { code: 'ENOENT' });
  return { subsystem, namespace };
}

/** The size of the source of the namespace that a request names, in bytes. @throws VioError */
async function measured(target: Target, request: { nqn?: string; nsid: number }): Promise<number> {
  for (;;) {
    const { subsystem, namespace } = namespaceOf(target, request);
    const [answer] = await Promise.allSettled([target.measure(subsystem, namespace)]);
    // if another one has its number by now, that one is meant
    if (namespaceOf(target, request).namespace !== namespace) continue;
    if (answer.status === 'rejected') throw answer.reason;
    return answer.value;
  }
}

/** Sources that are being opened for each target. */
const opening = new WeakMap<Target, Map<string, Promise<unknown>>>();

/** Opens what is to be added; undefined if that is served already. One that hangs delays nobody but those who want the same one. @throws VioError */
async function opened(target: Target, { nqn, namespace }: { nqn?: string; namespace?: NamespaceOptions }): Promise<Source | undefined> {
  if (!namespace) return undefined;
  const known = opening.get(target) ?? new Map<string, Promise<unknown>>();
  opening.set(target, known);
  while (known.has(namespace.source)) await known.get(namespace.source);
  const subsystem = nqn === undefined || target.subsystems.has(nqn) ? subsystemOf(target, nqn) : undefined;
  if (subsystem?.same(namespace)) return undefined;
  try {
    subsystem?.place(namespace);
    const work = openSourceLater(namespace, undefined, target.state);
    known.set(
      namespace.source,
      work.catch(() => {}).finally(() => known.delete(namespace.source)),
    );
    return await work;
  } catch (err) {
    throw withHint(err, subsystem, namespace);
  }
}

function plan(request: Exclude<ControlRequest, { op: 'list' | 'stats' }>, native: NvmeNative, target: Target, found: Found): Plan {
  switch (request.op) {
    case 'add':
      return planAdd(request, native, target, found.source);
    case 'remove': {
      const { nqn, nsid } = request;
      if (nsid === undefined && nqn !== undefined && !target.subsystems.has(nqn))
        return { todo: [], apply: () => {}, report: () => ({ nqn, namespaces: [] }) };
      const subsystem = subsystemOf(target, nqn);
      const report = () => reportSubsystem(subsystem);
      if (nsid === undefined)
        return { todo: [`remove subsystem ${subsystem.nqn}`], apply: () => target.removeSubsystem(subsystem), report };
      const found = subsystem.namespaces.get(nsid);
      return {
        todo: found ? [`remove namespace ${nsid} (${found.source}) of ${subsystem.nqn}`] : [],
        apply: () => target.remove(subsystem, nsid),
        report,
      };
    }
    case 'resize': {
      const { subsystem, namespace } = namespaceOf(target, request);
      const bytes = found.bytes!;
      const size = subsystem.sizeOf(namespace, bytes);
      return {
        todo: size === namespace.size ? [] : [`resize namespace ${request.nsid} from ${namespace.size} to ${size} bytes`],
        apply: () => target.resize(subsystem, namespace, bytes),
        report: () => reportSubsystem(subsystem),
      };
    }
    case 'reopen': {
      const { subsystem, namespace } = namespaceOf(target, request);
      return {
        todo: [`open ${namespace.source} of namespace ${request.nsid} anew`],
        apply: () => target.reopen(subsystem, request.nsid),
        report: () => reportSubsystem(subsystem),
      };
    }
    case 'limits': {
      const { subsystem, namespace } = namespaceOf(target, request);
      const { limits, todo } = changedLimits(namespace.store, request.limits);
      return {
        todo: todo.map((text) => `limit namespace ${request.nsid} to ${text}`),
        apply: () => addon().storage.setLimits(namespace.store, limits),
        report: () => reportSubsystem(subsystem),
      };
    }
    case 'ana': {
      const subsystem = subsystemOf(target, request.nqn);
      const { group } = request;
      const state = states.get(request.state);
      if (state === undefined)
        throw new VioError(`not an ANA state: ${request.state}`, {
          code: 'BAD_STATE',
          exit: Exit.usage,
          hint: [...states.keys()].join(', '),
        });
      if (!Number.isInteger(group) || group < 1 || group > maxGroups)
        throw new VioError(`ANA group ${group}: must be 1 to ${maxGroups}`, { code: 'BAD_GROUP', exit: Exit.usage });
      return {
        todo: subsystem.stateOf(group) === state ? [] : [`make ANA group ${group} of ${subsystem.nqn} ${request.state}`],
        apply: () => target.setAna(subsystem, group, state),
        report: () => ({ nqn: subsystem.nqn, group, state: request.state }),
      };
    }
    case 'kick': {
      const { host, cntlid } = request;
      const match = (c: ControllerState) => (cntlid === undefined || c.cntlid === cntlid) && (host === undefined || c.hostnqn === host);
      const found = target.controllers().filter(match);
      return {
        todo: found.map((c) => `end controller ${c.cntlid} of host ${c.hostnqn}`),
        apply: () => target.kick(match),
        report: () => ({ ended: request.dryRun ? 0 : found.length }),
      };
    }
    default:
      throw new VioError(`unknown request "${(request as { op: string }).op}"`, { code: 'BAD_REQUEST', exit: Exit.usage });
  }
}

/** The error of what was to be added. A source that is served with other options is in use: the hint says how to change it. */
function withHint(err: unknown, subsystem: Subsystem | undefined, options: NamespaceOptions): unknown {
  const hint = subsystem?.otherwise(options);
  if (!(err instanceof VioError) || hint === undefined || !['IN_USE', 'EEXIST'].includes(err.code)) return err;
  return new VioError(err.message, { code: err.code, exit: err.exit, hint, cause: err });
}

type AddRequest = Extract<ControlRequest, { op: 'add' }>;

/** @param source of the namespace, if it is not served already; closed unless it becomes one */
function planAdd(request: AddRequest, native: NvmeNative, target: Target, source: Source | undefined): Plan {
  const { nqn } = request;
  let rest = source;
  /** The namespace that is asked for, out of the source that was opened for it. */
  const make = (subsystem: Subsystem): Namespace => {
    const opened = rest;
    rest = undefined;
    try {
      return subsystem.prepare(request.namespace!, opened);
    } catch (err) {
      throw withHint(err, subsystem, request.namespace!);
    }
  };
  try {
    if (nqn !== undefined && !target.subsystems.has(nqn)) return planSubsystem(nqn, request, native, target, make);
    return planNamespace(subsystemOf(target, nqn), request, target, make);
  } finally {
    if (rest) addon().storage.close(rest.store);
  }
}

function planSubsystem(nqn: string, request: AddRequest, native: NvmeNative, target: Target, make: (of: Subsystem) => Namespace): Plan {
  const { namespace, allowHosts } = request;
  const subsystem = new Subsystem(native, { nqn, state: target.state, ...(allowHosts && { allowed: allowHosts }) });
  if (namespace) subsystem.adopt(make(subsystem));
  return {
    todo: [`add subsystem ${nqn}${namespace ? ` with ${namespace.source}` : ''}`],
    apply: () => target.addSubsystem(subsystem),
    report: () => reportSubsystem(subsystem),
    abandon: () => subsystem.close(),
  };
}

function planNamespace(subsystem: Subsystem, request: AddRequest, target: Target, make: (of: Subsystem) => Namespace): Plan {
  const { namespace, allowHosts } = request;
  const todo: string[] = [];
  const { allowed } = subsystem;
  if (allowHosts && !allowed)
    throw new VioError(`every host may use ${subsystem.nqn}: there is no list to add a host to`, {
      code: 'ANY_HOST',
      exit: Exit.refused,
      hint: 'vioctl nvmf serve --allow-host NQN starts with a list',
    });
  const guests = [...new Set(allowHosts)].map(checkHostNqn).filter((host) => !allowed!.has(host));
  if (guests.length > 0) todo.push(`let ${guests.join(', ')} use ${subsystem.nqn}`);
  const fresh = namespace && !subsystem.same(namespace) ? make(subsystem) : undefined;
  if (fresh) todo.push(`add ${fresh.source} as namespace ${fresh.nsid} of ${subsystem.nqn}`);
  return {
    todo,
    apply: () => {
      if (guests.length > 0) target.allow(subsystem, guests);
      if (fresh) target.adopt(subsystem, fresh);
    },
    report: () => reportSubsystem(subsystem),
    abandon: () => fresh && subsystem.release(fresh),
  };
}

const describe = (target: Target, c: ReturnType<Target['controllers']>[number]): ControllerReport => ({
  nqn: c.subnqn,
  cntlid: c.cntlid,
  hostnqn: c.hostnqn,
  peer: target.peerOf(c.admin) ?? '',
  keepAlive: c.keepAlive,
  ready: c.ready,
  queues: c.queues.size,
});

function list(target: Target): ControlList {
  return {
    ...reportListeners(target),
    subsystems: [...target.subsystems.values()].map((subsystem) => ({
      ...reportSubsystem(subsystem),
      ...(subsystem.allowed && { allowHosts: [...subsystem.allowed] }),
      ana: [...new Set([...subsystem.namespaces.values()].map((ns) => ns.group))].map((group) => ({
        group,
        state: anaStateNames.get(subsystem.stateOf(group) || AnaState.optimized)!,
      })),
    })),
    controllers: target.controllers().map((c) => describe(target, c)),
  };
}

/** Counters of one controller, as `nvmf ctl SOCK stats` shows them. */
export type ControllerStats = ControllerReport & QueueCounters;

/**
 * Sends one request to a running target.
 * @param timeout milliseconds
 * @throws VioError: what the target answered, or why it did not
 */
export async function control<T>(path: string, { op, ...args }: ControlRequest, timeout?: number): Promise<T> {
  const unreachable = (err: unknown) => wrap(`connect to ${path}`, err, { hint: 'nvmf serve --control SOCK opens it' });
  return (await ask<T>(path, { service, unreachable, ...(timeout !== undefined && { timeout }) }, op, args)).result;
}
