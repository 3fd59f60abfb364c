/** Submission and completion queue entries (NVMe Base 2.0, 3.3.3), SGL descriptors and the fabrics commands (section 6). */
import { bits, bytes, Struct, text, u8, u16, u32, u64 } from '../../common/struct.js';

/** Submission queue entry: the fields that all commands have. */
export const sqe = new Struct('SQE', 64, {
  opcode: u8(0),
  fuse: bits(1, 1, 0, 2),
  psdt: bits(1, 1, 6, 2),
  cid: u16(2),
  nsid: u32(4),
  /** command type of a fabrics command, which has no NSID */
  fctype: u8(4),
  cdw2: u32(8),
  cdw3: u32(12),
  mptr: u64(16),
  /** SGL descriptor 1: see sgl */
  sglAddress: u64(24),
  sglLength: u32(32),
  /** SGL type in bits 7:4, subtype in 3:0 */
  sglId: u8(39),
  cdw10: u32(40),
  cdw11: u32(44),
  cdw12: u32(48),
  cdw13: u32(52),
  cdw14: u32(56),
  cdw15: u32(60),
});

/** SGL identifiers that NVMe/TCP uses. */
export const Sgl = {
  /** Data Block with offset: the data is in the capsule */
  inCapsule: 0x01,
  /** Transport Data Block: the command's own buffer; data moves in data PDUs */
  commandBuffer: 0x5a,
} as const;
/** PSDT of a command with SGLs; PRPs (0) are not for fabrics. */
export const psdtSgl = 1;

/** Completion queue entry. */
export const cqe = new Struct('CQE', 16, {
  dw0: u32(0),
  dw1: u32(4),
  sqhd: u16(8),
  sqid: u16(10),
  cid: u16(12),
  /** status field with the phase bit, which is 0 in fabrics: see status.ts */
  status: u16(14),
});

/** Fabrics Connect: offsets in the SQE. */
export const connectCmd = new Struct('Connect', 64, {
  recfmt: u16(40),
  qid: u16(42),
  /** entries of the submission queue, 0-based */
  sqsize: u16(44),
  cattr: u8(46),
  /** keep-alive time-out in milliseconds, admin queue only */
  kato: u32(48),
});
/** CATTR bits. */
export const Cattr = { priority: 0x03, sqFlowControlOff: 0x04 } as const;
/** Data of Connect. */
export const connectData = new Struct('Connect data', 1024, {
  hostid: bytes(16, 0),
  cntlid: u16(16),
  subnqn: text(256, 256),
  hostnqn: text(256, 512),
});
/** CNTLID of a Connect to a target with dynamic controllers. */
export const dynamicCntlid = 0xffff;
/** Largest CNTLID that a controller may have. */
export const maxCntlid = 0xffef;
/** Completion of a successful Connect (dw0). */
export const connectOk = new Struct('Connect response', 4, { cntlid: u16(0), authreq: u16(2) });
/** Completion of a Connect refused with Invalid Parameters: where the parameter lies. */
export const connectRefused = new Struct('Connect refused', 4, {
  /** Invalid Parameter Offset */
  ipo: u16(0),
  /** 0: in the SQE, 1: in the data */
  iattr: u8(2),
});

/** Fabrics Property Get and Set. */
export const propertyCmd = new Struct('Property', 64, {
  /** size: 0 is 4 bytes, 1 is 8 */
  attrib: u8(40),
  ofst: u32(44),
  value: u64(48),
});

/** Identify. */
export const identifyCmd = new Struct('Identify', 64, {
  cns: u8(40),
  cntid: u16(42),
  cnssid: u16(44),
  csi: u8(47),
  uuid: bits(56, 1, 0, 7),
});

/** Get Log Page. NUMD is 0-based dwords, in two halves. */
export const getLogCmd = new Struct('Get Log Page', 64, {
  lid: u8(40),
  lsp: bits(41, 1, 0, 7),
  /** Retain Asynchronous Event */
  rae: bits(41, 1, 7, 1),
  numdl: u16(42),
  numdu: u16(44),
  lsi: u16(46),
  lpo: u64(48),
  csi: u8(59),
  /** LPO is an index */
  ot: bits(56, 4, 23, 1),
});

/** Get and Set Features. */
export const featureCmd = new Struct('Features', 64, { fid: u8(40), sel: bits(41, 1, 0, 3), save: bits(43, 1, 7, 1), value: u32(44) });

/** Read, Write, Compare, Verify, Write Zeroes. */
export const rwCmd = new Struct('Read/Write', 64, {
  slba: u64(40),
  /** blocks, 0-based */
  nlb: u16(48),
  /** Deallocate (Write Zeroes) */
  deac: bits(51, 1, 1, 1),
  /** Force Unit Access */
  fua: bits(51, 1, 6, 1),
  /** Limited Retry */
  lr: bits(51, 1, 7, 1),
  prinfo: bits(51, 1, 2, 4),
});

/** Dataset Management: ranges follow as data. */
export const dsmCmd = new Struct('Dataset Management', 64, {
  /** ranges, 0-based */
  nr: u8(40),
  idr: bits(44, 1, 0, 1),
  idw: bits(44, 1, 1, 1),
  /** deallocate */
  ad: bits(44, 1, 2, 1),
});
export const dsmRange = new Struct('DSM range', 16, { attributes: u32(0), nlb: u32(4), slba: u64(8) });

/** Source range, format 0. */
export const copyRange = new Struct('Copy range', 32, { slba: u64(8), nlb: u16(16) });

/** Abort. */
export const abortCmd = new Struct('Abort', 64, { sqid: u16(40), cid: u16(42) });

/** Authentication Send and Receive. */
export const authCmd = new Struct('Authentication', 64, { spsp0: u8(41), spsp1: u8(42), secp: u8(43), length: u32(44) });
