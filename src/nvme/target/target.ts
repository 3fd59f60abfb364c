import { VioError, wrap } from '../../common/errors.js';
import { listenError } from '../../common/listen.js';
import { native } from '../../native/index.js';
import type { Completion, NativeBudget, NativeTarget, NvmeNative, TargetEvent, TargetOptions } from '../../native/nvme.js';
import { tellRefusal, tellWithoutRing } from '../../storage/engine.js';
import { sourcesGone } from '../../storage/open.js';
import type { IdentityState } from '../../storage/state.js';
import { SourceWatch, watchPeriod } from '../../storage/watch.js';
import type { ChapPolicy } from '../auth/controller.js';
import { withOpenssl } from '../auth/openssl.js';
import { AdminOpcode, AnaState, AuthReq, connectOk, Fctype, rwCmd, Status, sqe } from '../wire/index.js';
import { addressOf, admitController, admitQueue, Census, type Connection, type Guarded } from './admission/admit.js';
import { type Connect, parseConnect } from './admission/connect.js';
import { defaultLimits, type HostLimits, hostKey, spareConnections, type TargetLimits } from './admission/limits.js';
import { surplus } from './admission/strangers.js';
import { transitionSeconds } from './ana.js';
import type { Surroundings } from './controller.js';
import { discoveryLog, type Listener, type Referral } from './discovery.js';
import type { Answer, ControllerState, Namespace, NamespaceOptions, SubsystemState } from './model.js';
import { invalidField, Refusal, statusCode } from './refusal.js';
import { Authentication } from './security/authentication.js';
import { KeyRing } from './security/keyring.js';
import { findKey, handOver, type TlsMode, tlsUse } from './security/tls.js';
import { type BoundSocket, bindSocket, endSocket } from './sockets.js';
import type { Subsystem } from './subsystem.js';

/** What happens, for a log: who connected, what was refused. Names come from hosts: escape them. */
export type TargetLog = (message: string) => void;

/** Waits for all, so that one that fails or hangs does not keep the others from being done. @throws the first failure */
async function all(work: Promise<void>[]): Promise<void> {
  const failed = (await Promise.allSettled(work)).find((one) => one.status === 'rejected');
  if (failed) throw failed.reason;
}

/** How often keep-alive times are looked at, in milliseconds. */
const keepAliveCheck = 250;
/** Sources that are looked at each time: a question to each of thousands would keep an idle target busy. */
const mostLooks = 128;
/** After this time (ms) a stop says what it waits for. It has no limit: the source decides, or a second signal. */
const slowStop = 5000;

/** What a new target is told: options of the engine, and these. */
export interface TargetSetup extends TargetOptions {
  log?: TargetLog;
  state?: IdentityState | undefined;
  limits?: Partial<TargetLimits> | undefined;
  /** NQN of the discovery service, besides the well-known one. */
  discoveryNqn?: string | undefined;
  /** Keys of hosts; left out: hosts need none. */
  keys?: KeyRing | undefined;
  chapPolicy?: ChapPolicy | undefined;
  tlsMode?: TlsMode | undefined;
}

/**
 * An NVMe/TCP target: subsystems behind listeners, their discovery service, and the associations of hosts with them.
 * The engine (native/nvme) moves data; everything that happens once per connection or admin command is decided here.
 */
export class Target implements Guarded {
  readonly subsystems = new Map<string, Subsystem>();
  /** What sources were called before, for subsystems that are made later. */
  readonly state: IdentityState | undefined;
  readonly listeners: Listener[] = [];
  /** Listeners were added or removed since the configuration was read: those of its discovery port are saved one by one. */
  listenersChanged = false;
  readonly referrals: Referral[] = [];
  /** Keys of hosts. */
  readonly keys: KeyRing;
  readonly limits: TargetLimits;
  /** Limits of single hosts; those of every other host are under `any`. */
  readonly hostLimits = new Map<string, HostLimits>();
  readonly discovery = new Map<number, ControllerState>();
  readonly discoveryNqn: string | undefined;
  readonly census = new Census();
  readonly around: Surroundings;
  readonly tlsMode: TlsMode | undefined;
  readonly #native: NvmeNative;
  readonly #engine: NativeTarget;
  readonly #log: TargetLog;
  /** The engine that was asked for. */
  readonly #wanted: 'sync' | 'uring';
  readonly #connections = new Map<number, Connection>();
  readonly #timer: NodeJS.Timeout;
  readonly #answers: Completion[] = [];
  readonly #authentication: Authentication;
  /** By host: hostKey(). */
  readonly #budgets = new Map<string, NativeBudget>();
  /** Controllers that were ended to make room, until they are gone. */
  readonly #leaving = new Set<ControllerState>();
  readonly #watches = new WeakMap<Namespace, SourceWatch>();
  #nextPort = 0;
  #generation = 1n;
  #stopping: Promise<void> | undefined;
  #ticks = 0;
  #looked = -1;

  constructor(native: NvmeNative, options: TargetSetup = {}) {
    const { log = () => {}, state, limits, discoveryNqn, keys, chapPolicy, tlsMode, ...engine } = options;
    this.tlsMode = tlsMode;
    this.state = state;
    this.limits = { ...defaultLimits, ...limits };
    this.discoveryNqn = discoveryNqn;
    this.keys = keys ?? new KeyRing([]);
    this.#native = native;
    this.#log = log;
    this.#wanted = options.engine ?? 'sync';
    const maxConnections = this.limits.connections + spareConnections;
    this.#engine = withOpenssl(() => native.targetStart({ maxConnections, ...engine, tls: tlsUse(tlsMode) }, (batch) => this.#take(batch)));
    this.#authentication = new Authentication(this.keys, chapPolicy, {
      answer: (connection, tag, status) => this.#answer(connection, tag, status, 0),
      unlock: (connection) => native.targetUnlock(this.#engine, connection),
      end: (connection) => this.#endQueue(connection),
      log,
    });
    this.#timer = setInterval(() => {
      this.#checkKeepAlive();
      this.#authentication.tick();
      if (++this.#ticks % (watchPeriod / keepAliveCheck) !== 0) return;
      this.#lookAtSources();
      tellRefusal(this.#wanted, log);
    }, keepAliveCheck);
    this.#timer.unref();
    tellRefusal(this.#wanted, log);
    this.around = {
      native,
      complete: (connection, tag, status, result) => this.#answer(connection, tag, status, result),
      close: (connection) => native.targetClose(this.#engine, connection),
      // of a shutdown: the host is not kept waiting, but whoever runs the target is told
      flush: (subsystem) => this.flush(subsystem).catch((err: Error) => this.#log(err.message)),
      discoveryLog: (hostnqn, connection) => this.discoveryLog(hostnqn, this.#connections.get(connection)?.via ?? '127.0.0.1'),
    };
  }

  /** Adds a subsystem that has its namespaces already. @throws VioError when its NQN is taken */
  addSubsystem(subsystem: Subsystem): void {
    if (this.subsystems.has(subsystem.nqn)) throw new VioError(`subsystem ${subsystem.nqn} exists already`, { code: 'EEXIST' });
    this.subsystems.set(subsystem.nqn, subsystem);
    for (const namespace of subsystem.namespaces.values()) this.#watchOf(subsystem, namespace);
    this.#discoveryChanged();
  }

  /** Removes a subsystem and ends its associations. Its files are closed then, but for commands that are under way. */
  async removeSubsystem(subsystem: Subsystem): Promise<void> {
    this.subsystems.delete(subsystem.nqn);
    for (const controller of subsystem.controllers.values()) controller.end();
    for (const namespace of subsystem.namespaces.values()) this.#watchOf(subsystem, namespace).close();
    subsystem.close();
    this.#discoveryChanged();
    await this.renew();
  }

  /**
   * Listens.
   * @param port 0 lets the system choose
   * @param discoveryOnly no subsystem can be connected to here
   * @param advertise what discovery names instead of this address
   * @param more what was asked for, if it is not the address; a socket that listens there already, which is the target's now
   * @throws VioError
   */
  listen(
    address: string,
    port: number,
    discoveryOnly = false,
    advertise?: Listener['advertise'],
    more: { asked?: string | undefined; socket?: BoundSocket | undefined } = {},
  ): Listener {
    const { fd: socket, port: bound, activated = false } = more.socket ?? bindSocket(address, port);
    try {
      this.#native.targetListenFd(this.#engine, socket.fd);
    } catch (err) {
      socket.close();
      throw listenError(address, port, err);
    }
    const ipv6 = address.includes(':');
    const listener: Listener = {
      id: this.#nextPort++,
      address,
      port: bound,
      ipv6,
      discoveryOnly,
      advertise,
      asked: more.asked,
      socket,
      activated,
    };
    this.listeners.push(listener);
    this.#discoveryChanged();
    return listener;
  }

  /** Closes a listener and ends the associations of hosts that came through it. Its port is free when this resolves. */
  async unlisten(listener: Listener): Promise<void> {
    const at = this.listeners.indexOf(listener);
    if (at < 0) return;
    this.listeners.splice(at, 1);
    this.#discoveryChanged();
    for (const subsystem of this.subsystems.values()) subsystem.ana.forget(listener.id);
    for (const controller of this.controllers()) if (controller.port === listener.id) controller.end();
    for (const [id, connection] of this.#connections) if (connection.listener === listener) this.around.close(id);
    if (!this.#stopped) await this.#native.targetUnlisten(this.#engine, listener.id);
    // a service manager may keep the socket, and would keep its port
    if (listener.activated) listener.socket.close();
    else endSocket({ fd: listener.socket, port: listener.port });
  }

  /** Hosts are told of a listener in another way from now on; it stays as it is. */
  rename(listener: Listener, asked: string | undefined, advertise: Listener['advertise']): void {
    listener.asked = asked;
    listener.advertise = advertise;
    this.#discoveryChanged();
  }

  /** Other discovery services that hosts are told about from now on. */
  setReferrals(referrals: readonly Referral[]): void {
    this.referrals.splice(0, Infinity, ...referrals);
    this.#discoveryChanged();
  }

  /** Adds a namespace to a running subsystem and tells the hosts. @throws VioError */
  add(subsystem: Subsystem, options: NamespaceOptions): Namespace {
    return this.adopt(subsystem, subsystem.prepare(options));
  }

  /** Adds a namespace that the subsystem has prepared, and tells the hosts. */
  adopt(subsystem: Subsystem, namespace: Namespace): Namespace {
    subsystem.adopt(namespace);
    this.#watchOf(subsystem, namespace);
    this.#namespaceChanged(subsystem, namespace, true);
    return namespace;
  }

  /** Takes a namespace away, if it is there. Commands that are under way end; its file is closed after the last one. */
  async remove(subsystem: Subsystem, nsid: number): Promise<void> {
    const namespace = subsystem.take(nsid);
    if (!namespace) return;
    this.#watchOf(subsystem, namespace).close();
    this.#namespaceChanged(subsystem, namespace, true);
    subsystem.release(namespace);
    await this.renew();
  }

  /** The size of a namespace's source now, in bytes. It may take long: look the namespace up again then. @throws VioError */
  measure(subsystem: Subsystem, namespace: Namespace): Promise<number> {
    return this.#watchOf(subsystem, namespace).ask();
  }

  /** Takes a size over that measure() has given, and tells the hosts if it is another one. */
  resize(subsystem: Subsystem, namespace: Namespace, bytes: number): void {
    this.#watchOf(subsystem, namespace).take(bytes);
  }

  /**
   * Opens a namespace's source anew: its flushes can succeed again, although what was lost is lost. @throws VioError
   */
  async reopen(subsystem: Subsystem, nsid: number): Promise<void> {
    const namespace = subsystem.namespaces.get(nsid);
    if (!namespace) throw new VioError(`${subsystem.nqn} has no namespace ${nsid}`, { code: 'ENOENT' });
    await this.#watchOf(subsystem, namespace).reopen();
  }

  /** Says which hosts see a namespace (undefined: all), and tells those for which that changes. */
  setMask(subsystem: Subsystem, namespace: Namespace, hosts: ReadonlySet<string> | undefined): void {
    const before = [...subsystem.controllers.values()].map((c) => [c, c.namespace(namespace.nsid) !== undefined] as const);
    namespace.hosts = hosts;
    for (const [controller, saw] of before) {
      if ((controller.namespace(namespace.nsid) !== undefined) === saw) continue;
      controller.refreshTable();
      controller.namespaceChanged(namespace.nsid, namespace.group);
    }
  }

  /** Sets the ANA state of groups, on one port or on all, and tells the hosts for which it changes. */
  setAna(subsystem: Subsystem, groups: readonly number[], state: number, port?: number): void {
    this.#changeAna(subsystem, groups, () => {
      for (const group of groups) subsystem.ana.set(group, state, port);
    });
    if (state !== AnaState.change) return;
    const late = groups.filter((group) => this.#inChange(subsystem, group, port));
    setTimeout(() => {
      if (this.#stopped || !late.some((group) => this.#inChange(subsystem, group, port))) return;
      this.#log(`${subsystem.nqn}: ANA groups ${late.join(', ')} in "change" for more than ${transitionSeconds} s: hosts reset`);
    }, transitionSeconds * 1000).unref();
  }

  #inChange(subsystem: Subsystem, group: number, port: number | undefined): boolean {
    const ports = port === undefined ? this.listeners.map(({ id }) => id) : [port];
    return ports.some((id) => subsystem.ana.stateOf(group, id) === AnaState.change);
  }

  /** Does what may change ANA states, and tells each host about the groups that its port has in another state now. */
  #changeAna(subsystem: Subsystem, groups: readonly number[], change: () => void): void {
    const states = (c: ControllerState) => groups.map((group) => subsystem.ana.stateOf(group, c.port));
    const before = [...subsystem.controllers.values()].map((c) => [c, states(c)] as const);
    change();
    for (const [controller, was] of before) {
      const now = states(controller);
      const changed = groups.filter((_, i) => was[i] !== now[i]);
      if (changed.length === 0) continue;
      controller.refreshTable();
      controller.anaChanged(changed);
    }
  }

  /**
   * Begins or ends draining: no association and no queue is admitted, and no group is accessible, so that hosts use other
   * paths. What is under way goes on (see QueueCounters.outstanding).
   */
  setDraining(subsystem: Subsystem, draining: boolean): void {
    const groups = [...new Set([...subsystem.namespaces.values()].map(({ group }) => group))];
    this.#changeAna(subsystem, groups, () => {
      subsystem.ana.draining = draining;
    });
  }

  /** Adds hosts to the list of those that may use a subsystem; associations go on. */
  allow(subsystem: Subsystem, hosts: Iterable<string>): void {
    for (const host of hosts) subsystem.access.hosts.add(host);
    this.#discoveryChanged();
  }

  /** Takes hosts off the list; the associations of hosts that may not use the subsystem any more end. */
  disallow(subsystem: Subsystem, hosts: Iterable<string>): void {
    for (const host of hosts) subsystem.access.hosts.delete(host);
    this.#expel(subsystem);
  }

  /** Lets every host use a subsystem, or those of its list alone. */
  allowAny(subsystem: Subsystem, any: boolean): void {
    subsystem.access.any = any;
    this.#expel(subsystem);
  }

  #expel(subsystem: Subsystem): void {
    for (const controller of subsystem.controllers.values()) if (!subsystem.access.admits(controller.hostnqn)) controller.end();
    this.#discoveryChanged();
  }

  limitsOf(host: string): HostLimits {
    return { ...this.hostLimits.get('any'), ...this.hostLimits.get(host) };
  }

  /** Changes limits of the whole target. Hosts that are connected stay, however many they are. */
  setLimits(limits: Partial<TargetLimits>): void {
    Object.assign(this.limits, limits);
    this.#native.targetMaxConnections(this.#engine, this.limits.connections + spareConnections);
  }

  /** Changes the limits of one host, or of every host that has none of its own (`any`). */
  setHostLimits(host: string, limits: HostLimits): void {
    const all = Object.entries({ ...this.hostLimits.get(host), ...limits }).filter(([, value]) => value !== undefined);
    if (all.length > 0) this.hostLimits.set(host, Object.fromEntries(all));
    else this.hostLimits.delete(host);
    for (const [one, budget] of this.#budgets) this.#native.budgetLimit(budget, this.limitsOf(one).bytes ?? 0);
  }

  budgetOf(host: string): NativeBudget {
    const known = this.#budgets.get(host);
    if (known) return known;
    const budget = this.#native.budgetNew();
    this.#native.budgetLimit(budget, this.limitsOf(host).bytes ?? 0);
    this.#budgets.set(host, budget);
    return budget;
  }

  /** Ends the associations of a host, or of one controller. @returns how many */
  kick(match: (controller: ControllerState) => boolean): number {
    const found = this.controllers().filter(match);
    for (const controller of found) controller.end();
    return found.length;
  }

  /** All controllers, those of the discovery service last. */
  controllers(): ControllerState[] {
    return [...[...this.subsystems.values()].flatMap((s) => [...s.controllers.values()]), ...this.discovery.values()];
  }

  /** Addresses of a connection: the host's and ours. */
  peerOf(connection: number): string | undefined {
    return this.#connections.get(connection)?.peer;
  }

  /** Who does the I/O that waits: sync where io_uring was asked for and is missing. */
  get engine(): 'sync' | 'uring' {
    return this.#native.targetEngine(this.#engine);
  }

  get connections(): number {
    return this.#native.targetConnections(this.#engine);
  }

  /** Everything written to a subsystem's namespaces reaches stable storage. @throws VioError */
  async flush(subsystem: SubsystemState): Promise<void> {
    const flushOne = async ({ store, source }: Namespace) => {
      try {
        await native().storage.flush(store);
      } catch (err) {
        throw wrap(`flush ${source}`, err);
      }
    };
    await all([...subsystem.namespaces.values()].filter(({ readonly }) => !readonly).map(flushOne));
  }

  discoveryLog(hostnqn: string, via: string): Buffer {
    return discoveryLog({
      generation: this.#generation,
      listeners: this.listeners,
      subsystems: [...this.subsystems.values()].filter((s) => s.access.admits(hostnqn)).map((s) => s.nqn),
      referrals: this.referrals,
      tls: this.tlsMode,
      via,
      nqn: this.discoveryNqn,
    });
  }

  /**
   * Ends all associations, closes all sockets, and flushes all namespaces once their commands have ended. Idempotent.
   * @throws VioError of a flush
   */
  stop(): Promise<void> {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  async #stop(): Promise<void> {
    clearInterval(this.#timer);
    for (const { socket } of this.listeners) socket.close();
    const slow = setTimeout(() => this.#log('finishing the commands under way; a second signal ends at once'), slowStop);
    try {
      await this.#native.targetStop(this.#engine);
      this.#eachWatch((watch) => watch.look(true)); // before a flush that may take long
      await all([...this.subsystems.values()].map((subsystem) => this.flush(subsystem)));
    } finally {
      clearTimeout(slow);
      this.#eachWatch((watch) => watch.close());
      this.keys.close();
      for (const subsystem of this.subsystems.values()) subsystem.close();
    }
  }

  /** A line for whoever runs the target. */
  log(message: string): void {
    this.#log(message);
  }

  get #stopped(): boolean {
    return this.#stopping !== undefined;
  }

  /** @param attached it has come or gone, not only changed its size */
  #namespaceChanged(subsystem: Subsystem, { nsid, hosts, group }: Namespace, attached: boolean): void {
    for (const controller of subsystem.controllers.values()) {
      if (hosts !== undefined && !hosts.has(controller.hostnqn)) continue;
      controller.refreshTable();
      controller.namespaceChanged(nsid, attached ? group : undefined);
    }
  }

  /** All queues take tables of namespaces over as they are now. Those without work let go of namespaces that were released, so that their files can be used again at once. */
  async renew(): Promise<void> {
    if (this.#stopped) return;
    await this.#native.targetRenew(this.#engine);
    await sourcesGone();
  }

  #discoveryChanged(): void {
    this.#generation++;
    for (const controller of this.discovery.values()) controller.discoveryChanged();
  }

  #take(batch: TargetEvent[]): void {
    for (const event of batch) {
      if (event.kind === 'opened') {
        const [address, port, own] = event.peer.split(' ');
        const listener = this.listeners.find(({ id }) => id === event.listener);
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
    const answers = this.#answers.splice(0);
    if (answers.length > 0 && !this.#stopped) this.#native.targetComplete(this.#engine, answers);
  }

  /** A host begins TLS. */
  #key(id: number, connection: Connection, identities: readonly Buffer[]): void {
    const found = findKey(identities, this.keys);
    if (found) connection.tls = { hostnqn: found.hostnqn, subnqn: found.subnqn };
    else this.#log(`${connection.peer}: no key for TLS identity ${identities[0]?.toString('latin1').slice(0, 300)}`);
    handOver(found, (identity, key) => this.#native.targetKey(this.#engine, id, identity, key));
  }

  #answer(connection: number, tag: number, status: number, result: number | bigint, data?: Buffer): void {
    if (this.#stopped) return;
    if (this.#answers.push(data ? [connection, tag, status, result, data] : [connection, tag, status, result]) === 1)
      queueMicrotask(() => {
        const answers = this.#answers.splice(0);
        if (answers.length > 0 && !this.#stopped) this.#native.targetComplete(this.#engine, answers);
      });
  }

  #command(id: number, connection: Connection, event: Extract<TargetEvent, { kind: 'command' }>): void {
    const { sqe: command, data, tag } = event;
    try {
      const answer = this.#execute(id, connection, command, data, tag);
      if (answer) this.#answer(id, tag, 0, answer.result ?? 0, answer.data);
    } catch (err) {
      if (!(err instanceof Refusal)) {
        // ours, not the host's: it costs this command, and no other host
        this.#log(`${connection.peer}: internal error: ${(err as Error).stack}`);
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
      return this.#connect(id, connection, parseConnect(command, data, this.discoveryNqn));
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
    const { tls } = connection;
    if (tls && (tls.hostnqn !== connect.hostnqn || tls.subnqn !== connect.subnqn)) {
      this.#log(`${connection.peer}: host ${connect.hostnqn} uses the TLS key of ${tls.hostnqn} for ${tls.subnqn}`);
      throw new Refusal(Status.connectInvalidHost);
    }
    const controller = (connect.qid === 0 ? admitController : admitQueue)(this, id, connection, connect);
    connection.controller = controller;
    connection.qid = connect.qid;
    this.census.count(controller, connect.qid, 1);
    // the discovery service tells each host only of what it may use, and is open to all, as those of others
    const locked = this.#authentication.required && !connect.discovery;
    if (locked) this.#authentication.guard(id, connect, connect.qid === 0, connection.peer);
    this.#native.targetSetup(this.#engine, id, connect.qid, connect.size, connect.flowControl, controller.handle, locked);
    const authreq = locked ? AuthReq.required : 0;
    return { result: connectOk.encode({ cntlid: controller.cntlid, authreq }).readUInt32LE(0) };
  }

  /** Ends a queue, with an admin queue its association. */
  #endQueue(id: number): void {
    const connection = this.#connections.get(id);
    if (connection?.controller && connection.qid === 0) connection.controller.end();
    else this.around.close(id);
  }

  /** Ends an association whose host has not proved who it is, for discovery at last: such hosts must not keep others out. */
  makeRoom(host?: string): boolean {
    if (!this.#authentication.required) return false;
    const strangers = this.controllers().filter(
      (one) =>
        !this.#leaving.has(one) &&
        !this.#authentication.trusts(one.admin) &&
        (host === undefined || hostKey(one.hostnqn, one.hostid) === host),
    );
    const stranger = surplus(strangers, ({ admin }) => addressOf(this.#connections.get(admin)));
    if (!stranger) return false;
    this.#leaving.add(stranger);
    this.census.leave(stranger, 1);
    stranger.end();
    return true;
  }

  /**
   * An association ends with its admin queue. An I/O queue only becomes free: Linux closes those first when it
   * disconnects, and wants to shut the controller down after that.
   */
  #closed(id: number, connection: Connection, reason: string): void {
    this.#connections.delete(id);
    this.#authentication.closed(id);
    const { controller, qid } = connection;
    if (!controller) return;
    if (qid === 0 && this.#leaving.delete(controller)) this.census.leave(controller, -1);
    this.#uncount(controller, qid!);
    if (qid !== 0) {
      if (controller.queues.get(qid!) === id) controller.queues.delete(qid!);
      return;
    }
    if (controller.subsystem) controller.subsystem.retire(controller);
    else this.discovery.delete(controller.cntlid);
    if (controller.subsystem) this.#log(`${connection.peer}: controller ${controller.cntlid} ends${reason === '' ? '' : `: ${reason}`}`);
    controller.end();
  }

  /** A queue is gone. With the last one of its host, its budget is forgotten. */
  #uncount(controller: ControllerState, qid: number): void {
    this.census.count(controller, qid, -1);
    const host = hostKey(controller.hostnqn, controller.hostid);
    if (this.census.of(host) === 0) this.#budgets.delete(host);
  }

  #failed(connection: Connection, event: Extract<TargetEvent, { kind: 'error' }>): void {
    if (event.fes !== undefined) {
      this.#log(`${connection.peer}: protocol error: FES ${event.fes}, FEI ${event.fei}`);
      return;
    }
    const { cid, nsid } = sqe.decode(event.sqe);
    const lba = rwCmd.get(event.sqe, 'slba');
    connection.controller?.failed({ sqid: connection.qid ?? 0, cid, status: event.status, location: undefined, lba, nsid });
  }

  /** Looks at sources in turn: a second apart, or longer where there are many. */
  #lookAtSources(): void {
    const all = [...this.subsystems.values()].flatMap((subsystem) =>
      [...subsystem.namespaces.values()].map((namespace) => [subsystem, namespace] as const),
    );
    for (let i = 0; i < Math.min(all.length, mostLooks); i++) {
      this.#looked = (this.#looked + 1) % all.length;
      const [subsystem, namespace] = all[this.#looked]!;
      this.#watchOf(subsystem, namespace).tick();
    }
  }

  /** Calls for the watches of all namespaces. */
  #eachWatch(call: (watch: SourceWatch) => void): void {
    for (const subsystem of this.subsystems.values())
      for (const namespace of subsystem.namespaces.values()) call(this.#watchOf(subsystem, namespace));
  }

  #watchOf(subsystem: Subsystem, namespace: Namespace): SourceWatch {
    const known = this.#watches.get(namespace);
    if (known) return known;
    const { nsid } = namespace;
    const resized = (bytes: number): number | undefined => {
      if (this.#stopped || subsystem.namespaces.get(nsid) !== namespace || !subsystem.resize(namespace, bytes)) return undefined;
      this.#namespaceChanged(subsystem, namespace, false);
      return namespace.size;
    };
    const watch = new SourceWatch(namespace, {
      log: this.#log,
      resized,
      otherwise: `vioctl nvmf ctl SOCK remove ${nsid}, then add it`,
    });
    this.#watches.set(namespace, watch);
    tellWithoutRing(namespace, this.#wanted, this.#log);
    return watch;
  }

  #checkKeepAlive(): void {
    const now = performance.now();
    for (const controller of this.controllers()) {
      if (!controller.expired(now)) continue;
      this.#log(`host ${controller.hostnqn}: no keep-alive for ${controller.keepAlive} ms: controller ${controller.cntlid} ends`);
      controller.failed({ sqid: 0, cid: 0, status: statusCode(Status.keepAliveExpired), location: undefined, lba: 0n, nsid: 0 });
      controller.end();
    }
  }
}
