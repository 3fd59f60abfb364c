import { bytes, bytesOf, listOf, nested, pad, type Struct, struct, u8, u16, u32, u64, u64s } from '../../common/struct.js';

/**
 * All messages of the vhost-user protocol (QEMU 11.1, docs/interop/vhost-user): the one table that encode, decode, size and
 * fd rules, trace, check and tests come from.
 */

/** Bits of the header's flags word. */
export const Flag = { version: 0x1, versionMask: 0x3, reply: 0x4, needReply: 0x8, reserved: 0xfffffff0 } as const;
export const headerSize = 12;
/** Descriptors per message at most (VHOST_MEMORY_BASELINE_NREGIONS on the main channel, the spec's 8 on the back-end's). */
export const maxFds = 8;
/** Regions of shared memory that one device can have. */
export const shmemRegions = 256;
/** Bytes of configuration space that a message can carry (VHOST_USER_MAX_CONFIG_SIZE). */
export const maxConfig = 256;

export const header = struct('header', { request: u32(), flags: u32(), size: u32() });
export const none = struct('nothing', {});
export const number = struct('u64', { value: u64() });
export const vringState = struct('vring_state', { index: u32(), num: u32() });
export const vringAddr = struct('vring_addr', { index: u32(), flags: u32(), desc: u64(), used: u64(), avail: u64(), log: u64() });
export const vringFd = struct('vring_fd', { value: u64() });
export const region = struct('region', { gpa: u64(), size: u64(), uva: u64(), offset: u64() });
export const memTable = struct('mem_table', { count: u32(), _: pad(4), regions: listOf('count', region) });
export const singleRegion = struct('single_region', { _: pad(8), region: nested(region) });
export const log = struct('log', { size: u64(), offset: u64() });
export const iotlb = struct('iotlb', { iova: u64(), size: u64(), uva: u64(), perm: u8(), type: u8(), _: pad(6) });
export const config = struct('config', { offset: u32(), size: u32(), flags: u32(), data: bytesOf('size') });
/** 20 bytes in the text, 24 where it is a C struct (QEMU). */
export const inflight = struct('inflight', { size: u64(), offset: u64(), queues: u16(), queueSize: u16(), _: pad(4) }, 4);
export const uuid = struct('uuid', { uuid: bytes(16) });
export const deviceState = struct('device_state', { direction: u32(), phase: u32() });
export const vringArea = struct('vring_area', { value: u64(), size: u64(), offset: u64() });
export const shmemConfig = struct('shmem_config', { count: u32(), _: pad(4), sizes: u64s(shmemRegions) });
export const mmap = struct('mmap', { shmid: u8(), _: pad(7), fdOffset: u64(), shmOffset: u64(), len: u64(), flags: u64() });
/** FS_MAP and its kin of the virtio-fs draft: eight of each, told from SHMEM_MAP by the size. */
export const fsMap = struct('fs_map', { fdOffset: u64s(8), cacheOffset: u64s(8), len: u64s(8), flags: u64s(8) });
/** Layout belongs to cryptodev; carried as it is. */
export const opaque = undefined;

/** How many descriptors come with a message: least and most. */
export type FdRule = readonly [min: number, max: number];

/** One message of the table. */
export interface MessageDef {
  readonly id: number;
  readonly name: string;
  /** Payload; undefined where it is opaque. */
  readonly request: Struct | undefined;
  readonly fds: FdRule;
  /** Reply that the message has of itself. Without it there is an acknowledgement (u64) when NEED_REPLY asks for one. */
  readonly reply?: Struct;
  readonly replyFds?: FdRule;
  /** The reply exists under a condition only, named here. */
  readonly replyIf?: 'LOG_SHMFD' | 'postcopy';
  /** Protocol feature without which the message must not be sent. */
  readonly needs?: string;
  /** Names of the u64's meaning, for views. */
  readonly note?: string;
}

const noFds: FdRule = [0, 0];
const oneFd: FdRule = [1, 1];
const optionalFd: FdRule = [0, 1];
const asStruct = (s: unknown): Struct => s as Struct;

type Extra = Omit<MessageDef, 'id' | 'name' | 'request' | 'fds' | 'reply'> & { reply?: unknown };
const def = (id: number, name: string, request: unknown, fds: FdRule, extra: Extra = {}): MessageDef => ({
  id,
  name,
  request: request === undefined ? undefined : asStruct(request),
  fds,
  ...(extra as Omit<MessageDef, 'id' | 'name' | 'request' | 'fds'>),
});

/** Front-end to back-end. */
export const mainMessages: readonly MessageDef[] = [
  def(1, 'GET_FEATURES', none, noFds, { reply: number }),
  def(2, 'SET_FEATURES', number, noFds),
  def(3, 'SET_OWNER', none, noFds),
  def(4, 'RESET_OWNER', none, noFds, { note: 'deprecated' }),
  def(5, 'SET_MEM_TABLE', memTable, [0, maxFds], { reply: memTable, replyIf: 'postcopy' }),
  def(6, 'SET_LOG_BASE', log, oneFd, { reply: none, replyIf: 'LOG_SHMFD', needs: 'LOG_SHMFD' }),
  def(7, 'SET_LOG_FD', none, oneFd),
  def(8, 'SET_VRING_NUM', vringState, noFds),
  def(9, 'SET_VRING_ADDR', vringAddr, noFds),
  def(10, 'SET_VRING_BASE', vringState, noFds),
  def(11, 'GET_VRING_BASE', vringState, noFds, { reply: vringState }),
  def(12, 'SET_VRING_KICK', vringFd, optionalFd),
  def(13, 'SET_VRING_CALL', vringFd, optionalFd),
  def(14, 'SET_VRING_ERR', vringFd, optionalFd),
  def(15, 'GET_PROTOCOL_FEATURES', none, noFds, { reply: number }),
  def(16, 'SET_PROTOCOL_FEATURES', number, noFds),
  def(17, 'GET_QUEUE_NUM', none, noFds, { reply: number, needs: 'MQ' }),
  def(18, 'SET_VRING_ENABLE', vringState, noFds),
  def(19, 'SEND_RARP', number, noFds, { needs: 'RARP' }),
  def(20, 'NET_SET_MTU', number, noFds, { needs: 'MTU' }),
  def(21, 'SET_BACKEND_REQ_FD', none, oneFd, { needs: 'BACKEND_REQ' }),
  def(22, 'IOTLB_MSG', iotlb, noFds, { reply: number }),
  def(23, 'SET_VRING_ENDIAN', vringState, noFds, { needs: 'CROSS_ENDIAN' }),
  def(24, 'GET_CONFIG', config, noFds, { reply: config, needs: 'CONFIG' }),
  def(25, 'SET_CONFIG', config, noFds, { needs: 'CONFIG' }),
  def(26, 'CREATE_CRYPTO_SESSION', opaque, noFds, { needs: 'CRYPTO_SESSION' }),
  def(27, 'CLOSE_CRYPTO_SESSION', number, noFds, { needs: 'CRYPTO_SESSION' }),
  def(28, 'POSTCOPY_ADVISE', none, noFds, { reply: none, replyFds: oneFd, needs: 'PAGEFAULT' }),
  def(29, 'POSTCOPY_LISTEN', none, noFds, { needs: 'PAGEFAULT' }),
  def(30, 'POSTCOPY_END', none, noFds, { reply: number, needs: 'PAGEFAULT' }),
  def(31, 'GET_INFLIGHT_FD', inflight, noFds, { reply: inflight, replyFds: oneFd, needs: 'INFLIGHT_SHMFD' }),
  def(32, 'SET_INFLIGHT_FD', inflight, oneFd, { needs: 'INFLIGHT_SHMFD' }),
  def(33, 'GPU_SET_SOCKET', none, oneFd),
  def(34, 'RESET_DEVICE', none, noFds, { needs: 'RESET_DEVICE' }),
  def(35, 'VRING_KICK', vringState, noFds, { needs: 'INBAND_NOTIFICATIONS' }),
  def(36, 'GET_MAX_MEM_SLOTS', none, noFds, { reply: number, needs: 'CONFIGURE_MEM_SLOTS' }),
  def(37, 'ADD_MEM_REG', singleRegion, oneFd, { needs: 'CONFIGURE_MEM_SLOTS' }),
  def(38, 'REM_MEM_REG', singleRegion, optionalFd, { needs: 'CONFIGURE_MEM_SLOTS' }),
  def(39, 'SET_STATUS', number, noFds, { needs: 'STATUS' }),
  def(40, 'GET_STATUS', none, noFds, { reply: number, needs: 'STATUS' }),
  def(41, 'GET_SHARED_OBJECT', uuid, noFds, { reply: none, replyFds: optionalFd, needs: 'SHARED_OBJECT' }),
  def(42, 'SET_DEVICE_STATE_FD', deviceState, oneFd, { reply: number, replyFds: optionalFd, needs: 'DEVICE_STATE' }),
  def(43, 'CHECK_DEVICE_STATE', none, noFds, { reply: number, needs: 'DEVICE_STATE' }),
  def(44, 'GET_SHMEM_CONFIG', none, noFds, { reply: shmemConfig, needs: 'SHMEM' }),
];

/** Back-end to front-end, on the socket that SET_BACKEND_REQ_FD passed. */
export const backMessages: readonly MessageDef[] = [
  def(1, 'BACKEND_IOTLB_MSG', iotlb, noFds),
  def(2, 'BACKEND_CONFIG_CHANGE_MSG', none, noFds, { needs: 'CONFIG' }),
  def(3, 'BACKEND_VRING_HOST_NOTIFIER_MSG', vringArea, optionalFd, { needs: 'HOST_NOTIFIER' }),
  def(4, 'BACKEND_VRING_CALL', vringState, noFds, { needs: 'INBAND_NOTIFICATIONS' }),
  def(5, 'BACKEND_VRING_ERR', vringState, noFds, { needs: 'INBAND_NOTIFICATIONS' }),
  def(6, 'BACKEND_SHARED_OBJECT_ADD', uuid, noFds, { needs: 'SHARED_OBJECT' }),
  def(7, 'BACKEND_SHARED_OBJECT_REMOVE', uuid, noFds, { needs: 'SHARED_OBJECT' }),
  def(8, 'BACKEND_SHARED_OBJECT_LOOKUP', uuid, noFds, { reply: number, replyFds: optionalFd, needs: 'SHARED_OBJECT' }),
  def(9, 'BACKEND_SHMEM_MAP', mmap, oneFd, { needs: 'SHMEM' }),
  def(10, 'BACKEND_SHMEM_UNMAP', mmap, noFds, { needs: 'SHMEM' }),
];

export type ChannelName = 'main' | 'back';
const index = {
  main: new Map(mainMessages.map((m) => [m.id, m])),
  back: new Map(backMessages.map((m) => [m.id, m])),
};
const names = {
  main: new Map(mainMessages.map((m) => [m.name, m])),
  back: new Map(backMessages.map((m) => [m.name, m])),
};

/** The definition of a request number; undefined where the protocol has none. */
export const messageById = (channel: ChannelName, id: number): MessageDef | undefined => index[channel].get(id);

/** The definition of a request name. @throws RangeError for a name that is not in the table */
export function messageByName(channel: ChannelName, name: string): MessageDef {
  const found = names[channel].get(name);
  if (!found) throw new RangeError(`no vhost-user message ${name}`);
  return found;
}

/** Bits of SET_VRING_KICK/CALL/ERR's word. */
export const VringFd = { indexMask: 0xffn, noFd: 0x100n } as const;
/** SHMEM_MAP's flags: 0 maps read-only. */
export const MapFlag = { readWrite: 1n } as const;

/** Header and payload in one buffer. */
export function encodeMessage(id: number, flags: number, payload: Uint8Array): Buffer {
  return Buffer.concat([header.encode({ request: id, flags, size: payload.length }), payload]);
}
