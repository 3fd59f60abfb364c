import type { Sysroot } from '../../common/sysroot.js';
import type { FrontEnd } from '../frontend/frontend.js';
import { judgeRegions } from '../shmem/regions.js';
import { type DeviceType, decodeConfig, deviceByName, deviceTypes } from '../wire/devices.js';
import { dialectWarnings, type FeatureView, protocolMask, protocolView, shmemDialects, VirtioF, virtioView } from '../wire/features.js';

/** What a back-end is and offers. */
export interface ProbeResult {
  /** path of the socket */
  socket: string;
  /** process that listens */
  peer: { pid: number; uid: number; gid: number; exe: string | null };
  /** Device type: the protocol does not tell it, so it is what the user said or a guess from what the back-end offers. */
  device: { name: string; guess: boolean } | null;
  /** virtio features that it offers */
  features: FeatureView;
  /** protocol features that it offers */
  protocol: FeatureView | null;
  /** virtqueues at most; null if it does not say */
  queues: number | null;
  /** memory regions at most; null if it does not say */
  maxMemSlots: number | null;
  /** configuration space: size, bytes, decoded fields */
  config: { size: number; hex: string; fields: Record<string, unknown> } | null;
  /** dialects of shared memory that the protocol features allow; `standard` is bit 22 */
  shmemDialects: string[];
  /** shared memory regions */
  shmem: { regions: { id: number; size: bigint }[] } | null;
  /** what does not conform to the protocol */
  warnings: string[];
}

/** Sizes to ask for, largest first: back-ends refuse to read past the end of their configuration space. */
const configSizes = [256, 136, 96, 72, 60, 56, 44, 40, 36, 24, 16, 12, 8, 4];

/** Programs that end when their client goes, so that looking at them ends them. */
const endingPrograms = /(^|\/)(virtiofsd|vhost-user-(gpu|input|rpmb|fs|scsi|blk)|passt)$/;
export const endsOnDisconnect = (exe: string): boolean => endingPrograms.test(exe);

/**
 * Asks a back-end for everything that can be asked without starting it. The connection stays open: the caller closes it or
 * hands it over.
 * @param device type to decode the configuration space as
 * @throws VioError where the peer does not answer or breaks the protocol
 */
export async function probe(front: FrontEnd, socket: string, sys: Sysroot, device?: string): Promise<ProbeResult> {
  const peer = front.peer();
  const exe = peer.pid > 0 ? (sys.readlink(`/proc/${peer.pid}/exe`) ?? null) : null;
  const warnings: string[] = [];
  await front.negotiate(protocolMask('MQ', 'CONFIG', 'CONFIGURE_MEM_SLOTS', 'SHMEM'));
  const negotiated = (front.features & VirtioF.protocolFeatures) !== 0n;
  if (!negotiated) warnings.push('no protocol features: nothing more can be asked');
  warnings.push(...dialectWarnings(front.protocol));
  const queues = front.has('MQ') ? Number(await front.number('GET_QUEUE_NUM')) : null;
  const maxMemSlots = front.has('CONFIGURE_MEM_SLOTS') ? Number(await front.number('GET_MAX_MEM_SLOTS')) : null;
  let shmem: ProbeResult['shmem'] = null;
  if (front.has('SHMEM')) {
    const sizes = await front.shmemConfig();
    shmem = { regions: [...sizes].map(([id, size]) => ({ id, size })) };
    warnings.push(...judgeRegions(sizes).warnings);
  }
  const read = front.has('CONFIG') ? await readConfig(front, deviceByName(device ?? '')) : undefined;
  const type = deviceByName(device ?? '') ?? guess(exe ?? '', front.features, read);
  const config = read && withoutPadding(read, type);
  const features = virtioView(front.features, type?.features);
  const protocol = negotiated ? protocolView(front.protocol) : null;
  if (protocol && protocol.unknown.length > 0)
    warnings.push(`protocol bits without a name in the specification: ${protocol.unknown.join(', ')}`);
  if (exe !== null && endsOnDisconnect(exe)) warnings.push(`${exe} ends when this connection ends; --hand-over keeps it`);
  return {
    socket,
    peer: { ...peer, exe },
    device: type ? { name: type.name, guess: device === undefined } : null,
    features,
    protocol,
    queues,
    maxMemSlots,
    config: config
      ? { size: config.length, hex: Buffer.from(config).toString('hex'), fields: type ? decodeConfig(type, config) : {} }
      : null,
    shmemDialects: shmemDialects(front.protocol),
    shmem,
    warnings,
  };
}

/** As much of the configuration space as the back-end gives in one piece. */
async function readConfig(front: FrontEnd, device: DeviceType | undefined): Promise<Uint8Array | undefined> {
  const known = device?.config?.size;
  for (const size of known === undefined ? configSizes : [known, ...configSizes.filter((s) => s < known)]) {
    const data = await front.config(0, size);
    if (data && data.length === size) return data;
  }
  return undefined;
}

/** Without the zeroes that a back-end has put behind the end of the device's configuration space. */
function withoutPadding(config: Uint8Array, type: DeviceType | undefined): Uint8Array {
  const size = type?.config?.size ?? config.length;
  return config.subarray(size).some((byte) => byte !== 0) ? config : config.subarray(0, size);
}

const bit = (n: number): bigint => 1n << BigInt(n);
/** SEG_MAX, BLK_SIZE, FLUSH: every block back-end of today offers them. Bit 17 is CTRL_VQ of a network device. */
const blkFeatures = bit(2) | bit(6) | bit(9);
const NET_CTRL_VQ = bit(17);

/** Whether features and configuration space are those of a block device. */
export const looksLikeBlock = (features: bigint, config: Uint8Array): boolean =>
  config.length >= 56 && (features & 0xff_ffffn & blkFeatures) === blkFeatures && (features & NET_CTRL_VQ) === 0n;

/** The type that a program's name, or its configuration and its feature bits, point to. */
function guess(exe: string, features: bigint, config: Uint8Array | undefined): DeviceType | undefined {
  if (/virtiofsd/.test(exe)) return deviceByName('fs');
  const named = deviceTypes.find((d) => new RegExp(`(vhost|user)[-_](device[-_])?(user[-_])?${d.name}`).test(exe));
  if (named) return named;
  const own = features & 0xff_ffffn;
  if (config !== undefined && looksLikeBlock(features, config)) return deviceByName('blk');
  if (config !== undefined && config.length >= 16 && own === 1n && config.subarray(16).every((byte) => byte === 0))
    return deviceByName('pmem');
  return undefined;
}
