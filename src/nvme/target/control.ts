import fs from 'node:fs';
import net from 'node:net';
import { Exit, type ExitStatus, VioError, wrap } from '../../common/errors.js';
import type { NvmeNative, QueueCounters } from '../../native/nvme.js';
import { AnaState, anaStateNames } from '../wire/index.js';
import { type ControllerState, maxGroups, type NamespaceOptions } from './model.js';
import { checkHostNqn } from './names.js';
import { reportListeners, reportSubsystem, type SubsystemReport } from './report.js';
import { Subsystem } from './subsystem.js';
import type { Target } from './target.js';

/** A request of `nvmf ctl`: one JSON object on a line. */
export type ControlRequest =
  | { op: 'list' }
  | { op: 'stats' }
  | ((
      | { op: 'add'; nqn?: string; namespace?: NamespaceOptions; allowHosts?: string[] }
      | { op: 'remove'; nqn?: string; nsid?: number }
      | { op: 'resize'; nqn?: string; nsid: number }
      | { op: 'reopen'; nqn?: string; nsid: number }
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

/** Longest request; a longer one ends the connection. */
const maxRequest = 65536;

const states = new Map<string, number>([...anaStateNames].map(([state, name]) => [name, state]));

/** Answers requests on a UNIX socket that only its owner can use. */
export class ControlServer {
  readonly #server: net.Server;
  readonly #clients = new Set<net.Socket>();

  private constructor(server: net.Server) {
    this.#server = server;
  }

  /** Listens at `path`; a socket that nobody answers any more is replaced. @throws VioError */
  static async listen(path: string, native: NvmeNative, target: Target): Promise<ControlServer> {
    await removeStale(path);
    const server = net.createServer({ pauseOnConnect: false });
    const control = new ControlServer(server);
    server.on('connection', (socket) => control.#serve(socket, native, target));
    const mask = process.umask(0o177);
    try {
      await new Promise<void>((resolve, reject) => {
        server.once('error', reject);
        server.listen(path, () => resolve());
      });
    } catch (err) {
      throw wrap(`listen on ${path}`, err);
    } finally {
      process.umask(mask);
    }
    return control;
  }

  async close(): Promise<void> {
    for (const client of this.#clients) client.destroy();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  #serve(socket: net.Socket, native: NvmeNative, target: Target): void {
    this.#clients.add(socket);
    socket.on('close', () => this.#clients.delete(socket));
    socket.on('error', () => socket.destroy());
    let text = '';
    socket.setEncoding('utf8');
    socket.on('data', (chunk: string) => {
      text += chunk;
      for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n')) {
        const line = text.slice(0, end);
        text = text.slice(end + 1);
        socket.write(`${JSON.stringify(answer(line, native, target))}\n`);
      }
      if (text.length > maxRequest) socket.destroy();
    });
  }
}

async function removeStale(path: string): Promise<void> {
  if (!fs.lstatSync(path, { throwIfNoEntry: false })?.isSocket()) return;
  const alive = await new Promise<boolean>((resolve) => {
    const socket = net.connect(path, () => resolve(true));
    socket.once('error', () => resolve(false));
    socket.once('close', () => socket.destroy());
    socket.once('connect', () => socket.destroy());
  });
  if (alive) throw new VioError(`listen on ${path}: EADDRINUSE (a target uses this control socket)`, { code: 'EADDRINUSE' });
  fs.unlinkSync(path);
}

function answer(line: string, native: NvmeNative, target: Target): unknown {
  try {
    return { ok: true, result: perform(JSON.parse(line) as ControlRequest, native, target) };
  } catch (err) {
    if (err instanceof VioError) return { ok: false, message: err.message, code: err.code, exit: err.exit, hint: err.hint };
    return { ok: false, message: `not a request: ${(err as Error).message}`, code: 'BAD_REQUEST', exit: Exit.damaged };
  }
}

/** The subsystem that a request names; without a name, the only one. */
function subsystemOf(target: Target, nqn: string | undefined): Subsystem {
  const found = nqn === undefined && target.subsystems.size === 1 ? [...target.subsystems.values()][0] : target.subsystems.get(nqn ?? '');
  if (found) return found;
  throw new VioError(nqn === undefined ? 'there are several subsystems' : `no subsystem ${nqn}`, {
    code: 'NO_SUBSYSTEM',
    hint: `--nqn ${[...target.subsystems.keys()].join(' | ')}`,
  });
}

/** What a request would change: found out first, so that it can be told without doing it. */
interface Plan {
  /** What is to be done, for people; empty where it is so already. */
  todo: string[];
  apply: () => void;
  /** What is there afterwards. */
  report: () => object;
  /** Gives back what was opened for the plan, when it is not carried out. */
  abandon?: () => void;
}

/** Answers one request; with `dryRun`, after all checks and without doing it. @throws VioError */
export function perform(request: ControlRequest, native: NvmeNative, target: Target): unknown {
  if (request.op === 'list') return list(target);
  if (request.op === 'stats')
    return {
      connections: target.connections,
      controllers: target.controllers().map((c) => ({ ...describe(target, c), ...c.counters() })),
    };
  const { todo, apply, report, abandon } = plan(request, native, target);
  if (request.dryRun) {
    const told = { changed: false, dryRun: true, would: todo, ...report() };
    abandon?.();
    return told;
  }
  if (todo.length > 0) apply();
  return { changed: todo.length > 0, ...report() };
}

function plan(request: Exclude<ControlRequest, { op: 'list' | 'stats' }>, native: NvmeNative, target: Target): Plan {
  switch (request.op) {
    case 'add':
      return planAdd(request, native, target);
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
      const subsystem = subsystemOf(target, request.nqn);
      const namespace = subsystem.namespaces.get(request.nsid);
      if (!namespace) throw new VioError(`${subsystem.nqn} has no namespace ${request.nsid}`, { code: 'ENOENT' });
      const size = subsystem.sizeNow(namespace);
      return {
        todo: size === namespace.size ? [] : [`resize namespace ${request.nsid} from ${namespace.size} to ${size} bytes`],
        apply: () => target.resize(subsystem, request.nsid),
        report: () => reportSubsystem(subsystem),
      };
    }
    case 'reopen': {
      const subsystem = subsystemOf(target, request.nqn);
      const namespace = subsystem.namespaces.get(request.nsid);
      if (!namespace) throw new VioError(`${subsystem.nqn} has no namespace ${request.nsid}`, { code: 'ENOENT' });
      return {
        todo: [`open ${namespace.source} of namespace ${request.nsid} anew`],
        apply: () => target.reopen(subsystem, request.nsid),
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

function planAdd(request: Extract<ControlRequest, { op: 'add' }>, native: NvmeNative, target: Target): Plan {
  const { nqn, namespace, allowHosts } = request;
  if (nqn !== undefined && !target.subsystems.has(nqn)) {
    const subsystem = new Subsystem(native, { nqn, ...(allowHosts && { allowed: allowHosts }) });
    if (namespace) subsystem.add(namespace);
    return {
      todo: [`add subsystem ${nqn}${namespace ? ` with ${namespace.source}` : ''}`],
      apply: () => target.addSubsystem(subsystem),
      report: () => reportSubsystem(subsystem),
      abandon: () => subsystem.close(),
    };
  }
  const subsystem = subsystemOf(target, nqn);
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
  const fresh = namespace && !subsystem.same(namespace) ? subsystem.prepare(namespace) : undefined;
  if (fresh) subsystem.release(fresh); // it was opened to see whether it can be
  if (fresh) todo.push(`add ${fresh.source} as namespace ${fresh.nsid} of ${subsystem.nqn}`);
  return {
    todo,
    apply: () => {
      if (guests.length > 0) target.allow(subsystem, guests);
      if (fresh) target.add(subsystem, { ...namespace!, nsid: fresh.nsid });
    },
    report: () => reportSubsystem(subsystem),
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
export async function control<T>(path: string, request: ControlRequest, timeout = 10_000): Promise<T> {
  const line = await new Promise<string>((resolve, reject) => {
    const socket = net.connect(path);
    let text = '';
    socket.setEncoding('utf8');
    socket.setTimeout(timeout, () => socket.destroy(new VioError(`${path}: no answer in time`, { exit: Exit.timeout, code: 'TIMEOUT' })));
    socket.once('connect', () => socket.write(`${JSON.stringify(request)}\n`));
    socket.on('data', (chunk: string) => {
      text += chunk;
      if (!text.includes('\n')) return;
      socket.end();
      resolve(text.slice(0, text.indexOf('\n')));
    });
    socket.once('error', (err) => reject(wrap(`connect to ${path}`, err, { hint: 'nvmf serve --control SOCK opens it' })));
    socket.once('close', () => reject(new VioError(`${path}: closed without an answer`, { exit: Exit.damaged, code: 'EPROTO' })));
  });
  let reply: { ok: boolean; result: T; message: string; code: string; exit: ExitStatus; hint?: string };
  try {
    reply = JSON.parse(line);
  } catch (err) {
    throw new VioError(`${path}: the answer is no JSON`, { exit: Exit.damaged, code: 'EPROTO', cause: err });
  }
  if (reply.ok) return reply.result;
  throw new VioError(reply.message, { code: reply.code, exit: reply.exit, hint: reply.hint });
}
