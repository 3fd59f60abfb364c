/** Whether a CONNECT is let in: the subsystem, the host, the limits, and what is bound to what. */
import type { NativeBudget } from '../../../native/nvme.js';
import { Status } from '../../wire/index.js';
import { Controller, type Surroundings } from '../controller.js';
import type { Listener } from '../discovery.js';
import type { ControllerState } from '../model.js';
import { lastCntlid } from '../names.js';
import { badParameter, Refusal } from '../refusal.js';
import type { TlsEnds } from '../security/tls.js';
import type { Subsystem } from '../subsystem.js';
import type { Connect } from './connect.js';
import { type HostLimits, hostKey, type TargetLimits } from './limits.js';

/** One TCP connection of a host. */
export interface Connection {
  peer: string;
  /** Our address of this connection. */
  via: string;
  /** What it came through. */
  listener: Listener;
  /** Who the key of its TLS belongs to. */
  tls?: TlsEnds;
  controller?: ControllerState;
  qid?: number;
}

/** Where a connection comes from, whatever its port. */
export const addressOf = (connection: Connection | undefined): string => connection?.peer.replace(/ port .*/, '') ?? '';

/** How many queues there are, in all and of each host. Kept up to date: a count over all of them for each CONNECT would be quadratic. */
export class Census {
  connections = 0;
  controllers = 0;
  readonly #hosts = new Map<string, number>();

  /** @param by 1 for a queue that has come, -1 for one that has gone */
  count({ hostnqn, hostid }: ControllerState, qid: number, by: 1 | -1): void {
    this.connections += by;
    if (qid === 0) this.controllers += by;
    const key = hostKey(hostnqn, hostid);
    const now = (this.#hosts.get(key) ?? 0) + by;
    if (now > 0) this.#hosts.set(key, now);
    else this.#hosts.delete(key);
  }

  /** An admin queue that was ended to make room does not count any more, although it is still there. @param by 1, and -1 once it is gone */
  leave(controller: ControllerState, by: 1 | -1): void {
    this.count(controller, 0, by === 1 ? -1 : 1);
  }

  /** Connections of a host. */
  of(host: string): number {
    return this.#hosts.get(host) ?? 0;
  }

  hosts(): [host: string, connections: number][] {
    return [...this.#hosts];
  }
}

/** What admission looks at. */
export interface Guarded {
  readonly subsystems: ReadonlyMap<string, Subsystem>;
  readonly census: Census;
  /** Controllers of the discovery service. */
  readonly discovery: Map<number, ControllerState>;
  readonly limits: Readonly<TargetLimits>;
  /** NQN of the discovery service, if it has one of its own. */
  readonly discoveryNqn: string | undefined;
  readonly around: Surroundings;
  /** Limits of a host: its own, else those of every host. */
  limitsOf(host: string): HostLimits;
  /** What limits the data of a host's commands, the same for all its controllers. */
  budgetOf(host: string): NativeBudget;
  log(message: string): void;
  /**
   * Ends an association whose host has not proved who it is.
   * @param host only one that claims to be this host
   * @returns whether there was one
   */
  makeRoom(host?: string): boolean;
}

/** Refuses what is beyond a limit, for now: hosts try again. @throws Refusal */
function checkLimits(target: Guarded, connect: Connect, peer: string): HostLimits {
  const host = hostKey(connect.hostnqn, connect.hostid);
  const own = target.limitsOf(host);
  const busy = (limit: string): Refusal => {
    target.log(`${peer}: host ${connect.hostnqn} is refused for now: limit of ${limit}`);
    return new Refusal(Status.connectBusy);
  };
  const { connections, controllers } = target.limits;
  if (target.census.connections >= connections && !target.makeRoom()) throw busy(`${connections} connections`);
  // whoever only claims to be this host does not count against it
  if (own.connections !== undefined && target.census.of(host) >= own.connections && !target.makeRoom(host))
    throw busy(`${own.connections} connections of this host`);
  if (connect.qid === 0 && target.census.controllers >= controllers && !target.makeRoom()) throw busy(`${controllers} controllers`);
  return own;
}

/** The subsystem that a CONNECT names, if its host may use it through this connection. @throws Refusal */
function subsystemOf(target: Guarded, connection: Connection, { subnqn, hostnqn }: Connect): Subsystem {
  const subsystem = target.subsystems.get(subnqn);
  if (!subsystem || connection.listener.discoveryOnly) throw badParameter('data', 256);
  if (!subsystem.access.admits(hostnqn)) {
    target.log(`${connection.peer}: host ${hostnqn} is not allowed to use ${subnqn}`);
    throw new Refusal(Status.connectInvalidHost);
  }
  if (connection.listener.opening) throw new Refusal(Status.connectBusy);
  if (subsystem.ana.draining) {
    target.log(`${connection.peer}: host ${hostnqn} is refused for now: ${subnqn} drains`);
    throw new Refusal(Status.connectBusy);
  }
  return subsystem;
}

/** A new association. @param id of the connection @throws Refusal */
export function admitController(target: Guarded, id: number, connection: Connection, connect: Connect): ControllerState {
  const { hostnqn, hostid, keepAlive } = connect;
  const { around } = target;
  const given = { hostnqn, hostid, port: connection.listener.id, admin: id, keepAlive };
  if (connect.discovery) {
    checkLimits(target, connect, connection.peer);
    const { discovery, discoveryNqn } = target;
    let cntlid = 1;
    for (const last of discovery.keys()) cntlid = (last % lastCntlid) + 1; // the next of the newest
    while (discovery.has(cntlid)) cntlid = (cntlid % lastCntlid) + 1;
    const controller = new Controller(around, { ...given, cntlid, ...(discoveryNqn !== undefined && { discoveryNqn }) });
    discovery.set(cntlid, controller);
    return controller;
  }
  const subsystem = subsystemOf(target, connection, connect);
  const { queues } = checkLimits(target, connect, connection.peer);
  const cntlid = subsystem.takeCntlid();
  if (cntlid === undefined) throw new Refusal(Status.connectBusy);
  const mostQueues = Math.min(target.limits.queues, queues ?? target.limits.queues);
  const budget = target.budgetOf(hostKey(hostnqn, hostid));
  const controller = new Controller(around, { ...given, cntlid, subsystem, mostQueues, budget });
  subsystem.controllers.set(cntlid, controller);
  target.log(`${connection.peer}: host ${hostnqn} uses ${subsystem.nqn} as controller ${cntlid}`);
  return controller;
}

/** An I/O queue of an association. @param id of the connection @throws Refusal */
export function admitQueue(target: Guarded, id: number, connection: Connection, connect: Connect): ControllerState {
  const subsystem = target.subsystems.get(connect.subnqn);
  if (!subsystem) throw badParameter('data', 256);
  const controller = subsystem.controllers.get(connect.cntlid);
  if (!controller) throw badParameter('data', 16);
  if (!controller.hostid.equals(connect.hostid)) throw badParameter('data', 0);
  if (controller.hostnqn !== connect.hostnqn) throw badParameter('data', 512);
  // a controller is bound to one port of its subsystem, and so are all its queues (NVMe Base 2.0, 3.1.2.1.1 and 2.2.2)
  if (controller.port !== connection.listener.id) throw badParameter('data', 16);
  if (!controller.ready) throw new Refusal(Status.sequenceError);
  if (connect.qid > controller.features.queues) throw badParameter('sqe', 42);
  if (controller.queues.has(connect.qid)) throw new Refusal(Status.sequenceError);
  if (subsystem.ana.draining) throw new Refusal(Status.connectBusy);
  checkLimits(target, connect, connection.peer);
  controller.queues.set(connect.qid, id);
  return controller;
}
