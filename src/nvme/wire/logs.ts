/**
 * Log pages (NVMe Base 2.0, 5.16.1). Field names are those of nvme-cli's JSON.
 */
import { bits, Struct, text, u8, u16, u32, u32s, u64, u128, WireError } from '../../common/struct.js';

/** LID 01h: one entry of the Error Information log. */
export const errorEntry = new Struct('Error log entry', 64, {
  error_count: u64(0),
  sqid: u16(8),
  cmdid: u16(10),
  /** status of the command; bit 0 is the phase */
  status_field: bits(12, 2, 1, 15),
  phase_tag: bits(12, 2, 0, 1),
  parm_error_location: u16(14),
  lba: u64(16),
  nsid: u32(24),
  vs: u8(28),
  trtype: u8(29),
  cs: u64(32),
  trtype_spec_info: u16(40),
});

/** LID 02h: SMART / Health Information. */
export const smartLog = new Struct('SMART log', 512, {
  critical_warning: u8(0),
  /** kelvin */
  temperature: u16(1),
  avail_spare: u8(3),
  spare_thresh: u8(4),
  percent_used: u8(5),
  endurance_grp_critical_warning_summary: u8(6),
  /** thousands of 512 bytes, rounded up */
  data_units_read: u128(32),
  data_units_written: u128(48),
  host_read_commands: u128(64),
  host_write_commands: u128(80),
  /** minutes */
  controller_busy_time: u128(96),
  power_cycles: u128(112),
  power_on_hours: u128(128),
  unsafe_shutdowns: u128(144),
  media_errors: u128(160),
  num_err_log_entries: u128(176),
  warning_temp_time: u32(192),
  critical_comp_time: u32(196),
  temperature_sensor_1: u16(200),
  thm_temp1_trans_count: u32(216),
  thm_temp2_trans_count: u32(220),
  thm_temp1_total_time: u32(224),
  thm_temp2_total_time: u32(228),
});

/** LID 03h: Firmware Slot Information. */
export const firmwareLog = new Struct('Firmware log', 512, { afi: u8(0), frs1: text(8, 8), frs2: text(8, 16), frs3: text(8, 24) });

/** LID 09h: Endurance Group Information. */
export const enduranceGroupLog = new Struct('Endurance Group log', 512, {
  critical_warning: u8(0),
  avl_spare: u8(3),
  avl_spare_threshold: u8(4),
  percent_used: u8(5),
  data_units_read: u128(48),
  data_units_written: u128(64),
  host_read_cmds: u128(96),
  host_write_cmds: u128(112),
});

/** LID 16h: Rotational Media Information. */
export const rotationalMediaLog = new Struct('Rotational Media log', 512, {
  endgid: u16(0),
  /** actuators */
  numa: u16(2),
  /** nominal rotational speed, 0: not told */
  nrs: u16(4),
});

/** LID 05h: Commands Supported and Effects. */
export const effectsLog = new Struct('Effects log', 4096, { acs: u32s(256, 0), iocs: u32s(256, 1024) });
/** Bits of one command's effects. */
export const Effect = {
  supported: 1 << 0,
  /** changes blocks */
  lbcc: 1 << 1,
  /** changes namespace capability */
  ncc: 1 << 2,
  nic: 1 << 3,
  ccc: 1 << 4,
  /** Scope of a command or a feature. */
  controllerScope: 1 << 21,
} as const;

/** LID 12h: Feature Identifiers Supported and Effects; LID 13h, of NVMe-MI commands, looks alike. */
export const featureEffectsLog = new Struct('Feature effects log', 1024, { fids: u32s(256, 0) });

/** LID 0Ch: Asymmetric Namespace Access. */
export const anaHeader = new Struct('ANA log', 16, { chgcnt: u64(0), ngrps: u16(8) });
export const anaGroup = new Struct('ANA group', 32, { grpid: u32(0), nnsids: u32(4), chgcnt: u64(8), state: bits(16, 1, 0, 4) });
/** ANA states. */
export const AnaState = { optimized: 1, nonOptimized: 2, inaccessible: 3, persistentLoss: 4, change: 15 } as const;
export const anaStateNames: ReadonlyMap<number, string> = new Map([
  [1, 'optimized'],
  [2, 'non-optimized'],
  [3, 'inaccessible'],
  [4, 'persistent-loss'],
  [15, 'change'],
]);
export interface AnaGroup {
  grpid: number;
  chgcnt: bigint;
  state: number;
  nsids: number[];
}

/** LID 0Ch as bytes. */
export function encodeAnaLog(chgcnt: bigint, groups: AnaGroup[]): Buffer {
  const out = Buffer.alloc(anaHeader.size + groups.reduce((sum, g) => sum + anaGroup.size + 4 * g.nsids.length, 0));
  anaHeader.encode({ chgcnt, ngrps: groups.length }, out);
  let at = anaHeader.size;
  for (const { nsids, ...group } of groups) {
    anaGroup.encode({ ...group, nnsids: nsids.length }, out, at);
    at += anaGroup.size;
    for (const nsid of nsids) at = out.writeUInt32LE(nsid, at);
  }
  return out;
}

/** LID 0Ch read. @throws WireError when it runs beyond its data */
export function decodeAnaLog(data: Buffer): { chgcnt: bigint; groups: AnaGroup[] } {
  const { chgcnt, ngrps } = anaHeader.decode(data);
  const groups: AnaGroup[] = [];
  let at = anaHeader.size;
  for (let i = 0; i < ngrps; i++) {
    const { nnsids, ...group } = anaGroup.decode(data, at);
    at += anaGroup.size;
    if (nnsids > (data.length - at) / 4) throw new WireError(`ANA group ${group.grpid} has ${nnsids} namespaces, beyond the log`, at);
    groups.push({ ...group, nsids: Array.from({ length: nnsids }, (_, n) => data.readUInt32LE(at + 4 * n)) });
    at += 4 * nnsids;
  }
  return { chgcnt, groups };
}

/** LID 70h: header of the discovery log; 1024 bytes, records follow. */
export const discoveryHeader = new Struct('Discovery log', 1024, { genctr: u64(0), numrec: u64(8), recfmt: u16(16) });
/** One record of the discovery log. */
export const discoveryRecord = new Struct('Discovery record', 1024, {
  trtype: u8(0),
  adrfam: u8(1),
  subtype: u8(2),
  treq: u8(3),
  portid: u16(4),
  cntlid: u16(6),
  asqsz: u16(8),
  eflags: u16(10),
  trsvcid: text(32, 32),
  subnqn: text(256, 256),
  traddr: text(256, 512),
  /** SECTYPE of TCP */
  sectype: u8(768),
});
export const Trtype = { rdma: 1, fc: 2, tcp: 3, loop: 254 } as const;
export const Adrfam = { pci: 0, ipv4: 1, ipv6: 2, ib: 3, fc: 4, loop: 254 } as const;
export const Subtype = { referral: 1, nvm: 2, current: 3 } as const;
/** TREQ: secure channel 1 required, 2 not required; bit 2: SQ flow control can be switched off. */
/** Security type in TSAS of a record for TCP. */
export const Sectype = { none: 0, tls12: 1, tls13: 2 } as const;
export const Treq = { required: 1, notRequired: 2, sqFlowControlOff: 4 } as const;

const trtypes = new Map([
  [1, 'rdma'],
  [2, 'fc'],
  [3, 'tcp'],
  [254, 'loop'],
]);
const adrfams = new Map([
  [0, 'pci'],
  [1, 'ipv4'],
  [2, 'ipv6'],
  [3, 'infiniband'],
  [4, 'fibre-channel'],
  [254, 'loop'],
]);
const subtypes = new Map([
  [1, 'discovery subsystem referral'],
  [2, 'nvme subsystem'],
  [3, 'current discovery subsystem'],
]);
const treqs = ['not specified', 'required', 'not required', 'reserved'];
const eflagNames = [
  'none',
  'duplicate discovery information',
  'explicit discovery connections',
  'explicit discovery connections, duplicate discovery information',
];
const sectypes = new Map([
  [0, 'none'],
  [1, 'tls'],
  [2, 'tls13'],
]);

/** A record in the words of `nvme discover -o json`. Text is as the target sent it, space padding removed: escape it before printing. */
export interface DiscoveryRecord {
  /** transport, such as tcp */
  trtype: string;
  /** address family, such as ipv4 */
  adrfam: string;
  /** kind of the subsystem: an NVMe subsystem, a discovery service, or a referral */
  subtype: string;
  /** whether a secure channel is required */
  treq: string;
  /** number of the port */
  portid: number;
  /** TCP port */
  trsvcid: string;
  /** NQN of the subsystem */
  subnqn: string;
  /** address */
  traddr: string;
  /** flags of the entry */
  eflags: string;
  /** security of the connection: none, tls or tls13 */
  sectype: string;
}

/** The JSON form of a decoded record. */
export function describeRecord(record: ReturnType<typeof discoveryRecord.decode>): DiscoveryRecord {
  const trim = (value: string) => value.replace(/[ \0]+$/, '');
  return {
    trtype: trtypes.get(record.trtype) ?? 'unrecognized',
    adrfam: adrfams.get(record.adrfam) ?? 'unrecognized',
    subtype: subtypes.get(record.subtype) ?? 'unrecognized',
    treq: `${treqs[record.treq & 3]}${record.treq & Treq.sqFlowControlOff ? ', sq flow control disable supported' : ''}`,
    portid: record.portid,
    trsvcid: trim(record.trsvcid),
    subnqn: trim(record.subnqn),
    traddr: trim(record.traddr),
    eflags: eflagNames[record.eflags & 3]!,
    sectype: sectypes.get(record.sectype) ?? 'unrecognized',
  };
}
