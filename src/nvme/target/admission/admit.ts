/** Whether a CONNECT is let in: the subsystem, the host, the limits, and what is bound to what. */
import { type Log, nameText } from '../../../common/text/log.js';
import type { ChapPolicy } from '../../auth/controller.js';
import { Status } from '../../wire/index.js';
import { Controller, type Surroundings } from '../controller.js';
import type { Listener } from '../discovery.js';
import type { ControllerState, SubsystemState } from '../model.js';
import { lastCntlid } from '../names.js';
import { badParameter, Refusal } from '../refusal.js';
import type { KeyRing } from '../security/keyring.js';
import type { TlsEnds } from '../security/tls.js';
import type { Subsystem } from '../subsystem.js';
import type { Budgets } from './budgets.js';
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
  /** What its host is counted by; undefined if it counts for no host (yet). */
  counted?: string | undefined;
}

/** Where a connection comes from, whatever its port. */
export const addressOf = (connection: Connection | undefined): string => connection?.peer.replace(/ port .*/, '') ?? '';

/** How many queues there are, in all and of each host. Kept up to date: a count over all of them for each CONNECT would be quadratic. */
export class Census {
  connections = 0;
  controllers = 0;
  readonly #hosts = new Map<string, number>();

  /**
   * @param key whose it is: see Connection.counted
   * @param by 1 for a queue that has come, -1 for one that has gone
   */
  count(key: string | undefined, qid: number, by: 1 | -1): void {
    this.connections += by;
    if (qid === 0) this.controllers += by;
    if (key !== undefined) this.#add(key, by);
  }

  /** A connection that was nobody's is that of a host now. */
  recount(key: string): void {
    this.#add(key, 1);
  }

  /** A queue that was ended to make room does not count any more, although it is still there. @param by 1, and -1 once it is gone */
  leave(qid: number, by: 1 | -1): void {
    this.count(undefined, qid, by === 1 ? -1 : 1);
  }

  #add(key: string, by: 1 | -1): void {
    const now = (this.#hosts.get(key) ?? 0) + by;
    if (now > 0) this.#hosts.set(key, now);
    else this.#hosts.delete(key);
  }

  /** Connections that count as those of a host. */
  of(key: string): number {
    return this.#hosts.get(key) ?? 0;
  }
}

/** The target, as its connections see it. */
export interface Hub {
  readonly subsystems: ReadonlyMap<string, Subsystem>;
  readonly listeners: readonly Listener[];
  readonly keys: KeyRing;
  /** Algorithms of DH-HMAC-CHAP, the preferred ones first. */
  readonly chapPolicy: ChapPolicy | undefined;
  readonly limits: Readonly<TargetLimits>;
  /** NQN of the discovery service, if it has one of its own. */
  readonly discoveryNqn: string | undefined;
  /** It ends: nothing is answered any more. */
  readonly stopped: boolean;
  readonly log: Log;
  /** Limits of a host: its own, else those of every host. */
  limitsOf(host: string): HostLimits;
  /** Everything written to a subsystem's namespaces reaches stable storage. @throws VioError */
  flush(subsystem: SubsystemState): Promise<void>;
  discoveryLog(hostnqn: string, via: string): Buffer;
}

/** What admission looks at. */
export interface Guarded {
  readonly hub: Hub;
  readonly census: Census;
  /** Controllers of the discovery service. */
  readonly discovery: Map<number, ControllerState>;
  readonly around: Surroundings;
  readonly budgets: Budgets;
  /** Ends an association, or for a connection an I/O queue, whose host has not proved who it is. @returns whether there was one */
  makeRoom(kind: 'controller' | 'connection'): boolean;
  /** Ends what the same address has not proved yet to be the same I/O queue. */
  replace(controller: ControllerState, qid: number, by: Connection): void;
}

/** Refuses what is beyond a limit, for now: hosts try again. @throws Refusal */
function checkLimits(target: Guarded, connect: Connect, peer: string, counted: string | undefined): HostLimits {
  const { hub, census } = target;
  const host = hostKey(connect.hostnqn, connect.hostid);
  const own = hub.limitsOf(host);
  const busy = (limit: string): Refusal => {
    const { hostnqn, subnqn } = connect;
    const about = { event: 'busy', peer, host: hostnqn, subsystem: subnqn };
    hub.log(`${peer}: host ${nameText(hostnqn)} is refused for now: limit of ${limit}`, about);
    return new Refusal(Status.connectBusy);
  };
  const { connections, controllers } = hub.limits;
  // one that counts for no host is refused all the same if its host has all that it may have
  if (own.connections !== undefined && census.of(counted ?? host) >= own.connections)
    throw busy(`${own.connections} connections of this host`);
  if (census.connections >= connections && !target.makeRoom('connection')) throw busy(`${connections} connections`);
  if (connect.qid === 0 && census.controllers >= controllers && !target.makeRoom('controller')) throw busy(`${controllers} controllers`);
  return own;
}

/** The subsystem that a CONNECT names, if its host may use it through this connection. @throws Refusal */
function subsystemOf({ hub }: Guarded, { listener, peer }: Connection, { subnqn, hostnqn }: Connect): Subsystem {
  const subsystem = hub.subsystems.get(subnqn);
  if (!subsystem || listener.discoveryOnly) throw badParameter('data', 256);
  const about = { peer, host: hostnqn, subsystem: subnqn };
  if (!subsystem.access.admits(hostnqn)) {
    hub.log(`${peer}: host ${nameText(hostnqn)} is not allowed to use ${nameText(subnqn)}`, { event: 'refused', ...about });
    throw new Refusal(Status.connectInvalidHost);
  }
  if (listener.opening) throw new Refusal(Status.connectBusy);
  if (subsystem.ana.draining) {
    hub.log(`${peer}: host ${nameText(hostnqn)} is refused for now: ${nameText(subnqn)} drains`, { event: 'busy', ...about });
    throw new Refusal(Status.connectBusy);
  }
  return subsystem;
}

/**
 * A new association.
 * @param id of the connection
 * @param counted what its host is counted by
 * @throws Refusal
 */
export function admitController(
  target: Guarded,
  id: number,
  connection: Connection,
  connect: Connect,
  counted: string | undefined,
): ControllerState {
  const { hostnqn, hostid, keepAlive } = connect;
  const { around, hub } = target;
  const { peer } = connection;
  const given = { hostnqn, hostid, port: connection.listener.id, admin: id, peer, keepAlive };
  if (connect.discovery) {
    checkLimits(target, connect, peer, counted);
    const { discovery } = target;
    const { discoveryNqn } = hub;
    let cntlid = 1;
    for (const last of discovery.keys()) cntlid = (last % lastCntlid) + 1; // the next of the newest
    while (discovery.has(cntlid)) cntlid = (cntlid % lastCntlid) + 1;
    const controller = new Controller(around, { ...given, cntlid, ...(discoveryNqn !== undefined && { discoveryNqn }) });
    discovery.set(cntlid, controller);
    return controller;
  }
  const subsystem = subsystemOf(target, connection, connect);
  const { queues } = checkLimits(target, connect, peer, counted);
  const cntlid = subsystem.takeCntlid();
  if (cntlid === undefined) throw new Refusal(Status.connectBusy);
  const mostQueues = Math.min(hub.limits.queues, queues ?? hub.limits.queues);
  const budget = target.budgets.take(hostKey(hostnqn, hostid));
  const controller = new Controller(around, { ...given, cntlid, subsystem, mostQueues, budget });
  subsystem.controllers.set(cntlid, controller);
  const about = { event: 'connect', peer, host: hostnqn, subsystem: subsystem.nqn, controller: cntlid };
  hub.log(`${peer}: host ${nameText(hostnqn)} uses ${nameText(subsystem.nqn)} as controller ${cntlid}`, about);
  return controller;
}

/**
 * The association that an I/O queue may join.
 * @param counted what its host is counted by
 * @throws Refusal
 */
export function admitQueue(target: Guarded, connection: Connection, connect: Connect, counted: string | undefined): ControllerState {
  const subsystem = target.hub.subsystems.get(connect.subnqn);
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
  target.replace(controller, connect.qid, connection);
  checkLimits(target, connect, connection.peer, counted);
  return controller;
}
