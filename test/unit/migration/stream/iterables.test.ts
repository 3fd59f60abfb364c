import fs from 'node:fs';
import path from 'node:path';
import { gunzipSync } from 'node:zlib';
import { openInput } from '../../../../src/migration/containers/input.js';
import { collect, type Dump } from '../../../../src/migration/inspect/dump.js';
import type { Detail } from '../../../../src/migration/stream/model.js';
import { Walker } from '../../../../src/migration/walk.js';
import * as m from '../../../support/migration.js';

const dump = (bytes: Buffer): Promise<Dump> =>
  m.inFolder(async (dir) => {
    const file = path.join(dir, 'f');
    fs.writeFileSync(file, bytes);
    const input = openInput(file);
    return collect(input, new Walker(input.reader, { fields: true }));
  });
const details = (doc: Dump, name: string): (Detail | undefined)[] =>
  doc.records.flatMap((r) => (r.type === 'section' && r.name === name ? [r.detail] : []));
/** The sample with an iterable section (id 9) before its devices: a START, PARTs and an END of these bodies. */
const withSection = (name: string, ...bodies: Buffer[]): Buffer =>
  m.sample({
    devices: m.cat(
      m.start(9, name, 1, bodies[0]!),
      ...bodies.slice(1, -1).map((b) => m.part(9, b)),
      ...(bodies.length > 1 ? [m.end(9, bodies.at(-1)!)] : []),
      m.full(0, 'timer', 1, m.timerBody),
      m.full(3, 'cpu', 1, m.cpuBody),
    ),
  });

const vfio = (n: number): Buffer => m.be64(0xffffffffef100000n | BigInt(n));
const htabChunk = (index: number, valid: number, invalid: number): Buffer =>
  m.cat(m.be32(index), m.be16(valid), m.be16(invalid), Buffer.alloc(16 * valid, 0x7e));
const bitmapStart = m.cat(m.u8(0x1c), m.str8('n0'), m.str8('bm0'), m.be32(65536), m.u8(3));
const bits = (flags: Buffer, data?: Buffer): Buffer => m.cat(flags, m.be64(128), m.be32(64), data && m.cat(m.be64(data.length), data));

/** Bodies as the format describes them, with what must be made of each. */
const good: [name: string, section: string, bodies: Buffer[], details: Detail[]][] = [
  [
    'VFIO device state',
    '0000:00:03.0/vfio',
    [
      m.cat(vfio(3), vfio(1)),
      m.cat(vfio(4), m.be64(5000), Buffer.alloc(5000, 0xef), vfio(5), vfio(1)),
      m.cat(vfio(4), m.be64(3), m.u8(1, 2, 3), vfio(1)),
    ],
    [{ data: 0 }, { data: 5000, initialDataSent: true }, { data: 3 }],
  ],
  ['pbs-state', 'pbs-state', [m.cat(m.be64(700), Buffer.alloc(700, 0x7e))], [{ bytes: 700 }]],
  [
    'the hash page table',
    'spapr/htab',
    [m.be32(24), m.cat(m.be32(0), htabChunk(7, 3, 2), htabChunk(90, 0, 65535), htabChunk(0, 0, 0)), m.cat(m.be32(0), htabChunk(0, 0, 0))],
    [{ hashShift: 24 }, { valid: 3, invalid: 65537 }, { valid: 0, invalid: 0 }],
  ],
  ['no hash page table', 'spapr/htab', [m.be32(-1)], [{ hpt: false }]],
  [
    's390 storage attributes, with and without EOS behind DONE',
    's390-storage_attributes',
    [m.be64(1), m.cat(m.be64(0x10000 | 2), m.be64(300), Buffer.alloc(300), m.be64(1)), m.cat(m.be64(8), m.be64(1)), m.be64(8)],
    [{ bytes: 0 }, { bytes: 300, first: 0x10000n, stable: 300 }, { bytes: 0 }, { bytes: 0, done: true }],
  ],
  [
    's390 storage attributes of pages that the guest does not use',
    's390-storage_attributes',
    [
      m.be64(1),
      m.cat(m.be64(0x20000 | 2), m.be64(5), m.u8(0, 1, 2, 3, 0x41), m.be64(0x40000 | 2), m.be64(1), m.u8(1), m.be64(1)),
      m.be64(8),
    ],
    [
      { bytes: 0 },
      { bytes: 6, first: 0x20000n, stable: 1, unused: 3, potentiallyVolatile: 1, volatile: 1, noDat: 1 },
      { bytes: 0, done: true },
    ],
  ],
  [
    'disk contents',
    'block',
    [
      m.be64(2),
      m.cat(m.be64((8n << 9n) | 1n), m.str8('ide0'), Buffer.alloc(1 << 20, 0x7e), m.be64((50 << 9) | 4), m.be64(2)),
      m.cat(m.be64((16n << 9n) | 9n), m.str8('ide1'), m.be64(2)),
    ],
    [
      { chunks: 0, zero: 0, devices: [] },
      { chunks: 1, zero: 0, devices: ['ide0'] },
      { chunks: 1, zero: 1, devices: ['ide1'] },
    ],
  ],
  [
    'dirty bitmaps, flags of one, two and four bytes',
    'dirty-bitmap',
    [
      m.cat(bitmapStart, m.u8(1)),
      m.cat(bits(m.u8(0x40), Buffer.alloc(9, 0x7e)), bits(m.u8(0x80, 0x42)), bits(m.u8(0xc0, 0x00, 0x00, 0x40), Buffer.alloc(2)), m.u8(1)),
      m.cat(m.u8(0x20), m.u8(1)),
    ],
    [
      { records: 2, bytes: 0, bitmaps: [{ node: 'n0', name: 'bm0', granularity: 65536, flags: 3 }] },
      { records: 4, bytes: 11 },
      { records: 2, bytes: 0 },
    ],
  ],
];

test.each(good)('%s', async (_name, section, bodies, expected) => {
  const doc = await dump(withSection(section, ...bodies));
  expect(doc.issues).toEqual([]);
  expect(doc.complete).toBe(true);
  expect(details(doc, section)).toEqual(expected);
});

test('a VFIO device sends its configuration as FULL under the id of its state', async () => {
  const name = '0000:00:03.0/vfio';
  const config = m.cat(vfio(2), Buffer.alloc(312, 0xff), vfio(1));
  const devices = m.cat(m.start(9, name, 1, vfio(1)), m.end(9, vfio(1)), m.full(9, name, 1, config), m.full(3, 'cpu', 1, m.cpuBody));
  const described = [...m.devices, m.device(name, [{ name: 'data', type: 'buffer', size: config.length }])];
  for (const tail of [m.cat(m.eof, m.vmdesc(described)), m.eof]) {
    const doc = await dump(m.sample({ devices, tail }));
    expect(doc.issues).toEqual([]);
    expect(details(doc, name)).toEqual([{ data: 0 }, { data: 0 }, { data: 0, config: 312 }]);
  }
  // Any other section with an id that was there is still an error.
  const doc = await dump(m.sample({ devices: m.cat(devices, m.full(9, name, 1, config)) }));
  expect(doc.issues.map((i) => i.code)).toEqual(['section-twice']);
});

/** A serial port of the kernel's mtty driver (struct serial_port): 8 registers, 16 bytes FIFO, head, tail, count, the rest. */
const MTTY_PORT = 36;
const mttyPort = (bytes: Buffer) => ({
  lcr: bytes[3],
  scr: bytes[7],
  sent: bytes.toString('latin1', 8, 8 + bytes[24]!),
  head: bytes[24],
  tail: bytes[25],
});

test.each([0, 1, 311, 4088, 4089, 4090, 4095, 4096, 4097, 4097 + 65528, 4089 + 65529, 4090 + 65529, 5 << 20])(
  'VFIO: a configuration of %i bytes, in a time that grows with it',
  async (size) => {
    const body = m.cat(vfio(2), Buffer.alloc(size, 0xff), vfio(1));
    const started = Date.now();
    const doc = await dump(withSection('0000:00:03.0/vfio', body));
    expect(Date.now() - started).toBeLessThan(30_000);
    expect(doc).toMatchObject({ complete: true, issues: [] });
    expect(details(doc, '0000:00:03.0/vfio')).toEqual([{ data: 0, config: size }]);
  },
);

test('a VFIO configuration that is cut off ends where the file does', async () => {
  const whole = m.cat(m.header(), m.configuration(), m.start(9, 'vfio', 1, m.cat(vfio(2), Buffer.alloc(9000, 0xff)))).subarray(0, -5);
  const doc = await dump(whole);
  expect(doc.issues).toMatchObject([{ code: 'truncated', offset: BigInt(whole.length), expected: '1 bytes', found: '0' }]);
});

test('dirty bitmaps without end are damage, in little memory', async () => {
  const flood = Buffer.concat([m.cat(m.u8(0x10), m.be32(1), m.u8(0))].flatMap((one) => Array.from({ length: 70_000 }, () => one)));
  const doc = await dump(withSection('dirty-bitmap', m.cat(flood, m.u8(1))));
  expect(doc.complete).toBe(false);
  expect(doc.issues).toMatchObject([{ code: 'section-body', message: 'dirty-bitmap: more bitmaps than a guest has' }, { code: 'skipped' }]);
  expect(details(doc, 'dirty-bitmap')).toEqual([undefined]);
});

test('the state of a VFIO device in a file of QEMU (test/fixtures/migration/README.md)', async () => {
  const bytes = gunzipSync(fs.readFileSync('test/fixtures/migration/vfio-mtty.mig.gz'));
  const doc = await dump(bytes);
  expect(doc).toMatchObject({ complete: true, issues: [] });
  expect(doc.trailing).toBeUndefined();
  const name = '0000:00:03.0/vfio';
  const records = doc.records.flatMap((r) => (r.type === 'section' && r.name === name ? [r] : []));
  // struct mtty_data: the driver gives 24 bytes of header first, then its ports; QEMU counts all of it: 96 bytes.
  // The configuration is version, 4 KiB of config space, four INTx states.
  expect(records.map((r) => [r.record, r.detail])).toEqual([
    ['start', { data: 0 }],
    ['part', { data: 24 }],
    ['end', { data: 2 * MTTY_PORT }],
    ['full', { data: 0, config: 4 + 4096 + 16 }],
  ]);
  // Bytes in front of END_OF_STATE and the footer.
  const [, header, ports, config] = records.map((r, i) => {
    const end = Number(r.offset) + r.size! - 13;
    return bytes.subarray(end - [0, 24, 2 * MTTY_PORT, 4116][i]!, end);
  });
  expect(header!.readBigUInt64LE(0)).toBe(0x7e9d09898c3e2c4en);
  expect([8, 12, 16, 20].map((at) => header!.readUInt32LE(at))).toEqual([1, 0, 2, 0]);
  expect(mttyPort(ports!)).toEqual({ lcr: 3, scr: 0x5a, sent: 'vioctl!', head: 7, tail: 0 });
  expect(mttyPort(ports!.subarray(MTTY_PORT))).toEqual({ lcr: 0, scr: 0xa5, sent: '!', head: 1, tail: 0 });
  expect([0, 0x10, 0x14].map((at) => config!.readUInt32LE(4 + at))).toEqual([0x32534348, 0xc001, 0xc011]);
});

/** Bodies that break their format: where, and what is said; the devices behind are there all the same. */
const bad: [name: string, section: string, body: Buffer, code: string, message: RegExp][] = [
  ['VFIO: not a flags word', 'vfio', m.be64(0x1234), 'section-body', /not a flags word/],
  ['VFIO: an unknown flag', 'vfio', vfio(9), 'section-body', /unknown flags/],
  ['storage attributes: the source failed', 's390-storage_attributes', m.be64(4), 'section-body', /error/],
  ['storage attributes: no flag', 's390-storage_attributes', m.be64(0), 'section-body', /unknown flags/],
  ['block: unknown flags', 'block', m.be64(0x40), 'section-body', /unknown flags/],
  ['dirty-bitmap: EOS with more', 'dirty-bitmap', m.u8(0x05, 1, 0x61), 'section-body', /EOS with other flags/],
  ['dirty-bitmap: unknown flags', 'dirty-bitmap', m.u8(0x02), 'section-body', /unknown flags/],
];
test.each(bad)('%s', async (_name, section, body, code, message) => {
  const doc = await dump(withSection(section, body));
  const issue = doc.issues.find((i) => i.code === code);
  expect(issue?.message).toMatch(message);
  expect(issue?.path).toBe(`${section} (9)`);
  expect(doc.complete).toBe(false);
  expect(doc.records.filter((r) => r.type === 'section' && r.record === 'full')).toHaveLength(2);
});

test.each([
  ['vfio', vfio(4), 2n ** 62n],
  ['pbs-state', Buffer.alloc(0), 2n ** 63n],
  ['s390-storage_attributes', m.be64(2), 2n ** 60n],
])('a length of exabytes in %s: the end of the file, no memory', async (section, head, length) => {
  const doc = await dump(withSection(section, m.cat(head, m.be64(length))));
  expect(doc.complete).toBe(false);
  expect(doc.issues.some((i) => i.code === 'truncated' || i.code === 'section-body')).toBe(true);
});

const nested = m.cat(m.full(0, 'timer', 1, m.timerBody), m.full(3, 'cpu', 1, m.cpuBody), m.eof);
test('every command, with what its data mean', async () => {
  const commands: [id: number, data: Buffer, name: string, detail: Detail | undefined][] = [
    [1, Buffer.alloc(0), 'OPEN_RETURN_PATH', undefined],
    [2, m.be32(77), 'PING', { value: 77 }],
    [3, m.cat(m.be64(0x201000), m.be64(4096)), 'POSTCOPY_ADVISE', { pageSizes: 0x201000n, targetPage: 4096n }],
    [3, Buffer.alloc(0), 'POSTCOPY_ADVISE', undefined],
    [4, Buffer.alloc(0), 'POSTCOPY_LISTEN', undefined],
    [5, Buffer.alloc(0), 'POSTCOPY_RUN', undefined],
    [
      6,
      m.cat(m.u8(0), m.str8('pc.ram'), m.u8(0), m.be64(4096), m.be64(8192)),
      'POSTCOPY_RAM_DISCARD',
      { block: 'pc.ram', ranges: [{ start: 4096n, length: 8192n }] },
    ],
    [8, Buffer.alloc(0), 'ENABLE_COLO', undefined],
    [9, Buffer.alloc(0), 'POSTCOPY_RESUME', undefined],
    [10, m.str8('pc.ram'), 'RECV_BITMAP', { block: 'pc.ram' }],
    [11, Buffer.alloc(0), 'SWITCHOVER_START', undefined],
  ];
  const doc = await dump(
    m.sample({ devices: m.cat(...commands.map(([id, data]) => m.command(id, data)), m.command(7, m.be32(nested.length)), nested) }),
  );
  expect(doc.issues).toEqual([]);
  expect(doc.complete).toBe(true);
  const found = doc.records.flatMap((r) => (r.type === 'command' ? [[r.command, r.name, r.data]] : []));
  expect(found).toEqual([...commands.map(([id, , name, detail]) => [id, name, detail]), [7, 'PACKAGED', { packaged: nested.length }]]);
  expect(doc.records.filter((r) => r.type === 'section' && r.record === 'full')).toHaveLength(2);
});

test.each([
  ['RAM_DISCARD of another version', 6, m.u8(1), 'command-data'],
  ['RAM_DISCARD cut off', 6, m.cat(m.u8(0), m.str8('pc.ram'), m.u8(0), m.be32(1)), 'command-data'],
  ['RECV_BITMAP whose name runs out', 10, m.u8(9, 0x61), 'command-data'],
  ['PING of two bytes', 2, m.be16(1), 'command-length'],
])('%s', async (_name, id, data, code) => {
  const doc = await dump(m.sample({ devices: m.cat(m.command(id, data), m.full(0, 'timer', 1, m.timerBody)) }));
  expect(doc.issues.map((i) => i.code)).toEqual([code]);
  expect(doc.records.some((r) => r.type === 'section' && r.name === 'timer')).toBe(true);
});

test('postcopy: a block with pages of its own has their size in the list, the others do not', async () => {
  const list = m.blockList(['pc.ram', 2 << 20, m.be64(2 << 20)], ['rom', 4096]);
  const records = m.cat(m.zero(0, 'pc.ram'), m.zeros(m.PAGE, 2 << 20), m.zero(0, 'rom'));
  const advise = m.command(3, m.cat(m.be64((2 << 20) | 4096), m.be64(4096)));
  const doc = await dump(m.sample({ ram: m.cat(advise, m.ramSections(records, list)) }));
  expect(doc.issues).toEqual([]);
  expect(doc.ram!.blocks.map((b) => [b.name, b.length, b.pageSize])).toEqual([
    ['pc.ram', 2n << 20n, 2n << 20n],
    ['rom', 4096n, undefined],
  ]);
});
