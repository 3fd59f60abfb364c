/**
 * Incremental reader of PDUs from a byte stream. Every length is checked against the table and the limits before a byte
 * beyond the common header is awaited or allocated; what is wrong is an error with the FES and FEI of the TermReq that
 * answers it.
 */
import { WireError } from '../../common/struct.js';
import {
  commonHeader,
  type Direction,
  Fes,
  fatalErrorText,
  icReq,
  icResp,
  PduFlag,
  type PduRule,
  pduRule,
  pdus,
  termReqPlen,
} from './pdu.js';

/** A PDU that breaks the protocol: the connection must end. */
export class PduError extends WireError {
  readonly fes: number;
  readonly fei: number;
  /** Answer by closing alone: the PDU was a TermReq itself. */
  readonly silent: boolean;
  /** What there is of the header in error. */
  header: Buffer = Buffer.alloc(0);

  constructor(message: string, fes: number, fei: number, silent = false) {
    super(`${message}: ${fatalErrorText(fes, fei)}`, fei);
    this.name = 'PduError';
    this.fes = fes;
    this.fei = fei;
    this.silent = silent;
  }
}

/** A PDU that was read and found well formed. */
export interface Pdu {
  readonly rule: PduRule;
  readonly flags: number;
  /** The header, `hlen` bytes, to be decoded with `rule.header`. */
  readonly header: Buffer;
  /** Data; the sink's own memory if it took it. */
  readonly data: Buffer;
  /** False when the data digest was wrong: the command fails, the connection stays. */
  readonly dataDigestOk: boolean;
  /** Bytes on the wire. */
  readonly plen: number;
  readonly pdo: number;
}

export interface ReaderOptions {
  /** The direction that is read: `h2c` by a controller, `c2h` by a host. */
  direction: Direction;
  crc32c: (bytes: Uint8Array) => number;
  /** Most data bytes of one PDU of this type. */
  maxData: (rule: PduRule) => number;
  /** Memory for the data of a PDU whose header is good, exactly `size` bytes; undefined: the reader provides it. */
  sink?: (rule: PduRule, header: Buffer, size: number) => Buffer | undefined;
}

const none = Buffer.alloc(0);

/** Feed it chunks; it yields PDUs. After an error it must not be used again. */
export class PduReader {
  readonly #options: ReaderOptions;
  #headerDigest = false;
  #dataDigest = false;
  #align = 4;
  #started = false;

  // The PDU being read: header bytes until #want, then data, then the data digest.
  readonly #head = Buffer.alloc(256 + 4);
  #have = 0;
  #want: number = commonHeader.size;
  #rule: PduRule | undefined;
  #flags = 0;
  #plen = 0;
  #pdo = 0;
  #size = 0;
  #header: Buffer = none;
  #data: Buffer | undefined;
  #filled = 0;
  readonly #digest = Buffer.alloc(4);
  #digestHave = 0;

  constructor(options: ReaderOptions) {
    this.#options = options;
  }

  /** What ICReq and ICResp agreed on; counts from the next PDU on. @param align of data in bytes */
  agree(settings: { headerDigest: boolean; dataDigest: boolean; align?: number }): void {
    this.#headerDigest = settings.headerDigest;
    this.#dataDigest = settings.dataDigest;
    this.#align = settings.align ?? 4;
  }

  /** True when no PDU is cut in the middle: where a stream may end. */
  get atBoundary(): boolean {
    return this.#have === 0;
  }

  /**
   * Takes the next bytes of the stream.
   * Data of a yielded PDU may be part of `chunk`: it is good as long as that is.
   * @throws PduError at the first PDU that breaks the protocol
   */
  *push(chunk: Buffer): Generator<Pdu, void> {
    let at = 0;
    while (at < chunk.length) {
      if (this.#have < this.#want) {
        const n = Math.min(this.#want - this.#have, chunk.length - at);
        chunk.copy(this.#head, this.#have, at, at + n);
        this.#have += n;
        at += n;
        if (this.#have < this.#want) return;
        if (!this.#rule) {
          this.#examine();
          if (this.#have < this.#want) continue;
        }
        this.#finishHeader();
        if (this.#size === 0) {
          yield this.#take(none, true);
          continue;
        }
      }
      if (this.#filled < this.#size) {
        const n = Math.min(this.#size - this.#filled, chunk.length - at);
        if (!this.#data && n === this.#size) {
          this.#data = chunk.subarray(at, at + n);
        } else {
          this.#data ??= Buffer.allocUnsafe(this.#size);
          chunk.copy(this.#data, this.#filled, at, at + n);
        }
        this.#filled += n;
        at += n;
        if (this.#filled < this.#size) return;
      }
      if (this.#flags & PduFlag.ddgst) {
        const n = Math.min(4 - this.#digestHave, chunk.length - at);
        chunk.copy(this.#digest, this.#digestHave, at, at + n);
        this.#digestHave += n;
        at += n;
        if (this.#digestHave < 4) {
          // The chunk may be gone when the digest comes.
          if (this.#data && this.#data.buffer === chunk.buffer && this.#data.byteOffset >= chunk.byteOffset)
            this.#data = Buffer.from(this.#data);
          return;
        }
        yield this.#take(this.#data!, this.#options.crc32c(this.#data!) === this.#digest.readUInt32LE(0));
      } else {
        yield this.#take(this.#data!, true);
      }
    }
  }

  #fail(message: string, fes: number, fei: number, silent = false): never {
    const error = new PduError(message, fes, fei, silent);
    error.header = Buffer.from(this.#head.subarray(0, this.#have));
    throw error;
  }

  /** The common header is here: type, flags, HLEN, PDO and PLEN, in this order, before anything else is read. */
  #examine(): void {
    const { direction, maxData } = this.#options;
    const { type, flags, hlen, pdo, plen } = commonHeader.decode(this.#head);
    const rule = pduRule(type);
    if (!rule) this.#fail(`PDU type 0x${type.toString(16)} does not exist`, Fes.invalidHeader, 0);
    const { name } = rule;
    if (rule.direction !== direction) this.#fail(`${name} in the wrong direction`, Fes.invalidHeader, 0);
    const isTerm = rule === pdus.h2cTermReq || rule === pdus.c2hTermReq;
    const isIc = rule === pdus.icReq || rule === pdus.icResp;
    if (!isTerm && isIc === this.#started)
      this.#fail(isIc ? `a second ${name}` : `${name} before the connection is initialised`, Fes.sequence, 0);
    if (isTerm && (plen < termReqPlen.min || plen > termReqPlen.max)) this.#fail(`${name} of ${plen} bytes`, Fes.invalidHeader, 4, true);
    if (flags & ~rule.flags) this.#fail(`${name} with flags 0x${flags.toString(16)}`, Fes.invalidHeader, 1, isTerm);
    const hd = rule.digests && this.#headerDigest;
    if (rule.digests && ((flags & PduFlag.hdgst) !== 0) !== hd)
      this.#fail(`${name} ${hd ? 'without' : 'with'} header digest`, Fes.invalidHeader, 1);
    if (flags & PduFlag.success && !(flags & PduFlag.last)) this.#fail(`${name} with SUCCESS but not LAST`, Fes.invalidHeader, 1);
    if (hlen !== rule.hlen) this.#fail(`${name} with HLEN ${hlen}`, Fes.invalidHeader, 2, isTerm);
    const end = rule.hlen + (hd ? 4 : 0);
    if (isIc && pdo !== 0) this.#fail(`${name} with PDO ${pdo}`, Fes.invalidHeader, 3);
    if (plen < end) this.#fail(`${name} of ${plen} bytes`, Fes.invalidHeader, 4, isTerm);
    if (rule.data === 'never' && plen !== end) this.#fail(`${name} of ${plen} bytes`, Fes.invalidHeader, 4);
    let start = end;
    let size = 0;
    if (isTerm) {
      size = plen - end;
    } else if (rule.data === 'must' || (rule.data === 'may' && plen > end)) {
      const dd = this.#dataDigest ? 4 : 0;
      if (((flags & PduFlag.ddgst) !== 0) !== this.#dataDigest)
        this.#fail(`${name} ${dd ? 'without' : 'with'} data digest`, Fes.invalidHeader, 1);
      if (pdo < end || pdo > plen || pdo % this.#align !== 0) this.#fail(`${name} with PDO ${pdo}`, Fes.invalidHeader, 3);
      start = pdo;
      size = plen - pdo - dd;
      if (size <= 0) this.#fail(`${name} of ${plen} bytes`, Fes.invalidHeader, 4);
      if (size > maxData(rule)) {
        if (rule === pdus.h2cData || rule === pdus.c2hData) this.#fail(`${name} with ${size} bytes of data`, Fes.limitExceeded, 0);
        this.#fail(`${name} of ${plen} bytes`, Fes.invalidHeader, 4);
      }
    } else if (flags & PduFlag.ddgst) {
      this.#fail(`${name} without data but with data digest`, Fes.invalidHeader, 1);
    }
    this.#rule = rule;
    this.#flags = flags;
    this.#plen = plen;
    this.#pdo = pdo;
    this.#size = size;
    this.#want = start;
  }

  #finishHeader(): void {
    const rule = this.#rule!;
    if (this.#flags & PduFlag.hdgst) {
      const got = this.#head.readUInt32LE(rule.hlen);
      if (this.#options.crc32c(this.#head.subarray(0, rule.hlen)) !== got) this.#fail(rule.name, Fes.headerDigest, got);
    }
    this.#header = Buffer.from(this.#head.subarray(0, rule.hlen));
    if (rule === pdus.icReq || rule === pdus.icResp) this.#started = true;
    this.#data = this.#size === 0 ? undefined : this.#options.sink?.(rule, this.#header, this.#size);
    if (this.#data && this.#data.length !== this.#size) throw new RangeError('the sink gave memory of another size');
  }

  #take(data: Buffer, dataDigestOk: boolean): Pdu {
    const pdu = {
      rule: this.#rule!,
      flags: this.#flags,
      header: this.#header,
      data,
      dataDigestOk,
      plen: this.#plen,
      pdo: this.#pdo,
    };
    this.#rule = undefined;
    this.#have = 0;
    this.#want = commonHeader.size;
    this.#filled = 0;
    this.#digestHave = 0;
    this.#data = undefined;
    this.#size = 0;
    return pdu;
  }
}

/** Checks an ICReq as a controller must (parameters the reader cannot know). @throws PduError with 06h or 01h */
export function checkIcReq(header: Buffer): { hpda: number; headerDigest: boolean; dataDigest: boolean; maxr2t: number } {
  const { pfv, hpda, dgst, maxr2t } = icReq.decode(header);
  const fail = (what: string, fes: number, fei: number) => {
    const error = new PduError(`ICReq with ${what}`, fes, fei);
    error.header = header;
    return error;
  };
  if (pfv !== 0) throw fail(`PFV ${pfv}`, Fes.unsupportedParameter, 8);
  if (hpda > 31) throw fail(`HPDA ${hpda}`, Fes.invalidHeader, 10);
  if (dgst & ~3) throw fail(`reserved digest bits 0x${dgst.toString(16)}`, Fes.invalidHeader, 11);
  return { hpda, headerDigest: (dgst & 1) !== 0, dataDigest: (dgst & 2) !== 0, maxr2t };
}

/**
 * Checks an ICResp as a host must.
 * @param asked the digests of our ICReq; a controller must not enable others
 * @throws PduError
 */
export function checkIcResp(
  header: Buffer,
  asked: { headerDigest: boolean; dataDigest: boolean },
): { cpda: number; headerDigest: boolean; dataDigest: boolean; maxh2cdata: number } {
  const { pfv, cpda, dgst, maxh2cdata } = icResp.decode(header);
  const fail = (what: string, fes: number, fei: number) => {
    const error = new PduError(`ICResp with ${what}`, fes, fei);
    error.header = header;
    return error;
  };
  if (pfv !== 0) throw fail(`PFV ${pfv}`, Fes.unsupportedParameter, 8);
  if (cpda > 31) throw fail(`CPDA ${cpda}`, Fes.invalidHeader, 10);
  if (dgst & ~3) throw fail(`reserved digest bits 0x${dgst.toString(16)}`, Fes.invalidHeader, 11);
  const headerDigest = (dgst & 1) !== 0;
  const dataDigest = (dgst & 2) !== 0;
  if ((headerDigest && !asked.headerDigest) || (dataDigest && !asked.dataDigest))
    throw fail('a digest that was not asked for', Fes.invalidHeader, 11);
  if (maxh2cdata < 4096 || maxh2cdata % 4 !== 0) throw fail(`MAXH2CDATA ${maxh2cdata}`, Fes.invalidHeader, 12);
  return { cpda, headerDigest, dataDigest, maxh2cdata };
}
