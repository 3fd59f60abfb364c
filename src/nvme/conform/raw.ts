/**
 * A host that does what it is told: sends any bytes, waits a bounded time, and reports what came back. Only for judging
 * targets; a real host is in ../host.
 */
import net from 'node:net';
import { codeOf, VioError, wrap } from '../../common/errors.js';
import { native } from '../../native/index.js';
import type { NativeTls, TlsKey } from '../../native/nvme-host.js';
import { withOpenssl } from '../auth/openssl.js';
import {
  type BuildOptions,
  c2hData,
  cqe,
  decodeStatus,
  encodePdu,
  h2cData,
  icReq,
  icResp,
  type Pdu,
  PduError,
  PduFlag,
  PduReader,
  pdus,
  psdtSgl,
  r2t,
  Sgl,
  sqe as sqeTable,
  termReq,
} from '../wire/index.js';

/** What a target did. */
export type Outcome =
  | {
      kind: 'cqe';
      cid: number;
      sct: number;
      sc: number;
      dnr: boolean;
      dw0: number;
      dw1: number;
      sqhd: number;
      data: Buffer;
      flagged: boolean;
    }
  | { kind: 'icresp'; cpda: number; dgst: number; maxh2cdata: number }
  | { kind: 'r2t'; cccid: number; ttag: number; r2to: number; r2tl: number }
  | { kind: 'term'; fes: number; fei: number }
  | { kind: 'closed' }
  | { kind: 'silent' }
  /** The target itself broke the protocol. */
  | { kind: 'broken'; text: string }
  /** A finding of a case with several steps. */
  | { kind: 'finding'; ok: boolean; text: string /** Under which conditions, for the report. */; note?: string };

export const finding = (ok: boolean, text: string, note?: string): Outcome => ({
  kind: 'finding',
  ok,
  text,
  ...(note !== undefined && { note }),
});

export interface RawOptions {
  headerDigest?: boolean;
  dataDigest?: boolean;
  /** HPDA of our ICReq. */
  hpda?: number;
}

/** How long silence is waited for, in milliseconds; then until the target has answered another host (see `Liveness`). */
export const patience = 2000;

/** Resolves when the target has answered another host, or will not: on a busy machine an answer may take longer than `patience`. */
export type Liveness = () => Promise<void>;

type SqeFields = Parameters<typeof sqeTable.encode>[0];
/** A change to the 64 bytes after the tables have filled them. */
export type Tweak = (sqe: Buffer) => void;
export interface CommandOptions {
  /** Data to send: in the capsule if `inCapsule`, else when asked for. */
  data?: Buffer;
  inCapsule?: boolean;
  /** SGL length; that of the data, or of `read`, unless given. */
  length?: number;
  /** Bytes expected to come. */
  read?: number;
  tweak?: Tweak;
  cid?: number;
  wait?: number;
  /** Changes the whole PDU before it leaves. */
  spoil?: (pdu: Buffer) => void;
}

/**
 * Connects.
 * @param limit in milliseconds
 * @param use takes the socket before anything can come or go wrong
 * @throws VioError
 */
export function connectTo<T>(to: { address: string; port: number }, limit: number, use: (socket: net.Socket) => T): Promise<T> {
  return new Promise((resolve, reject) => {
    const socket = net.connect({ host: to.address, port: to.port, noDelay: true });
    const timer = setTimeout(() => socket.destroy(new VioError('connect: no answer', { code: 'ETIMEDOUT' })), limit);
    socket.once('error', (err) => {
      clearTimeout(timer);
      reject(wrap(`connect ${to.address}:${to.port}`, err));
    });
    socket.once('connect', () => {
      clearTimeout(timer);
      socket.removeAllListeners('error');
      resolve(use(socket));
    });
  });
}

/** Wakes one that waits for something to come. */
export class Bell {
  #ring: (() => void) | undefined;

  ring(): void {
    this.#ring?.();
  }

  /** Resolves when it rings, or after some milliseconds. */
  async wait(most: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, most);
      this.#ring = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    this.#ring = undefined;
  }
}

export class RawConnection {
  readonly socket: net.Socket;
  /** Of the last Connect. */
  qid = 0;
  maxh2cdata = 4096;
  /** When something came last, by performance.now(). */
  heardAt = performance.now();
  readonly #alive: Liveness | undefined;
  readonly #tls: NativeTls | undefined;
  #established: (() => void) | undefined;
  #reader: PduReader;
  #options: RawOptions = {};
  #align = 4;
  #events: Outcome[] = [];
  #data = new Map<number, Buffer[]>();
  readonly #bell = new Bell();
  #ended: Outcome | undefined;
  #cid = 1;
  /** Completions that came while another one was waited for. */
  readonly #passed = new Map<number, Outcome>();
  /** Data to send when the target asks: by CID. */
  readonly #sources = new Map<number, Buffer>();

  private constructor(socket: net.Socket, alive: Liveness | undefined, tls: TlsKey | undefined) {
    this.socket = socket;
    this.#alive = alive;
    this.#tls = tls && withOpenssl(() => native().nvmeHost.tlsClient(tls.identity, tls.psk));
    this.#reader = new PduReader({ direction: 'c2h', crc32c: native().common.crc32c, maxData: () => 16 << 20 });
    socket.on('data', (chunk: Buffer) => this.#received(chunk));
    socket.on('error', () => this.#end({ kind: 'closed' })); // a reset is a way of closing
    socket.on('close', () => this.#end({ kind: 'closed' }));
  }

  /**
   * A TCP connection, with TLS if there is a key for it, and nothing else sent.
   * @param alive asked before silence is believed @throws VioError
   */
  static async open(address: string, port: number, limit = 10000, alive?: Liveness, tls?: TlsKey): Promise<RawConnection> {
    const connection = await RawConnection.#connect(address, port, limit, alive, tls);
    if (tls) await connection.#secure(limit);
    return connection;
  }

  static #connect(address: string, port: number, limit: number, alive?: Liveness, tls?: TlsKey): Promise<RawConnection> {
    return connectTo({ address, port }, limit, (socket) => new RawConnection(socket, alive, tls));
  }

  /** The TLS handshake. @throws VioError */
  async #secure(limit: number): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const done = await new Promise<boolean>((resolve) => {
      timer = setTimeout(() => resolve(false), limit);
      this.#established = () => resolve(true);
      this.socket.once('close', () => resolve(false));
      this.#decrypt(Buffer.alloc(0));
    });
    clearTimeout(timer);
    this.#established = undefined;
    if (done) return;
    this.socket.destroy();
    throw new VioError('TLS: the target does not finish the handshake', { code: 'EPROTO' });
  }

  /** ICReq with these options, or fields of it. */
  async initialise(options: RawOptions = {}, fields: Parameters<typeof icReq.encode>[0] = {}, wait = patience): Promise<Outcome> {
    this.#options = options;
    const dgst = (options.headerDigest ? 1 : 0) | (options.dataDigest ? 2 : 0);
    this.send(encodePdu(pdus.icReq, { dgst, hpda: options.hpda ?? 0, ...fields }));
    return this.next(wait);
  }

  send(bytes: Uint8Array): void {
    if (this.socket.destroyed) return;
    this.socket.write(this.#tls ? native().nvmeHost.tlsPut(this.#tls, bytes) : bytes);
  }

  close(): void {
    this.socket.destroy();
  }

  /** The next thing that happens, or silence. */
  async next(wait = patience): Promise<Outcome> {
    const deadline = performance.now() + wait;
    for (let asked = false; ; ) {
      const event = this.#events.shift() ?? this.#ended;
      if (event) return event;
      const left = deadline - performance.now();
      if (left <= 0) {
        if (asked || !this.#alive) return { kind: 'silent' };
        asked = true;
        await this.#alive();
        continue;
      }
      await this.#bell.wait(left);
    }
  }

  /** A CapsuleCmd PDU. */
  capsule(fields: SqeFields, options: CommandOptions = {}): { pdu: Buffer; cid: number } {
    const { data, inCapsule = false } = options;
    const cid = options.cid ?? this.#cid++ % 0xfff0;
    const length = options.length ?? data?.length ?? options.read ?? 0;
    const sqe = sqeTable.encode({
      psdt: psdtSgl,
      cid,
      sglLength: length,
      sglId: inCapsule ? Sgl.inCapsule : Sgl.commandBuffer,
      ...fields,
    });
    options.tweak?.(sqe);
    if (data && !inCapsule) this.#sources.set(cid, data);
    const pdu = encodePdu(pdus.capsuleCmd, {}, { ...this.build(), data: inCapsule ? data : undefined, fill: (head) => sqe.copy(head, 8) });
    options.spoil?.(pdu);
    return { pdu, cid };
  }

  /** Digests and alignment as agreed. */
  build(): BuildOptions {
    return {
      align: this.#align,
      headerDigest: this.#options.headerDigest ?? false,
      dataDigest: this.#options.dataDigest ?? false,
      crc32c: native().common.crc32c,
    };
  }

  /** Sends a command and waits for its completion; R2Ts are answered from its data. */
  async command(fields: SqeFields, options: CommandOptions = {}): Promise<Outcome> {
    const { pdu, cid } = this.capsule(fields, options);
    this.send(pdu);
    return this.completion(cid, options.wait);
  }

  /** Waits for the completion of a command, or for what ends the connection. */
  async completion(cid: number, wait = patience): Promise<Outcome> {
    for (;;) {
      const event = await this.next(wait);
      if (event.kind === 'r2t') {
        const source = this.#sources.get(event.cccid);
        if (!source) return event;
        this.answer(event, source);
      } else if (event.kind !== 'cqe' || event.cid === cid) {
        return event;
      } else {
        this.#passed.set(event.cid, event);
      }
    }
  }

  /** The completion of a command that has come while another one was waited for. */
  seen(cid: number): Outcome | undefined {
    return this.#passed.get(cid);
  }

  /** The data an R2T asks for, in H2CData PDUs of `per` bytes at most. */
  answer(ask: { cccid: number; ttag: number; r2to: number; r2tl: number }, source: Buffer, per = this.maxh2cdata): void {
    for (let at = 0; at < ask.r2tl; at += per) {
      const datal = Math.min(per, ask.r2tl - at);
      const datao = ask.r2to + at;
      const flags = at + datal === ask.r2tl ? PduFlag.last : 0;
      this.send(this.h2c({ cccid: ask.cccid, ttag: ask.ttag, datao, datal }, source.subarray(datao, datao + datal), flags));
    }
  }

  /** An H2CData PDU. */
  h2c(fields: Parameters<typeof h2cData.encode>[0], data: Buffer, flags: number = PduFlag.last): Buffer {
    return encodePdu(pdus.h2cData, fields, { ...this.build(), data, flags });
  }

  #end(outcome: Outcome): void {
    this.#ended ??= outcome;
    this.#bell.ring();
  }

  #received(chunk: Buffer): void {
    this.heardAt = performance.now();
    if (this.#ended) return;
    try {
      for (const pdu of this.#reader.push(this.#tls ? this.#decrypt(chunk) : chunk)) this.#take(pdu);
    } catch (err) {
      if (!(err instanceof PduError)) throw err;
      this.#end({ kind: 'broken', text: err.message });
    }
    this.#bell.ring();
  }

  /** Plaintext of what came; answers what TLS itself has to answer. A fault of TLS ends the connection. */
  #decrypt(bytes: Buffer): Buffer {
    try {
      const { plain, out, established, ended } = native().nvmeHost.tlsTake(this.#tls!, bytes);
      if (out.length > 0) this.socket.write(out);
      if (established) this.#established?.();
      if (ended) this.socket.destroySoon();
      return plain;
    } catch (err) {
      if (codeOf(err) !== 'EPROTO') throw err;
      this.socket.destroySoon();
      return Buffer.alloc(0);
    }
  }

  #take({ rule, header, data, flags, dataDigestOk }: Pdu): void {
    if (!dataDigestOk) this.#events.push({ kind: 'broken', text: `${rule.name} with a wrong data digest` });
    switch (rule) {
      case pdus.icResp: {
        const { cpda, dgst, maxh2cdata } = icResp.decode(header);
        this.maxh2cdata = Math.max(4096, Math.min(maxh2cdata, 1 << 20));
        this.#align = (cpda + 1) * 4;
        this.#reader.agree({ headerDigest: (dgst & 1) !== 0, dataDigest: (dgst & 2) !== 0, align: ((this.#options.hpda ?? 0) + 1) * 4 });
        this.#events.push({ kind: 'icresp', cpda, dgst, maxh2cdata });
        break;
      }
      case pdus.c2hTermReq:
        this.#events.push({ kind: 'term', ...termReq.decode(header) });
        break;
      case pdus.r2t:
        this.#events.push({ kind: 'r2t', ...r2t.decode(header) });
        break;
      case pdus.c2hData: {
        const { cccid } = c2hData.decode(header);
        const pieces = this.#data.get(cccid) ?? [];
        pieces.push(Buffer.from(data));
        this.#data.set(cccid, pieces);
        if (flags & PduFlag.success) this.#completed(cccid, 0, 0, 0, 0, true);
        break;
      }
      case pdus.capsuleResp: {
        const { cid, status, dw0, dw1, sqhd } = cqe.decode(header, 8);
        this.#completed(cid, status, dw0, dw1, sqhd, false);
        break;
      }
    }
  }

  #completed(cid: number, status: number, dw0: number, dw1: number, sqhd: number, flagged: boolean): void {
    const { sct, sc, dnr } = decodeStatus(status);
    this.#events.push({ kind: 'cqe', cid, sct, sc, dnr, dw0, dw1, sqhd, data: Buffer.concat(this.#data.get(cid) ?? []), flagged });
    this.#data.delete(cid);
    this.#sources.delete(cid);
  }
}
