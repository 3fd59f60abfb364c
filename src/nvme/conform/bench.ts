/** What a case works with: the target's facts, and connections in any state, all closed when the case ends. */
import fs from 'node:fs';
import net from 'node:net';
import { VioError } from '../../common/errors.js';
import type { TlsKey } from '../../native/nvme-host.js';
import { power } from '../auth/dh.js';
import { authenticate } from '../auth/host.js';
import type { ChapOptions, Controller, HostIdentity, NamespaceInfo } from '../host/index.js';
import {
  AdminOpcode,
  AuthReq,
  authCmd,
  authProtocol,
  ccValue,
  connectCmd,
  connectData,
  discoveryNqn,
  dynamicCntlid,
  Fctype,
  Fid,
  featureCmd,
  NvmOpcode,
  propertyCmd,
  rwCmd,
} from '../wire/index.js';
import { Bytes } from './bytes.js';
import { describeOutcome } from './expect.js';
import { type CommandOptions, type Outcome, RawConnection, type RawOptions } from './raw.js';

/** How long another host waits for each answer before silence is believed, in milliseconds. */
const answerLimit = 8000;
/** How long CSTS may take to change, in milliseconds. */
const statusLimit = 10000;
/** Bytes of data that fit a command capsule of an admin queue (NVMe TCP Transport 1.0, 3.3.1.2). */
const adminCapsule = 8192;
/** How long a host may try to get in beside a crowd, in milliseconds. */
const crowdLimit = 30000;
/** Descriptors that are kept for everything else. */
const reservedFiles = 100;
/** The limit on open files of this process. */
export function openFilesLimit(): number {
  const limits = fs.readFileSync('/proc/self/limits', 'utf8');
  return Number(/^Max open files\s+(\d+)/m.exec(limits)?.[1] ?? 1024);
}

/** What is known of the target before the first case. */
export interface Facts extends HostIdentity {
  address: string;
  port: number;
  subnqn: string;
  identify: Controller['identify'];
  cap: Controller['cap'];
  /** the namespace that I/O cases use */
  ns: NamespaceInfo;
  nsids: number[];
  /** bytes of data that fit a command capsule of an I/O queue */
  inCapsule: number;
  maxTransfer: number;
  /** Whether the discovery service answers at this address. */
  discovery?: boolean;
  /** Keys of DH-HMAC-CHAP; and the hash function and group that the target chooses, if it asks for authentication. */
  chap?: ChapOptions & { chosen?: { hash: number; group: number } };
  /** The key of TLS, with which every connection begins. */
  tls?: TlsKey;
  /** The same for the discovery service. */
  discoveryTls?: TlsKey;
  /** Whether discovery says that TLS is required here, if it says anything. */
  tlsRequired?: boolean;
  /** Another address of the same subsystem, by the discovery log. */
  other?: { address: string; port: number };
  /** Changes what the discovery log lists, if whoever runs the cases knows how. */
  change?: () => Promise<void>;
  /** Changes the ANA state of a group at this address alone, if whoever runs the cases knows how. */
  changeAna?: () => Promise<void>;
}

/** The way to the point that a case is about did not work. */
export class SetupError extends VioError {}

export interface ConnectFields {
  qid?: number;
  sqsize?: number;
  cntlid?: number;
  kato?: number;
  cattr?: number;
  hostnqn?: string;
  hostid?: Buffer;
  subnqn?: string;
  /** Changes the 1024 bytes of data before they leave. */
  spoilData?: (data: Buffer) => void;
}

export interface Session {
  admin: RawConnection;
  io: RawConnection;
  cntlid: number;
}

export class Bench {
  readonly facts: Facts;
  readonly #open: (RawConnection | Bytes)[] = [];
  readonly #silent: net.Socket[] = [];
  #progress = performance.now();

  constructor(facts: Facts) {
    this.facts = facts;
  }

  /** Bytes of one block. */
  get bs(): number {
    return this.facts.ns.blockSize;
  }

  /** TCP, and TLS where it is used. @param subnqn of the Connect to come, where it matters for the key */
  async raw(at: { address: string; port: number } = this.facts, subnqn?: string): Promise<RawConnection> {
    const { tls, discoveryTls } = this.facts;
    const key = subnqn === discoveryNqn ? discoveryTls : tls;
    const connection = await RawConnection.open(at.address, at.port, undefined, () => this.#answers(at), key);
    this.#open.push(connection);
    return connection;
  }

  /** TCP alone, and no PDUs. */
  async bytes(): Promise<Bytes> {
    const connection = await Bytes.open(this.facts, () => this.#answers(this.facts));
    this.#open.push(connection);
    return connection;
  }

  /** When something came last on any connection, by performance.now(), or a crowd grew; the start of the case, if nothing has. */
  heardAt(): number {
    return Math.max(this.#progress, ...this.#open.map((connection) => connection.heardAt));
  }

  /** Waits until the target has refused a Connect of one more host: whatever it had to do before is done then. */
  async #answers({ address, port }: { address: string; port: number }): Promise<void> {
    let connection: RawConnection | undefined;
    try {
      connection = await RawConnection.open(address, port, answerLimit, undefined, this.facts.tls);
      await connection.initialise({}, {}, answerLimit);
      await this.connect(connection, { subnqn: `${discoveryNqn}.nothing` }, { wait: answerLimit });
    } catch {
      // it takes no more connections: that is an answer as well
    } finally {
      connection?.close();
    }
  }

  /**
   * Opens connections that say nothing, or one thing: as many as asked for, or as the limit on open files and the target allow.
   * @returns how many were open in the end
   */
  async silent(count: number, first?: () => Buffer): Promise<number> {
    const wanted = Math.min(count, openFilesLimit() - reservedFiles);
    const sockets = this.#silent;
    for (let at = 0; at < wanted; ) {
      const batch: Promise<void>[] = [];
      for (const end = Math.min(wanted, at + 256); at < end; at++) {
        const socket = net.connect({ host: this.facts.address, port: this.facts.port });
        sockets.push(socket);
        // refused or ended by the target: that is its way to keep itself free
        batch.push(
          new Promise(
            (resolve) =>
              void socket
                .on('error', () => resolve())
                .once('connect', () => (first ? socket.write(first(), () => resolve()) : resolve()))
                .once('close', () => resolve()),
          ),
        );
      }
      let timer: NodeJS.Timeout | undefined;
      const patience = new Promise((resolve) => {
        timer = setTimeout(resolve, 2000);
      });
      await Promise.race([Promise.all(batch), patience]);
      clearTimeout(timer);
      this.#progress = performance.now();
    }
    for (const socket of sockets) socket.resume();
    return sockets.filter((socket) => !socket.destroyed && !socket.connecting).length;
  }

  /** After ICReq and ICResp. */
  async initialised(options: RawOptions = {}, at?: { address: string; port: number }, subnqn?: string): Promise<RawConnection> {
    const connection = await this.raw(at, subnqn);
    await expectSetup('ICReq', connection.initialise(options), 'icresp');
    return connection;
  }

  /** Connect, as it is or with other fields. */
  connect(connection: RawConnection, fields: ConnectFields = {}, options: CommandOptions = {}): Promise<Outcome> {
    const { hostid, hostnqn, subnqn } = this.facts;
    const data = connectData.encode({
      hostid: fields.hostid ?? hostid,
      cntlid: fields.cntlid ?? dynamicCntlid,
      subnqn: fields.subnqn ?? subnqn,
      hostnqn: fields.hostnqn ?? hostnqn,
    });
    fields.spoilData?.(data);
    const { qid = 0, sqsize = 31, kato = 0, cattr = 0 } = fields;
    connection.qid = qid;
    return connection.command(
      { opcode: AdminOpcode.fabrics, fctype: Fctype.connect },
      {
        data,
        inCapsule: true,
        ...options,
        tweak: (sqe) => {
          connectCmd.encode({ qid, sqsize, kato, cattr }, sqe);
          options.tweak?.(sqe);
        },
      },
    );
  }

  /** An admin queue that is connected, and authenticated if the target asks for it; the controller is not enabled yet. */
  async connected(options: RawOptions = {}, fields: ConnectFields = {}): Promise<{ admin: RawConnection; cntlid: number }> {
    const admin = await this.initialised(options, undefined, fields.subnqn);
    return { admin, cntlid: await this.join(admin, fields) };
  }

  /** Connect, and authentication if the target asks for it. @returns the controller ID @throws SetupError */
  async join(connection: RawConnection, fields: ConnectFields = {}): Promise<number> {
    const { dw0 } = await expectSetup(`Connect of queue ${fields.qid ?? 0}`, this.connect(connection, fields), 'cqe');
    if ((dw0 >> 16) & AuthReq.required) await this.prove(connection, fields);
    return dw0 & 0xffff;
  }

  /** Authenticates a queue that is connected. @throws SetupError */
  async prove(connection: RawConnection, fields: ConnectFields = {}): Promise<void> {
    const { hostnqn = this.facts.hostnqn, subnqn = this.facts.subnqn } = fields;
    const { chap } = this.facts;
    const transport = {
      send: async (message: Buffer) => void (await expectSetup('Authentication Send', this.authSend(connection, message), 'cqe')),
      receive: async (size: number) => (await expectSetup('Authentication Receive', this.authReceive(connection, size), 'cqe')).data,
    };
    await authenticate(transport, { key: chap?.key, controllerKey: chap?.controllerKey, hostnqn, subnqn, power });
  }

  /** Authentication Send, as it is or with other fields. */
  authSend(
    connection: RawConnection,
    message: Buffer,
    fields: Parameters<typeof authCmd.encode>[0] = {},
    options: CommandOptions = {},
  ): Promise<Outcome> {
    const command = { ...authProtocol, length: message.length, ...fields };
    return connection.command(
      { opcode: AdminOpcode.fabrics, fctype: Fctype.authSend },
      {
        data: message,
        inCapsule: message.length <= (connection.qid === 0 ? adminCapsule : this.facts.inCapsule),
        ...options,
        tweak: (sqe) => void authCmd.encode(command, sqe),
      },
    );
  }

  /** Authentication Receive, likewise. */
  authReceive(
    connection: RawConnection,
    size: number,
    fields: Parameters<typeof authCmd.encode>[0] = {},
    options: CommandOptions = {},
  ): Promise<Outcome> {
    const command = { ...authProtocol, length: size, ...fields };
    return connection.command(
      { opcode: AdminOpcode.fabrics, fctype: Fctype.authReceive },
      { read: size, ...options, tweak: (sqe) => void authCmd.encode(command, sqe) },
    );
  }

  /** A connected and enabled controller. */
  async admin(options: RawOptions = {}, fields: ConnectFields = {}): Promise<{ admin: RawConnection; cntlid: number }> {
    const { admin, cntlid } = await this.connected(options, fields);
    await this.enable(admin);
    return { admin, cntlid };
  }

  /** CC.EN = 1, and CSTS.RDY after that. */
  async enable(admin: RawConnection): Promise<void> {
    const css = this.facts.cap.css & 0x40 ? 6 : 0;
    await expectSetup('CC.EN=1', this.setProperty(admin, 0x14, BigInt(ccValue({ en: 1, iosqes: 6, iocqes: 4, css }))), 'cqe');
    if (!(await this.becomes(admin, (csts) => (csts & 1) === 1))) throw new SetupError('CSTS.RDY does not become 1', { code: 'EIO' });
  }

  /** Reads CSTS until it is as wanted, for `statusLimit` at most. @returns whether it has become so @throws SetupError */
  async becomes(admin: RawConnection, wanted: (csts: number) => boolean): Promise<boolean> {
    for (const end = performance.now() + statusLimit; performance.now() < end; ) {
      const { dw0 } = await expectSetup('Property Get CSTS', this.getProperty(admin, 0x1c), 'cqe');
      if (wanted(dw0)) return true;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    return false;
  }

  /** READ of a host that comes when a crowd is there: it tries again while the target is busy, as hosts do. @throws VioError */
  async servedAfterAll(): Promise<Outcome> {
    for (const end = performance.now() + crowdLimit; ; ) {
      try {
        const { io } = await this.session();
        return await this.read(io, 0n);
      } catch (err) {
        if (!(err instanceof VioError) || performance.now() > end) throw err;
        await new Promise((resolve) => setTimeout(resolve, 500));
      }
    }
  }

  /** An enabled controller with I/O queue 1. */
  async session(options: RawOptions = {}, fields: ConnectFields = {}, ioOptions: RawOptions = options): Promise<Session> {
    const { admin, cntlid } = await this.admin(options, fields);
    await expectSetup('Number of Queues', this.feature(admin, Fid.numberOfQueues, 0), 'cqe');
    const io = await this.ioQueue(cntlid, 1, ioOptions);
    return { admin, io, cntlid };
  }

  async ioQueue(cntlid: number, qid: number, options: RawOptions = {}, fields: ConnectFields = {}): Promise<RawConnection> {
    const io = await this.initialised(options);
    await this.join(io, { qid, cntlid, sqsize: this.entries - 1, ...fields });
    return io;
  }

  /** Entries of the I/O queues that cases use. */
  get entries(): number {
    return Math.max(2, Math.min(32, this.facts.cap.mqes + 1));
  }

  getProperty(connection: RawConnection, ofst: number, attrib = 0): Promise<Outcome> {
    return connection.command(
      { opcode: AdminOpcode.fabrics, fctype: Fctype.propertyGet },
      { tweak: (sqe) => void propertyCmd.encode({ attrib, ofst }, sqe) },
    );
  }

  setProperty(connection: RawConnection, ofst: number, value: bigint, attrib = 0): Promise<Outcome> {
    return connection.command(
      { opcode: AdminOpcode.fabrics, fctype: Fctype.propertySet },
      { tweak: (sqe) => void propertyCmd.encode({ attrib, ofst, value }, sqe) },
    );
  }

  feature(connection: RawConnection, fid: number, value: number): Promise<Outcome> {
    return connection.command({ opcode: AdminOpcode.setFeatures }, { tweak: (sqe) => void featureCmd.encode({ fid, value }, sqe) });
  }

  /** READ of blocks. */
  read(io: RawConnection, slba: bigint, blocks = 1, options: CommandOptions = {}): Promise<Outcome> {
    return io.command({ opcode: NvmOpcode.read, nsid: this.facts.ns.nsid }, this.rw(slba, blocks, { read: blocks * this.bs, ...options }));
  }

  /** WRITE of data. */
  write(io: RawConnection, slba: bigint, data: Buffer, options: CommandOptions = {}): Promise<Outcome> {
    const inCapsule = data.length <= this.facts.inCapsule;
    return io.command(
      { opcode: NvmOpcode.write, nsid: this.facts.ns.nsid },
      this.rw(slba, Math.ceil(data.length / this.bs), { data, inCapsule, ...options }),
    );
  }

  /** Options of a command with SLBA and NLB. */
  rw(slba: bigint, blocks: number, options: CommandOptions): CommandOptions {
    return {
      ...options,
      tweak: (sqe) => {
        rwCmd.encode({ slba, nlb: blocks - 1 }, sqe);
        options.tweak?.(sqe);
      },
    };
  }

  /** What the first blocks hold, to be put back. */
  async contents(io: RawConnection, blocks = 1, slba = 0n): Promise<Buffer> {
    return (await expectSetup('READ', this.read(io, slba, blocks), 'cqe')).data;
  }

  close(): void {
    for (const connection of this.#open.splice(0)) connection.close();
    for (const socket of this.#silent.splice(0)) socket.destroy();
  }
}

type Of<K extends Outcome['kind']> = Extract<Outcome, { kind: K }>;

/** The outcome, which must be of this kind; a completion must be a success. @throws SetupError */
export async function expectSetup<K extends Outcome['kind']>(what: string, outcome: Promise<Outcome>, kind: K): Promise<Of<K>> {
  const o = await outcome;
  if (o.kind !== kind || (o.kind === 'cqe' && (o.sct !== 0 || o.sc !== 0)))
    throw new SetupError(`${what}: ${describeOutcome(o)}`, { code: 'EPROTO' });
  return o as Of<K>;
}
