import { setTimeout as sleep } from 'node:timers/promises';
import type { NativeBudget, NativeController, NativeNamespace, NvmeNative, QueueCounters } from '../../native/nvme.js';
import {
  AdminOpcode,
  AsyncEvent,
  abortCmd,
  cap,
  capValue,
  cc,
  cstsValue,
  discoveryNqn,
  Fctype,
  Lid,
  maxQueueSize,
  Oaes,
  propertyCmd,
  psdtSgl,
  Sgl,
  Status,
  sqe,
} from '../wire/index.js';
import { Features, maxQueues } from './admin/features.js';
import { errorEntries, identify, maxEventRequests, version } from './admin/identify.js';
import { getLog } from './admin/logs.js';
import { gateOf } from './ana.js';
import type { Answer, ControllerState, ErrorRecord, Namespace, SubsystemState } from './model.js';
import { invalidField, Refusal, statusCode } from './refusal.js';

/** What a controller needs of the target around it. */
export interface Surroundings {
  readonly native: NvmeNative;
  /** Answers a command that waited. */
  complete(connection: number, tag: number, status: number, result: number): void;
  /** Ends a connection. */
  close(connection: number): void;
  /** Everything written to the namespaces of the controller's subsystem reaches stable storage; what fails is reported, not thrown. */
  flush(controller: ControllerState): Promise<void>;
  /** The discovery log for a host that is connected through `connection`. */
  discoveryLog(hostnqn: string, connection: number): Buffer;
}

/** Whether a host sees a namespace. */
export const sees = ({ hosts }: Namespace, hostnqn: string): boolean => hosts === undefined || hosts.has(hostnqn);

/** Seconds until a controller is ready at most, in units of 500 ms. */
const readyTimeout = 30;
const controllerCap = capValue({ mqes: maxQueueSize - 1, cqr: 1, to: readyTimeout, css: 1, crms: 1 });

/** How long a host may be silent at least before it enables its controller, in milliseconds. */
const enableTime = 120_000;
/** How long a shutdown waits for commands under way, in milliseconds: Linux gives up after 5 s. */
const shutdownWait = 4000;
/** Pause between two looks for them. */
const shutdownLook = 10;

/** A keep-alive time-out in whole seconds, the unit of KAS, that still fits the 32 bits of the feature. */
export const roundKeepAlive = (ms: number): number => Math.min(Math.ceil(ms / 1000), 4_294_967) * 1000;

/** What a new controller is told. */
export interface ControllerOptions {
  cntlid: number;
  /** Left out for a discovery controller. */
  subsystem?: SubsystemState;
  hostnqn: string;
  hostid: Buffer;
  port: number;
  /** Connection of the admin queue. */
  admin: number;
  /** Its address and port. */
  peer: string;
  /** Milliseconds, 0: none. */
  keepAlive: number;
  /** I/O queues at most. */
  mostQueues?: number;
  /** Of its host. */
  budget?: NativeBudget;
  /** NQN of a discovery controller. */
  discoveryNqn?: string;
}

/** One association of a host with a subsystem, or with the discovery service: registers, admin commands, events. */
export class Controller implements ControllerState {
  readonly cntlid: number;
  /** Undefined for a discovery controller. */
  readonly subsystem: SubsystemState | undefined;
  readonly hostnqn: string;
  readonly hostid: Buffer;
  readonly port: number;
  /** Connection of the admin queue. */
  readonly admin: number;
  readonly peer: string;
  readonly handle: NativeController;
  /** I/O queues: identifier to connection. */
  readonly queues = new Map<number, number>();
  readonly joining = new Set<number>();
  readonly features: Features;
  readonly mostQueues: number;
  readonly errors: ErrorRecord[] = [];
  /** Namespaces that changed since the host last asked. */
  readonly changed = new Set<number>();
  anaChanges = 0n;
  readonly groupChanges = new Map<number, bigint>();
  errorCount = 0n;
  mediaErrors = 0n;
  /** Keep-alive time-out in milliseconds; 0 is none. */
  keepAlive: number;
  /** Feature 06h. */
  writeCache = true;
  readonly #around: Surroundings;
  readonly #discoveryNqn: string;
  /** By performance.now(): the host cannot have been silent for too long before. */
  #mayExpire = 0;
  #cc = 0;
  #csts = { rdy: 0, shst: 0 };
  /** CC.EN is 0, and commands of the queues may still be under way. */
  #resetting = false;
  /** Shutdowns so far: the flush of an earlier one says nothing about the newest. */
  #shutdowns = 0;
  #shutdownWanted = false;
  #shuttingDown = false;
  /** Tags of the Asynchronous Event Requests that wait, and their command identifiers. */
  #requests: { tag: number; cid: number }[] = [];
  /** Events to be told: by log page, so that one that is not told yet is told once. */
  readonly #events = new Map<number, number>();
  /** Log pages of told events that the host has not read yet: no more events about them. */
  readonly #masked = new Set<number>();

  constructor(around: Surroundings, options: ControllerOptions) {
    this.#around = around;
    this.port = options.port;
    this.mostQueues = options.mostQueues ?? maxQueues;
    this.features = new Features(this.mostQueues);
    this.cntlid = options.cntlid;
    this.subsystem = options.subsystem;
    this.hostnqn = options.hostnqn;
    this.hostid = options.hostid;
    this.admin = options.admin;
    this.peer = options.peer;
    this.keepAlive = roundKeepAlive(options.keepAlive);
    this.#discoveryNqn = options.discoveryNqn ?? discoveryNqn;
    this.handle = around.native.controllerNew();
    if (options.budget) around.native.controllerBudget(this.handle, options.budget);
    this.refreshTable();
  }

  get subnqn(): string {
    return this.subsystem?.nqn ?? this.#discoveryNqn;
  }

  namespace(nsid: number): Namespace | undefined {
    const found = this.subsystem?.namespaces.get(nsid);
    return found && sees(found, this.hostnqn) ? found : undefined;
  }

  nsids(): number[] {
    const all = [...(this.subsystem?.namespaces.values() ?? [])];
    return all
      .filter((namespace) => sees(namespace, this.hostnqn))
      .map(({ nsid }) => nsid)
      .sort((a, b) => a - b);
  }

  /** CSTS.RDY */
  get ready(): boolean {
    return this.#csts.rdy === 1;
  }

  counters(): QueueCounters {
    return this.#around.native.controllerStats(this.handle);
  }

  /** Gives the engine the namespaces that the host sees, as they are now. */
  refreshTable(): void {
    const { subsystem } = this;
    if (!subsystem) return;
    const table: [number, NativeNamespace, number][] = [];
    for (const namespace of subsystem.namespaces.values()) {
      if (!sees(namespace, this.hostnqn)) continue;
      const gate = gateOf(subsystem.ana.stateOf(namespace.group, this.port), this.features.retryDelays);
      table.push([namespace.nsid, namespace.handle, gate]);
    }
    this.#around.native.controllerNamespaces(this.handle, table);
  }

  /**
   * Whether the host has been silent for longer than it promised. Any command on any queue counts (CTRATT.TBKAS). The engine is
   * asked only when that is possible, so that hundreds of idle hosts cost few calls.
   * @param now by performance.now()
   */
  expired(now: number): boolean {
    if (this.keepAlive === 0 || now < this.#mayExpire) return false;
    const idle = this.#around.native.controllerIdle(this.handle);
    // the timer starts when the controller is enabled (NVMe Base 2.0, 3.9); a host may compute long before that, to authenticate
    const limit = this.#csts.rdy === 1 ? 2 * this.keepAlive : Math.max(2 * this.keepAlive, enableTime);
    this.#mayExpire = now + limit - idle;
    return idle > limit;
  }

  /** A new keep-alive time-out; the unit of KAS, one second, rounds it up, as far as 32 bits go. */
  setKeepAlive(ms: number): void {
    this.keepAlive = roundKeepAlive(ms);
    this.#mayExpire = 0;
  }

  /**
   * Switches the volatile write cache, which is the page cache of this machine: off, writes are durable before they are
   * answered, as FUA writes are.
   */
  setWriteCache(on: boolean): void {
    this.writeCache = on;
    this.#around.native.controllerWriteCache(this.handle, on);
  }

  discoveryLog(): Buffer {
    return this.#around.discoveryLog(this.hostnqn, this.admin);
  }

  /**
   * Checks the descriptor of a host's buffer for data of ours.
   * @param exact the buffer must not be larger either
   * @throws Refusal
   */
  checkBuffer(command: Buffer, length: number, exact: boolean): void {
    const { psdt, sglId, sglAddress, sglLength } = sqe.decode(command);
    if (psdt !== psdtSgl) throw invalidField(1);
    if (sglId === Sgl.inCapsule) throw invalidField(39);
    if (sglId !== Sgl.commandBuffer) throw new Refusal(Status.sglTypeInvalid, { location: 39 });
    if (sglAddress !== 0n) throw new Refusal(Status.sglOffsetInvalid, { location: 24 });
    if (exact ? sglLength !== length : sglLength < length) throw new Refusal(Status.sglLengthInvalid, { location: 32 });
  }

  /** A command of the admin queue that is not Connect. @throws Refusal */
  command(command: Buffer, data: Buffer, tag: number): Answer {
    const { opcode, fctype, cid } = sqe.decode(command);
    if (opcode === AdminOpcode.fabrics) {
      if (fctype === Fctype.propertyGet) return { result: this.#propertyGet(command) };
      if (fctype === Fctype.propertySet) {
        this.#propertySet(command);
        return {};
      }
      throw invalidField(4);
    }
    const known = Object.values(AdminOpcode) as number[];
    if (!known.includes(opcode)) throw new Refusal(Status.invalidOpcode, { location: 0 });
    if (!this.ready) throw new Refusal(Status.sequenceError);
    switch (opcode) {
      case AdminOpcode.identify:
        return { data: identify(this, command) };
      case AdminOpcode.getLogPage:
        return { data: getLog(this, command) };
      case AdminOpcode.setFeatures: {
        const cached = this.writeCache;
        const delays = this.features.retryDelays;
        const result = this.features.set(this, command, data) >>> 0;
        if (delays !== this.features.retryDelays) this.refreshTable();
        if (!cached || this.writeCache) return { result };
        this.#emptyCache(tag);
        return undefined;
      }
      case AdminOpcode.getFeatures:
        return this.features.get(this, command);
      case AdminOpcode.abort:
        return { result: this.#abort(command) };
      case AdminOpcode.asyncEventRequest:
        if (this.#requests.length >= maxEventRequests) throw new Refusal(Status.asyncEventLimit);
        this.#requests.push({ tag, cid });
        this.#tell();
        return undefined;
      default:
        return {}; // Keep Alive: that it came is all
    }
  }

  /** Answers the command that has switched the write cache off once what lies in it is durable. */
  async #emptyCache(tag: number): Promise<void> {
    const subsystem = this.subsystem!;
    await this.#around.flush(this);
    const lost = [...subsystem.namespaces.values()].some((namespace) => subsystem.syncError(namespace) !== undefined);
    this.#around.complete(this.admin, tag, lost ? statusCode(Status.internal) : 0, 0);
  }

  /** Abort (5.1): only event requests wait long enough here to be aborted. Dword 0 bit 0 says that nothing was. */
  #abort(command: Buffer): number {
    const { sqid, cid } = abortCmd.decode(command);
    const found = sqid === 0 ? this.#requests.findIndex((request) => request.cid === cid) : -1;
    if (found < 0) return 1;
    const [request] = this.#requests.splice(found, 1);
    this.#around.complete(this.admin, request!.tag, statusCode(Status.abortRequested), 0);
    return 0;
  }

  #propertyGet(command: Buffer): bigint {
    const { attrib, ofst } = propertyCmd.decode(command);
    const values = new Map<number, [size: number, value: bigint]>([
      [0x00, [8, controllerCap]],
      [0x08, [4, BigInt(version)]],
      [0x14, [4, BigInt(this.#cc)]],
      [0x1c, [4, BigInt(cstsValue(this.#status()))]],
      [0x68, [4, BigInt(readyTimeout)]],
    ]);
    const found = values.get(ofst);
    if (!found) throw invalidField(44);
    if ((attrib & 7) > 1 || found[0] !== ((attrib & 7) === 1 ? 8 : 4)) throw invalidField(40);
    return found[1];
  }

  /** CSTS: RDY stays 1 until what the queues of a reset have begun has ended. A write must not land behind a later one. */
  #status(): { rdy: number; shst: number } {
    this.#resetting &&= this.counters().queues > 0;
    return { ...this.#csts, rdy: this.#resetting ? 1 : this.#csts.rdy };
  }

  #propertySet(command: Buffer): void {
    const { attrib, ofst, value } = propertyCmd.decode(command);
    if (ofst !== 0x14) throw invalidField(44);
    if ((attrib & 7) !== 0) throw invalidField(40);
    const raw = Buffer.alloc(8);
    raw.writeBigUInt64LE(value);
    const now = cc.decode(raw);
    const before = this.#decodeCc();
    const entrySizes = (now.iosqes === 6 && now.iocqes === 4) || (now.iosqes === 0 && now.iocqes === 0);
    if (now.en) {
      if (now.css !== 0 || now.mps !== cap.decode(this.#rawCap()).mpsmin || now.ams !== 0 || !entrySizes) throw invalidField(48);
      if (this.subsystem && now.iosqes === 0) throw invalidField(48);
    }
    if (now.shn === 3) throw invalidField(48);
    this.#cc = raw.readUInt32LE(0);
    if (now.en && !before.en) {
      this.#csts = { rdy: 1, shst: 0 };
      this.#mayExpire = 0;
      this.#resetting = false;
      this.#around.native.controllerReady(this.handle, true);
    } else if (!now.en && before.en) {
      this.#reset();
    }
    if (now.shn !== 0 && before.shn === 0) void this.#shutDown();
  }

  #decodeCc() {
    const raw = Buffer.alloc(4);
    raw.writeUInt32LE(this.#cc);
    return cc.decode(raw);
  }

  #rawCap(): Buffer {
    const raw = Buffer.alloc(8);
    raw.writeBigUInt64LE(controllerCap);
    return raw;
  }

  /** CC.EN to 0: the I/O queues are gone, and everything that waited. */
  #reset(): void {
    this.#around.native.controllerReady(this.handle, false);
    this.#csts = { rdy: 0, shst: 0 };
    this.#resetting = true;
    this.#shutdowns++;
    this.#dropQueues();
    for (const { tag } of this.#requests.splice(0)) {
      this.#around.complete(this.admin, tag, statusCode(Status.abortSqDeletion), 0);
    }
    this.#events.clear();
    this.#masked.clear();
    this.changed.clear();
    this.anaChanges = 0n;
    this.groupChanges.clear();
    this.features.events = 0;
    this.setWriteCache(true);
  }

  #dropQueues(): void {
    for (const connection of [...this.queues.values(), ...this.joining]) this.#around.close(connection);
    this.queues.clear();
    this.joining.clear();
  }

  /**
   * CC.SHN: what was written, commands under way included, reaches stable storage before CSTS.SHST says that it is done. One at a
   * time: a host may ask as often as it likes.
   */
  async #shutDown(): Promise<void> {
    this.#csts.shst = 1;
    this.#shutdownWanted = true;
    if (this.#shuttingDown) return; // its end begins the next
    this.#shuttingDown = true;
    while (this.#shutdownWanted) {
      this.#shutdownWanted = false;
      const shutdown = ++this.#shutdowns;
      await this.#settle();
      if (this.#shutdowns === shutdown && !this.#shutdownWanted && this.#csts.shst === 1) this.#csts.shst = 2;
    }
    this.#shuttingDown = false;
  }

  /** Waits for the commands under way, and flushes. */
  async #settle(): Promise<void> {
    if (!this.subsystem) return;
    // a command that hangs was not acknowledged: the host loses nothing that it counts on
    for (const until = performance.now() + shutdownWait; this.#running > 0 && performance.now() < until; )
      await sleep(shutdownLook, undefined, { ref: false });
    await this.#around.flush(this);
  }

  /** I/O commands of all queues that are being done. */
  get #running(): number {
    return this.#around.native.controllerRunning(this.handle);
  }

  /** Ends the association: the engine closes what is left of its connections. */
  end(): void {
    this.keepAlive = 0;
    this.#around.native.controllerReady(this.handle, false);
    this.#around.native.controllerNamespaces(this.handle, []);
    this.#dropQueues();
    this.#around.close(this.admin);
  }

  /** Keeps a failed command for the error log. */
  failed(error: Omit<ErrorRecord, 'count'>): void {
    this.errorCount++;
    if (((error.status >> 8) & 7) === 2) this.mediaErrors++;
    this.errors.unshift({ count: this.errorCount, ...error });
    if (this.errors.length > errorEntries) this.errors.pop();
  }

  namespaceChanged(nsid: number, group?: number): void {
    if (group !== undefined) this.#countAna([group]); // without an event of its own (NVMe Base 2.0, 8.1.3)
    this.changed.add(nsid);
    this.#event(Oaes.namespaceAttribute, Lid.changedNamespaces, AsyncEvent.namespaceChanged);
  }

  /** States of groups have changed on this controller's port. */
  anaChanged(groups: readonly number[]): void {
    this.#countAna(groups);
    this.#event(Oaes.ana, Lid.ana, AsyncEvent.anaChanged);
  }

  /** Counts a change of the ANA log as this controller gives it. */
  #countAna(groups: readonly number[]): void {
    this.anaChanges++;
    for (const group of groups) this.groupChanges.set(group, (this.groupChanges.get(group) ?? 0n) + 1n);
  }

  discoveryChanged(): void {
    this.#event(Oaes.discovery, Lid.discovery, AsyncEvent.discoveryChanged);
  }

  #event(wanted: number, lid: number, dw0: number): void {
    if ((this.features.events & wanted) === 0 || this.#masked.has(lid)) return;
    this.#events.set(lid, dw0);
    this.#tell();
  }

  /** Tells as many events as there are requests for them. */
  #tell(): void {
    for (const [lid, dw0] of this.#events) {
      const request = this.#requests.shift();
      if (!request) return;
      this.#events.delete(lid);
      this.#masked.add(lid);
      this.#around.complete(this.admin, request.tag, 0, dw0);
    }
  }

  /** The host has read a log page: events about it may come again. */
  logRead(lid: number): void {
    this.#masked.delete(lid);
    if (lid === Lid.changedNamespaces) this.changed.clear();
  }
}
