import fs from 'node:fs';
import { native } from '../../../src/native/index.js';
import { OwnedFd } from '../../../src/native/owned-fd.js';
import { FrontEnd } from '../../../src/vhost-user/frontend/frontend.js';
import { judgeRegions } from '../../../src/vhost-user/shmem/regions.js';
import { encodeMessage, header, shmemConfig } from '../../../src/vhost-user/wire/messages.js';
import { type Errno, statusOf } from '../../../src/vhost-user/wire/status.js';
import { effort } from '../../support/effort.js';
import { duplicate, memfd, openFds, pair, Raw, resident } from '../../support/vhost-user.js';
import { backEnd, frontService, SHMEM } from '../../support/vhost-user-pair.js';

/**
 * Twenty-five kinds of malformed messages. R: an answer that is not zero, the channel stays. C: the channel is closed. In
 * every case state and descriptors are as before, and up to 1,000 repeats leave neither a descriptor nor memory behind.
 */
const MAP = 'BACKEND_SHMEM_MAP';
const UNMAP = 'BACKEND_SHMEM_UNMAP';
const NEED = 0x9;
const REPEATS = effort(250, 1000);
const map = (over: Record<string, unknown> = {}) => ({ shmid: 0, fdOffset: 0n, shmOffset: 0n, len: 0x1000n, flags: 1n, ...over });
const file = memfd(0x4000);
const readOnly = new OwnedFd(fs.openSync(`/proc/self/fd/${file.fd}`, 'r'));
const folder = new OwnedFd(fs.openSync('/tmp', 'r'));
afterAll(() =>
  [file, readOnly, folder].forEach((fd) => {
    fd.close();
  }),
);

/** Runs `once` REPEATS times and expects descriptors and memory to stay. */
async function flat(once: () => Promise<void>, repeats = REPEATS): Promise<void> {
  for (let i = 0; i < 50; i++) await once();
  const [fds, memory] = [openFds(), resident()];
  for (let i = 0; i < repeats; i++) await once();
  expect(openFds()).toBeLessThanOrEqual(fds); // what an earlier test had open may have closed meanwhile
  expect(resident() - memory).toBeLessThan(24 << 20);
}

describe('back-end channel, refused', () => {
  type Case = [name: string, errno: Errno, send: (raw: Raw) => void, options?: { started?: boolean; protocol?: bigint }];
  const request =
    (over: Record<string, unknown>, fds: () => OwnedFd[] = () => [duplicate(file)], name = MAP) =>
    (raw: Raw): void =>
      raw.request('back', name, map(over), fds());
  const cases: Case[] = [
    ['7: no descriptor', 'EBADF', request({ shmOffset: 0x10000n }, () => [])],
    ['8: two descriptors', 'EINVAL', request({ shmOffset: 0x10000n }, () => [duplicate(file), duplicate(file)])],
    ['9: a descriptor with UNMAP', 'EINVAL', request({}, () => [duplicate(file)], UNMAP)],
    ['10: region 2', 'ENOENT', request({ shmid: 2 })],
    ['10: region 255', 'ENOENT', request({ shmid: 255 })],
    ['11: no length', 'EINVAL', request({ len: 0n })],
    ['12: offset and length wrap', 'EOVERFLOW', request({ shmOffset: 0xffff_ffff_ffff_f000n, len: 0x2000n })],
    ['13: file offset and length wrap', 'EOVERFLOW', request({ fdOffset: 0xffff_ffff_ffff_f000n, len: 0x2000n })],
    ['14: beyond the region', 'ERANGE', request({ shmOffset: 0x100000n })],
    ['15: unaligned offset', 'EINVAL', request({ shmOffset: 0x10010n })],
    ['15: unaligned length', 'EINVAL', request({ shmOffset: 0x10000n, len: 0x1001n })],
    ['15: unaligned file offset', 'EINVAL', request({ shmOffset: 0x10000n, fdOffset: 1n })],
    ['16: unknown flags', 'EINVAL', request({ shmOffset: 0x10000n, flags: 4n })],
    ['17: the same mapping', 'EEXIST', request({})],
    ['17: partly the same', 'EEXIST', request({ len: 0x2000n })],
    ['18: a folder', 'ENODEV', request({ shmOffset: 0x10000n }, () => [duplicate(folder)])],
    [
      '18: a socket',
      'ENODEV',
      (raw) => {
        const [a, b] = pair();
        b.close();
        raw.request('back', MAP, map({ shmOffset: 0x10000n }), [a]);
      },
    ],
    ['18: an eventfd', 'ENODEV', request({ shmOffset: 0x10000n }, () => [new OwnedFd(native().common.eventfd())])],
    ['19: writable over a read-only file', 'EACCES', request({ shmOffset: 0x10000n }, () => [duplicate(readOnly)])],
    ['20: longer than the file', 'ENXIO', request({ shmOffset: 0x10000n, len: 0x5000n })],
    ['21: unmap of a part', 'ENOENT', request({ shmOffset: 0x20000n }, () => [], UNMAP)],
    ['21: unmap of more', 'ENOENT', request({ len: 0x2000n }, () => [], UNMAP)],
    ['22: SHMEM was not negotiated', 'EPERM', request({}), { protocol: SHMEM & ~(1n << 22n) }],
    ['22: the device is not started', 'EPERM', request({}), { started: false }],
    ['22: unmap while it is not started', 'EPERM', request({}, () => [], UNMAP), { started: false }],
    ['23: unknown request', 'ENOTSUP', (raw) => raw.send(99, NEED, Buffer.alloc(40))],
  ];
  test.each(cases)('%s', async (_name, errno, send, options = {}) => {
    const { raw, regions, close } = frontService(options);
    const normal = options.started === undefined && options.protocol === undefined;
    if (normal) {
      raw.request('back', MAP, map(), [duplicate(file)]);
      expect(await raw.reaction()).toBe(0n);
    }
    const standing = regions.list();
    await flat(async () => {
      send(raw);
      if ((await raw.reaction()) !== statusOf(errno)) throw new Error('another answer');
    });
    expect(regions.list()).toEqual(standing);
    close();
  });

  test('23: an unknown request that asks for no answer is ignored', async () => {
    const { raw, close } = frontService();
    await flat(async () => {
      raw.send(99, 0x1, Buffer.alloc(8), [duplicate(file)]);
      raw.request('back', UNMAP, map());
      if ((await raw.reaction()) !== statusOf('ENOENT')) throw new Error('another answer');
    });
    close();
  });
});

describe('back-end channel, closed', () => {
  const cases: [string, (raw: Raw) => void][] = [
    ['1: MAP of 39 bytes', (raw) => raw.send(9, NEED, Buffer.alloc(39), [duplicate(file)])],
    ['1: MAP of 41 bytes', (raw) => raw.send(9, NEED, Buffer.alloc(41), [duplicate(file)])],
    ['1: MAP without payload', (raw) => raw.send(9, NEED, Buffer.alloc(0), [duplicate(file)])],
    ['2: version 0', (raw) => raw.request('back', MAP, map(), [duplicate(file)], 0x8)],
    ['2: version 2', (raw) => raw.request('back', MAP, map(), [duplicate(file)], 0xa)],
    ['2: version 3', (raw) => raw.request('back', MAP, map(), [duplicate(file)], 0xb)],
    ['3: the reply bit', (raw) => raw.request('back', MAP, map(), [duplicate(file)], 0xd)],
    ['4: reserved flag bits', (raw) => raw.request('back', MAP, map(), [duplicate(file)], 0x19)],
    ['5: more than 4,096 bytes', (raw) => raw.bytes(header.encode({ request: 9, flags: NEED, size: 4097 }), [duplicate(file)])],
    ['5: 4 GiB', (raw) => raw.bytes(header.encode({ request: 9, flags: NEED, size: 0xffffffff }), [duplicate(file)])],
    [
      '6: descriptors in the middle',
      (raw) => {
        raw.bytes(header.encode({ request: 9, flags: NEED, size: 40 }));
        raw.bytes(Buffer.alloc(8), [duplicate(file)]);
      },
    ],
  ];
  test.each(cases)('%s', async (_name, send) => {
    await flat(async () => {
      const { raw, regions, close } = frontService();
      send(raw);
      if ((await raw.reaction()) !== 'closed') throw new Error('the channel stays open');
      if (regions.list().length > 0) throw new Error('a mapping was made');
      close();
    });
  });

  test('6: a message in three pieces works, one that stalls is closed', async () => {
    const { raw, service, regions, close } = frontService();
    const message = encodeMessage(
      9,
      NEED,
      Buffer.concat([Buffer.alloc(24), Buffer.from([0, 16]), Buffer.alloc(6), Buffer.from([1]), Buffer.alloc(7)]),
    );
    raw.bytes(message.subarray(0, 5), [duplicate(file)]);
    for (const piece of [message.subarray(5, 12), message.subarray(12, 30), message.subarray(30)]) {
      await new Promise((resolve) => setTimeout(resolve, 10));
      raw.bytes(piece);
    }
    expect(await raw.reaction()).toBe(0n);
    expect(regions.list()).toHaveLength(1);
    raw.bytes(message.subarray(0, 20));
    expect(await raw.reaction()).toBe('closed');
    expect(service.closed).toBe(true);
    expect(regions.list()).toEqual([]);
    close();
  });
});

describe('24: answers to GET_SHMEM_CONFIG', () => {
  const config = (count: number, sizes: Record<number, bigint>): Uint8Array =>
    shmemConfig.encode({ count, sizes: Array.from({ length: 256 }, (_, i) => sizes[i] ?? 0n) });
  async function ask(payload: Uint8Array): Promise<Map<number, bigint>> {
    const [ours, theirs] = pair();
    const front = new FrontEnd(ours);
    const raw = new Raw(theirs);
    try {
      const asked = front.shmemConfig();
      asked.catch(() => {});
      const request = await raw.exchange.next(30_000);
      expect(request).toMatchObject({ kind: 'message', message: { id: 44 } });
      raw.send(44, 0x5, payload);
      return await asked;
    } finally {
      front.close();
      raw.close();
    }
  }
  test.each<[string, Uint8Array]>([
    ['8 bytes', Buffer.alloc(8)],
    ['24 bytes', Buffer.alloc(24)],
    ['2,055 bytes', Buffer.alloc(2055)],
    ['4,096 bytes', Buffer.alloc(4096)],
    ['257 regions', config(257, { 0: 0x1000n })],
    ['0xffffffff regions', config(0xffffffff, { 0: 0x1000n })],
    ['two regions, one size', config(2, { 0: 0x1000n })],
    ['one region, two sizes', config(1, { 0: 0x1000n, 5: 0x1000n })],
    ['a size that is no multiple of the page', config(1, { 0: 0x1800n })],
  ])('%s end with status 5', async (_name, payload) => {
    await flat(async () => {
      const error = await ask(payload).catch((err) => err);
      if (error.exit !== 5) throw new Error(`no protocol error: ${error}`);
    });
  });
  test('what the specification allows and QEMU does not take is a warning', async () => {
    expect(judgeRegions(await ask(config(2, { 0: 0x1000n, 9: 0x2000n })))).toEqual({
      errors: [],
      warnings: [expect.stringContaining('powers of two')],
    });
    const four = await ask(config(4, { 0: 0x1000n, 1: 0x1000n, 2: 0x1000n, 3: 0x1000n }));
    expect(judgeRegions(four).warnings).toEqual([expect.stringContaining('at most 3')]);
  });
});

describe('25: main channel, we are the back-end', () => {
  const region = (over: Record<string, bigint> = {}) => ({ gpa: 0n, size: 0x4000n, uva: 0x10000n, offset: 0n, ...over });
  const table = (regions: ReturnType<typeof region>[], fds: number) => (raw: Raw) =>
    raw.request(
      'main',
      'SET_MEM_TABLE',
      { count: regions.length, regions },
      Array.from({ length: fds }, () => duplicate(file)),
    );
  const ring = (name: string, index: number, num: number) => (raw: Raw) => raw.request('main', name, { index, num });
  const addr = (over: Record<string, bigint | number>) => (raw: Raw) =>
    raw.request('main', 'SET_VRING_ADDR', { index: 0, flags: 0, desc: 0x10000n, avail: 0x11000n, used: 0x12000n, log: 0n, ...over });
  const fd = (name: string, value: bigint, fds: () => OwnedFd[]) => (raw: Raw) => raw.request('main', name, { value }, fds());
  const event = (): OwnedFd[] => [new OwnedFd(native().common.eventfd())];
  const nine = Array.from({ length: 9 }, (_, i) => region({ gpa: BigInt(i) << 20n, uva: BigInt(i) << 20n }));
  const refused: [string, (raw: Raw) => void][] = [
    ['SET_MEM_TABLE with nine regions', table(nine, 8)],
    ['SET_MEM_TABLE with more regions than descriptors', table([region(), region({ gpa: 0x8000n, uva: 0x18000n })], 1)],
    ['SET_MEM_TABLE with more descriptors than regions', table([region()], 2)],
    ['SET_MEM_TABLE beyond its file', table([region({ size: 1n << 30n })], 1)],
    ['SET_MEM_TABLE whose offset wraps', table([region({ offset: 0xffff_ffff_ffff_f000n })], 1)],
    ['SET_MEM_TABLE without a size', table([region({ size: 0n })], 1)],
    ['SET_MEM_TABLE with regions that overlap', table([region(), region({ gpa: 0x2000n, uva: 0x80000n })], 2)],
    [
      'ADD_MEM_REG of a folder',
      (raw) => raw.request('main', 'ADD_MEM_REG', { region: region({ gpa: 1n << 30n, uva: 1n << 40n }) }, [duplicate(folder)]),
    ],
    ['ADD_MEM_REG over another', (raw) => raw.request('main', 'ADD_MEM_REG', { region: region() }, [duplicate(file)])],
    ['REM_MEM_REG of what is not there', (raw) => raw.request('main', 'REM_MEM_REG', { region: region({ gpa: 1n << 30n }) })],
    ['SET_VRING_NUM for ring 200', ring('SET_VRING_NUM', 200, 64)],
    ['SET_VRING_NUM 3', ring('SET_VRING_NUM', 0, 3)],
    ['SET_VRING_NUM 0', ring('SET_VRING_NUM', 0, 0)],
    ['SET_VRING_NUM 65536', ring('SET_VRING_NUM', 0, 65536)],
    ['SET_VRING_BASE for ring 2', ring('SET_VRING_BASE', 2, 0)],
    ['SET_VRING_ADDR outside memory', addr({ used: 0x90000n })],
    ['SET_VRING_ADDR whose end is outside memory', addr({ used: 0x13ffcn })],
    ['SET_VRING_ADDR unaligned', addr({ desc: 0x10001n })],
    ['SET_VRING_ADDR for ring 0xffffffff', addr({ index: 0xffffffff })],
    ['SET_VRING_ENABLE for ring 9', ring('SET_VRING_ENABLE', 9, 1)],
    ['SET_VRING_ENABLE 2', ring('SET_VRING_ENABLE', 0, 2)],
    ['SET_VRING_KICK without a descriptor', fd('SET_VRING_KICK', 0n, () => [])],
    ['SET_VRING_KICK of ring 77', fd('SET_VRING_KICK', 77n, event)],
    ['SET_VRING_KICK with a file', fd('SET_VRING_KICK', 0n, () => [duplicate(file)])],
    ['SET_VRING_CALL with two descriptors', fd('SET_VRING_CALL', 0n, () => [...event(), ...event()])],
    ['SET_FEATURES that were not offered', (raw) => raw.request('main', 'SET_FEATURES', { value: 1n << 62n })],
    ['SET_PROTOCOL_FEATURES that were not offered', (raw) => raw.request('main', 'SET_PROTOCOL_FEATURES', { value: SHMEM | (1n << 63n) })],
    ['in-band notifications that were not offered', (raw) => raw.request('main', 'SET_PROTOCOL_FEATURES', { value: SHMEM | (1n << 14n) })],
    ['SET_BACKEND_REQ_FD with a file', (raw) => raw.request('main', 'SET_BACKEND_REQ_FD', {}, [duplicate(file)])],
    ['SET_BACKEND_REQ_FD without a descriptor', (raw) => raw.request('main', 'SET_BACKEND_REQ_FD', {})],
    ['SET_LOG_BASE, which is not offered', (raw) => raw.send(6, NEED, Buffer.alloc(16), [duplicate(file)])],
    ['an unknown request', (raw) => raw.send(99, NEED, Buffer.alloc(0), [duplicate(file)])],
  ];
  test.each(refused)('%s is refused and changes nothing', async (_name, send) => {
    const { raw, session, close } = backEnd();
    raw.request('main', 'SET_PROTOCOL_FEATURES', { value: SHMEM }, [], 0x1);
    table([region()], 1)(raw);
    expect(await raw.reaction()).toBe(0n);
    raw.request('main', 'SET_VRING_NUM', { index: 0, num: 64 });
    expect(await raw.reaction()).toBe(0n);
    await flat(async () => {
      send(raw);
      const status = await raw.reaction();
      if (typeof status !== 'bigint' || status === 0n) throw new Error(`not refused: ${String(status)}`);
    });
    expect(session.memory.regions).toEqual([region()]);
    expect(session.protocol).toBe(SHMEM);
    expect(session.rings.running).toBe(false);
    await close();
  });

  const closed: [string, (raw: Raw) => void][] = [
    ['version 0', (raw) => raw.send(1, 0, Buffer.alloc(0))],
    ['the reply bit', (raw) => raw.send(1, 0x5, Buffer.alloc(0))],
    ['reserved bits', (raw) => raw.send(1, 0x11, Buffer.alloc(0))],
    ['a payload where none belongs', (raw) => raw.send(1, 0x1, Buffer.alloc(8))],
    ['a payload that is too short', (raw) => raw.send(2, 0x9, Buffer.alloc(4), [duplicate(file)])],
    ['a count beyond the payload', (raw) => raw.send(5, 0x9, Buffer.from('ffffffff00000000', 'hex'), [duplicate(file)])],
    ['GET_VRING_BASE of ring 200', (raw) => raw.request('main', 'GET_VRING_BASE', { index: 200, num: 0 })],
    ['GET_INFLIGHT_FD, which is not offered', (raw) => raw.send(31, 0x1, Buffer.alloc(24))],
  ];
  test.each(closed)('%s closes the connection', async (_name, send) => {
    await flat(async () => {
      const { raw, close } = backEnd();
      send(raw);
      if ((await raw.reaction()) !== 'closed') throw new Error('the connection stays open');
      await close();
    });
  });
});
