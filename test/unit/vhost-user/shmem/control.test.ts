import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { ControlClient } from '../../../../src/control/client.js';
import type { ControlServer } from '../../../../src/control/server.js';
import { native } from '../../../../src/native/index.js';
import { ShmemControl, serveControl } from '../../../../src/vhost-user/shmem/control.js';
import { openForMap, parseRegion } from '../../../../src/vhost-user/shmem/file.js';
import { checkRange, judgeRegions } from '../../../../src/vhost-user/shmem/regions.js';
import { ShmemServer } from '../../../../src/vhost-user/shmem/server.js';

const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-shmem-'));
const socket = path.join(dir, 'ctl');
const file = path.join(dir, 'file');
afterAll(() => fs.rmSync(dir, { recursive: true }));
const openFds = () => fs.readdirSync('/proc/self/fd').length;

let server: ShmemServer;
let control: ControlServer;
let client: ShmemControl;
beforeEach(async () => {
  fs.writeFileSync(file, Buffer.alloc(1 << 16, 7));
  server = new ShmemServer(new Map([[0, 1n << 24n]]), () => {}, false);
  control = serveControl(socket, { server, socket: '/run/w.sock', state: () => ({ connected: false, running: false }) });
  client = await ShmemControl.connect(socket);
});
afterEach(() => {
  client.close();
  control.close();
  server.close();
});
const spec = (offset: bigint, mode: 'rw' | 'ro' = 'rw') => ({ shmid: 0, offset, file, mode });

test('a file travels as a descriptor, and is mapped, listed and unmapped', async () => {
  expect(await client.list()).toEqual({
    socket: '/run/w.sock',
    connected: false,
    running: false,
    regions: [{ id: 0, size: 1n << 24n }],
    mappings: [],
  });
  const mapped = await client.map({ ...spec(0x10_0000n), wait: 100 }, openForMap(spec(0n)));
  expect(mapped).toMatchObject({
    shmid: 0,
    offset: 0x10_0000n,
    len: 1n << 16n,
    file,
    state: 'queued',
    how: 'shared',
    warnings: [expect.stringContaining(file)],
  });
  expect((await client.list()).mappings).toEqual([expect.objectContaining({ offset: 0x10_0000n, len: 1n << 16n, file })]);
  expect(await client.unmap(0, 0x10_0000n)).toMatchObject({ file });
  expect((await client.list()).mappings).toEqual([]);
});

test('refusals keep code and status, and leave no descriptor open', async () => {
  const before = openFds();
  await expect(client.map({ ...spec(1n), wait: 100 }, openForMap(spec(0n)))).rejects.toMatchObject({ code: 'EINVAL' });
  await expect(client.map({ ...spec(0n), shmid: 9, wait: 100 }, openForMap(spec(0n)))).rejects.toMatchObject({ exit: expect.any(Number) });
  expect(openFds()).toBeLessThanOrEqual(before);
});

test.each([
  ['no operation of ours', 'format', {}],
  ['a place without an offset', 'unmap', { shmid: 0 }],
  ['an offset that is no number', 'unmap', { shmid: 0, offset: '16M' }],
  ['no file', 'map', { shmid: 0, offset: '0x0', mode: 'rw', wait: 1 }],
  ['no descriptor', 'map', { shmid: 0, offset: '0x0', file: 'x', mode: 'rw', wait: 1 }],
])('%s: EPROTO', async (_name, op, args) => {
  const raw = await ControlClient.connect(socket, { service: 'vhost-user shmem serve' });
  await expect(raw.request(op, args)).rejects.toMatchObject({ code: 'EPROTO', exit: 5 });
  raw.close();
  expect((await client.list()).mappings).toEqual([]);
});

test('nobody there', async () => {
  await expect(ShmemControl.connect(path.join(dir, 'none'))).rejects.toMatchObject({ code: 'ENOENT', exit: 1 });
});

test.each([4096, 16384, 65536])('with pages of %i bytes, sizes and offsets are multiples of them', (page) => {
  const spy = jest.spyOn(native().common, 'pageSize').mockReturnValue(page);
  try {
    const size = BigInt(page);
    expect(parseRegion(`0=${page}`)).toEqual({ shmid: 0, size });
    expect(() => parseRegion(`0=${page / 2}`)).toThrow(String(page));
    expect(judgeRegions(new Map([[0, size]])).errors).toEqual([]);
    expect(judgeRegions(new Map([[0, size / 2n]])).errors).toHaveLength(1);
    const request = { shmid: 0, padding: Buffer.alloc(7), fdOffset: 0n, shmOffset: size, len: size, flags: 1n };
    expect(checkRange(request as never, 'map')).toBeUndefined();
    for (const wrong of [{ shmOffset: size / 2n }, { len: size / 2n }, { fdOffset: size / 2n }])
      expect(checkRange({ ...request, ...wrong } as never, 'map')).toBe('EINVAL');
  } finally {
    spy.mockRestore();
  }
});
