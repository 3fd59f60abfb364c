import { WireError } from '../../common/struct.js';
import { deviceByName } from './devices.js';
import { dialectRequest, dialectWarnings, protocolView, virtioView } from './features.js';
import { type ChannelName, Flag, fsMap, type MessageDef, messageById, mmap, number, VringFd } from './messages.js';
import { statusText } from './status.js';

/** A message as trace shows it. */
export interface Described {
  op: string;
  kind: 'request' | 'reply';
  needReply: boolean;
  /** Fields by name; what the table does not name stays in the raw bytes. */
  fields: Record<string, unknown>;
  /** What is wrong or unusual with it. */
  warnings: string[];
}

const back = { protocol: ['GET_PROTOCOL_FEATURES', 'SET_PROTOCOL_FEATURES'], virtio: ['GET_FEATURES', 'SET_FEATURES'] };

/** Words whose bits have names, and ring indices that share a word with a flag. */
function refine(def: MessageDef, fields: Record<string, unknown>, device: string | undefined): Record<string, unknown> {
  const { value } = fields;
  if (typeof value !== 'bigint') return fields;
  if (back.protocol.includes(def.name)) return { value, names: protocolView(value).names };
  if (back.virtio.includes(def.name)) return { value, names: virtioView(value, deviceByName(device ?? '')?.features).names };
  if (/^SET_VRING_(KICK|CALL|ERR)$/.test(def.name))
    return { index: Number(value & VringFd.indexMask), noFd: (value & VringFd.noFd) !== 0n };
  return fields;
}

/** GET_SHMEM_CONFIG's 256 sizes: those that are set. */
function regions(fields: Record<string, unknown>): Record<string, unknown> {
  const sizes = fields.sizes as bigint[];
  return { count: fields.count, regions: sizes.flatMap((size, id) => (size === 0n ? [] : [{ id, size }])) };
}

function decodeRequest(channel: ChannelName, def: MessageDef, payload: Uint8Array, warnings: string[]): Record<string, unknown> {
  // Numbers 6 to 9 of the virtio-fs draft are taken by others today; 256 bytes give the draft away.
  if (channel === 'back' && payload.length === fsMap.size && def.id >= 6 && def.id <= 9) {
    warnings.push(`request ${def.id} with 256 bytes is the virtio-fs draft's ${['FS_MAP', 'FS_UNMAP', 'FS_SYNC', 'FS_IO'][def.id - 6]}`);
    return fsMap.decode(payload);
  }
  if (channel === 'back' && payload.length === mmap.size && (def.id === 6 || def.id === 7))
    warnings.push(`request ${def.id} with 40 bytes is SHMEM_${def.id === 6 ? 'MAP' : 'UNMAP'} of crosvm 2023`);
  return def.request ? (def.request.decode(payload) as Record<string, unknown>) : {};
}

/**
 * Decodes a message for people and programs. Never throws: what does not fit the table is told in `warnings`.
 * @param fds how many descriptors came with it
 */
export function describe(
  channel: ChannelName,
  message: { id: number; flags: number; payload: Uint8Array },
  fds: number,
  device?: string,
): Described {
  const { id, flags, payload } = message;
  const def = messageById(channel, id);
  const kind = flags & Flag.reply ? 'reply' : 'request';
  const warnings: string[] = [];
  let fields: Record<string, unknown> = {};
  if ((flags & Flag.versionMask) !== Flag.version) warnings.push(`version ${flags & Flag.versionMask}, not 1`);
  if ((flags & Flag.reserved) !== 0) warnings.push(`reserved flag bits 0x${((flags & Flag.reserved) >>> 0).toString(16)}`);
  if (!def) {
    const dialect = dialectRequest(channel, id);
    warnings.push(`request ${id} is not in the specification${dialect ? `: it is ${dialect}` : ''}`);
  }
  if (def) {
    try {
      if (kind === 'request') fields = refine(def, decodeRequest(channel, def, payload, warnings), device);
      else if (def.reply && payload.length === 0 && def.name === 'GET_CONFIG') fields = { status: 'error' };
      else if (def.reply && def.replyIf === undefined) fields = refine(def, def.reply.decode(payload) as Record<string, unknown>, device);
      else if (payload.length === number.size) {
        const { value } = number.decode(payload);
        fields = { value, status: statusText(value) };
      } else if (def.reply) fields = def.reply.decode(payload) as Record<string, unknown>;
      if (def.name === 'GET_SHMEM_CONFIG' && kind === 'reply') fields = regions(fields);
    } catch (err) {
      if (!(err instanceof WireError)) throw err;
      warnings.push(err.message);
    }
    const [least, most] = kind === 'request' ? def.fds : (def.replyFds ?? [0, 0]);
    if (fds < least || fds > most) warnings.push(`${fds} descriptors where ${least === most ? least : `${least} to ${most}`} belong`);
    if (def.name === 'GET_PROTOCOL_FEATURES' && kind === 'reply' && typeof fields.value === 'bigint')
      warnings.push(...dialectWarnings(fields.value));
  }
  return { op: def?.name ?? `request ${id}`, kind, needReply: (flags & Flag.needReply) !== 0, fields, warnings };
}
