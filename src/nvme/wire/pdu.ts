/**
 * PDUs of NVMe/TCP (NVMe TCP Transport Specification 1.0, section 3.6): one table of types with their direction, header
 * length, flags and digest rules; the layouts of their headers; fatal error statuses of the TermReq PDUs.
 */
import { type Fields, Struct, u8, u16, u32, type Values } from '../../common/struct.js';

/** Who sends a PDU type: `h2c` host to controller, `c2h` controller to host. */
export type Direction = 'h2c' | 'c2h';

/** FLAGS bits of the common header. */
export const PduFlag = { hdgst: 0x01, ddgst: 0x02, last: 0x04, success: 0x08 } as const;

/** Bytes 0–7 of every PDU. */
export const commonHeader = new Struct('PDU common header', 8, {
  type: u8(0),
  flags: u8(1),
  /** header length, digest not included */
  hlen: u8(2),
  /** offset of the data; 0 where there is none */
  pdo: u8(3),
  /** length of the whole PDU with digests, padding and data */
  plen: u32(4),
});

/** Initialize Connection Request. */
export const icReq = new Struct('ICReq', 128, {
  pfv: u16(8),
  /** host PDU data alignment in dwords, 0-based */
  hpda: u8(10),
  /** bit 0: header digest, bit 1: data digest */
  dgst: u8(11),
  /** outstanding R2T per command, 0-based */
  maxr2t: u32(12),
});
/** Initialize Connection Response. */
export const icResp = new Struct('ICResp', 128, {
  pfv: u16(8),
  cpda: u8(10),
  dgst: u8(11),
  /** most data bytes in one H2CData PDU */
  maxh2cdata: u32(12),
});
/** DGST bits of ICReq and ICResp. */
export const Dgst = { header: 1, data: 2 } as const;

/** Terminate Connection Request, both directions. The header in error follows as data, 128 bytes at most. */
export const termReq = new Struct('TermReq', 24, {
  fes: u16(8),
  /** offset of the field in error, or the digest received: see `fatalErrors` */
  fei: u32(10),
});
/** Command Capsule; the 64-byte submission queue entry is at 8. */
export const capsuleCmd = new Struct('CapsuleCmd', 72, {});
/** Response Capsule; the 16-byte completion queue entry is at 8. */
export const capsuleResp = new Struct('CapsuleResp', 24, {});
/** Data in answer to an R2T. */
export const h2cData = new Struct('H2CData', 24, { cccid: u16(8), ttag: u16(10), datao: u32(12), datal: u32(16) });
/** Data for a command that reads. */
export const c2hData = new Struct('C2HData', 24, { cccid: u16(8), datao: u32(12), datal: u32(16) });
/** Ready to Transfer. */
export const r2t = new Struct('R2T', 24, { cccid: u16(8), ttag: u16(10), r2to: u32(12), r2tl: u32(16) });

/** What the specification says of one PDU type. */
export interface PduRule {
  readonly name: string;
  readonly type: number;
  readonly direction: Direction;
  readonly hlen: number;
  /** FLAGS bits that may be set */
  readonly flags: number;
  /** carries data: PDO and the data digest apply */
  readonly data: 'never' | 'may' | 'must';
  /** digests apply (they do not to ICReq, ICResp and TermReq) */
  readonly digests: boolean;
  // biome-ignore lint/suspicious/noExplicitAny: rules of all types stand in one map
  readonly header: Struct<any>;
}

const { hdgst, ddgst, last, success } = PduFlag;
/** All PDU types. `must`: data is part of every such PDU. */
export const pdus = {
  icReq: { name: 'ICReq', type: 0x00, direction: 'h2c', hlen: 128, flags: 0, data: 'never', digests: false, header: icReq },
  icResp: { name: 'ICResp', type: 0x01, direction: 'c2h', hlen: 128, flags: 0, data: 'never', digests: false, header: icResp },
  h2cTermReq: { name: 'H2CTermReq', type: 0x02, direction: 'h2c', hlen: 24, flags: 0, data: 'may', digests: false, header: termReq },
  c2hTermReq: { name: 'C2HTermReq', type: 0x03, direction: 'c2h', hlen: 24, flags: 0, data: 'may', digests: false, header: termReq },
  capsuleCmd: {
    name: 'CapsuleCmd',
    type: 0x04,
    direction: 'h2c',
    hlen: 72,
    flags: hdgst | ddgst,
    data: 'may',
    digests: true,
    header: capsuleCmd,
  },
  capsuleResp: {
    name: 'CapsuleResp',
    type: 0x05,
    direction: 'c2h',
    hlen: 24,
    flags: hdgst,
    data: 'never',
    digests: true,
    header: capsuleResp,
  },
  h2cData: {
    name: 'H2CData',
    type: 0x06,
    direction: 'h2c',
    hlen: 24,
    flags: hdgst | ddgst | last,
    data: 'must',
    digests: true,
    header: h2cData,
  },
  c2hData: {
    name: 'C2HData',
    type: 0x07,
    direction: 'c2h',
    hlen: 24,
    flags: hdgst | ddgst | last | success,
    data: 'must',
    digests: true,
    header: c2hData,
  },
  r2t: { name: 'R2T', type: 0x09, direction: 'c2h', hlen: 24, flags: hdgst, data: 'never', digests: true, header: r2t },
} as const satisfies Record<string, PduRule>;

const byType = new Map<number, PduRule>(Object.values(pdus).map((rule) => [rule.type, rule]));
/** The rule of a type, or undefined for a number that the specification does not have. */
export const pduRule = (type: number): PduRule | undefined => byType.get(type);

/** Fatal Error Status of TermReq PDUs, with what FEI then means. */
export const Fes = {
  invalidHeader: 0x01,
  sequence: 0x02,
  headerDigest: 0x03,
  outOfRange: 0x04,
  limitExceeded: 0x05,
  unsupportedParameter: 0x06,
} as const;
export const fatalErrors: ReadonlyMap<number, { name: string; fei: 'offset' | 'digest' | 'none' }> = new Map([
  [Fes.invalidHeader, { name: 'Invalid PDU Header Field', fei: 'offset' }],
  [Fes.sequence, { name: 'PDU Sequence Error', fei: 'none' }],
  [Fes.headerDigest, { name: 'Header Digest Error', fei: 'digest' }],
  [Fes.outOfRange, { name: 'Data Transfer Out of Range', fei: 'none' }],
  [Fes.limitExceeded, { name: 'Data Transfer Limit Exceeded', fei: 'none' }],
  [Fes.unsupportedParameter, { name: 'Unsupported Parameter', fei: 'offset' }],
]);
/** `Invalid PDU Header Field (01h), field at 4`. */
export function fatalErrorText(fes: number, fei: number): string {
  const known = fatalErrors.get(fes);
  const name = `${known?.name ?? 'unknown fatal error'} (${fes.toString(16).padStart(2, '0')}h)`;
  if (known?.fei === 'offset') return `${name}, field at ${fei}`;
  if (known?.fei === 'digest') return `${name}, received 0x${(fei >>> 0).toString(16).padStart(8, '0')}`;
  return name;
}
/** A TermReq is 24 to 152 bytes long; any other is answered by closing. */
export const termReqPlen = { min: 24, max: 152 } as const;

export interface BuildOptions {
  /** FLAGS besides the digest flags (LAST_PDU, SUCCESS). */
  flags?: number;
  data?: Uint8Array | undefined;
  /** Alignment of the data in bytes, (HPDA or CPDA + 1) * 4. */
  align?: number;
  headerDigest?: boolean;
  dataDigest?: boolean;
  crc32c?: (bytes: Uint8Array) => number;
  /** Writes into the header what is not in its table: the queue entries of capsules. */
  fill?: (header: Buffer) => void;
}

/**
 * Builds a PDU in two parts, so that the data need not be copied: head (header, header digest, padding) and tail (data
 * digest, if any). PLEN, PDO and digest flags follow from the options.
 * @param fill writes the type's own fields into the header
 */
export function buildPdu(
  rule: PduRule,
  fill: (header: Buffer) => void,
  options: BuildOptions = {},
): { head: Buffer; tail: Buffer | undefined } {
  const { data, align = 4, crc32c } = options;
  const size = data?.length ?? 0;
  const hd = rule.digests && options.headerDigest === true;
  const dd = rule.digests && options.dataDigest === true && size > 0;
  const end = rule.hlen + (hd ? 4 : 0);
  const pdo = size === 0 ? 0 : Math.ceil(end / align) * align;
  const head = Buffer.alloc(size === 0 ? end : pdo);
  commonHeader.encode(
    {
      type: rule.type,
      flags: (options.flags ?? 0) | (hd ? PduFlag.hdgst : 0) | (dd ? PduFlag.ddgst : 0),
      hlen: rule.hlen,
      pdo: rule.type === pdus.h2cTermReq.type || rule.type === pdus.c2hTermReq.type ? 0 : pdo,
      plen: head.length + size + (dd ? 4 : 0),
    },
    head,
  );
  fill(head);
  if (hd) head.writeUInt32LE(crc32c!(head.subarray(0, rule.hlen)), rule.hlen);
  if (!dd) return { head, tail: undefined };
  const tail = Buffer.allocUnsafe(4);
  tail.writeUInt32LE(crc32c!(data!));
  return { head, tail };
}

/** As buildPdu, in one piece. */
export function encodePdu<S extends Fields>(
  rule: PduRule & { header: Struct<S> },
  values: Partial<Values<S>>,
  options: BuildOptions = {},
): Buffer {
  const fill = (header: Buffer) => {
    rule.header.encode(values, header);
    options.fill?.(header);
  };
  const { head, tail } = buildPdu(rule, fill, options);
  if (options.data === undefined && !tail) return head;
  return Buffer.concat([head, options.data ?? new Uint8Array(0), tail ?? new Uint8Array(0)]);
}
