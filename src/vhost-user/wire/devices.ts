import { asBuffer, bytes, type Fields, pad, type Struct, struct, text, u8, u16, u32, u64 } from '../../common/struct.js';

/** Device types of virtio (1.3, section 5): number, feature bits and configuration space. All little-endian. */
export interface DeviceType {
  readonly id: number;
  readonly name: string;
  readonly features: Readonly<Record<number, string>>;
  /** Undefined where the type has no configuration space. */
  readonly config: Struct | undefined;
}

/** Numbers of virtio-blk (virtio 1.3, 5.2): unit of positions and sizes, and bytes of an answer to GET_ID. */
export const virtioBlk = { sector: 512, idSize: 20 } as const;

const config = (name: string, fields: Fields): Struct => struct(`${name} configuration`, fields);
const bits = (names: string, from = 0): Record<number, string> =>
  Object.fromEntries(
    names
      .trim()
      .split(/\s+/)
      .flatMap((name, i) => (name === '-' ? [] : [[from + i, name]])),
  );

export const deviceTypes: readonly DeviceType[] = [
  {
    id: 1,
    name: 'net',
    features: {
      ...bits(
        `CSUM GUEST_CSUM CTRL_GUEST_OFFLOADS MTU - MAC GSO GUEST_TSO4 GUEST_TSO6 GUEST_ECN GUEST_UFO HOST_TSO4 HOST_TSO6 HOST_ECN
         HOST_UFO MRG_RXBUF STATUS CTRL_VQ CTRL_RX CTRL_VLAN CTRL_RX_EXTRA GUEST_ANNOUNCE MQ CTRL_MAC_ADDR`,
      ),
      ...bits('HASH_TUNNEL VQ_NOTF_COAL GUEST_USO4 GUEST_USO6 HOST_USO HASH_REPORT - GUEST_HDRLEN RSS RSC_EXT STANDBY SPEED_DUPLEX', 52),
    },
    config: config('net', {
      mac: bytes(6),
      status: u16(),
      max_virtqueue_pairs: u16(),
      mtu: u16(),
      speed: u32(),
      duplex: u8(),
      rss_max_key_size: u8(),
      rss_max_indirection_table_length: u16(),
      supported_hash_types: u32(),
    }),
  },
  {
    id: 2,
    name: 'blk',
    features: bits(
      'BARRIER SIZE_MAX SEG_MAX - GEOMETRY RO BLK_SIZE SCSI - FLUSH TOPOLOGY CONFIG_WCE MQ DISCARD WRITE_ZEROES LIFETIME SECURE_ERASE ZONED',
    ),
    config: config('blk', {
      capacity: u64(),
      size_max: u32(),
      seg_max: u32(),
      cylinders: u16(),
      heads: u8(),
      sectors: u8(),
      blk_size: u32(),
      physical_block_exp: u8(),
      alignment_offset: u8(),
      min_io_size: u16(),
      opt_io_size: u32(),
      wce: u8(),
      _: pad(1),
      num_queues: u16(),
      max_discard_sectors: u32(),
      max_discard_seg: u32(),
      discard_sector_alignment: u32(),
      max_write_zeroes_sectors: u32(),
      max_write_zeroes_seg: u32(),
      write_zeroes_may_unmap: u8(),
      __: pad(3),
      max_secure_erase_sectors: u32(),
      max_secure_erase_seg: u32(),
      secure_erase_sector_alignment: u32(),
      zone_sectors: u32(),
      max_open_zones: u32(),
      max_active_zones: u32(),
      max_append_sectors: u32(),
      write_granularity: u32(),
      model: u8(),
      ___: pad(3),
    }),
  },
  {
    id: 3,
    name: 'console',
    features: bits('SIZE MULTIPORT EMERG_WRITE'),
    config: config('console', { cols: u16(), rows: u16(), max_nr_ports: u32(), emerg_wr: u32() }),
  },
  { id: 4, name: 'rng', features: {}, config: undefined },
  {
    id: 5,
    name: 'balloon',
    features: bits('MUST_TELL_HOST STATS_VQ DEFLATE_ON_OOM FREE_PAGE_HINT PAGE_POISON REPORTING'),
    config: config('balloon', { num_pages: u32(), actual: u32(), free_page_hint_cmd_id: u32(), poison_val: u32() }),
  },
  {
    id: 8,
    name: 'scsi',
    features: bits('INOUT HOTPLUG CHANGE T10_PI'),
    config: config('scsi', {
      num_queues: u32(),
      seg_max: u32(),
      max_sectors: u32(),
      cmd_per_lun: u32(),
      event_info_size: u32(),
      sense_size: u32(),
      cdb_size: u32(),
      max_channel: u16(),
      max_target: u16(),
      max_lun: u32(),
    }),
  },
  {
    id: 16,
    name: 'gpu',
    features: bits('VIRGL EDID RESOURCE_UUID RESOURCE_BLOB CONTEXT_INIT'),
    config: config('gpu', { events_read: u32(), events_clear: u32(), num_scanouts: u32(), num_capsets: u32() }),
  },
  {
    id: 18,
    name: 'input',
    features: {},
    config: config('input', { select: u8(), subsel: u8(), size: u8(), _: pad(5), data: bytes(128) }),
  },
  {
    id: 19,
    name: 'vsock',
    features: bits('STREAM SEQPACKET NO_IMPLIED_STREAM'),
    config: config('vsock', { guest_cid: u64() }),
  },
  {
    id: 20,
    name: 'crypto',
    features: bits('REVISION_1 CIPHER_STATELESS_MODE HASH_STATELESS_MODE MAC_STATELESS_MODE AEAD_STATELESS_MODE AKCIPHER_STATELESS_MODE'),
    config: config('crypto', {
      status: u32(),
      max_dataqueues: u32(),
      crypto_services: u32(),
      cipher_algo_l: u32(),
      cipher_algo_h: u32(),
      hash_algo: u32(),
      mac_algo_l: u32(),
      mac_algo_h: u32(),
      aead_algo: u32(),
      max_cipher_key_len: u32(),
      max_auth_key_len: u32(),
      akcipher_algo: u32(),
      max_size: u64(),
    }),
  },
  {
    id: 25,
    name: 'snd',
    features: bits('CTLS'),
    config: config('snd', { jacks: u32(), streams: u32(), chmaps: u32(), controls: u32() }),
  },
  {
    id: 26,
    name: 'fs',
    features: bits('NOTIFICATION'),
    config: config('fs', { tag: text(36), num_request_queues: u32(), notify_buf_size: u32() }),
  },
  { id: 27, name: 'pmem', features: bits('SHMEM_REGION'), config: config('pmem', { start: u64(), size: u64() }) },
  { id: 34, name: 'i2c', features: bits('ZERO_LENGTH_REQUEST'), config: undefined },
  { id: 36, name: 'can', features: {}, config: config('can', { status: u16() }) },
  {
    id: 41,
    name: 'gpio',
    features: bits('IRQ'),
    config: config('gpio', { ngpio: u16(), _: pad(2), gpio_names_size: u32() }),
  },
  { id: 48, name: 'media', features: {}, config: config('media', { device_caps: u32(), device_type: u32(), card: text(32) }) },
];

/** Mask of one feature of a device type. @throws RangeError for a name that is not in its table */
export function featureBit(type: string, name: string): bigint {
  const found = Object.entries(deviceByName(type)?.features ?? {}).find(([, one]) => one === name);
  if (found === undefined) throw new RangeError(`${type} has no feature ${name}`);
  return 1n << BigInt(found[0]);
}

export const deviceByName = (name: string): DeviceType | undefined => deviceTypes.find((d) => d.name === name);

/**
 * Decodes as many whole fields of a configuration space as there are bytes: back-ends of an older virtio give fewer.
 * @returns the fields by their specification names
 */
export function decodeConfig(device: DeviceType, data: Uint8Array): Record<string, unknown> {
  if (!device.config) return {};
  const out: Record<string, unknown> = {};
  const b = asBuffer(data);
  for (const [key, field, offset] of device.config.layout()) {
    if (offset + field.size! > b.length) break;
    out[key] = field.get(b, offset, out);
  }
  return out;
}
