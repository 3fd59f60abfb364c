import fc from 'fast-check';
import { type Struct, WireError } from '../../../../src/common/struct.js';
import { describe as describe_ } from '../../../../src/vhost-user/wire/describe.js';
import { decodeConfig, deviceByName, deviceTypes } from '../../../../src/vhost-user/wire/devices.js';
import {
  dialectWarnings,
  protocolBit,
  protocolFeatures,
  protocolView,
  shmemDialects,
  virtioView,
} from '../../../../src/vhost-user/wire/features.js';
import {
  backMessages,
  config,
  encodeMessage,
  fsMap,
  header,
  mainMessages,
  memTable,
  messageById,
  messageByName,
  mmap,
  shmemConfig,
  singleRegion,
  vringAddr,
} from '../../../../src/vhost-user/wire/messages.js';

const hex = (data: Uint8Array): string => Buffer.from(data).toString('hex');
const un = (text: string): Buffer => Buffer.from(text.replaceAll(/\s/g, ''), 'hex');

describe('golden bytes', () => {
  // Header and payload of SHMEM_MAP as a QEMU 11.1 front-end received them (recvmsg under strace).
  test('SHMEM_MAP with NEED_REPLY', () => {
    const payload = mmap.encode({ shmid: 0, fdOffset: 0n, shmOffset: 0x10000n, len: 0x2000n, flags: 1n });
    expect(hex(encodeMessage(9, 0x9, payload))).toBe(
      `${'09000000 09000000 28000000'.replaceAll(' ', '')}00000000000000000000000000000000000001000000000000200000000000000100000000000000`,
    );
    expect(mmap.decode(payload)).toEqual({ shmid: 0, fdOffset: 0n, shmOffset: 0x10000n, len: 0x2000n, flags: 1n });
  });

  const cases: [string, Struct, Record<string, unknown>, string][] = [
    ['header', header as Struct, { request: 44, flags: 0x5, size: 2056 }, '2c000000 05000000 08080000'],
    [
      'memory table, two regions',
      memTable as Struct,
      {
        count: 2,
        regions: [
          { gpa: 0n, size: 0xc0000n, uva: 0x7fb9fbfff000n, offset: 0n },
          { gpa: 0x100000n, size: 0x100000n, uva: 0x7fb9fc0ff000n, offset: 0x100000n },
        ],
      },
      `02000000 00000000 0000000000000000 00000c0000000000 00f0fffbb97f0000 0000000000000000
       0000100000000000 0000100000000000 00f00ffcb97f0000 0000100000000000`,
    ],
    [
      'single region',
      singleRegion as Struct,
      { region: { gpa: 0x1000n, size: 0x2000n, uva: 0x3000n, offset: 0x4000n } },
      '0000000000000000 0010000000000000 0020000000000000 0030000000000000 0040000000000000',
    ],
    [
      'ring addresses',
      vringAddr as Struct,
      { index: 1, flags: 0, desc: 0x7f1ab80ff000n, used: 0x7f1ab8100000n, avail: 0x7f1ab8101000n, log: 0n },
      '01000000 00000000 00f00fb81a7f0000 000010b81a7f0000 001010b81a7f0000 0000000000000000',
    ],
    [
      'configuration, eight bytes',
      config as Struct,
      { offset: 4, size: 8, flags: 0, data: un('0102030405060708') },
      '04000000 08000000 00000000 0102030405060708',
    ],
  ];
  test.each(cases)('%s', (_name, layout, values, golden) => {
    expect(hex(layout.encode(values))).toBe(golden.replaceAll(/\s/g, ''));
    expect(hex(layout.encode(layout.decode(un(golden))))).toBe(golden.replaceAll(/\s/g, ''));
  });

  test('sizes of the specification', () => {
    const sizes = { ...Object.fromEntries([...mainMessages, ...backMessages].map((m) => [m.name, m.request?.size])) };
    expect(sizes).toMatchObject({
      GET_FEATURES: 0,
      SET_FEATURES: 8,
      SET_MEM_TABLE: 8,
      SET_LOG_BASE: 16,
      SET_VRING_NUM: 8,
      SET_VRING_ADDR: 40,
      IOTLB_MSG: 32,
      GET_CONFIG: 12,
      ADD_MEM_REG: 40,
      SET_DEVICE_STATE_FD: 8,
      BACKEND_VRING_HOST_NOTIFIER_MSG: 24,
      BACKEND_SHARED_OBJECT_LOOKUP: 16,
      BACKEND_SHMEM_MAP: 40,
      BACKEND_SHMEM_UNMAP: 40,
    });
    expect(shmemConfig.size).toBe(2056);
    expect(fsMap.size).toBe(256);
    expect(deviceByName('blk')?.config?.size).toBe(96);
    expect(deviceByName('fs')?.config?.size).toBe(44);
    expect(deviceByName('input')?.config?.size).toBe(136);
  });
});

describe('the table', () => {
  test('44 and 10 messages, numbered without a gap', () => {
    expect(mainMessages.map((m) => m.id)).toEqual(Array.from({ length: 44 }, (_, i) => i + 1));
    expect(backMessages.map((m) => m.id)).toEqual(Array.from({ length: 10 }, (_, i) => i + 1));
  });
  test('numbers that name shared memory', () => {
    expect(messageByName('main', 'GET_SHMEM_CONFIG').id).toBe(44);
    expect(messageByName('back', 'BACKEND_SHMEM_MAP')).toMatchObject({ id: 9, fds: [1, 1] });
    expect(messageByName('back', 'BACKEND_SHMEM_UNMAP')).toMatchObject({ id: 10, fds: [0, 0] });
    expect(protocolBit('SHMEM')).toBe(1n << 22n);
    expect(messageById('main', 99)).toBeUndefined();
  });
  test('every feature that a message needs exists', () => {
    for (const { needs } of [...mainMessages, ...backMessages]) if (needs !== undefined) expect(protocolFeatures).toContain(needs);
  });
});

describe('decoding never trusts a length', () => {
  const layouts = [...new Set([...mainMessages, ...backMessages].flatMap((m) => [m.request, m.reply]).filter((s) => s !== undefined))];
  test.each(layouts.map((l) => [l.name, l] as const))('%s: too short and too long are typed errors', (_name, layout) => {
    for (const size of new Set([0, 1, layout.size - 1, layout.size + 1]))
      if (size >= 0 && size !== layout.size) expect(() => layout.decode(new Uint8Array(size))).toThrow(WireError);
  });
  test('counts beyond the bytes name the offset', () => {
    expect(() => memTable.decode(un('ffffffff 00000000'))).toThrow(expect.objectContaining({ offset: 8, exit: 5 }));
    expect(() => config.decode(un('00000000 ffffffff 00000000 00'))).toThrow(expect.objectContaining({ offset: 12 }));
  });
  test('random bytes either decode to something that encodes to the same, or are a WireError', () => {
    fc.assert(
      fc.property(fc.constantFrom(...layouts), fc.uint8Array({ maxLength: 300 }), (layout, data) => {
        let values: unknown;
        try {
          values = layout.decode(data);
        } catch (err) {
          expect(err).toBeInstanceOf(WireError);
          return;
        }
        expect(layout.encode(values as never).length).toBe(data.length);
        expect(layout.decode(layout.encode(values as never))).toEqual(values);
      }),
      { numRuns: 2000 },
    );
  });
});

describe('feature words', () => {
  test('those of a block back-end', () => {
    expect(protocolView(0x8f2bn)).toEqual({
      raw: 0x8f2bn,
      names: [
        'MQ',
        'LOG_SHMFD',
        'BACKEND_REQ',
        'REPLY_ACK',
        'PAGEFAULT',
        'CONFIG',
        'BACKEND_SEND_FD',
        'HOST_NOTIFIER',
        'CONFIGURE_MEM_SLOTS',
      ].sort((a, b) => protocolFeatures.indexOf(a) - protocolFeatures.indexOf(b)),
      unknown: [],
    });
    expect(virtioView(0x175007e44n, deviceByName('blk')!.features).names).toEqual(
      expect.arrayContaining(['VERSION_1', 'FLUSH', 'MQ', 'DISCARD', 'WRITE_ZEROES', 'VHOST_USER_F_PROTOCOL_FEATURES']),
    );
  });
  test('bits without a name are told', () => {
    expect(protocolView(1n << 63n)).toEqual({ raw: 1n << 63n, names: [], unknown: [63] });
  });
  test('dialects of shared memory are named by bit and by request number', () => {
    expect(shmemDialects((1n << 22n) | (1n << 21n) | (1n << 17n))).toEqual(['standard']);
    expect(shmemDialects(1n << 21n)).toEqual(['rust-vmm-0.16']);
    expect(shmemDialects((1n << 20n) | (1n << 17n))).toEqual(['draft-20', 'crosvm-2023']);
    expect(shmemDialects(0xffffn)).toEqual([]);
    const told = (channel: 'main' | 'back', id: number, size: number) =>
      describe_(channel, { id, flags: 1, payload: new Uint8Array(size) }, 0).warnings.join();
    expect(told('main', 1004, 0)).toMatch(/GET_SHMEM_CONFIG of crosvm of 2024/);
    expect(told('back', 1000, 40)).toMatch(/SHMEM_MAP of crosvm of 2024/);
    expect(told('back', 6, 256)).toMatch(/virtio-fs draft's FS_MAP/);
    expect(told('back', 6, 40)).toMatch(/SHMEM_MAP of crosvm 2023/);
    expect(told('back', 6, 16)).toBe('');
    expect(told('main', 999, 0)).toBe('request 999 is not in the specification');
  });
  test('bits of other dialects are warned of, the standard is not', () => {
    const base = (1n << 3n) | (1n << 5n) | (1n << 10n);
    expect(dialectWarnings(base | (1n << 22n))).toEqual([]);
    expect(dialectWarnings(base | (1n << 21n))).toEqual([expect.stringContaining('GPA_ADDRESSES')]);
    expect(dialectWarnings(base | (1n << 20n))).toEqual([expect.stringContaining('GET_VRING_BASE_INFLIGHT')]);
    expect(dialectWarnings(1n << 22n)).toHaveLength(3);
  });
});

describe('device configuration', () => {
  test('a block device: as many fields as there are bytes', () => {
    const blk = deviceByName('blk')!;
    const data = un('0000020000000000 00000000 7e000000 0000 00 00 00020000 00 00 0100 01000000 00 00 0400');
    expect(decodeConfig(blk, data)).toMatchObject({ capacity: 131072n, seg_max: 126, blk_size: 512, min_io_size: 1, num_queues: 4 });
    expect(Object.keys(decodeConfig(blk, data.subarray(0, 13)))).toEqual(['capacity', 'size_max']);
  });
  test('a tag is a string', () => {
    const data = Buffer.alloc(40);
    data.write('myfs');
    data.writeUInt32LE(1, 36);
    expect(decodeConfig(deviceByName('fs')!, data)).toEqual({ tag: 'myfs', num_request_queues: 1 });
  });
  test('types are numbered once', () => {
    expect(new Set(deviceTypes.map((d) => d.id)).size).toBe(deviceTypes.length);
  });
});
