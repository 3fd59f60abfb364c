import net, { type AddressInfo } from 'node:net';
import { native } from '../../src/native/index.js';
import {
  AdminOpcode,
  type BuildOptions,
  capsuleResp,
  capValue,
  connectCmd,
  cqe,
  encodeNamespaceList,
  encodePdu,
  Fctype,
  getLogCmd,
  h2cData,
  icReq,
  identifyCmd,
  identifyController,
  identifyNamespace,
  NvmOpcode,
  PduFlag,
  PduReader,
  pdus,
  propertyCmd,
  rwCmd,
  sqe,
} from '../../src/nvme/wire/index.js';

/** One connection of the fake target, with the means to answer rightly or wrongly. */
export class FakeConnection {
  readonly socket: net.Socket;
  digests = 0;
  qid = 0;
  csts = 0;
  readonly #target: FakeTarget;
  readonly #writes = new Map<number, { at: number; data: Buffer }>();

  constructor(target: FakeTarget, socket: net.Socket) {
    this.#target = target;
    this.socket = socket;
    const reader = new PduReader({ direction: 'h2c', crc32c: native().common.crc32c, maxData: () => 1 << 20 });
    socket.on('error', () => {}); // the host may reset: that is what is tested
    socket.on('data', (chunk: Buffer) => {
      try {
        for (const pdu of reader.push(chunk)) {
          if (pdu.rule === pdus.icReq) {
            this.digests = icReq.decode(pdu.header).dgst;
            reader.agree({ headerDigest: (this.digests & 1) !== 0, dataDigest: (this.digests & 2) !== 0 });
            if (!this.#target.hooks.ic?.(this)) this.icResp({});
          } else if (pdu.rule === pdus.capsuleCmd) {
            const command = Buffer.from(pdu.header.subarray(8));
            if (!this.#target.hooks.command?.(this, command, pdu.data)) this.#command(command, Buffer.from(pdu.data));
          } else if (pdu.rule === pdus.h2cData) {
            this.#data(h2cData.decode(pdu.header), pdu.data, pdu.flags);
          } else {
            this.#target.terminated.push(pdu.header.readUInt16LE(8));
          }
        }
      } catch (err) {
        this.#target.faults.push(err as Error);
        socket.destroy();
      }
    });
  }

  build(): BuildOptions {
    return { headerDigest: (this.digests & 1) !== 0, dataDigest: (this.digests & 2) !== 0, crc32c: native().common.crc32c };
  }
  send(bytes: Buffer): void {
    if (!this.socket.destroyed) this.socket.write(bytes);
  }
  icResp(fields: Record<string, number>): void {
    this.send(encodePdu(pdus.icResp, { dgst: this.digests, maxh2cdata: 8192, ...fields }));
  }
  complete(cid: number, fields: { status?: number; dw0?: number; dw1?: number } = {}): void {
    this.send(
      encodePdu(
        { ...pdus.capsuleResp, header: capsuleResp },
        {},
        { ...this.build(), fill: (h) => void cqe.encode({ cid, ...fields }, h, 8) },
      ),
    );
  }
  c2h(cid: number, data: Buffer, fields: { datao?: number; datal?: number } = {}, flags: number = PduFlag.last): void {
    this.send(encodePdu(pdus.c2hData, { cccid: cid, datao: 0, datal: data.length, ...fields }, { ...this.build(), data, flags }));
  }
  r2t(cid: number, fields: { ttag?: number; r2to?: number; r2tl?: number }): void {
    this.send(encodePdu(pdus.r2t, { cccid: cid, ...fields }, this.build()));
  }
  /** Data and completion, as they should be. */
  answer(cid: number, data: Buffer): void {
    this.c2h(cid, data);
    this.complete(cid);
  }

  #command(command: Buffer, data: Buffer): void {
    const { opcode, fctype, cid, nsid, sglLength } = sqe.decode(command);
    if (opcode === AdminOpcode.fabrics) {
      if (fctype === Fctype.connect) {
        this.qid = connectCmd.decode(command).qid;
        this.complete(cid, { dw0: 1 });
      } else if (fctype === Fctype.propertySet) {
        const { value } = propertyCmd.decode(command);
        this.csts = (Number(value) & 1) | ((Number(value) >> 14) & 3 ? 8 : 0);
        this.complete(cid);
      } else {
        const { ofst } = propertyCmd.decode(command);
        const cap = capValue({ mqes: 127, cqr: 1, to: 2, css: 1 });
        const value = ofst === 0 ? cap : BigInt(ofst === 0x1c ? this.csts : 0x20000);
        this.complete(cid, { dw0: Number(value & 0xffffffffn), dw1: Number(value >> 32n) });
      }
    } else if (this.qid > 0) {
      const { slba } = rwCmd.decode(command);
      const at = Number(slba) * 512;
      if (opcode === NvmOpcode.read) this.answer(cid, this.#target.disk.subarray(at, at + sglLength));
      else if (opcode === NvmOpcode.write && data.length > 0) {
        data.copy(this.#target.disk, at);
        this.complete(cid);
      } else if (opcode === NvmOpcode.write) {
        this.#writes.set(cid, { at, data: Buffer.alloc(sglLength) });
        this.r2t(cid, { ttag: cid, r2to: 0, r2tl: sglLength });
      } else this.complete(cid);
    } else if (opcode === AdminOpcode.identify) this.answer(cid, this.#target.identify(identifyCmd.decode(command).cns, nsid));
    else if (opcode === AdminOpcode.getLogPage) {
      const { lpo, numdl, numdu } = getLogCmd.decode(command);
      const at = Number(lpo);
      const page = Buffer.alloc(((numdu << 16) + numdl + 1) * 4);
      this.#target.log.copy(page, 0, at, at + page.length);
      this.answer(cid, page);
    } else this.complete(cid, { dw0: 0x00030003 });
  }

  #data({ cccid, datao }: { cccid: number; datao: number }, data: Buffer, flags: number): void {
    const write = this.#writes.get(cccid);
    if (!write) {
      this.#target.hooks.data?.(this, cccid, data); // asked for by a hook
      return;
    }
    data.copy(write.data, datao);
    if (!(flags & PduFlag.last)) return;
    write.data.copy(this.#target.disk, write.at);
    this.#writes.delete(cccid);
    this.complete(cccid);
  }
}

export interface FakeHooks {
  /** Instead of the ICResp. Returns whether it answered. */
  ic?: (connection: FakeConnection) => boolean;
  /** Instead of the answer to a command. Returns whether it answered. */
  command?: (connection: FakeConnection, command: Buffer, data: Buffer) => boolean;
  /** Takes data that a hook has asked for. */
  data?: (connection: FakeConnection, cid: number, data: Buffer) => void;
}

/** A small target in TypeScript that is right where no hook makes it wrong. One namespace of 1 MiB, 512-byte blocks. */
export class FakeTarget {
  readonly disk = Buffer.alloc(1 << 20);
  readonly hooks: FakeHooks;
  /** Contents of every log page. */
  log: Buffer = Buffer.alloc(0);
  /** Changes to the Identify data. */
  controller: Parameters<typeof identifyController.encode>[0] = {};
  namespace: Parameters<typeof identifyNamespace.encode>[0] = {};
  nsids = [1];
  /** FES of H2CTermReqs received. */
  readonly terminated: number[] = [];
  /** What the host did wrong. */
  readonly faults: Error[] = [];
  readonly #server: net.Server;
  readonly #sockets = new Set<net.Socket>();

  constructor(hooks: FakeHooks = {}) {
    this.hooks = hooks;
    this.#server = net.createServer((socket) => {
      socket.setNoDelay(true);
      this.#sockets.add(socket);
      socket.on('close', () => this.#sockets.delete(socket));
      new FakeConnection(this, socket);
    });
  }
  async listen(): Promise<number> {
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve));
    return (this.#server.address() as AddressInfo).port;
  }
  close(): void {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
  }
  get connections(): number {
    return this.#sockets.size;
  }
  /** Closes connections above this number as they come. */
  limit(connections: number): void {
    this.#server.maxConnections = connections;
  }
  identify(cns: number, nsid: number): Buffer {
    if (cns === 1)
      return identifyController.encode({
        mdts: 3,
        cntlid: 1,
        ver: 0x20000,
        cntrltype: 1,
        kas: 10,
        sqes: 0x66,
        cqes: 0x44,
        nn: 1,
        ioccsz: 4 + 64,
        iorcsz: 1,
        sgls: 0x100001,
        ...this.controller,
      });
    if (cns === 2) return encodeNamespaceList(this.nsids.filter((id) => id > nsid));
    if (cns === 0) return identifyNamespace.encode({ nsze: 2048n, ncap: 2048n, lbafs: [{ ms: 0, ds: 9, rp: 0 }], ...this.namespace });
    return Buffer.alloc(4096);
  }
}
