import fs from 'node:fs';
import net from 'node:net';
import { Exit, type ExitStatus, VioError, wrap } from '../../common/errors.js';
import type { NvmeNative, QueueCounters } from '../../native/nvme.js';
import { AnaState, anaStateNames } from '../wire/index.js';
import { reportSubsystem, type SubsystemReport } from './serve.js';
import { type NamespaceOptions, Subsystem } from './subsystem.js';
import type { Target } from './target.js';

/** A request of `nvmf ctl`: one JSON object on a line. */
export type ControlRequest =
  | { op: 'list' }
  | { op: 'add'; nqn?: string; namespace?: NamespaceOptions; allowHosts?: string[] }
  | { op: 'remove'; nqn?: string; nsid?: number }
  | { op: 'resize'; nqn?: string; nsid: number }
  | { op: 'ana'; nqn?: string; group: number; state: string }
  | { op: 'kick'; host?: string; cntlid?: number }
  | { op: 'stats' };

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

/** Carries out one request. @throws VioError */
export function perform(request: ControlRequest, native: NvmeNative, target: Target): unknown {
  switch (request.op) {
    case 'list':
      return list(target);
    case 'add': {
      if (request.nqn !== undefined && !target.subsystems.has(request.nqn)) {
        const subsystem = new Subsystem(native, { nqn: request.nqn, ...(request.allowHosts && { allowed: request.allowHosts }) });
        if (request.namespace) subsystem.add(request.namespace);
        target.addSubsystem(subsystem);
        return reportSubsystem(subsystem);
      }
      const subsystem = subsystemOf(target, request.nqn);
      if (request.allowHosts) target.setAllowed(subsystem, request.allowHosts);
      if (request.namespace) target.add(subsystem, request.namespace);
      return reportSubsystem(subsystem);
    }
    case 'remove': {
      const subsystem = subsystemOf(target, request.nqn);
      if (request.nsid === undefined) target.removeSubsystem(subsystem);
      else target.remove(subsystem, request.nsid);
      return reportSubsystem(subsystem);
    }
    case 'resize': {
      const subsystem = subsystemOf(target, request.nqn);
      const changed = target.resize(subsystem, request.nsid);
      return { changed, ...reportSubsystem(subsystem) };
    }
    case 'ana': {
      const subsystem = subsystemOf(target, request.nqn);
      const state = states.get(request.state);
      if (state === undefined)
        throw new VioError(`not an ANA state: ${request.state}`, {
          code: 'BAD_STATE',
          exit: Exit.usage,
          hint: [...states.keys()].join(', '),
        });
      target.setAna(subsystem, request.group, state);
      return { nqn: subsystem.nqn, group: request.group, state: request.state };
    }
    case 'kick': {
      const { host, cntlid } = request;
      return { ended: target.kick((c) => (cntlid === undefined || c.cntlid === cntlid) && (host === undefined || c.hostnqn === host)) };
    }
    case 'stats':
      return {
        connections: target.connections,
        controllers: target.controllers().map((c) => ({ ...describe(target, c), ...c.counters() })),
      };
    default:
      throw new VioError(`unknown request "${(request as { op: string }).op}"`, { code: 'BAD_REQUEST', exit: Exit.usage });
  }
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
    listen: target.listeners.map(({ address, port }) => ({ address, port })),
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
  const reply = JSON.parse(line) as { ok: boolean; result: T; message: string; code: string; exit: ExitStatus; hint?: string };
  if (reply.ok) return reply.result;
  throw new VioError(reply.message, { code: reply.code, exit: reply.exit, hint: reply.hint });
}
