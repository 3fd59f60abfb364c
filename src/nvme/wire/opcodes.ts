/** Opcodes and other numbers of commands: admin (NVMe Base 2.0, figure 138), fabrics (figure 143) and NVM (NVM Command Set 1.0, figure 18). */

/** Which way a command moves data; its two lowest opcode bits say it, for fabrics commands those of FCTYPE. */
export type Transfer = 'none' | 'write' | 'read';
export const transferOf = (code: number): Transfer => (['none', 'write', 'read', 'none'] as const)[code & 3]!;

export const AdminOpcode = {
  getLogPage: 0x02,
  identify: 0x06,
  abort: 0x08,
  setFeatures: 0x09,
  getFeatures: 0x0a,
  asyncEventRequest: 0x0c,
  keepAlive: 0x18,
  fabrics: 0x7f,
} as const;

export const NvmOpcode = {
  flush: 0x00,
  write: 0x01,
  read: 0x02,
  writeUncorrectable: 0x04,
  compare: 0x05,
  writeZeroes: 0x08,
  datasetManagement: 0x09,
  verify: 0x0c,
  reservationRegister: 0x0d,
  reservationReport: 0x0e,
  reservationAcquire: 0x11,
  reservationRelease: 0x15,
  copy: 0x19,
  fabrics: 0x7f,
} as const;

export const Fctype = {
  propertySet: 0x00,
  connect: 0x01,
  propertyGet: 0x04,
  authSend: 0x05,
  authReceive: 0x06,
  disconnect: 0x08,
} as const;

const names = (table: Record<string, number>): ReadonlyMap<number, string> =>
  new Map(Object.entries(table).map(([name, code]) => [code, name.replace(/[A-Z]/g, (c) => ` ${c.toLowerCase()}`)]));
const adminNames = names(AdminOpcode);
const nvmNames = names(NvmOpcode);
const fctypeNames = names(Fctype);

/** `identify`, `read`, `fabrics connect`, or `opcode 0x…` for an unknown one. */
export function commandName(opcode: number, fctype: number, queue: 'admin' | 'io'): string {
  if (opcode === AdminOpcode.fabrics) return `fabrics ${fctypeNames.get(fctype) ?? `type 0x${fctype.toString(16)}`}`;
  return (queue === 'admin' ? adminNames : nvmNames).get(opcode) ?? `opcode 0x${opcode.toString(16).padStart(2, '0')}`;
}

/** Controller or Namespace Structure of Identify (CNS). */
export const Cns = {
  namespace: 0x00,
  controller: 0x01,
  activeNamespaces: 0x02,
  namespaceDescriptors: 0x03,
  csNamespace: 0x05,
  csController: 0x06,
  csActiveNamespaces: 0x07,
  independentNamespace: 0x08,
  allocatedNamespaces: 0x10,
  allocatedNamespace: 0x11,
  namespaceControllers: 0x12,
  controllers: 0x13,
  endurancegroups: 0x19,
  csIndependentAllocated: 0x1a,
  commandSets: 0x1c,
} as const;

/** Log Page Identifiers (LID). */
export const Lid = {
  supported: 0x00,
  error: 0x01,
  smart: 0x02,
  firmware: 0x03,
  changedNamespaces: 0x04,
  effects: 0x05,
  selfTest: 0x06,
  telemetryHost: 0x07,
  telemetryController: 0x08,
  enduranceGroup: 0x09,
  ana: 0x0c,
  persistentEvent: 0x0d,
  featureEffects: 0x12,
  managementEffects: 0x13,
  rotationalMedia: 0x16,
  discovery: 0x70,
  reservation: 0x80,
} as const;

/** Feature Identifiers (FID). */
export const Fid = {
  arbitration: 0x01,
  powerManagement: 0x02,
  temperatureThreshold: 0x04,
  errorRecovery: 0x05,
  volatileWriteCache: 0x06,
  numberOfQueues: 0x07,
  interruptCoalescing: 0x08,
  interruptVector: 0x09,
  writeAtomicity: 0x0a,
  asyncEventConfiguration: 0x0b,
  timestamp: 0x0e,
  keepAliveTimer: 0x0f,
  hostBehaviour: 0x16,
  hostIdentifier: 0x81,
  reservationMask: 0x82,
  reservationPersistence: 0x83,
  writeProtect: 0x84,
} as const;

/** Asynchronous events (dw0 of their completion): type in bits 2:0, information in 15:8, log page in 23:16. */
export const AsyncEvent = {
  namespaceChanged: 0x00_04_00_02,
  anaChanged: 0x00_0c_03_02,
  discoveryChanged: 0x00_70_f0_02,
} as const;
/** Optional Asynchronous Events Supported and the same bits of FID 0Bh. */
export const Oaes = { namespaceAttribute: 1 << 8, firmware: 1 << 9, ana: 1 << 11, discovery: 0x8000_0000 } as const;

/** Port of the discovery service over TCP: where hosts look that were given an address alone. */
export const discoveryPort = 8009;
/** The well-known discovery NQN. */
export const discoveryNqn = 'nqn.2014-08.org.nvmexpress.discovery';
/** Longest NQN in bytes, without its NUL. */
export const maxNqn = 223;
/** Every namespace (NSID). */
export const allNamespaces = 0xffff_ffff;
