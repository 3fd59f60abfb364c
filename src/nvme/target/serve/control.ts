import { codeOf, Exit, usage, VioError, wrap } from '../../../common/errors.js';
import { maxConfigBytes } from '../../../common/text/document.js';
import { ask } from '../../../control/client.js';
import { ControlServer } from '../../../control/server.js';
import { native as addon } from '../../../native/index.js';
import type { NvmeNative } from '../../../native/nvme.js';
import type { Source } from '../../../storage/open.js';
import type { Configuration } from '../config/configuration.js';
import { parseConfig } from '../config/read.js';
import * as operations from '../operations/index.js';
import type { Subsystem } from '../subsystem.js';
import type { Target } from '../target.js';
import type { ControlAnswer, Report } from './answers.js';
import { describe, list } from './list.js';
import { addressesOf, discoveryServicePort, parseAddress, parseNumericAddress, parseTlsChoice } from './listen.js';
import { reportSubsystem } from './report.js';
import type { ChangeRequest, ControlRequest, LimitNumbers } from './requests.js';

const service = 'nvmf serve';
/** Longest request, in bytes: a configuration as a JSON text. */
const maxLoad = 2 * maxConfigBytes;

/** Answers requests at `path`, until it is closed. @throws VioError */
export function serveControl(path: string, native: NvmeNative, target: Target, configuration: Configuration): ControlServer {
  try {
    return new ControlServer(path, {
      name: service,
      request: maxLoad,
      handle: async ({ op, args }) => ({ result: await perform({ ...args, op } as ControlRequest, native, target, configuration) }),
    });
  } catch (err) {
    if (codeOf(err) !== 'EADDRINUSE') throw err;
    const message = `listen on ${path}: EADDRINUSE (a target uses this control socket)`;
    throw new VioError(message, { code: 'EADDRINUSE', hint: (err as VioError).hint });
  }
}

/** The subsystem that a request names; without a name, the only one. @throws VioError */
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

/** What a request changes, and what is there afterwards. */
interface Plan {
  changes: operations.Change[];
  report: () => Report;
}

/** Answers one request; with `dryRun`, after all checks and without doing it. @throws VioError */
export async function perform(
  request: ControlRequest,
  native: NvmeNative,
  target: Target,
  configuration: Configuration,
): Promise<ControlAnswer> {
  if (request.op === 'list') return list(target);
  if (request.op === 'save') return configuration.save();
  if (request.op === 'load') {
    const { text, name, folder, dryRun = false } = request;
    return configuration.load(await parseConfig({ text, name, folder }), { dryRun });
  }
  if (request.op === 'stats')
    return {
      connections: target.connections,
      controllers: target.controllers().map((c) => ({ ...describe(target, c), ...c.counters() })),
    };
  // Only a question to a source or a name server can take long. What was found out then is planned and done without a pause.
  if (request.op === 'add' && request.namespace) request.namespace = configuration.checkSource(request.namespace);
  const found = await findOut(request, target);
  try {
    await configuration.idle();
  } catch (err) {
    closeSource(found.source);
    throw err;
  }
  const { changes, report } = plan(request, native, target, found);
  const todo = changes.flatMap((change) => change.todo);
  if (request.dryRun) {
    const told = { changed: false, dryRun: true as const, would: todo, ...report() };
    for (const change of changes) change.abandon?.();
    return told;
  }
  await operations.applyAll(changes);
  return { changed: todo.length > 0, ...report() };
}

const closeSource = (source: Source | undefined): void => {
  if (source) addon().storage.close(source.store);
};

/** The size of the source of the namespace that a request names, in bytes. @throws VioError */
async function measured(target: Target, request: { nqn?: string; nsid: number }): Promise<number> {
  const named = () => {
    const subsystem = subsystemOf(target, request.nqn);
    return { subsystem, namespace: operations.namespaceOf(subsystem, request.nsid) };
  };
  for (;;) {
    const { subsystem, namespace } = named();
    const [answer] = await Promise.allSettled([target.measure(subsystem, namespace)]);
    // if another one has its number by now, that one is meant
    if (named().namespace !== namespace) continue;
    if (answer.status === 'rejected') throw answer.reason;
    return answer.value;
  }
}

/** What sources and name servers have answered before a request is planned. */
interface Found {
  /** Of a resize: what the source of the namespace has. */
  bytes: number;
  /** Of the place of a listener. */
  addresses: string[];
  /** Of what is to be added, if it is not served: the plan closes it, or its namespace does. */
  source: Source | undefined;
}

async function findOut(request: ChangeRequest, target: Target): Promise<Found> {
  const found: Found = { bytes: 0, addresses: [], source: undefined };
  if (request.op === 'resize') found.bytes = await measured(target, request);
  if (request.op === 'listener') found.addresses = await addressesOf(parseAddress(request.at));
  if (request.op === 'add' && request.namespace) {
    const { nqn, namespace } = request;
    const subsystem = nqn === undefined || target.subsystems.has(nqn) ? subsystemOf(target, nqn) : undefined;
    found.source = await operations.openFor(target, subsystem, namespace);
  }
  return found;
}

function plan(request: ChangeRequest & { dryRun?: boolean }, native: NvmeNative, target: Target, found: Found): Plan {
  const of = (subsystem: Subsystem, change: operations.Change): Plan => ({ changes: [change], report: () => reportSubsystem(subsystem) });
  switch (request.op) {
    case 'add':
      return planAdd(request, native, target, found.source);
    case 'remove': {
      const { nqn, nsid } = request;
      if (nsid === undefined && nqn !== undefined && !target.subsystems.has(nqn))
        return { changes: [], report: () => ({ nqn, namespaces: [] }) };
      const subsystem = subsystemOf(target, nqn);
      return of(
        subsystem,
        nsid === undefined ? operations.removeSubsystem(target, subsystem.nqn) : operations.removeNamespace(target, subsystem, nsid),
      );
    }
    case 'resize': {
      const subsystem = subsystemOf(target, request.nqn);
      return of(subsystem, operations.resizeNamespace(target, subsystem, request.nsid, found.bytes));
    }
    case 'reopen': {
      const subsystem = subsystemOf(target, request.nqn);
      return of(subsystem, operations.reopenNamespace(target, subsystem, request.nsid));
    }
    case 'mask': {
      const subsystem = subsystemOf(target, request.nqn);
      return of(subsystem, operations.setMask(target, subsystem, request.nsid, request.hosts));
    }
    case 'host':
      return planHost(request, target);
    case 'listener':
      return planListener(request, target, found.addresses);
    case 'referral':
      return planReferral(request, target);
    case 'limits':
      return planLimits(request, target);
    case 'ana': {
      const subsystem = subsystemOf(target, request.nqn);
      const { group, state } = request;
      return {
        changes: [operations.setAna(target, subsystem, group, operations.anaState(state))],
        report: () => ({ nqn: subsystem.nqn, group, state }),
      };
    }
    case 'keys': {
      const change = operations.rotateKeys(target);
      return { changes: [change], report: () => ({ hosts: change.hosts }) };
    }
    case 'kick': {
      const change = operations.kick(target, request);
      return { changes: [change], report: () => ({ ended: request.dryRun ? 0 : change.found }) };
    }
    case 'drain': {
      const { nqn, off = false, wait } = request;
      const subsystems = nqn === undefined ? [...target.subsystems.values()] : [subsystemOf(target, nqn)];
      const change = off ? operations.resume(target, subsystems) : operations.drain(target, subsystems, wait);
      return {
        changes: [change],
        report: () => ({
          subsystems: subsystems.map((one) => ({ nqn: one.nqn, draining: one.ana.draining, outstanding: operations.outstanding(one) })),
        }),
      };
    }
    default:
      throw new VioError(`unknown request "${(request as { op: string }).op}"`, { code: 'BAD_REQUEST', exit: Exit.usage });
  }
}

/** @param source of the namespace, if it is not served already; closed unless it becomes one */
function planAdd(request: Extract<ChangeRequest, { op: 'add' }>, native: NvmeNative, target: Target, source: Source | undefined): Plan {
  const { nqn, namespace, allowHosts } = request;
  if (nqn !== undefined && !target.subsystems.has(nqn)) {
    const namespaces = namespace ? [namespace] : [];
    const change = operations.addSubsystem(native, target, { nqn, allowed: allowHosts, namespaces, sources: [source] });
    return { changes: [change], report: () => reportSubsystem(change.subsystem) };
  }
  const changes: operations.Change[] = [];
  let rest = source;
  try {
    const subsystem = subsystemOf(target, nqn);
    if (allowHosts && subsystem.access.any)
      throw new VioError(`every host may use ${subsystem.nqn}: there is no list to add a host to`, {
        code: 'ANY_HOST',
        exit: Exit.refused,
        hint: 'vioctl nvmf ctl SOCK host add NQN, then host any off',
      });
    if (allowHosts) changes.push(operations.addHosts(target, subsystem, allowHosts));
    rest = undefined;
    if (namespace) changes.push(operations.addNamespace(target, subsystem, namespace, source));
    return { changes, report: () => reportSubsystem(subsystem) };
  } finally {
    closeSource(rest);
  }
}

function planHost(request: Extract<ChangeRequest, { op: 'host' }>, target: Target): Plan {
  const subsystem = subsystemOf(target, request.nqn);
  const change =
    request.action === 'any'
      ? operations.setAnyHost(target, subsystem, request.any)
      : (request.action === 'add' ? operations.addHosts : operations.removeHosts)(target, subsystem, request.hosts);
  const { access } = subsystem;
  return { changes: [change], report: () => ({ nqn: subsystem.nqn, anyHost: access.any, allowHosts: [...access.hosts] }) };
}

function planListener(request: Extract<ChangeRequest, { op: 'listener' }>, target: Target, addresses: readonly string[]): Plan {
  const { port } = parseAddress(request.at);
  const places = addresses.map((address) => ({ address, port }));
  const report = () => ({ listeners: list(target).listeners });
  switch (request.action) {
    case 'add': {
      const { discoveryOnly } = request;
      const tls = request.tls === undefined ? undefined : parseTlsChoice(request.tls);
      const advertise = request.advertise === undefined ? undefined : parseNumericAddress(request.advertise);
      return { changes: places.map((place) => operations.addListener(target, { ...place, discoveryOnly, advertise, tls })), report };
    }
    case 'remove':
      return { changes: places.map((place) => operations.removeListener(target, place)), report };
    default: {
      const subsystem = subsystemOf(target, request.nqn);
      const state = operations.anaState(request.state);
      const listeners = places.map((place) => operations.listenerOf(target, place));
      return {
        changes: listeners.map((listener) => operations.setListenerAna(target, subsystem, listener, request.group, state)),
        report,
      };
    }
  }
}

function planReferral(request: Extract<ChangeRequest, { op: 'referral' }>, target: Target): Plan {
  const at = parseNumericAddress(request.at, discoveryServicePort);
  const change =
    request.action === 'remove'
      ? operations.removeReferral(target, at)
      : operations.addReferral(target, { ...at, ...(request.nqn !== undefined && { nqn: request.nqn }) });
  return { changes: [change], report: () => ({ referrals: [...target.referrals] }) };
}

/** Limits without null, which JSON has for none. */
const lifted = (limits: LimitNumbers): Record<string, number | undefined> =>
  Object.fromEntries(Object.entries(limits).map(([name, value]) => [name, value ?? undefined]));

function planLimits(request: Extract<ChangeRequest, { op: 'limits' }>, target: Target): Plan {
  if (request.nsid !== undefined) {
    const subsystem = subsystemOf(target, request.nqn);
    return { changes: [operations.limitNamespace(subsystem, request.nsid, request.limits)], report: () => reportSubsystem(subsystem) };
  }
  if (request.target) {
    const wanted = lifted(request.target);
    const none = Object.keys(wanted).find((name) => wanted[name] === undefined);
    if (none) throw usage(`${none}=none: a target has a limit`);
    return { changes: [operations.setLimits(target, wanted as Record<string, number>)], report: () => ({ limits: { ...target.limits } }) };
  }
  const { host } = request;
  return {
    changes: [operations.setHostLimits(target, host, lifted(request.numbers))],
    report: () => ({ host, hostLimits: { ...target.hostLimits.get(host) } }),
  };
}

/**
 * Sends one request to a running target.
 * @param timeout milliseconds
 * @throws VioError: what the target answered, or why it did not
 */
export async function control<T>(path: string, { op, ...args }: ControlRequest, timeout?: number): Promise<T> {
  const unreachable = (err: unknown) => wrap(`connect to ${path}`, err, { hint: 'nvmf serve --control SOCK opens it' });
  return (await ask<T>(path, { service, unreachable, ...(timeout !== undefined && { timeout }) }, op, args)).result;
}
