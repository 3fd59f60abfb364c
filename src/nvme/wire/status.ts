/**
 * Status of a command (NVMe Base 2.0, 3.3.3.2.1; fabrics codes 6; NVM Command Set 1.0, 3): type, code, name, and whether
 * repeating the command can never help (Do Not Retry).
 */

interface StatusRow {
  readonly sct: number;
  readonly sc: number;
  readonly text: string;
  /** permanent: set DNR */
  readonly dnr: boolean;
}
const row = (sct: number, sc: number, text: string, dnr = true): StatusRow => ({ sct, sc, text, dnr });
const transient = (sct: number, sc: number, text: string): StatusRow => row(sct, sc, text, false);

/** The statuses by name; use as `Status.invalidField`. */
export const Status = {
  success: transient(0, 0x00, 'Successful Completion'),
  invalidOpcode: row(0, 0x01, 'Invalid Command Opcode'),
  invalidField: row(0, 0x02, 'Invalid Field in Command'),
  commandIdConflict: row(0, 0x03, 'Command ID Conflict'),
  dataTransferError: transient(0, 0x04, 'Data Transfer Error'),
  powerLoss: transient(0, 0x05, 'Commands Aborted due to Power Loss Notification'),
  internal: transient(0, 0x06, 'Internal Error'),
  abortRequested: transient(0, 0x07, 'Command Abort Requested'),
  abortSqDeletion: transient(0, 0x08, 'Command Aborted due to SQ Deletion'),
  abortFailedFused: transient(0, 0x09, 'Command Aborted due to Failed Fused Command'),
  abortMissingFused: row(0, 0x0a, 'Command Aborted due to Missing Fused Command'),
  invalidNamespace: row(0, 0x0b, 'Invalid Namespace or Format'),
  sequenceError: row(0, 0x0c, 'Command Sequence Error'),
  invalidSglSegment: row(0, 0x0d, 'Invalid SGL Segment Descriptor'),
  invalidSglCount: row(0, 0x0e, 'Invalid Number of SGL Descriptors'),
  sglLengthInvalid: row(0, 0x0f, 'Data SGL Length Invalid'),
  metadataSglLengthInvalid: row(0, 0x10, 'Metadata SGL Length Invalid'),
  sglTypeInvalid: row(0, 0x11, 'SGL Descriptor Type Invalid'),
  invalidPrpOffset: row(0, 0x13, 'PRP Offset Invalid'),
  atomicWriteUnitExceeded: row(0, 0x14, 'Atomic Write Unit Exceeded'),
  operationDenied: row(0, 0x15, 'Operation Denied'),
  sglOffsetInvalid: row(0, 0x16, 'SGL Offset Invalid'),
  hostIdInconsistent: row(0, 0x18, 'Host Identifier Inconsistent Format'),
  keepAliveExpired: transient(0, 0x19, 'Keep Alive Timer Expired'),
  keepAliveInvalid: row(0, 0x1a, 'Keep Alive Timeout Invalid'),
  abortPreempt: transient(0, 0x1b, 'Command Aborted due to Preempt and Abort'),
  sanitizeFailed: row(0, 0x1c, 'Sanitize Failed'),
  sanitizeInProgress: transient(0, 0x1d, 'Sanitize In Progress'),
  sglDataBlockGranularity: row(0, 0x1e, 'SGL Data Block Granularity Invalid'),
  commandSetNotSupported: row(0, 0x1f, 'Command Not Supported for Queue in CMB'),
  writeProtected: row(0, 0x20, 'Namespace is Write Protected'),
  interrupted: transient(0, 0x21, 'Command Interrupted'),
  transientTransport: transient(0, 0x22, 'Transient Transport Error'),
  commandProhibited: row(0, 0x23, 'Command Prohibited by Command and Feature Lockdown'),
  adminCommandMediaNotReady: transient(0, 0x24, 'Admin Command Media Not Ready'),
  lbaOutOfRange: row(0, 0x80, 'LBA Out of Range'),
  capacityExceeded: row(0, 0x81, 'Capacity Exceeded'),
  namespaceNotReady: transient(0, 0x82, 'Namespace Not Ready'),
  reservationConflict: row(0, 0x83, 'Reservation Conflict'),
  formatInProgress: transient(0, 0x84, 'Format In Progress'),

  invalidQueueId: row(1, 0x01, 'Invalid Queue Identifier'),
  invalidQueueSize: row(1, 0x02, 'Invalid Queue Size'),
  abortLimit: transient(1, 0x03, 'Abort Command Limit Exceeded'),
  asyncEventLimit: row(1, 0x05, 'Asynchronous Event Request Limit Exceeded'),
  invalidLogPage: row(1, 0x09, 'Invalid Log Page'),
  featureNotSaveable: row(1, 0x0d, 'Feature Identifier Not Saveable'),
  featureNotChangeable: row(1, 0x0e, 'Feature Not Changeable'),
  featureNotNamespaceSpecific: row(1, 0x0f, 'Feature Not Namespace Specific'),
  invalidController: row(1, 0x1f, 'Invalid Controller Identifier'),
  ioCommandSetNotSupported: row(1, 0x29, 'I/O Command Set Not Supported'),
  connectIncompatible: row(1, 0x80, 'Connect Incompatible Format'),
  connectBusy: transient(1, 0x81, 'Connect Controller Busy'),
  connectInvalidParameters: row(1, 0x82, 'Connect Invalid Parameters'),
  connectRestart: transient(1, 0x83, 'Connect Restart Discovery'),
  connectInvalidHost: row(1, 0x84, 'Connect Invalid Host'),
  discoveryRestart: transient(1, 0x90, 'Discovery Restart'),
  authenticationRequired: row(1, 0x91, 'Authentication Required'),

  writeFault: transient(2, 0x80, 'Write Fault'),
  unrecoveredRead: transient(2, 0x81, 'Unrecovered Read Error'),
  compareFailure: row(2, 0x85, 'Compare Failure'),
  accessDenied: row(2, 0x86, 'Access Denied'),
  deallocatedBlock: row(2, 0x87, 'Deallocated or Unwritten Logical Block'),

  internalPath: transient(3, 0x00, 'Internal Path Error'),
  anaPersistentLoss: row(3, 0x01, 'Asymmetric Access Persistent Loss'),
  anaInaccessible: transient(3, 0x02, 'Asymmetric Access Inaccessible'),
  anaTransition: transient(3, 0x03, 'Asymmetric Access Transition'),
  hostPathError: transient(3, 0x70, 'Host Pathing Error'),
} as const satisfies Record<string, StatusRow>;

/** NVM commands reuse numbers of the command-specific type: these win on I/O queues. */
export const NvmStatus = {
  conflictingAttributes: row(1, 0x80, 'Conflicting Attributes'),
  invalidProtectionInformation: row(1, 0x81, 'Invalid Protection Information'),
  writeToReadOnly: row(1, 0x82, 'Attempted Write to Read Only Range'),
  commandSizeLimitExceeded: row(1, 0x83, 'Command Size Limit Exceeded'),
} as const satisfies Record<string, StatusRow>;

/** A decoded status field. */
export interface StatusField {
  sct: number;
  sc: number;
  dnr: boolean;
  more: boolean;
  /** Command Retry Delay, an index */
  crd: number;
}

/** The CQE's status field (16 bits with the phase bit, which is ignored). */
export const decodeStatus = (field: number): StatusField => ({
  sc: (field >> 1) & 0xff,
  sct: (field >> 9) & 7,
  crd: (field >> 12) & 3,
  more: (field & 0x4000) !== 0,
  dnr: (field & 0x8000) !== 0,
});

/** A status for the CQE; DNR as the table says unless given. */
export const encodeStatus = (status: { sct: number; sc: number; dnr?: boolean }, dnr = status.dnr ?? false): number =>
  (status.sc << 1) | (status.sct << 9) | (dnr ? 0x8000 : 0);

const generic = new Map(Object.values(Status).map((status) => [(status.sct << 8) | status.sc, status.text]));
const nvm = new Map<number, string>(Object.values(NvmStatus).map((status) => [(status.sct << 8) | status.sc, status.text]));

/** `Invalid Field in Command (02h, DNR)`, `Connect Invalid Parameters (1/82h)`. @param queue whose command it answers; fabrics are admin */
export function statusText(status: { sct: number; sc: number; dnr?: boolean }, queue: 'admin' | 'io' = 'admin'): string {
  const key = (status.sct << 8) | status.sc;
  const name = (queue === 'io' ? nvm.get(key) : undefined) ?? generic.get(key) ?? 'unknown status';
  return `${name} (${statusCode(status)}${status.dnr ? ', DNR' : ''})`;
}

/** `02h` of the generic type, `1/82h` of others. */
export const statusCode = (status: { sct: number; sc: number }): string =>
  `${status.sct === 0 ? '' : `${status.sct}/`}${status.sc.toString(16).toUpperCase().padStart(2, '0')}h`;
