/**
 * Identify data (NVMe Base 2.0, 5.17; NVM Command Set 1.0, 4.1.5). Field names are those of `nvme id-ctrl -o json` and
 * `nvme id-ns -o json`, which are the specification's abbreviations in lower case.
 */
import { ascii, bits, bytes, Struct, structs, text, u8, u16, u24, u32, u64, u128, WireError } from '../../common/struct.js';

/** All Identify data is this long, except where the specification says otherwise. */
export const identifySize = 4096;
/** Where Identify Controller and Identify Namespace are vendor specific. */
export const identifyVendor = 3072;
export const namespaceVendor = 384;

/** CNS 01h: Identify Controller. */
export const identifyController = new Struct('Identify Controller', identifySize, {
  vid: u16(0),
  ssvid: u16(2),
  sn: ascii(20, 4),
  mn: ascii(40, 24),
  fr: ascii(8, 64),
  rab: u8(72),
  ieee: u24(73),
  cmic: u8(76),
  mdts: u8(77),
  cntlid: u16(78),
  ver: u32(80),
  rtd3r: u32(84),
  rtd3e: u32(88),
  oaes: u32(92),
  ctratt: u32(96),
  rrls: u16(100),
  bpcap: u8(102),
  nssl: u32(104),
  plsi: u8(110),
  cntrltype: u8(111),
  fguid: bytes(16, 112),
  crdt1: u16(128),
  crdt2: u16(130),
  crdt3: u16(132),
  crcap: u8(134),
  nvmsr: u8(253),
  vwci: u8(254),
  mec: u8(255),
  oacs: u16(256),
  acl: u8(258),
  aerl: u8(259),
  frmw: u8(260),
  lpa: u8(261),
  elpe: u8(262),
  npss: u8(263),
  avscc: u8(264),
  apsta: u8(265),
  wctemp: u16(266),
  cctemp: u16(268),
  mtfa: u16(270),
  hmpre: u32(272),
  hmmin: u32(276),
  tnvmcap: u128(280),
  unvmcap: u128(296),
  rpmbs: u32(312),
  edstt: u16(316),
  dsto: u8(318),
  fwug: u8(319),
  kas: u16(320),
  hctma: u16(322),
  mntmt: u16(324),
  mxtmt: u16(326),
  sanicap: u32(328),
  hmminds: u32(332),
  hmmaxd: u16(336),
  nsetidmax: u16(338),
  endgidmax: u16(340),
  anatt: u8(342),
  anacap: u8(343),
  anagrpmax: u32(344),
  nanagrpid: u32(348),
  pels: u32(352),
  domainid: u16(356),
  megcap: u128(368),
  /** Command Quiesce Time, ms (2.1) */
  cqt: u16(386),
  sqes: u8(512),
  cqes: u8(513),
  maxcmd: u16(514),
  nn: u32(516),
  oncs: u16(520),
  fuses: u16(522),
  fna: u8(524),
  vwc: u8(525),
  awun: u16(526),
  awupf: u16(528),
  icsvscc: u8(530),
  nwpc: u8(531),
  acwu: u16(532),
  ocfs: u16(534),
  sgls: u32(536),
  mnan: u32(540),
  maxdna: u128(544),
  maxcna: u32(560),
  oaqd: u32(564),
  subnqn: text(256, 768),
  /** largest command capsule in 16 bytes, 4 at least */
  ioccsz: u32(1792),
  iorcsz: u32(1796),
  icdoff: u16(1800),
  fcatt: u8(1802),
  msdbd: u8(1803),
  ofcs: u16(1804),
  dctype: u8(1806),
});

/** CNTRLTYPE. */
export const ControllerType = { io: 1, discovery: 2, administrative: 3 } as const;
/** ONCS bits: optional NVM commands. */
export const Oncs = {
  compare: 1 << 0,
  writeUncorrectable: 1 << 1,
  dsm: 1 << 2,
  writeZeroes: 1 << 3,
  saveSelect: 1 << 4,
  reservations: 1 << 5,
  timestamp: 1 << 6,
  verify: 1 << 7,
  copy: 1 << 8,
} as const;
/** LPA bits: log page attributes. */
export const Lpa = {
  perNamespaceSmart: 1 << 0,
  effects: 1 << 1,
  extended: 1 << 2,
  telemetry: 1 << 3,
  persistent: 1 << 4,
  supported: 1 << 5,
} as const;
/** CTRATT bits. */
export const Ctratt = { hostId128: 1 << 0, enduranceGroups: 1 << 4, tbkas: 1 << 6 } as const;
/** CMIC bits: several ports, several controllers, ANA reporting. */
export const Cmic = { ports: 1 << 0, controllers: 1 << 1, ana: 1 << 3 } as const;
/** SGLS bits. */
export const Sgls = { supported: 1, bitBucket: 1 << 16, offset: 1 << 20 } as const;

/** A format that a namespace offers. */
export const lbaFormat = new Struct('LBA format', 4, {
  /** metadata bytes per block */
  ms: u16(0),
  /** block size as a power of two */
  ds: u8(2),
  rp: bits(3, 1, 0, 2),
});

/** CNS 00h: Identify Namespace (NVM command set). */
export const identifyNamespace = new Struct('Identify Namespace', identifySize, {
  nsze: u64(0),
  ncap: u64(8),
  nuse: u64(16),
  nsfeat: u8(24),
  /** formats, 0-based */
  nlbaf: u8(25),
  /** format in use: bits 3:0, 6:5 above them; bit 4 metadata in the block */
  flbas: u8(26),
  mc: u8(27),
  dpc: u8(28),
  dps: u8(29),
  nmic: u8(30),
  rescap: u8(31),
  fpi: u8(32),
  dlfeat: u8(33),
  nawun: u16(34),
  nawupf: u16(36),
  nacwu: u16(38),
  nabsn: u16(40),
  nabo: u16(42),
  nabspf: u16(44),
  noiob: u16(46),
  nvmcap: u128(48),
  npwg: u16(64),
  npwa: u16(66),
  npdg: u16(68),
  npda: u16(70),
  nows: u16(72),
  mssrl: u16(74),
  mcl: u32(76),
  msrc: u8(80),
  nulbaf: u8(82),
  anagrpid: u32(92),
  nsattr: u8(99),
  nvmsetid: u16(100),
  endgid: u16(102),
  nguid: bytes(16, 104),
  eui64: bytes(8, 120),
  lbafs: structs(lbaFormat, 64, 128),
});
/** The format in use of a namespace. @throws WireError when FLBAS names none */
export function formatInUse(ns: { flbas: number; nlbaf: number; lbafs: { ms: number; ds: number }[] }): { ms: number; ds: number } {
  const index = (ns.flbas & 0xf) | ((ns.flbas >> 1) & 0x30);
  const format = ns.lbafs[index];
  if (!format || index > ns.nlbaf) throw new WireError(`FLBAS names format ${index}, NLBAF is ${ns.nlbaf}`, 26);
  return format;
}
/** NSFEAT bits: NAWUN to NABSPF (1) and NPWG to NOWS (4) are set. */
export const Nsfeat = { atomic: 1 << 1, optimal: 1 << 4 } as const;
/** NSFEAT bits of CNS 08h. */
export const NsfeatAll = { rotational: 1 << 4 } as const;
/** NSATTR bit 0: write protected. */
export const nsattrWriteProtected = 1;

/** CNS 08h: I/O command set independent Identify Namespace. */
export const independentNamespace = new Struct('I/O Command Set Independent Identify Namespace', identifySize, {
  nsfeat: u8(0),
  nmic: u8(1),
  rescap: u8(2),
  fpi: u8(3),
  anagrpid: u32(4),
  nsattr: u8(8),
  nvmsetid: u16(10),
  endgid: u16(12),
  /** bit 0: ready */
  nstat: u8(14),
});

/** CNS 05h, CSI 0: NVM command set Identify Namespace. */
export const nvmNamespace = new Struct('NVM Identify Namespace', identifySize, { lbstm: u64(0), pic: u8(8) });
/** CNS 06h, CSI 0: NVM command set Identify Controller; limits as powers of two of CAP.MPSMIN pages. */
export const nvmController = new Struct('NVM Identify Controller', identifySize, {
  vsl: u8(0),
  wzsl: u8(1),
  wusl: u8(2),
  dmrl: u8(3),
  dmrsl: u32(4),
  dmsl: u64(8),
});

/** Namespace identification descriptor types and their lengths. */
export const NsIdType = {
  eui64: { type: 1, size: 8 },
  nguid: { type: 2, size: 16 },
  uuid: { type: 3, size: 16 },
  csi: { type: 4, size: 1 },
} as const;
const idDescriptor = new Struct('Namespace ID descriptor', 4, { nidt: u8(0), nidl: u8(1) });

/** CNS 03h: builds the descriptor list. @throws RangeError when it does not fit 4096 bytes */
export function encodeIdDescriptors(list: { type: number; id: Uint8Array }[]): Buffer {
  const out = Buffer.alloc(identifySize);
  let at = 0;
  for (const { type, id } of list) {
    if (at + 4 + id.length > out.length) throw new RangeError('namespace ID descriptors do not fit');
    idDescriptor.encode({ nidt: type, nidl: id.length }, out, at);
    out.set(id, at + 4);
    at += 4 + id.length;
  }
  return out;
}

/** CNS 03h: reads the list up to its end (NIDL 0). @throws WireError when a descriptor runs beyond the data or has a wrong length */
export function decodeIdDescriptors(data: Buffer): { type: number; id: Buffer }[] {
  const list = [];
  for (let at = 0; at + 4 <= data.length; ) {
    const { nidt, nidl } = idDescriptor.decode(data, at);
    if (nidl === 0) break;
    if (at + 4 + nidl > data.length) throw new WireError(`descriptor of ${nidl} bytes runs beyond the list`, at + 1);
    const known = Object.values(NsIdType).find((row) => row.type === nidt);
    if (known && known.size !== nidl) throw new WireError(`descriptor of type ${nidt} is ${nidl} bytes long, not ${known.size}`, at + 1);
    list.push({ type: nidt, id: Buffer.from(data.subarray(at + 4, at + 4 + nidl)) });
    at += 4 + nidl;
  }
  return list;
}

/** CNS 02h, 07h, 10h and log 04h: up to 1024 NSIDs, ended by 0. */
export function encodeNamespaceList(nsids: number[]): Buffer {
  const out = Buffer.alloc(identifySize);
  for (const [i, nsid] of nsids.slice(0, 1024).entries()) out.writeUInt32LE(nsid, 4 * i);
  return out;
}
/** The same, read. @throws WireError when the numbers do not increase */
export function decodeNamespaceList(data: Buffer): number[] {
  const nsids: number[] = [];
  for (let at = 0; at + 4 <= data.length; at += 4) {
    const nsid = data.readUInt32LE(at);
    if (nsid === 0) break;
    if (nsid <= (nsids.at(-1) ?? 0)) throw new WireError(`namespace list is not in order: ${nsid} after ${nsids.at(-1)}`, at);
    nsids.push(nsid);
  }
  return nsids;
}

/** CNS 13h: controller list, a count and that many CNTLIDs. */
export function encodeControllerList(ids: number[]): Buffer {
  const out = Buffer.alloc(identifySize);
  const some = ids.slice(0, 2047);
  out.writeUInt16LE(some.length, 0);
  for (const [i, id] of some.entries()) out.writeUInt16LE(id, 2 + 2 * i);
  return out;
}
