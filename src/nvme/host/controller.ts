/** An association of a host with a controller: admin queue, enabling, I/O queues, keep-alive, admin commands, shutdown. */
import { Exit, usage, VioError } from '../../common/errors.js';
import { power } from '../auth/dh.js';
import { authenticate, mustAuthenticate } from '../auth/host.js';
import type { Key } from '../auth/keys.js';
import {
  AdminOpcode,
  allNamespaces,
  authCmd,
  authProtocol,
  Cattr,
  Cns,
  cap,
  ccValue,
  connectCmd,
  connectData,
  connectOk,
  csts,
  decodeIdDescriptors,
  decodeNamespaceList,
  dynamicCntlid,
  Fctype,
  Fid,
  featureCmd,
  formatInUse,
  getLogCmd,
  identifyCmd,
  identifyController,
  identifyNamespace,
  identifySize,
  maxNqn,
  type PropertyName,
  properties,
  propertyCmd,
  sqe as sqeTable,
} from '../wire/index.js';
import { NvmeError, timedOut } from './errors.js';
import type { HostIdentity } from './identity.js';
import { type Completion, type Endpoint, Queue, type Transfer } from './queue.js';

/** Keys for DH-HMAC-CHAP. */
export interface ChapOptions {
  key: Key;
  /** With it, the controller must authenticate too. */
  controllerKey?: Key | undefined;
  /** What to offer, when it is not everything. */
  hashes?: readonly number[];
  groups?: readonly number[];
}

export interface ControllerOptions extends Endpoint, HostIdentity {
  subnqn: string;
  chap?: ChapOptions | undefined;
  /** I/O queues wanted; 0 for admin work alone. The controller may grant fewer. */
  ioQueues?: number;
  /** Entries of each I/O queue; bounded by the controller. */
  queueSize?: number;
  /** Keep-alive time-out in milliseconds; 0 switches it off. */
  keepAlive?: number;
  /** Asks for SQ flow control off. */
  sqFlowControlOff?: boolean;
}

/** Entries of the admin queue, as the specification's minimum for Connect asks. */
const adminEntries = 32;
/** Pages of CAP.MPSMIN = 0, what MDTS and others count in. */
const page = 4096;
/** Never ask for more than this in one command, whatever MDTS says. */
const transferLimit = 1 << 20;

/** A namespace as the host uses it. */
export interface NamespaceInfo {
  nsid: number;
  /** blocks */
  blocks: bigint;
  blockSize: number;
  /** metadata bytes per block */
  metadata: number;
  readOnly: boolean;
  identify: ReturnType<typeof identifyNamespace.decode>;
}

export class Controller {
  readonly options: ControllerOptions;
  readonly admin: Queue;
  /** I/O queues, in order of their identifier. */
  readonly queues: Queue[] = [];
  cntlid = 0;
  cap = cap.decode(Buffer.alloc(8));
  vs = 0;
  /** Identify Controller data, decoded; `identifyRaw` are its bytes. */
  identify = identifyController.decode(Buffer.alloc(identifySize));
  identifyRaw: Buffer = Buffer.alloc(0);
  #keepAlive: NodeJS.Timeout | undefined;

  private constructor(options: ControllerOptions, admin: Queue) {
    this.options = options;
    this.admin = admin;
  }

  /**
   * Connects: admin queue, Connect, enable, Identify, I/O queues, keep-alive.
   * @param signal closes it, whatever it does then
   * @throws VioError; nothing stays open then
   */
  static async connect(options: ControllerOptions, signal?: AbortSignal): Promise<Controller> {
    const bytes = Buffer.byteLength(options.subnqn);
    if (bytes === 0 || bytes > maxNqn) throw usage(`not an NQN: ${bytes} bytes`, `an NQN has 1 to ${maxNqn} bytes`);
    const controller = new Controller(options, await Queue.open(0, options, adminEntries));
    signal?.addEventListener('abort', () => controller.close(), { once: true });
    if (signal?.aborted) controller.close();
    try {
      await controller.#start();
      return controller;
    } catch (err) {
      controller.close();
      throw err;
    }
  }

  async #start(): Promise<void> {
    const { admin, options } = this;
    const keepAlive = options.keepAlive ?? 0;
    this.cntlid = await this.#connectQueue(admin, adminEntries, dynamicCntlid, keepAlive);
    const raw = Buffer.alloc(8);
    raw.writeBigUInt64LE(await this.getProperty('CAP'));
    this.cap = cap.decode(raw);
    await this.#enable();
    this.vs = Number(await this.getProperty('VS'));
    if (keepAlive > 0) this.#startKeepAlive(keepAlive);
    this.identifyRaw = await this.identifyData(Cns.controller);
    this.identify = identifyController.decode(this.identifyRaw);
    if ((options.ioQueues ?? 0) > 0) await this.#connectIoQueues(options.ioQueues!);
  }

  async #enable(): Promise<void> {
    const command = ccValue({ en: 1, iosqes: 6, iocqes: 4, css: this.cap.css & 0x40 ? 6 : 0 });
    await this.setProperty('CC', BigInt(command));
    const limit = Math.max(500, Math.min(this.options.timeout, (this.cap.to || 1) * 500));
    const deadline = performance.now() + limit;
    for (let wait = 1; ; wait = Math.min(100, wait * 2)) {
      const { rdy, cfs } = await this.status();
      if (cfs) throw new VioError('the controller reports a fatal error (CSTS.CFS)', { code: 'EIO' });
      if (rdy) return;
      if (performance.now() > deadline) throw timedOut('CSTS.RDY', limit);
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }

  #startKeepAlive(kato: number): void {
    // Half the time leaves room for one lost beat; a target with TBKAS needs fewer, but more never hurt.
    this.#keepAlive = setInterval(() => {
      const sqe = sqeTable.encode({ opcode: AdminOpcode.keepAlive });
      this.admin.run(sqe).catch((err: Error) => {
        if (!this.admin.error) this.close(err);
      });
    }, kato / 2);
    this.#keepAlive.unref();
  }

  async #connectIoQueues(wanted: number): Promise<void> {
    const count = Math.min(wanted, 0xfffe);
    const asked = (count - 1) | ((count - 1) << 16);
    const { dw0 } = await this.setFeature(Fid.numberOfQueues, asked >>> 0);
    const granted = Math.min(count, (dw0 & 0xffff) + 1, (dw0 >>> 16) + 1);
    const entries = Math.max(2, Math.min(this.options.queueSize ?? 128, this.cap.mqes + 1, this.identify.maxcmd || 0xffff));
    const inCapsule = Math.max(0, Math.min(this.identify.ioccsz * 16, 1 << 24) - 64);
    for (let qid = 1; qid <= granted; qid++) {
      const queue = await Queue.open(qid, this.options, entries);
      this.queues.push(queue);
      await this.#connectQueue(queue, entries, this.cntlid, 0);
      queue.inCapsule = this.identify.icdoff === 0 ? inCapsule : 0;
    }
  }

  /** Connects a queue, and authenticates it if the target wants that. @returns the controller's identifier */
  async #connectQueue(queue: Queue, entries: number, cntlid: number, kato: number): Promise<number> {
    const { dw0 } = await this.#sendConnect(queue, entries, cntlid, kato);
    const result = Buffer.alloc(4);
    result.writeUInt32LE(dw0);
    const { cntlid: given, authreq } = connectOk.decode(result);
    const { chap } = this.options;
    if (mustAuthenticate(queue.qid, authreq, chap?.controllerKey !== undefined)) await this.authenticate(queue);
    return given;
  }

  /** DH-HMAC-CHAP on a queue; also again, at any time. @throws VioError */
  authenticate(queue: Queue): Promise<void> {
    const { hostnqn, subnqn, chap } = this.options;
    const command = (fctype: number, length: number) => {
      const sqe = sqeTable.encode({ opcode: AdminOpcode.fabrics, fctype });
      return authCmd.encode({ ...authProtocol, length }, sqe);
    };
    const transport = {
      send: async (message: Buffer) => void (await queue.run(command(Fctype.authSend, message.length), { out: message })),
      receive: async (size: number) => {
        const into = Buffer.alloc(size);
        await queue.run(command(Fctype.authReceive, size), { into });
        return into;
      },
    };
    return authenticate(transport, { ...chap, hostnqn, subnqn, key: chap?.key, power });
  }

  #sendConnect(queue: Queue, entries: number, cntlid: number, kato: number): Promise<Completion> {
    const { hostid, hostnqn, subnqn, sqFlowControlOff } = this.options;
    const sqe = sqeTable.encode({ opcode: AdminOpcode.fabrics, fctype: Fctype.connect });
    connectCmd.encode({ qid: queue.qid, sqsize: entries - 1, cattr: sqFlowControlOff ? Cattr.sqFlowControlOff : 0, kato }, sqe);
    const inCapsule = queue.inCapsule;
    queue.inCapsule = Math.max(inCapsule, connectData.size); // Connect's data is always in the capsule
    const done = queue.run(sqe, { out: connectData.encode({ hostid, cntlid, subnqn, hostnqn }) }, 'connect');
    queue.inCapsule = inCapsule;
    return done;
  }

  /** Largest transfer of one command in bytes: MDTS, and our own limit. */
  get maxTransfer(): number {
    const { mdts } = this.identify;
    return mdts === 0 ? transferLimit : Math.min(transferLimit, page * 2 ** Math.min(mdts, 20));
  }

  #property(name: PropertyName): Promise<Completion> {
    const { offset, size } = properties[name];
    const sqe = sqeTable.encode({ opcode: AdminOpcode.fabrics, fctype: Fctype.propertyGet });
    propertyCmd.encode({ attrib: size === 8 ? 1 : 0, ofst: offset }, sqe);
    return this.admin.run(sqe, undefined, `property get ${name}`);
  }

  async getProperty(name: PropertyName): Promise<bigint> {
    const { dw0, dw1 } = await this.#property(name);
    return properties[name].size === 8 ? BigInt(dw0) | (BigInt(dw1) << 32n) : BigInt(dw0);
  }

  async setProperty(name: PropertyName, value: bigint): Promise<void> {
    const { offset, size } = properties[name];
    const sqe = sqeTable.encode({ opcode: AdminOpcode.fabrics, fctype: Fctype.propertySet });
    propertyCmd.encode({ attrib: size === 8 ? 1 : 0, ofst: offset, value }, sqe);
    await this.admin.run(sqe, undefined, `property set ${name}`);
  }

  /** CSTS. */
  async status(): Promise<ReturnType<typeof csts.decode>> {
    const raw = Buffer.alloc(4);
    raw.writeUInt32LE(Number(await this.getProperty('CSTS')));
    return csts.decode(raw);
  }

  /** An admin command with data to the host. */
  async adminRead(sqe: Buffer, size: number, what: string): Promise<Buffer> {
    const into = Buffer.alloc(size);
    await this.admin.run(sqe, size > 0 ? { into } : undefined, what);
    return into;
  }

  /** Identify: 4096 bytes. @param cns see Cns */
  identifyData(cns: number, nsid = 0, fields: { cntid?: number; csi?: number } = {}): Promise<Buffer> {
    const sqe = sqeTable.encode({ opcode: AdminOpcode.identify, nsid });
    identifyCmd.encode({ cns, ...fields }, sqe);
    const where = nsid === 0 ? '' : ` of namespace ${nsid}`;
    return this.adminRead(sqe, identifySize, `identify (CNS ${cns.toString(16).padStart(2, '0')}h)${where}`);
  }

  /** NSIDs of all active namespaces. @throws VioError when the target's lists never end */
  async namespaces(): Promise<number[]> {
    const all: number[] = [];
    for (;;) {
      const list = decodeNamespaceList(await this.identifyData(Cns.activeNamespaces, all.at(-1) ?? 0));
      if (list.length > 0 && list[0]! <= (all.at(-1) ?? 0))
        throw new VioError('the target repeats its namespace list', { code: 'EPROTO', exit: Exit.damaged });
      all.push(...list);
      if (list.length < identifySize / 4 || all.length > 1 << 20) return all;
    }
  }

  /** What reading and writing a namespace takes. @throws VioError on an inactive one or a format that cannot be */
  async namespace(nsid: number): Promise<NamespaceInfo> {
    const identify = identifyNamespace.decode(await this.identifyData(Cns.namespace, nsid));
    if (identify.nsze === 0n)
      throw new VioError(`namespace ${nsid} is not active`, { code: 'ENXIO', hint: 'vioctl nvmf identify lists the namespaces' });
    const { ds, ms } = formatInUse(identify);
    if (ds < 9 || ds > 20 || identify.nsze > 1n << BigInt(63 - ds))
      throw new VioError(`namespace ${nsid} says ${identify.nsze} blocks of 2^${ds} bytes`, { code: 'EPROTO', exit: Exit.damaged });
    if (ms !== 0)
      throw new VioError(`namespace ${nsid} has ${ms} bytes of metadata per block`, { code: 'ENOTSUP', exit: Exit.unsupported });
    return { nsid, blocks: identify.nsze, blockSize: 2 ** ds, metadata: ms, readOnly: (identify.nsattr & 1) !== 0, identify };
  }

  /** Namespace identification descriptors (CNS 03h). */
  async descriptors(nsid: number): Promise<{ type: number; id: Buffer }[]> {
    return decodeIdDescriptors(await this.identifyData(Cns.namespaceDescriptors, nsid));
  }

  /**
   * Reads a log page, in pieces of the largest transfer.
   * @param fields nsid, lsp, rae and others of the command
   */
  async getLog(
    lid: number,
    size: number,
    fields: { nsid?: number; lsp?: number; rae?: number; lpo?: bigint; lsi?: number; csi?: number } = {},
  ): Promise<Buffer> {
    const { nsid = allNamespaces, lpo = 0n, ...rest } = fields;
    const whole = Buffer.alloc(size);
    for (let at = 0; at < size; ) {
      const piece = whole.subarray(at, at + Math.min(size - at, this.maxTransfer));
      const dwords = piece.length / 4 - 1;
      const sqe = sqeTable.encode({ opcode: AdminOpcode.getLogPage, nsid });
      getLogCmd.encode({ lid, numdl: dwords & 0xffff, numdu: dwords >>> 16, lpo: lpo + BigInt(at), ...rest }, sqe);
      await this.admin.run(sqe, { into: piece }, `get log page ${lid.toString(16).padStart(2, '0')}h`);
      at += piece.length;
    }
    return whole;
  }

  setFeature(fid: number, value: number, transfer?: Transfer): Promise<Completion> {
    const sqe = sqeTable.encode({ opcode: AdminOpcode.setFeatures });
    featureCmd.encode({ fid, value }, sqe);
    return this.admin.run(sqe, transfer, `set feature ${fid.toString(16).padStart(2, '0')}h`);
  }

  /** Value of a feature (dw0). @param sel 0 current, 1 default, 2 saved, 3 supported */
  async getFeature(fid: number, sel = 0): Promise<number> {
    const sqe = sqeTable.encode({ opcode: AdminOpcode.getFeatures });
    featureCmd.encode({ fid, sel }, sqe);
    return (await this.admin.run(sqe, undefined, `get feature ${fid.toString(16).padStart(2, '0')}h`)).dw0;
  }

  /** One Keep Alive. @returns the time until it was answered, in nanoseconds */
  async keepAlive(): Promise<number> {
    return (await this.admin.run(sqeTable.encode({ opcode: AdminOpcode.keepAlive }))).nanoseconds;
  }
  /** A Keep Alive, or the reading of a property if the controller has none. @returns as keepAlive() */
  async roundTrip(): Promise<number> {
    return this.identify.kas > 0 ? this.keepAlive() : (await this.#property('CSTS')).nanoseconds;
  }

  /** An Asynchronous Event Request: dw0 of the event, whenever it comes. */
  async nextEvent(): Promise<number> {
    const completion = await this.admin.send(sqeTable.encode({ opcode: AdminOpcode.asyncEventRequest }), undefined, Infinity);
    if (completion.status.sct !== 0 || completion.status.sc !== 0)
      throw new NvmeError('asynchronous event request', completion.status, completion.dw0, 'admin');
    return completion.dw0;
  }

  /** Orderly end: normal shutdown, waited for briefly, then the connections. Never throws: what is lost is closed anyway. */
  async disconnect(): Promise<void> {
    clearInterval(this.#keepAlive);
    for (const queue of this.queues) queue.close();
    try {
      if (!this.admin.error) {
        const command = ccValue({ en: 1, iosqes: 6, iocqes: 4, css: this.cap.css & 0x40 ? 6 : 0, shn: 1 });
        await this.setProperty('CC', BigInt(command));
        const deadline = performance.now() + Math.min(2000, this.options.timeout);
        while ((await this.status()).shst !== 2 && performance.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 5));
      }
    } catch (err) {
      if (!(err instanceof VioError)) throw err;
    }
    this.close();
  }

  /** Ends at once. */
  close(_why?: Error): void {
    clearInterval(this.#keepAlive);
    for (const queue of this.queues) queue.close();
    this.admin.close();
  }
}
