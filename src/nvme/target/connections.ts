/** The connections of hosts: what the engine tells of them, who is let in, and what their commands are answered with. */
import { nameText } from '../../common/text/log.js';
import type { Completion, NativeTarget, NvmeNative, TargetEvent, TargetOptions } from '../../native/nvme.js';
import { AdminOpcode, AuthReq, connectOk, Fctype, rwCmd, Status, sqe } from '../wire/index.js';
import { addressOf, admitController, admitQueue, Census, type Connection, type Guarded, type Hub } from './admission/admit.js';
import { Budgets } from './admission/budgets.js';
import { type Connect, parseConnect } from './admission/connect.js';
import { hostKey } from './admission/limits.js';
import { surplus } from './admission/strangers.js';
import type { Surroundings } from './controller.js';
import type { Answer, ControllerState } from './model.js';
import { invalidField, Refusal, statusCode } from './refusal.js';
import { Authentication } from './security/authentication.js';
import { findKey, handOver } from './security/tls.js';

/** Longest identity of a TLS key in a message, in characters. */
const mostIdentity = 300;

export class Connections implements Guarded {
  readonly hub: Hub;
  readonly census = new Census();
  /** Controllers of the discovery service. */
  readonly discovery = new Map<number, ControllerState>();
  readonly budgets: Budgets;
  readonly around: Surroundings;
  readonly engine: NativeTarget;
  readonly #native: NvmeNative;
  readonly #connections = new Map<number, Connection>();
  readonly #answers: Completion[] = [];
  readonly #authentication: Authentication;
  /** Connections that were ended to make room, until they are gone. */
  readonly #leaving = new Set<number>();

  /** Starts the engine. */
  constructor(native: NvmeNative, hub: Hub, options: TargetOptions) {
    this.#native = native;
    this.hub = hub;
    this.budgets = new Budgets(native, (host) => hub.limitsOf(host).bytes);
    this.engine = native.targetStart(options, (batch) => this.#take(batch));
    this.#authentication = new Authentication(hub.keys, () => hub.chapPolicy, {
      answer: (connection, tag, status) => this.#answer(connection, tag, status, 0),
      unlock: (connection) => this.#proven(connection),
      end: (connection) => this.#endQueue(connection),
      log: hub.log,
    });
    this.around = {
      native,
      complete: (connection, tag, status, result) => this.#answer(connection, tag, status, result),
      close: (connection) => native.targetClose(this.engine, connection),
      // the host is not kept waiting, but whoever runs the target is told, as a message about that host: it asks as often as it likes
      flush: ({ subsystem, peer, hostnqn: host, cntlid }) =>
        hub.flush(subsystem!).catch((err: Error) => {
          const about = { event: 'flush-failed', peer, host, subsystem: subsystem!.nqn, controller: cntlid };
          hub.log(`${peer}: controller ${cntlid}: ${err.message}`, about);
        }),
      discoveryLog: (hostnqn, connection) => hub.discoveryLog(hostnqn, this.#connections.get(connection)?.via ?? '127.0.0.1'),
    };
  }

  /** All controllers, those of the discovery service last. */
  controllers(): ControllerState[] {
    return [...[...this.hub.subsystems.values()].flatMap((s) => [...s.controllers.values()]), ...this.discovery.values()];
  }

  /** Addresses of a connection: the host's and ours. */
  peerOf(connection: number): string | undefined {
    return this.#connections.get(connection)?.peer;
  }

  /** Ends the associations and connections that came through a listener. */
  endThrough(id: number): void {
    for (const controller of this.controllers()) if (controller.port === id) controller.end();
    for (const [connection, { listener }] of this.#connections) if (listener.id === id) this.around.close(connection);
  }

  /** Ends what has been silent, or unknown, for too long. */
  tick(): void {
    this.#checkKeepAlive();
    this.#authentication.tick();
  }

  #take(batch: TargetEvent[]): void {
    for (const event of batch) {
      if (event.kind === 'opened') {
        const [address, port, own] = event.peer.split(' ');
        const listener = this.hub.listeners.find(({ id }) => id === event.listener);
        if (!listener)
          this.around.close(event.connection); // gone since
        else this.#connections.set(event.connection, { peer: `${address} port ${port}`, via: own ?? '', listener });
        continue;
      }
      const connection = this.#connections.get(event.connection);
      if (!connection) continue;
      if (event.kind === 'closed') this.#closed(event.connection, connection, event.reason);
      else if (event.kind === 'error') this.#failed(connection, event);
      else if (event.kind === 'key') this.#key(event.connection, connection, event.identities);
      else this.#command(event.connection, connection, event);
    }
    this.#flushAnswers();
  }

  /** A host begins TLS. */
  #key(id: number, connection: Connection, identities: readonly Buffer[]): void {
    const { peer } = connection;
    const found = findKey(identities, this.hub.keys);
    if (found) connection.tls = { hostnqn: found.hostnqn, subnqn: found.subnqn };
    else {
      const identity = identities[0]?.toString('latin1').slice(0, mostIdentity) ?? '';
      this.hub.log(`${peer}: no key for TLS identity ${nameText(identity)}`, { event: 'tls-refused', peer });
    }
    handOver(found, (identity, key) => this.#native.targetKey(this.engine, id, identity, key));
  }

  #answer(connection: number, tag: number, status: number, result: number | bigint, data?: Buffer): void {
    if (this.hub.stopped) return;
    if (this.#answers.push(data ? [connection, tag, status, result, data] : [connection, tag, status, result]) === 1)
      queueMicrotask(() => this.#flushAnswers());
  }

  #flushAnswers(): void {
    const answers = this.#answers.splice(0);
    if (answers.length > 0 && !this.hub.stopped) this.#native.targetComplete(this.engine, answers);
  }

  #command(id: number, connection: Connection, event: Extract<TargetEvent, { kind: 'command' }>): void {
    const { sqe: command, data, tag } = event;
    try {
      const answer = this.#execute(id, connection, command, data, tag);
      if (answer) this.#answer(id, tag, 0, answer.result ?? 0, answer.data);
    } catch (err) {
      if (!(err instanceof Refusal)) {
        // ours, not the host's: it costs this command, and no other host
        const { peer } = connection;
        this.hub.log(`${peer}: internal error: ${(err as Error).stack}`, { event: 'internal-error', peer });
        this.#answer(id, tag, statusCode(Status.internal), 0);
        return;
      }
      this.#answer(id, tag, err.status, err.result);
      connection.controller?.failed({
        sqid: connection.qid ?? 0,
        cid: sqe.get(command, 'cid'),
        status: err.status,
        location: err.location,
        lba: 0n,
        nsid: sqe.get(command, 'opcode') === AdminOpcode.fabrics ? 0 : sqe.get(command, 'nsid'),
      });
    }
  }

  /** @throws Refusal */
  #execute(id: number, connection: Connection, command: Buffer, data: Buffer, tag: number): Answer {
    const { opcode, fctype } = sqe.decode(command);
    const isAuthentication = opcode === AdminOpcode.fabrics && (fctype === Fctype.authSend || fctype === Fctype.authReceive);
    const isConnect = opcode === AdminOpcode.fabrics && fctype === Fctype.connect;
    const { controller, qid } = connection;
    if (!controller) {
      if (!isConnect) throw new Refusal(Status.sequenceError);
      return this.#connect(id, connection, parseConnect(command, data, this.hub.discoveryNqn));
    }
    if (isConnect) throw new Refusal(Status.sequenceError);
    if (isAuthentication) return this.#authentication.command(id, command, data, tag);
    if (qid === 0) return controller.command(command, data, tag);
    if (opcode !== AdminOpcode.fabrics || fctype !== Fctype.disconnect) throw invalidField(4);
    // The queue goes alone, its association stays (NVMe Base 2.0, 6.4).
    if (controller.queues.get(qid!) === id) controller.queues.delete(qid!);
    this.#answer(id, tag, 0, 0);
    queueMicrotask(() => this.around.close(id));
    return undefined;
  }

  #connect(id: number, connection: Connection, connect: Connect): Answer {
    const { tls, peer } = connection;
    const { hostnqn, subnqn, qid, discovery } = connect;
    if (tls && (tls.hostnqn !== hostnqn || tls.subnqn !== subnqn)) {
      const text = `host ${nameText(hostnqn)} uses the TLS key of ${nameText(tls.hostnqn)} for ${nameText(tls.subnqn)}`;
      this.hub.log(`${peer}: ${text}`, { event: 'refused', peer, host: hostnqn, subsystem: subnqn });
      throw new Refusal(Status.connectInvalidHost);
    }
    const counted = this.#countedAs(connection, connect);
    const controller = qid === 0 ? admitController(this, id, connection, connect, counted) : admitQueue(this, connection, connect, counted);
    connection.controller = controller;
    connection.qid = qid;
    connection.counted = counted;
    this.census.count(counted, qid, 1);
    // the discovery service tells each host only of what it may use, and is open to all, as those of others
    const locked = this.#authentication.required && !discovery;
    if (locked) this.#authentication.guard(id, connect, qid === 0, peer);
    if (locked && qid !== 0) controller.joining.add(id);
    else if (qid !== 0) controller.queues.set(qid, id);
    this.#native.targetSetup(this.engine, id, qid, connect.size, connect.flowControl, controller.handle, locked);
    const authreq = locked ? AuthReq.required : 0;
    return { result: connectOk.encode({ cntlid: controller.cntlid, authreq }).readUInt32LE(0) };
  }

  /**
   * Whose connections a new one is counted with. Who only says that it is a host must not use up what that host may have: where hosts
   * have to authenticate, a connection counts for none until it has; where some use TLS, those without are counted apart.
   */
  #countedAs({ tls }: Connection, { hostnqn, hostid }: Connect): string | undefined {
    if (this.#authentication.required) return undefined;
    const host = hostKey(hostnqn, hostid);
    return tls || !this.hub.keys.tls ? host : `without TLS: ${host}`;
  }

  /** The host of a connection has proved who it is. @returns whether the connection may go on */
  #proven(id: number): boolean {
    const connection = this.#connections.get(id);
    const { controller, qid, peer } = connection ?? {};
    if (!connection || !controller || this.#leaving.has(id)) return false;
    if (qid !== 0 && !controller.joining.delete(id)) return false; // too late: its controller was reset, or ends
    const { hostnqn: host, subnqn: subsystem } = controller;
    const key = hostKey(host, controller.hostid);
    const limit = this.hub.limitsOf(key).connections;
    const reason =
      limit !== undefined && this.census.of(key) >= limit
        ? `limit of ${limit} connections of this host`
        : qid !== 0 && controller.queues.has(qid!)
          ? `controller ${controller.cntlid} has a queue ${qid} already`
          : undefined;
    if (reason !== undefined) {
      this.hub.log(`${peer}: host ${nameText(host)} is refused: ${reason}`, { event: 'refused', peer, host, subsystem });
      return false;
    }
    connection.counted = key;
    this.census.recount(key);
    if (qid !== 0) controller.queues.set(qid!, id);
    this.#native.targetUnlock(this.engine, id);
    return true;
  }

  /** Ends a queue, with an admin queue its association. */
  #endQueue(id: number): void {
    const connection = this.#connections.get(id);
    if (connection?.controller && connection.qid === 0) connection.controller.end();
    else this.around.close(id);
  }

  /**
   * Ends an association or, for a connection, an I/O queue whose host has not proved who it is, for discovery at last: such
   * hosts must not keep others out.
   */
  makeRoom(kind: 'controller' | 'connection'): boolean {
    if (!this.#authentication.required) return false;
    const strangers = [...this.#connections].filter(([id, { controller, qid }]) => {
      if (!controller || this.#leaving.has(id)) return false;
      return qid === 0 ? !this.#authentication.trusts(id) : kind === 'connection' && controller.joining.has(id);
    });
    const forDiscovery = ([, { controller }]: (typeof strangers)[number]) => controller!.subsystem === undefined;
    const inOrder = [...strangers.filter((one) => !forDiscovery(one)), ...strangers.filter(forDiscovery)];
    const stranger = surplus(inOrder, ([, connection]) => addressOf(connection));
    if (!stranger) return false;
    this.#leave(...stranger);
    return true;
  }

  /**
   * Ends the connection that has not proved yet to be the same I/O queue for the same address: a host has one of each, so that
   * no address has more of them than the controller has queues.
   */
  replace({ joining }: ControllerState, qid: number, by: Connection): void {
    for (const id of joining) {
      const connection = this.#connections.get(id);
      if (connection?.qid === qid && addressOf(connection) === addressOf(by)) this.#leave(id, connection);
    }
  }

  /** Ends a connection that does not count any more from now on. */
  #leave(id: number, { controller, qid }: Connection): void {
    this.#leaving.add(id);
    this.census.leave(qid!, 1);
    controller?.joining.delete(id);
    this.#endQueue(id);
  }

  /**
   * An association ends with its admin queue. An I/O queue only becomes free: Linux closes those first when it
   * disconnects, and wants to shut the controller down after that.
   */
  #closed(id: number, connection: Connection, reason: string): void {
    this.#connections.delete(id);
    this.#authentication.closed(id);
    const { controller, qid, peer } = connection;
    if (!controller) return;
    if (this.#leaving.delete(id)) this.census.leave(qid!, -1);
    this.census.count(connection.counted, qid!, -1);
    if (qid !== 0) {
      controller.joining.delete(id);
      if (controller.queues.get(qid!) === id) controller.queues.delete(qid!);
      return;
    }
    const { subsystem, cntlid, hostnqn: host } = controller;
    if (subsystem) {
      subsystem.retire(controller);
      this.budgets.release(hostKey(host, controller.hostid));
      const about = { event: 'disconnect', peer, host, subsystem: subsystem.nqn, controller: cntlid };
      this.hub.log(`${peer}: controller ${cntlid} ends${reason === '' ? '' : `: ${reason}`}`, about);
    } else this.discovery.delete(cntlid);
    controller.end();
  }

  #failed({ peer, controller, qid }: Connection, event: Extract<TargetEvent, { kind: 'error' }>): void {
    if (event.fes !== undefined) {
      const about = { event: 'protocol-error', peer, host: controller?.hostnqn, controller: controller?.cntlid };
      this.hub.log(`${peer}: protocol error: FES ${event.fes}, FEI ${event.fei}`, about);
      return;
    }
    const { cid, nsid } = sqe.decode(event.sqe);
    const lba = rwCmd.get(event.sqe, 'slba');
    controller?.failed({ sqid: qid ?? 0, cid, status: event.status, location: undefined, lba, nsid });
  }

  #checkKeepAlive(): void {
    const now = performance.now();
    for (const controller of this.controllers()) {
      if (!controller.expired(now)) continue;
      const { hostnqn: host, cntlid, keepAlive } = controller;
      const about = { event: 'keep-alive', peer: this.peerOf(controller.admin), host, subsystem: controller.subnqn, controller: cntlid };
      this.hub.log(`host ${nameText(host)}: no keep-alive for ${keepAlive} ms: controller ${cntlid} ends`, about);
      controller.failed({ sqid: 0, cid: 0, status: statusCode(Status.keepAliveExpired), location: undefined, lba: 0n, nsid: 0 });
      controller.end();
    }
  }
}
