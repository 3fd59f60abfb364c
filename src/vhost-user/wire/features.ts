/** Names of feature bits: the protocol's own, virtio's that concern vhost, and those of each device type (virtio 1.3). */

/** VHOST_USER_PROTOCOL_F_*, by bit. */
export const protocolFeatures: readonly string[] = [
  'MQ',
  'LOG_SHMFD',
  'RARP',
  'REPLY_ACK',
  'MTU',
  'BACKEND_REQ',
  'CROSS_ENDIAN',
  'CRYPTO_SESSION',
  'PAGEFAULT',
  'CONFIG',
  'BACKEND_SEND_FD',
  'HOST_NOTIFIER',
  'INFLIGHT_SHMFD',
  'RESET_DEVICE',
  'INBAND_NOTIFICATIONS',
  'CONFIGURE_MEM_SLOTS',
  'STATUS',
  'XEN_MMAP',
  'SHARED_OBJECT',
  'DEVICE_STATE',
  'GET_VRING_BASE_INFLIGHT',
  'GPA_ADDRESSES',
  'SHMEM',
];

/** Mask of one protocol feature. @throws RangeError for a name that is not in the table */
export function protocolBit(name: string): bigint {
  const bit = protocolFeatures.indexOf(name);
  if (bit < 0) throw new RangeError(`no protocol feature ${name}`);
  return 1n << BigInt(bit);
}

/** Mask of several protocol features. */
export const protocolMask = (...names: string[]): bigint => names.reduce((mask, name) => mask | protocolBit(name), 0n);

/** Transport features (virtio 1.3, 6) and those that vhost adds, by bit. */
export const transportFeatures: Readonly<Record<number, string>> = {
  24: 'NOTIFY_ON_EMPTY',
  26: 'VHOST_F_LOG_ALL',
  27: 'ANY_LAYOUT',
  28: 'INDIRECT_DESC',
  29: 'EVENT_IDX',
  30: 'VHOST_USER_F_PROTOCOL_FEATURES',
  32: 'VERSION_1',
  33: 'ACCESS_PLATFORM',
  34: 'RING_PACKED',
  35: 'IN_ORDER',
  36: 'ORDER_PLATFORM',
  37: 'SR_IOV',
  38: 'NOTIFICATION_DATA',
  39: 'NOTIF_CONFIG_DATA',
  40: 'RING_RESET',
  41: 'ADMIN_VQ',
};
/** Entries of a ring (virtio 1.3, 2.7). */
export const maxRingSize = 32768;

/** Feature bits that our rings know. */
export const VirtioF = {
  logAll: 1n << 26n,
  indirect: 1n << 28n,
  eventIdx: 1n << 29n,
  protocolFeatures: 1n << 30n,
  version1: 1n << 32n,
  packed: 1n << 34n,
} as const;

/** `[{bit, name}]` of a word; name is undefined where the table has none. */
export function namedBits(word: bigint, nameOf: (bit: number) => string | undefined): { bit: number; name: string | undefined }[] {
  const out: { bit: number; name: string | undefined }[] = [];
  for (let bit = 0; bit < 64; bit++) if ((word >> BigInt(bit)) & 1n) out.push({ bit, name: nameOf(bit) });
  return out;
}

/** A feature word as probe and trace show it. */
export interface FeatureView {
  raw: bigint;
  names: string[];
  /** Bits that no table names. */
  unknown: number[];
}

function view(word: bigint, nameOf: (bit: number) => string | undefined): FeatureView {
  const bits = namedBits(word, nameOf);
  return { raw: word, names: bits.flatMap((b) => b.name ?? []), unknown: bits.filter((b) => b.name === undefined).map((b) => b.bit) };
}

export const protocolView = (word: bigint): FeatureView => view(word, (bit) => protocolFeatures[bit]);

/** @param device names of the device type's own bits */
export const virtioView = (word: bigint, device: Readonly<Record<number, string>> = {}): FeatureView =>
  view(word, (bit) => transportFeatures[bit] ?? device[bit]);

/**
 * Dialects of shared memory that are in the field. Only `standard` is ever sent unless the user asks; the others are
 * recognised by feature bit, request number and payload size, and named.
 */
export interface Dialect {
  readonly name: string;
  readonly where: string;
  /** Protocol feature bit that announces it, where it is one of the vhost-user protocol's. */
  readonly bit: number | undefined;
  readonly getConfig: number;
  readonly map: number;
  readonly unmap: number;
}
export const dialects: readonly Dialect[] = [
  { name: 'standard', where: 'vhost-user of QEMU 11.1, rust-vmm vhost 0.17', bit: 22, getConfig: 44, map: 9, unmap: 10 },
  { name: 'rust-vmm-0.16', where: 'rust-vmm vhost 0.16', bit: 21, getConfig: 44, map: 9, unmap: 10 },
  { name: 'draft-20', where: 'drafts of 2025', bit: 20, getConfig: 44, map: 9, unmap: 10 },
  { name: 'crosvm-2023', where: 'crosvm of 2023', bit: 17, getConfig: 41, map: 6, unmap: 7 },
  { name: 'crosvm-2024', where: 'crosvm of 2024', bit: undefined, getConfig: 1004, map: 1000, unmap: 1001 },
];

/** Dialects of shared memory that the offered bits may mean; the standard alone where it is offered. */
export function shmemDialects(offered: bigint): string[] {
  const named = dialects.filter((d) => d.bit !== undefined && ((offered >> BigInt(d.bit)) & 1n) === 1n).map((d) => d.name);
  return named.includes('standard') ? ['standard'] : named;
}

/** What a request that the specification does not have is in some dialect. */
export function dialectRequest(channel: 'main' | 'back', id: number): string | undefined {
  for (const d of dialects) {
    if (channel === 'main' && id === d.getConfig) return `GET_SHMEM_CONFIG of ${d.where}`;
    if (channel === 'back' && (id === d.map || id === d.unmap)) return `${id === d.map ? 'SHMEM_MAP' : 'SHMEM_UNMAP'} of ${d.where}`;
  }
  return undefined;
}

/** What the offered bits say of shared memory, for people: empty where there is nothing to say. */
export function dialectWarnings(offered: bigint): string[] {
  const has = (bit: number): boolean => ((offered >> BigInt(bit)) & 1n) === 1n;
  const warnings: string[] = [];
  if (has(21) && !has(22))
    warnings.push('protocol bit 21 is GPA_ADDRESSES; rust-vmm vhost 0.16 offers it for shared memory, which is bit 22 in the standard');
  if (has(20) && !has(22))
    warnings.push(
      'protocol bit 20 is GET_VRING_BASE_INFLIGHT; drafts of 2025 offered it for shared memory, which is bit 22 in the standard',
    );
  if (has(22) && !has(5)) warnings.push('SHMEM is offered without BACKEND_REQ: there is no channel for a mapping');
  if (has(22) && !has(3)) warnings.push('SHMEM is offered without REPLY_ACK: the success of a mapping cannot be known');
  if (has(22) && !has(10)) warnings.push('SHMEM is offered without BACKEND_SEND_FD: a mapping cannot carry its file');
  return warnings;
}
