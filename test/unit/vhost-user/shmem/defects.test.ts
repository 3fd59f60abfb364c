import fs from 'node:fs';
import { prepareFile } from '../../../../src/vhost-user/shmem/file.js';
import { statusOf } from '../../../../src/vhost-user/wire/status.js';
import { duplicate, memfd, openFds, pair, Raw } from '../../../support/vhost-user.js';
import { backEnd, frontService, SHMEM, whole } from '../../../support/vhost-user-pair.js';
import { eventually } from '../../../support/wait.js';

/**
 * The fifteen mistakes that implementations of SHMEM_MAP have made in review, each as a test that our front-end and our
 * back-end do not make it.
 */
const MAP = 'BACKEND_SHMEM_MAP';
const UNMAP = 'BACKEND_SHMEM_UNMAP';
const NEED = 0x9;
const map = (over: Record<string, unknown> = {}) => ({ shmid: 0, fdOffset: 0n, shmOffset: 0n, len: 0x2000n, flags: 1n, ...over });

test('D1: one reply to a request that asks for one, none to one that does not', async () => {
  const { raw, close } = frontService();
  const file = memfd(0x4000);
  for (const [flags, count] of [
    [NEED, 1],
    [0x1, 0],
  ] as const) {
    raw.request('back', MAP, map(), [duplicate(file)], flags);
    expect(await raw.answers(count)).toEqual(Array(count).fill(0n));
    raw.request('back', MAP, map({ shmid: 7 }), [duplicate(file)], flags);
    expect(await raw.answers(count)).toEqual(Array(count).fill(statusOf('ENOENT')));
    raw.request('back', UNMAP, map(), [], flags);
    expect(await raw.answers(count)).toEqual(Array(count).fill(0n));
  }
  file.close();
  close();
});

test('D1: nor is a reply sent where REPLY_ACK was not negotiated', async () => {
  const { raw, regions, close } = frontService({ protocol: SHMEM & ~(1n << 3n) });
  const file = memfd(0x4000);
  raw.request('back', MAP, map(), [duplicate(file)], NEED);
  expect(await raw.answers(0)).toEqual([]);
  expect(regions.list()).toHaveLength(1);
  file.close();
  close();
});

test('D2: the reply holds a status and no byte of the request', async () => {
  const { raw, close } = frontService();
  const file = memfd(0x4000);
  raw.send(9, NEED, Buffer.alloc(40, 0xaa), [duplicate(file)]);
  expect(await raw.reaction()).toBe(statusOf('ENOENT'));
  const payload = Buffer.alloc(40, 0xaa);
  payload[0] = 0;
  payload.writeBigUInt64LE(0n, 8);
  payload.writeBigUInt64LE(0n, 16);
  payload.writeBigUInt64LE(0x1000n, 24);
  payload.writeBigUInt64LE(1n, 32);
  raw.send(9, NEED, payload, [duplicate(file)]);
  expect(await raw.reaction()).toBe(0n);
  file.close();
  close();
});

test('D3: a refused mapping closes its descriptor: 1,000 of each kind leave as many as before', async () => {
  const { raw, regions, close } = frontService();
  const file = memfd(0x4000);
  const refused = [{ shmid: 9 }, { len: 0n }, { shmOffset: 123n }, { flags: 2n }, { fdOffset: 0x4000n }, { shmOffset: 0x100000n }];
  const before = openFds();
  for (const over of refused)
    for (let i = 0; i < 1000; i++) {
      raw.request('back', MAP, map(over), [duplicate(file)]);
      expect(await raw.reaction()).not.toBe(0n);
    }
  expect(openFds()).toBeLessThanOrEqual(before);
  expect(regions.list()).toEqual([]);
  file.close();
  close();
});

test('D4: 256 regions with mappings each keep their own', async () => {
  const sizes = new Map(Array.from({ length: 256 }, (_, id) => [id, 0x10000n] as const));
  const { raw, regions, close } = frontService({ regions: sizes });
  const file = memfd(0x4000);
  for (let shmid = 0; shmid < 256; shmid++)
    for (const shmOffset of [0n, 0x4000n]) {
      raw.request('back', MAP, map({ shmid, shmOffset }), [duplicate(file)]);
      expect(await raw.reaction()).toBe(0n);
    }
  expect(regions.list()).toHaveLength(512);
  for (let shmid = 255; shmid >= 0; shmid--) {
    raw.request('back', UNMAP, map({ shmid, shmOffset: 0x4000n }));
    expect(await raw.reaction()).toBe(0n);
    expect(regions.find(shmid, 0x4000n)).toBeUndefined();
    expect(regions.find(shmid, 0n)).toMatchObject({ shmid, len: 0x2000n });
  }
  file.close();
  close();
});

test.each(['unmap', 'reset', 'back-end channel closed', 'end'] as const)(
  'D5, D6: after %s no mapping and no descriptor is left',
  async (end) => {
    const before = openFds();
    const { server, session, window } = await whole();
    const file = memfd(0x4000, 'contents');
    await window.start();
    const entry = server.add(0, 0n, 'memfd', await prepareFile(duplicate(file), 'memfd', 'rw'));
    expect(await server.settled(entry, 30_000)).toMatchObject({ state: 'mapped' });
    expect(window.regions.read(0, 0n, 8).toString()).toBe('contents');
    if (end === 'unmap') await server.remove(0, 0n);
    else if (end === 'reset') await window.stop(true);
    else if (end === 'back-end channel closed') session.back!.close();
    else window.close();
    await eventually(() => window.regions.list().length === 0);
    window.close();
    await session.done;
    server.close();
    file.close();
    expect(openFds()).toBeLessThanOrEqual(before);
  },
);

test('D7: a request that is looked up does not run into the next one', async () => {
  const { raw, regions, close } = frontService();
  raw.send(8, NEED, Buffer.alloc(16, 1));
  expect(await raw.answers(1)).toEqual([statusOf('EPERM')]);
  expect(regions.list()).toEqual([]);
  close();
});

test.each([
  [{ shmOffset: 0xffff_ffff_ffff_f000n, len: 0x2000n }, 'EOVERFLOW'],
  [{ fdOffset: 0xffff_ffff_ffff_f000n, len: 0x2000n }, 'EOVERFLOW'],
  [{ shmOffset: 0x100000n, len: 0x1000n }, 'ERANGE'],
  [{ shmOffset: 0x100000n, len: 1n }, 'EINVAL'],
  [{ shmOffset: 0xff000n, len: 0x2000n }, 'ERANGE'],
  [{ len: 0xffff_ffff_ffff_f000n }, 'ERANGE'],
  [{ fdOffset: 0x3000n, len: 0x2000n }, 'ENXIO'],
  [{ fdOffset: 0x5000n, len: 0x1000n }, 'ENXIO'],
] as const)('D8: range %p is refused with %s', async (over, errno) => {
  const { raw, regions, close } = frontService();
  const file = memfd(0x4000);
  raw.request('back', MAP, map(over), [duplicate(file)]);
  expect(await raw.reaction()).toBe(statusOf(errno));
  expect(regions.list()).toEqual([]);
  file.close();
  close();
});

test('D9: a peer that hangs up before the refusal reaches it is one error, told once', async () => {
  const { raw, regions, service, log, close } = frontService();
  const file = memfd(0x4000);
  raw.request('back', MAP, map({ shmid: 3 }), [duplicate(file)]);
  raw.close();
  await eventually(() => service.closed);
  expect(log).toEqual(['BACKEND_SHMEM_MAP: refused: ENOENT']);
  expect(regions.list()).toEqual([]);
  file.close();
  close();
});

test('D10: unmap names exactly one whole mapping, or nothing changes', async () => {
  const { raw, regions, close } = frontService();
  const file = memfd(0x8000);
  for (const shmOffset of [0n, 0x2000n]) {
    raw.request('back', MAP, map({ shmOffset }), [duplicate(file)]);
    expect(await raw.reaction()).toBe(0n);
  }
  for (const part of [{ len: 0x1000n }, { shmOffset: 0x1000n, len: 0x1000n }, { len: 0x4000n }, { shmOffset: 0x1000n }, { len: 0x3000n }]) {
    raw.request('back', UNMAP, map(part));
    expect(await raw.reaction()).toBe(statusOf('ENOENT'));
    expect(regions.list()).toHaveLength(2);
  }
  raw.request('back', UNMAP, map());
  expect(await raw.reaction()).toBe(0n);
  raw.request('back', UNMAP, map());
  expect(await raw.reaction()).toBe(statusOf('ENOENT'));
  expect(regions.list()).toHaveLength(1);
  file.close();
  close();
});

test('D11: our back-end asks for the reply whenever it can have one', async () => {
  const { raw, session, close } = backEnd();
  const [ours, theirs] = pair();
  raw.request('main', 'SET_PROTOCOL_FEATURES', { value: SHMEM }, [], 0x1);
  raw.request('main', 'SET_BACKEND_REQ_FD', {}, [theirs]);
  expect(await raw.reaction()).toBe(0n);
  const front = new Raw(ours);
  const asked = session.back!.request(UNMAP, map());
  const answer = await front.exchange.next(30_000);
  expect(answer).toMatchObject({ kind: 'message', message: { id: 10, flags: NEED } });
  front.send(10, 0x5, Buffer.from('0100000000000000', 'hex'));
  expect(await asked).toBe(1n);
  front.close();
  await close();
});

test('D12: success is told only when the mapping stands', async () => {
  const { raw, regions, close } = frontService();
  const sealed = memfd(0x4000, '', 2 | 4 | 8); // F_SEAL_WRITE: no writable mapping of it can be made
  raw.request('back', MAP, map(), [duplicate(sealed)]);
  expect(await raw.reaction()).toBe(statusOf('EPERM'));
  expect(regions.list()).toEqual([]);
  raw.request('back', MAP, map({ flags: 0n }), [duplicate(sealed)]);
  const first = await raw.reaction();
  expect(regions.list()).toHaveLength(first === 0n ? 1 : 0);
  sealed.close();
  close();
});

test('D13: a mapping that is asked for while a main-channel request is served waits for nobody', async () => {
  const { server, window, session } = await whole();
  const file = memfd(0x4000);
  // Queued before the device runs: it leaves right behind the reply to SET_VRING_ENABLE, whose sender is still in start().
  const entry = server.add(0, 0n, 'memfd', await prepareFile(duplicate(file), 'memfd', 'rw'));
  expect(window.regions.list()).toEqual([]);
  await window.start(); // its own timeout makes a deadlock an error
  expect(await server.settled(entry, 30_000)).toMatchObject({ state: 'mapped' });
  expect(await window.front.number('GET_FEATURES')).toBe(window.front.features);
  window.close();
  await session.done;
  server.close();
  file.close();
});

test.each([2n, 3n, 1n << 63n])('D14: flags 0x%s with unknown bits are refused', async (flags) => {
  const { raw, regions, close } = frontService();
  const file = memfd(0x4000);
  raw.request('back', MAP, map({ flags }), [duplicate(file)]);
  expect(await raw.reaction()).toBe(statusOf('EINVAL'));
  expect(regions.list()).toEqual([]);
  file.close();
  close();
});

test.each([{ shmOffset: 123n }, { len: 100n }, { fdOffset: 512n, len: 0x1000n }])('D15: unaligned %p is refused', async (over) => {
  const { raw, regions, close } = frontService();
  const file = memfd(0x4000);
  raw.request('back', MAP, map(over), [duplicate(file)]);
  expect(await raw.reaction()).toBe(statusOf('EINVAL'));
  expect(regions.list()).toEqual([]);
  file.close();
  close();
});

test('mappings are seen through the window, both ways', async () => {
  const { server, session, window } = await whole();
  const file = memfd(0x4000, 'host bytes');
  const entry = server.add(0, 0x1000n, 'memfd', await prepareFile(duplicate(file), 'memfd', 'rw'));
  await window.start();
  expect(await server.settled(entry, 30_000)).toMatchObject({ state: 'mapped' });
  expect(window.regions.read(0, 0x1000n, 10).toString()).toBe('host bytes');
  const mapping = window.regions.find(0, 0x1000n)!;
  fs.writeSync(mapping.fd.fd, 'guest bytes', 0x100);
  const seen = Buffer.alloc(11);
  fs.readSync(file.fd, seen, 0, 11, 0x100);
  expect(seen.toString()).toBe('guest bytes');
  window.close();
  await session.done;
  server.close();
  file.close();
});
