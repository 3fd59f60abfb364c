import { VioError, wrap } from '../../common/errors.js';
import { listenError } from '../../common/listen.js';
import { type Log, nameText } from '../../common/text/log.js';
import { native } from '../../native/index.js';
import type { NvmeNative, TargetOptions } from '../../native/nvme.js';
import { tellRefusal } from '../../storage/engine.js';
import { sourcesGone } from '../../storage/open.js';
import type { IdentityState } from '../../storage/state.js';
import { watchPeriod } from '../../storage/watch.js';
import type { ChapPolicy } from '../auth/controller.js';
import { withOpenssl } from '../auth/openssl.js';
import { AnaState } from '../wire/index.js';
import type { Hub } from './admission/admit.js';
import { defaultLimits, type HostLimits, spareConnections, type TargetLimits } from './admission/limits.js';
import { transitionSeconds } from './ana.js';
import { Connections } from './connections.js';
import { discoveryLog, type Listener, ofDiscoveryPort, type Referral } from './discovery.js';
import type { ControllerState, Namespace, NamespaceOptions, SubsystemState } from './model.js';
import { KeyRing } from './security/keyring.js';
import { modeOf, type TlsChoice, type TlsMode, tlsUse } from './security/tls.js';
import { type BoundSocket, bindSocket, endSocket } from './sockets.js';
import { Sources, type Watched } from './sources.js';
import type { Subsystem } from './subsystem.js';

/** What happens, for a log: who connected, what was refused. */
export type TargetLog = Log;

/** Waits for all, so that one that fails or hangs does not keep the others from being done. @throws the first failure */
async function all(work: Promise<void>[]): Promise<void> {
  const failed = (await Promise.allSettled(work)).find((one) => one.status === 'rejected');
  if (failed) throw failed.reason;
}

/** How often keep-alive times are looked at, in milliseconds. */
const keepAliveCheck = 250;
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
 * An NVMe/TCP target: subsystems behind listeners, their discovery service, and what changes of them. The engine (native/nvme)
 * moves data; what happens once per connection or admin command is decided in Connections.
 */
export class Target implements Hub, Watched {
  readonly subsystems = new Map<string, Subsystem>();
  /** What sources were called before, for subsystems that are made later. */
  readonly state: IdentityState | undefined;
  readonly listeners: Listener[] = [];
  /** Listeners were added or removed since the configuration was read: the addresses of its discovery port are saved. */
  listenersChanged = false;
  readonly referrals: Referral[] = [];
  /** Keys of hosts. */
  readonly keys: KeyRing;
  chapPolicy: ChapPolicy | undefined;
  readonly limits: TargetLimits;
  /** Limits of single hosts; those of every other host are under `any`. */
  readonly hostLimits = new Map<string, HostLimits>();
  readonly discoveryNqn: string | undefined;
  /** TLS of listeners that were not told otherwise. */
  tlsMode: TlsMode | undefined;
  readonly log: TargetLog;
  readonly #native: NvmeNative;
  readonly #hosts: Connections;
  readonly #sources: Sources;
  readonly #timer: NodeJS.Timeout;
  #nextPort = 0;
  #generation = 1n;
  #stopping: Promise<void> | undefined;
  #ticks = 0;

  constructor(native: NvmeNative, options: TargetSetup = {}) {
    const { log = () => {}, state, limits, discoveryNqn, keys, chapPolicy, tlsMode, ...engine } = options;
    this.tlsMode = tlsMode;
    this.state = state;
    this.limits = { ...defaultLimits, ...limits };
    this.discoveryNqn = discoveryNqn;
    this.keys = keys ?? new KeyRing([]);
    this.chapPolicy = chapPolicy;
    this.#native = native;
    this.log = log;
    const wanted = options.engine ?? 'sync';
    this.#sources = new Sources(this, wanted);
    const maxConnections = this.limits.connections + spareConnections;
    this.#hosts = new Connections(native, this, { maxConnections, ...engine });
    this.#timer = setInterval(() => {
      this.#hosts.tick();
      if (++this.#ticks % (watchPeriod / keepAliveCheck) !== 0) return;
      this.#sources.look();
      tellRefusal(wanted, log);
    }, keepAliveCheck);
    this.#timer.unref();
    tellRefusal(wanted, log);
  }

  /** Adds a subsystem that has its namespaces already. @throws VioError when its NQN is taken */
  addSubsystem(subsystem: Subsystem): void {
    if (this.subsystems.has(subsystem.nqn)) throw new VioError(`subsystem ${subsystem.nqn} exists already`, { code: 'EEXIST' });
    this.subsystems.set(subsystem.nqn, subsystem);
    for (const namespace of subsystem.namespaces.values()) this.#sources.of(subsystem, namespace);
    this.#discoveryChanged();
  }

  /**
   * Removes a subsystem and ends its associations. Its files are closed then, but for commands that are under way.
   * @param wait until others can use them, for a while; not if the caller does that, once for many
   */
  async removeSubsystem(subsystem: Subsystem, wait = true): Promise<void> {
    this.subsystems.delete(subsystem.nqn);
    for (const controller of subsystem.controllers.values()) controller.end();
    for (const namespace of subsystem.namespaces.values()) this.#sources.of(subsystem, namespace).close();
    subsystem.close();
    this.#discoveryChanged();
    await this.renew(wait);
  }

  /**
   * Listens.
   * @param port 0 lets the system choose
   * @param discoveryOnly no subsystem can be connected to here
   * @param advertise what discovery names instead of this address
   * @param more what was asked for, if it is not the address; a socket that listens there already, which is the target's now; TLS,
   *   if it is not the target's
   * @throws VioError
   */
  listen(
    address: string,
    port: number,
    discoveryOnly = false,
    advertise?: Listener['advertise'],
    more: { asked?: string | undefined; socket?: BoundSocket | undefined; tls?: TlsChoice | undefined } = {},
  ): Listener {
    const tls = this.#modeOf(more.tls);
    const { fd: socket, port: bound, activated = false } = more.socket ?? bindSocket(address, port);
    try {
      withOpenssl(() => this.#native.targetListenFd(this.#hosts.engine, socket.fd, tlsUse(tls)));
    } catch (err) {
      socket.close();
      throw err instanceof VioError ? err : listenError(address, port, err);
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
      tls,
      askedTls: more.tls,
      socket,
      activated,
    };
    this.listeners.push(listener);
    this.#followTls();
    this.#discoveryChanged();
    return listener;
  }

  /** Closes a listener and ends the associations of hosts that came through it. Its port is free when this resolves. */
  async unlisten(listener: Listener): Promise<void> {
    const at = this.listeners.indexOf(listener);
    if (at < 0) return;
    this.listeners.splice(at, 1);
    this.#followTls();
    this.#discoveryChanged();
    for (const subsystem of this.subsystems.values()) subsystem.ana.forget(listener.id);
    this.#hosts.endThrough(listener.id);
    if (!this.stopped) await this.#native.targetUnlisten(this.#hosts.engine, listener.id);
    // a service manager may keep the socket, and would keep its port
    if (listener.activated) listener.socket.close();
    else endSocket({ fd: listener.socket, port: listener.port });
  }

  /**
   * Hosts are told of a listener in another way from now on. Its socket stays as it is, and so do its connections: another TLS is for
   * those that come.
   */
  rename(listener: Listener, asked: string | undefined, advertise: Listener['advertise'], tls: TlsChoice | undefined): void {
    this.#setTls(listener, this.#modeOf(tls));
    listener.askedTls = tls;
    listener.asked = asked;
    listener.advertise = advertise;
    this.#followTls();
    this.#discoveryChanged();
  }

  /** TLS of listeners that were not asked for any, for connections that come from now on. */
  setTlsMode(mode: TlsMode | undefined): void {
    if (this.tlsMode === mode) return;
    this.tlsMode = mode;
    for (const listener of this.listeners) if (listener.askedTls === undefined) this.#setTls(listener, mode);
    this.#followTls();
    this.#discoveryChanged();
  }

  /** TLS of a listener that was asked for it, or not. There are keys for it, or they come. */
  #modeOf(asked: TlsChoice | undefined): TlsMode | undefined {
    return asked === undefined ? this.tlsMode : modeOf(asked);
  }

  #setTls(listener: Listener, tls: TlsMode | undefined): void {
    if (listener.tls === tls) return;
    withOpenssl(() => this.#native.targetTls(this.#hosts.engine, listener.id, tlsUse(tls)));
    listener.tls = tls;
  }

  /** The discovery port of an address has the TLS of the other listeners there; where they differ, hosts choose. */
  #followTls(): void {
    for (const port of this.listeners.filter(ofDiscoveryPort)) {
      const others = this.listeners.filter(({ discoveryOnly, address }) => !discoveryOnly && address === port.address);
      const [first = { tls: this.tlsMode }] = others;
      this.#setTls(port, others.every(({ tls }) => tls === first.tls) ? first.tls : 'allow');
    }
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
    this.#sources.of(subsystem, namespace);
    this.#namespaceChanged(subsystem, namespace, true);
    return namespace;
  }

  /**
   * Takes a namespace away, if it is there. Commands that are under way end; its file is closed after the last one.
   * @param wait as in removeSubsystem()
   */
  async remove(subsystem: Subsystem, nsid: number, wait = true): Promise<void> {
    const namespace = subsystem.take(nsid);
    if (!namespace) return;
    this.#sources.of(subsystem, namespace).close();
    this.#namespaceChanged(subsystem, namespace, true);
    subsystem.release(namespace);
    await this.renew(wait);
  }

  /** The size of a namespace's source now, in bytes. It may take long: look the namespace up again then. @throws VioError */
  measure(subsystem: Subsystem, namespace: Namespace): Promise<number> {
    return this.#sources.of(subsystem, namespace).ask();
  }

  /** Takes a size over that measure() has given, and tells the hosts if it is another one. */
  resize(subsystem: Subsystem, namespace: Namespace, bytes: number): void {
    this.#sources.of(subsystem, namespace).take(bytes);
  }

  /**
   * Opens a namespace's source anew: its flushes can succeed again, although what was lost is lost. @throws VioError
   */
  async reopen(subsystem: Subsystem, nsid: number): Promise<void> {
    const namespace = subsystem.namespaces.get(nsid);
    if (!namespace) throw new VioError(`${subsystem.nqn} has no namespace ${nsid}`, { code: 'ENOENT' });
    await this.#sources.of(subsystem, namespace).reopen();
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
      if (this.stopped || !late.some((group) => this.#inChange(subsystem, group, port))) return;
      this.log(`${nameText(subsystem.nqn)}: ANA groups ${late.join(', ')} in "change" for more than ${transitionSeconds} s: hosts reset`, {
        event: 'ana-change',
        subsystem: subsystem.nqn,
      });
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
    this.#native.targetMaxConnections(this.#hosts.engine, this.limits.connections + spareConnections);
  }

  /** Changes the limits of one host, or of every host that has none of its own (`any`). */
  setHostLimits(host: string, limits: HostLimits): void {
    const all = Object.entries({ ...this.hostLimits.get(host), ...limits }).filter(([, value]) => value !== undefined);
    if (all.length > 0) this.hostLimits.set(host, Object.fromEntries(all));
    else this.hostLimits.delete(host);
    this.#hosts.budgets.refresh();
  }

  /** Ends the associations of a host, or of one controller. @returns how many */
  kick(match: (controller: ControllerState) => boolean): number {
    const found = this.controllers().filter(match);
    for (const controller of found) controller.end();
    return found.length;
  }

  /** All controllers, those of the discovery service last. */
  controllers(): ControllerState[] {
    return this.#hosts.controllers();
  }

  /** Addresses of a connection: the host's and ours. */
  peerOf(connection: number): string | undefined {
    return this.#hosts.peerOf(connection);
  }

  /** Who does the I/O that waits: sync where io_uring was asked for and is missing. */
  get engine(): 'sync' | 'uring' {
    return this.#native.targetEngine(this.#hosts.engine);
  }

  get connections(): number {
    return this.#native.targetConnections(this.#hosts.engine);
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
    const slow = setTimeout(() => this.log('finishing the commands under way; a second signal ends at once'), slowStop);
    try {
      await this.#native.targetStop(this.#hosts.engine);
      this.#sources.each((watch) => watch.look(true)); // before a flush that may take long
      await all([...this.subsystems.values()].map((subsystem) => this.flush(subsystem)));
    } finally {
      clearTimeout(slow);
      this.#sources.each((watch) => watch.close());
      this.keys.close();
      for (const subsystem of this.subsystems.values()) subsystem.close();
    }
  }

  /** It ends, or has ended. */
  get stopped(): boolean {
    return this.#stopping !== undefined;
  }

  /** Hosts are told that a namespace has another size. */
  resized(subsystem: Subsystem, namespace: Namespace): void {
    this.#namespaceChanged(subsystem, namespace, false);
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
  async renew(wait = true): Promise<void> {
    if (this.stopped) return;
    await this.#native.targetRenew(this.#hosts.engine);
    if (wait) await sourcesGone();
  }

  #discoveryChanged(): void {
    this.#generation++;
    for (const controller of this.#hosts.discovery.values()) controller.discoveryChanged();
  }
}
