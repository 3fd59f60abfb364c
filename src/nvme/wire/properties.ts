/** Controller properties (NVMe Base 2.0, 3.1.3): offsets, sizes and fields. */
import { bits, Struct } from '../../common/struct.js';

/** Property offsets and sizes in bytes. */
export const properties = {
  CAP: { offset: 0x00, size: 8 },
  VS: { offset: 0x08, size: 4 },
  CC: { offset: 0x14, size: 4 },
  CSTS: { offset: 0x1c, size: 4 },
  NSSR: { offset: 0x20, size: 4 },
  CRTO: { offset: 0x68, size: 4 },
} as const;
export type PropertyName = keyof typeof properties;

/** Controller Capabilities. */
export const cap = new Struct('CAP', 8, {
  /** entries of a queue, 0-based */
  mqes: bits(0, 4, 0, 16),
  cqr: bits(0, 4, 16, 1),
  ams: bits(0, 4, 17, 2),
  /** worst time for RDY to change, in 500 ms */
  to: bits(0, 4, 24, 8),
  dstrd: bits(4, 4, 0, 4),
  nssrs: bits(4, 4, 4, 1),
  /** command sets: bit 0 NVM, bit 6 one or more I/O command sets, bit 7 admin only */
  css: bits(4, 4, 5, 8),
  bps: bits(4, 4, 13, 1),
  cps: bits(4, 4, 14, 2),
  mpsmin: bits(4, 4, 16, 4),
  mpsmax: bits(4, 4, 20, 4),
  pmrs: bits(4, 4, 24, 1),
  cmbs: bits(4, 4, 25, 1),
  nsss: bits(4, 4, 26, 1),
  /** controller ready modes: with media, independent of media */
  crms: bits(4, 4, 27, 2),
});

/** Controller Configuration. */
export const cc = new Struct('CC', 4, {
  en: bits(0, 4, 0, 1),
  css: bits(0, 4, 4, 3),
  mps: bits(0, 4, 7, 4),
  ams: bits(0, 4, 11, 3),
  /** shutdown notification: 1 normal, 2 abrupt */
  shn: bits(0, 4, 14, 2),
  iosqes: bits(0, 4, 16, 4),
  iocqes: bits(0, 4, 20, 4),
  crime: bits(0, 4, 24, 1),
});

/** Controller Status. */
export const csts = new Struct('CSTS', 4, {
  rdy: bits(0, 4, 0, 1),
  /** controller fatal status */
  cfs: bits(0, 4, 1, 1),
  /** shutdown status: 1 in progress, 2 complete */
  shst: bits(0, 4, 2, 2),
  nssro: bits(0, 4, 4, 1),
  pp: bits(0, 4, 5, 1),
});

/** The number that a layout's fields make. */
export const ccValue = (fields: Parameters<typeof cc.encode>[0]): number => cc.encode(fields).readUInt32LE(0);
export const cstsValue = (fields: Parameters<typeof csts.encode>[0]): number => csts.encode(fields).readUInt32LE(0);
export const capValue = (fields: Parameters<typeof cap.encode>[0]): bigint => cap.encode(fields).readBigUInt64LE(0);

/** `2.0.0` of a VS value. */
export const versionText = (vs: number): string => `${vs >>> 16}.${(vs >>> 8) & 0xff}.${vs & 0xff}`;
