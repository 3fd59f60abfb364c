/**
 * One connection of a host: the handshake, and a submission and completion queue over it. Nothing that the target sends is
 * trusted: every PDU is checked against the command it names before a byte of it is stored.
 */

import net from 'node:net';
import { codeOf, Exit, VioError } from '../../common/errors.js';
import { placeText } from '../../common/text/place.js';
import { native } from '../../native/index.js';
import type { NativeTls } from '../../native/nvme-host.js';
import { withOpenssl } from '../auth/openssl.js';
import {
  buildPdu,
  c2hData,
  checkIcResp,
  cqe,
  Dgst,
  decodeStatus,
  encodePdu,
  Fes,
  fatalErrorText,
  h2cData,
  type Pdu,
  PduError,
  PduFlag,
  PduReader,
  type PduRule,
  pdus,
  psdtSgl,
  r2t,
  Sgl,
  type StatusField,
  sqe as sqeTable,
  termReq,
} from '../wire/index.js';
import { closedByTarget, DigestError, NvmeError, nameOf, timedOut, tlsFailed, unreachable } from './errors.js';

/** Where and how to connect. */
export interface Endpoint {
  address: string;
  port: number;
  headerDigest?: boolean;
  dataDigest?: boolean;
  /** The key of TLS; without it, there is none. */
  tls?: { identity: string; psk: Uint8Array } | undefined;
  /** Longest time for connecting and for each command, in milliseconds. */
  timeout: number;
}

/** A completion, success or not. */
export interface Completion {
  status: StatusField;
  dw0: number;
  dw1: number;
  sqhd: number;
}

/** Data of a command: `out` is written to the controller, `into` is filled by it. Both must stay unchanged until the end. */
export type Transfer = { out: Buffer } | { into: Buffer } | undefined;

interface Pending {
  readonly sqe: Buffer;
  readonly out: Buffer | undefined;
  readonly into: Buffer | undefined;
  /** Bytes received, or asked for by R2Ts. */
  moved: number;
  /** R2Ts whose data has not left yet. */
  asked: number;
  digestBad: boolean;
  readonly deadline: number;
  readonly resolve: (completion: Completion) => void;
  readonly reject: (error: Error) => void;
}

interface Waiting {
  sqe: Buffer;
  transfer: Transfer;
  timeout: number;
  resolve: (completion: Completion) => void;
  reject: (error: Error) => void;
}

/** R2Ts that a controller may have open per command: 1, as MAXR2T = 0 says. */
const maxR2t = 1;
const readBuffer = 256 * 1024;

export class Queue {
  /** 0 is the admin queue. */
  readonly qid: number;
  readonly endpoint: Endpoint;
  /** Bytes of data that fit a command capsule; the controller may raise them after Identify. */
  inCapsule: number;
  /** Largest transfer that any command here asks for: bounds what a C2HData may carry. */
  maxTransfer = 1 << 20;
  headerDigest = false;
  dataDigest = false;
  maxh2cdata = 4096;
  /** Called once when the connection is lost. */
  onLost: ((error: Error) => void) | undefined;

  readonly #socket: net.Socket;
  readonly #tls: NativeTls | undefined;
  #secured = false;
  readonly #reader: PduReader;
  readonly #crc32c = native().common.crc32c;
  readonly #pending = new Map<number, Pending>();
  readonly #waiting: Waiting[] = [];
  #depth = 1;
  #nextCid = 0;
  #align = 4;
  #ready: { resolve: () => void; reject: (error: Error) => void } | undefined;
  #timer: NodeJS.Timeout | undefined;
  #error: Error | undefined;
  #closing = false;
  #icReq: Buffer = Buffer.alloc(0);

  private constructor(qid: number, endpoint: Endpoint) {
    this.qid = qid;
    this.endpoint = endpoint;
    this.inCapsule = qid === 0 ? 8192 : 0;
    this.#reader = new PduReader({
      direction: 'c2h',
      crc32c: this.#crc32c,
      maxData: (rule) => (rule === pdus.c2hData ? this.maxTransfer : 128),
      sink: (rule, header, size) => (rule === pdus.c2hData ? this.#place(header, size) : undefined),
    });
    this.#socket = net.connect({
      host: endpoint.address,
      port: endpoint.port,
      noDelay: true,
      onread: { buffer: Buffer.allocUnsafeSlow(readBuffer), callback: (size, buffer) => this.#received(size, buffer as Buffer) },
    });
    const { tls } = endpoint;
    this.#tls = tls && withOpenssl(() => native().nvmeHost.tlsClient(tls.identity, tls.psk));
    this.#socket.on('error', (err: NodeJS.ErrnoException) => this.#lose(unreachable(this.#where, err)));
    this.#socket.on('close', () => this.#lose(closedByTarget(this.#where)));
  }

  /**
   * Connects and negotiates.
   * @throws VioError: refused, unreachable, timed out, a digest not granted, an ICResp that breaks the protocol
   */
  static async open(qid: number, endpoint: Endpoint): Promise<Queue> {
    const queue = new Queue(qid, endpoint);
    const dgst = (endpoint.headerDigest ? Dgst.header : 0) | (endpoint.dataDigest ? Dgst.data : 0);
    queue.#icReq = encodePdu(pdus.icReq, { dgst, maxr2t: maxR2t - 1 });
    if (queue.#tls) queue.#ciphertext(Buffer.alloc(0));
    else queue.#put(queue.#icReq);
    const timer = setTimeout(() => queue.#lose(timedOut(queue.#where, endpoint.timeout)), endpoint.timeout);
    try {
      await new Promise<void>((resolve, reject) => {
        queue.#ready = { resolve, reject };
      });
    } finally {
      clearTimeout(timer);
    }
    return queue;
  }

  get #where(): string {
    return `${placeText(this.endpoint)}${this.qid > 0 ? ` queue ${this.qid}` : ''}`;
  }

  /** Commands that may be outstanding: the queue's entries less one. */
  set depth(entries: number) {
    this.#depth = Math.max(1, entries);
  }
  get depth(): number {
    return this.#depth;
  }
  /** Commands outstanding or waiting for a place. */
  get load(): number {
    return this.#pending.size + this.#waiting.length;
  }
  /** Why the connection is lost, if it is. */
  get error(): Error | undefined {
    return this.#error;
  }

  /**
   * Submits a command; CID, PSDT and SGL are filled in here. Waits for a place in the queue.
   * @param sqe 64 bytes
   * @returns the completion, whatever its status
   * @throws VioError when the connection is lost, time runs out, or data comes with a wrong digest
   */
  send(sqe: Buffer, transfer?: Transfer, timeout = this.endpoint.timeout): Promise<Completion> {
    return new Promise((resolve, reject) => {
      if (this.#error) reject(this.#error);
      else if (this.#pending.size >= this.#depth) this.#waiting.push({ sqe, transfer, timeout, resolve, reject });
      else this.#start({ sqe, transfer, timeout, resolve, reject });
    });
  }

  /** As send, and an error status is thrown. @throws NvmeError */
  async run(sqe: Buffer, transfer?: Transfer, what?: string): Promise<Completion> {
    const completion = await this.send(sqe, transfer);
    const { sct, sc } = completion.status;
    if (sct !== 0 || sc !== 0) {
      const queue = this.qid === 0 ? 'admin' : 'io';
      throw new NvmeError(what ?? nameOf(sqe, queue), completion.status, completion.dw0, sqe.readUInt8(0) === 0x7f ? 'admin' : queue);
    }
    return completion;
  }

  /** Ends the connection; what is outstanding fails. */
  close(): void {
    this.#closing = true;
    this.#lose(new VioError(`${this.#where}: closed`, { code: 'ECANCELED' }));
  }

  #start({ sqe, transfer, timeout, resolve, reject }: Waiting): void {
    while (this.#pending.has(this.#nextCid)) this.#nextCid = (this.#nextCid + 1) % 0xffff;
    const cid = this.#nextCid;
    this.#nextCid = (cid + 1) % 0xffff;
    const out = transfer && 'out' in transfer ? transfer.out : undefined;
    const into = transfer && 'into' in transfer ? transfer.into : undefined;
    const size = (out ?? into)?.length ?? 0;
    const inCapsule = out !== undefined && size <= this.inCapsule;
    sqeTable.encode({ psdt: psdtSgl, cid, sglAddress: 0n, sglLength: size, sglId: inCapsule ? Sgl.inCapsule : Sgl.commandBuffer }, sqe);
    this.#pending.set(cid, {
      sqe,
      out: inCapsule ? undefined : out,
      into,
      moved: 0,
      asked: 0,
      digestBad: false,
      deadline: performance.now() + timeout,
      resolve,
      reject,
    });
    this.#arm(timeout);
    this.#write(pdus.capsuleCmd, (header) => sqe.copy(header, 8), inCapsule && size > 0 ? out : undefined);
  }

  /** One timer serves all commands: it looks at their deadlines when the earliest may have come. */
  #arm(timeout: number): void {
    if (this.#timer || timeout === Infinity) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      const now = performance.now();
      let next = Infinity;
      for (const { deadline, sqe } of this.#pending.values()) {
        if (deadline <= now + 1) {
          this.#lose(timedOut(`${this.#where}: ${nameOf(sqe, this.qid === 0 ? 'admin' : 'io')}`, this.endpoint.timeout));
          return;
        }
        next = Math.min(next, deadline - now);
      }
      this.#arm(next);
    }, timeout);
  }

  #write(rule: PduRule, fill: (header: Buffer) => void, data?: Buffer, flags = 0, sent?: () => void): void {
    const { head, tail } = buildPdu(rule, fill, {
      flags,
      data,
      align: this.#align,
      headerDigest: this.headerDigest,
      dataDigest: this.dataDigest,
      crc32c: this.#crc32c,
    });
    if (!data) {
      this.#put(head, sent);
      return;
    }
    this.#socket.cork();
    this.#put(head);
    this.#put(data, tail ? undefined : sent);
    if (tail) this.#put(tail, sent);
    this.#socket.uncork();
  }

  #received(size: number, buffer: Buffer): boolean {
    if (this.#error) return false;
    try {
      if (this.#tls) this.#ciphertext(buffer.subarray(0, size));
      else this.#plaintext(buffer.subarray(0, size));
    } catch (err) {
      if (err instanceof PduError) this.#refuse(err);
      else this.#lose(this.#tls && codeOf(err) === 'EPROTO' ? tlsFailed(this.#where, err as Error) : (err as Error));
    }
    return true;
  }

  /** Bytes of the target that came by TLS, or none to begin with. */
  #ciphertext(bytes: Buffer): void {
    const { plain, out, established, ended } = native().nvmeHost.tlsTake(this.#tls!, bytes);
    if (out.length > 0) this.#socket.write(out);
    if (established && !this.#secured) {
      this.#secured = true;
      this.#put(this.#icReq);
    }
    if (plain.length > 0) this.#plaintext(plain);
    if (ended) this.#lose(closedByTarget(this.#where));
  }

  #plaintext(bytes: Buffer): void {
    for (const pdu of this.#reader.push(bytes)) {
      this.#handle(pdu);
      if (this.#error) break;
    }
  }

  /** Sends bytes, by TLS if there is one. */
  #put(bytes: Buffer, sent?: () => void): void {
    this.#socket.write(this.#tls ? native().nvmeHost.tlsPut(this.#tls, bytes) : bytes, sent);
  }

  #handle(pdu: Pdu): void {
    switch (pdu.rule) {
      case pdus.icResp: {
        const asked = { headerDigest: this.endpoint.headerDigest ?? false, dataDigest: this.endpoint.dataDigest ?? false };
        const agreed = checkIcResp(pdu.header, asked);
        for (const [name, flag] of [
          ['headerDigest', '--hdr-digest'],
          ['dataDigest', '--data-digest'],
        ] as const) {
          if (asked[name] && !agreed[name])
            throw new VioError(`${this.#where}: the target does not do the digest asked for`, {
              exit: Exit.unsupported,
              code: 'ENOTSUP',
              hint: `without ${flag}`,
            });
        }
        this.headerDigest = agreed.headerDigest;
        this.dataDigest = agreed.dataDigest;
        this.maxh2cdata = agreed.maxh2cdata;
        this.#align = (agreed.cpda + 1) * 4;
        this.#reader.agree({ ...agreed, align: 4 });
        this.#ready?.resolve();
        this.#ready = undefined;
        break;
      }
      case pdus.c2hTermReq: {
        const { fes, fei } = termReq.decode(pdu.header);
        this.#lose(
          new VioError(`${this.#where}: the target ended the connection: ${fatalErrorText(fes, fei)}`, {
            code: 'EPROTO',
            exit: Exit.damaged,
          }),
        );
        break;
      }
      case pdus.capsuleResp:
        this.#completed(pdu.header);
        break;
      case pdus.c2hData:
        this.#data(pdu);
        break;
      case pdus.r2t:
        this.#readyToTransfer(pdu.header);
        break;
    }
  }

  #fatal(message: string, fes: number, fei: number, header: Buffer): PduError {
    const error = new PduError(message, fes, fei);
    error.header = header;
    return error;
  }

  /** A C2HData header is here: finds the place of its data, or refuses it. */
  #place(header: Buffer, size: number): Buffer {
    const { cccid, datao, datal } = c2hData.decode(header);
    const command = this.#pending.get(cccid);
    if (!command?.into) throw this.#fatal(`C2HData for command ${cccid}, which reads nothing`, Fes.invalidHeader, 8, header);
    if (datal !== size) throw this.#fatal(`C2HData with DATAL ${datal} and ${size} bytes`, Fes.invalidHeader, 16, header);
    if (datao + datal > command.into.length)
      throw this.#fatal(`C2HData beyond the command's ${command.into.length} bytes`, Fes.outOfRange, 0, header);
    if (datao !== command.moved) throw this.#fatal(`C2HData at ${datao}, ${command.moved} was next`, Fes.sequence, 0, header);
    return command.into.subarray(datao, datao + size);
  }

  #data({ header, flags, dataDigestOk }: Pdu): void {
    const { cccid, datal } = c2hData.decode(header);
    const command = this.#pending.get(cccid)!;
    command.moved += datal;
    if (!dataDigestOk) command.digestBad = true;
    if (flags & PduFlag.last && command.moved !== command.into!.length)
      throw this.#fatal(`LAST_PDU after ${command.moved} of ${command.into!.length} bytes`, Fes.sequence, 0, header);
    if (flags & PduFlag.success) this.#finish(cccid, { status: decodeStatus(0), dw0: 0, dw1: 0, sqhd: 0 }, header);
  }

  #completed(header: Buffer): void {
    const { cid, status, dw0, dw1, sqhd } = cqe.decode(header, 8);
    if (!this.#pending.has(cid)) throw this.#fatal(`completion of command ${cid}, which is not outstanding`, Fes.invalidHeader, 20, header);
    this.#finish(cid, { status: decodeStatus(status), dw0, dw1, sqhd }, header);
  }

  #finish(cid: number, completion: Completion, header: Buffer): void {
    const command = this.#pending.get(cid)!;
    const ok = completion.status.sct === 0 && completion.status.sc === 0;
    if (ok && command.into && command.moved !== command.into.length)
      throw this.#fatal(`success after ${command.moved} of ${command.into.length} bytes`, Fes.sequence, 0, header);
    if (ok && command.out && command.moved !== command.out.length)
      throw this.#fatal(`success after ${command.moved} of ${command.out.length} bytes were asked for`, Fes.sequence, 0, header);
    this.#pending.delete(cid);
    if (command.digestBad) command.reject(new DigestError(nameOf(command.sqe, this.qid === 0 ? 'admin' : 'io')));
    else command.resolve(completion);
    const next = this.#waiting.shift();
    if (next) this.#start(next);
  }

  /** The controller asks for data: sends it in H2CData PDUs of MAXH2CDATA at most. */
  #readyToTransfer(header: Buffer): void {
    const { cccid, ttag, r2to, r2tl } = r2t.decode(header);
    const command = this.#pending.get(cccid);
    if (!command?.out) throw this.#fatal(`R2T for command ${cccid}, which has nothing to send`, Fes.invalidHeader, 8, header);
    if (r2tl === 0) throw this.#fatal('R2T of 0 bytes', Fes.invalidHeader, 16, header);
    if (r2to + r2tl > command.out.length)
      throw this.#fatal(`R2T beyond the command's ${command.out.length} bytes`, Fes.outOfRange, 0, header);
    if (r2to !== command.moved) throw this.#fatal(`R2T at ${r2to}, ${command.moved} was next`, Fes.sequence, 0, header);
    if (command.asked >= maxR2t) throw this.#fatal('more R2Ts than MAXR2T', Fes.limitExceeded, 0, header);
    command.moved += r2tl;
    command.asked++;
    for (let at = 0; at < r2tl; ) {
      const datal = Math.min(r2tl - at, this.maxh2cdata);
      const datao = r2to + at;
      at += datal;
      const last = at === r2tl;
      this.#write(
        pdus.h2cData,
        (h) => h2cData.encode({ cccid, ttag, datao, datal }, h),
        command.out.subarray(datao, datao + datal),
        last ? PduFlag.last : 0,
        last ? () => command.asked-- : undefined,
      );
    }
  }

  /** Tells the target what was wrong (H2CTermReq) and ends. */
  #refuse(error: PduError): void {
    if (!error.silent && !this.#socket.destroyed) {
      const { fes, fei, header } = error;
      const last = encodePdu(pdus.h2cTermReq, { fes, fei }, { data: header.subarray(0, 128) });
      this.#socket.end(this.#tls ? native().nvmeHost.tlsPut(this.#tls, last) : last);
    }
    this.#lose(
      new VioError(`${this.#where}: the target broke the protocol: ${error.message}`, { code: 'EPROTO', exit: Exit.damaged, cause: error }),
      true,
    );
  }

  #lose(error: Error, linger = false): void {
    if (this.#error) return;
    this.#error = error;
    clearTimeout(this.#timer);
    // After a TermReq the socket gets a moment to send it, and no longer.
    if (linger) setTimeout(() => this.#socket.destroy(), 200).unref();
    else this.#socket.destroy();
    this.#ready?.reject(error);
    this.#ready = undefined;
    const lost = [...this.#pending.values(), ...this.#waiting];
    this.#pending.clear();
    this.#waiting.length = 0;
    for (const { reject } of lost) reject(error);
    if (!this.#closing) this.onLost?.(error);
  }
}
