// The state of the classes of virtio devices, by the layout of QEMU's sources: values that are put in come out, and what does not end with
// its last byte is left as bytes. The bus is MMIO, which has the shortest state of its own.
import { toJson } from '../../../../src/common/json.js';
import { decodeDevice, type Fields } from '../../../../src/migration/devices/fields.js';
import * as m from '../../../support/migration.js';

type Device = NonNullable<Parameters<typeof m.virtioField>[1]>;

function decoded(name: string, state: Buffer, device: Device = {}): Fields {
  const bytes = m.virtioField(state, device);
  const fields = [{ name: 'virtio', type: 'virtio', size: bytes.length }];
  const { virtio } = decodeDevice({ name: `0000:00:04.0/${name}`, instance_id: 0, vmsd_name: name, version: 1, fields }, bytes);
  expect(virtio).toMatchObject({ status: ['ACKNOWLEDGE', 'DRIVER', 'DRIVER_OK', 'FEATURES_OK'], deviceStateSize: state.length });
  return virtio as Fields;
}

const MAC = m.u8(0x52, 0x54, 0, 0x12, 0x34, 0x56);
const vlanBits = (...ids: number[]): Buffer => {
  const bits = Buffer.alloc(512);
  for (const id of ids) bits[id >> 3]! |= 1 << (id & 7);
  return bits;
};
/** A network card up to its flags, with two addresses in its table. */
const card = m.cat(
  ...[MAC, m.be32(1), m.be32(1), m.be16(3), m.u8(1, 0), m.be32(2), m.u8(1, 0, 0x5e, 0, 0, 1), m.u8(2, 2, 2, 2, 2, 2)],
  ...[vlanBits(0, 9, 4095), m.be32(1), m.u8(0, 1, 0, 0, 0, 0, 1)],
);
const cardFields = {
  mac: '52:54:00:12:34:56',
  mergeableRxBuffers: true,
  status: '0x0003',
  promiscuous: true,
  allMulticast: false,
  macTable: ['01:00:5e:00:00:01', '02:02:02:02:02:02'],
  vlans: '0,9,4095',
  vnetHeader: true,
  multicastOverflow: false,
  unicastOverflow: true,
  allUnicast: false,
  noBroadcast: false,
  ufo: true,
};
const rss = m.subsection(
  'virtio-net-device/rss',
  1,
  m.cat(m.u8(1, 1, 0), m.be32(0x3f), m.be16(4), m.be16(2), Buffer.alloc(40, 0xab), m.be16(0), m.be16(1), m.be16(2), m.be16(3)),
);
const GUEST_OFFLOADS = 1n << 2n;
const MQ = 1n << 22n;
const element = (head: number) => {
  const bytes = Buffer.alloc(16 + 2 * 1024 * 8 + 2 * 1024 * 16);
  bytes.writeUInt32LE(head, 0);
  bytes.writeUInt32LE(1, 4);
  bytes.writeUInt32LE(2, 8);
  return bytes;
};

test.each<[string, string, Buffer, Device, object]>([
  ['a network card', 'virtio-net', card, {}, { ...cardFields, txWaiting: [1] }],
  [
    'a network card of several pairs of queues that uses two',
    'virtio-net',
    m.cat(card, m.be16(4), m.be16(2), m.be32(9)),
    { features: MQ },
    { ...cardFields, maxQueuePairs: 4, queuePairs: 2, txWaiting: [1, 9] },
  ],
  [
    'a network card of several pairs of queues whose guest knows none of it',
    'virtio-net',
    m.cat(card, m.be16(4), m.be16(1)),
    {},
    { maxQueuePairs: 4, queuePairs: 1 },
  ],
  ['offloads', 'virtio-net', m.cat(card, m.be64(0x3f)), { features: GUEST_OFFLOADS }, { guestOffloads: 0x3fn }],
  [
    'receive-side scaling',
    'virtio-net',
    m.cat(card, rss),
    {},
    { rss: { enabled: true, redirect: true, populateHash: false, hashTypes: '0x0000003f', defaultQueue: 2, table: [0, 1, 2, 3] } },
  ],
  ['an idle disk', 'virtio-blk', m.u8(0), {}, { waitingRequests: [] }],
  [
    'a disk with requests that wait',
    'virtio-blk',
    m.cat(m.u8(1), m.be32(1), element(5), m.u8(1), m.be32(0), element(77), m.u8(0)),
    { queues: 2 },
    {
      waitingRequests: [
        { queue: 1, head: 5, out: 1, in: 2 },
        { queue: 0, head: 77, out: 1, in: 2 },
      ],
    },
  ],
  [
    'a disk with packed rings',
    'virtio-blk',
    m.cat(m.u8(1), element(5), m.be32(3), m.u8(0)),
    { queues: 1, features: 1n << 34n },
    { waitingRequests: [{ head: 5, descriptors: 3 }] },
  ],
  [
    'a serial device',
    'virtio-console',
    m.cat(m.be16(80), m.be16(25), m.be32(31), m.be32(0b101), m.be32(2), m.be32(0), m.u8(1, 0), m.be32(0), m.be32(2), m.u8(0, 1), m.be32(0)),
    {},
    {
      columns: 80,
      rows: 25,
      maxPorts: 31,
      portsInUse: [0, 2],
      ports: [
        { id: 0, guestConnected: true, hostConnected: false },
        { id: 2, guestConnected: false, hostConnected: true },
      ],
    },
  ],
  [
    'a balloon',
    'virtio-balloon',
    m.cat(
      m.be32(1024),
      m.be32(1000),
      m.subsection('virtio-balloon-device/free-page-report', 1, m.cat(m.be32(5), m.be32(1))),
      m.subsection('virtio-balloon-device/page-poison', 1, m.be32(0xaa)),
    ),
    {},
    { pages: 1024, actual: 1000, freePageHint: { commandId: 5, status: 1 }, pagePoison: '0x000000aa' },
  ],
  ['virtio-mem', 'virtio-mem', m.cat(m.be64(1 << 30), m.be64(1 << 21)), {}, { usableRegionSize: 1n << 30n, requestedSize: 1n << 21n }],
])('%s', (_what, name, state, device, wanted) => {
  expect(decoded(name, state, device).class).toMatchObject(wanted);
  // One byte more or less is another form, whatever the device is.
  for (const other of [state.subarray(0, -1), m.cat(state, m.u8(0x77))]) expect(decoded(name, other, device).class).toBeUndefined();
});

test('a device whose class nothing is known of keeps its bytes', () => {
  const virtio = decoded('virtio-of-later', m.u8(1, 2, 3));
  expect(virtio.class).toBeUndefined();
  expect(Buffer.from(virtio.deviceState as Uint8Array)).toEqual(m.u8(1, 2, 3));
});

test.each([
  ['virtio-net', m.cat(card.subarray(0, 18), m.be32(-1), card.subarray(22))],
  ['virtio-console', m.cat(m.be16(80), m.be16(25), m.be32(-1), m.be32(0))],
  ['virtio-console', m.cat(m.be16(80), m.be16(25), m.be32(31), m.be32(-1), m.be32(-1))],
  ['virtio-mem', m.cat(m.be64(-1), m.be64(-1), m.be64(1), Buffer.alloc(28))],
  ['virtio-mem', Buffer.alloc(52, 0xff)],
])('%s with counts of billions ends at once', (name, state) => {
  const virtio = decoded(name, state);
  expect(virtio.class).toBeUndefined();
  expect(toJson(virtio)).toContain('deviceState');
});
