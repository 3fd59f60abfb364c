import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { VioError } from '../../../src/common/errors.js';
import { ask } from '../../../src/control/client.js';
import { attachToHolder, Holder, listHolder, unmapInHolder } from '../../../src/dma/holder.js';
import type { Mapper } from '../../../src/dma/mapper.js';

const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-holder-'));
const socket = path.join(dir, 'sock');
afterAll(() => fs.rmSync(dir, { recursive: true }));

/** A mapper over files in the place of an IOMMU, which this machine need not have. */
class Files {
  readonly maps = new Map<
    string,
    { name: string; iova: bigint; size: bigint; pageSize: number; readOnly: boolean; file: string; fd: number }
  >();
  readonly gone = new Set<string>();
  readonly locked = 8192n;
  readonly layout = { space: { ranges: [{ start: 0n, end: 0xfff_ffff_ffffn }] } };

  add(name: string): void {
    const file = path.join(dir, name);
    fs.writeFileSync(file, name);
    this.maps.set(name, { name, iova: 0x1_0000_0000n, size: 4096n, pageSize: 4096, readOnly: false, file, fd: fs.openSync(file, 'r') });
  }
  list = () => [...this.maps.values()];
  wasUnmapped = (name: string) => this.gone.has(name);
  find(name: string) {
    const found = this.maps.get(name);
    if (!found)
      throw new VioError(`no mapping "${name}"`, { code: 'ENOENT', exit: 3, hint: `there is ${[...this.maps.keys()].join(', ')}` });
    return found;
  }
  unmap(name: string): void {
    fs.closeSync(this.find(name).fd);
    this.maps.delete(name);
    this.gone.add(name);
  }
}

let files: Files;
let holder: Holder;
let told: string[];
const device = fs.openSync('/dev/null', 'r');
beforeEach(() => {
  files = new Files();
  for (const name of ['ring', 'data']) files.add(name);
  told = [];
  const held = { bdf: '0000:01:00.0', api: 'cdev', info: { ioas: 2 } };
  holder = new Holder(socket, held, files as unknown as Mapper, new Map([['vfio-device', device]]), (name) => told.push(name));
});
afterEach(() => {
  holder.close();
  for (const { fd } of files.list()) fs.closeSync(fd);
});

test('list: addresses and sizes come back as the holder has them', async () => {
  const { maps, ...rest } = await listHolder(socket);
  expect(rest).toMatchObject({ bdf: '0000:01:00.0', api: 'cdev', ioas: 2, entries: 2, ranges: [{ start: 0n, end: 0xfff_ffff_ffffn }] });
  expect(maps).toEqual(files.list().map(({ fd: _fd, ...map }) => map));
});

test('unmap: a trial changes nothing, the second time is no error, an unknown name is', async () => {
  expect(await unmapInHolder(socket, 'ring', true)).toBe(true);
  expect(files.maps.has('ring')).toBe(true);
  expect(await unmapInHolder(socket, 'ring', false)).toBe(true);
  expect([files.maps.has('ring'), told]).toEqual([false, ['ring']]);
  expect(await unmapInHolder(socket, 'ring', false)).toBe(false);
  expect(told).toEqual(['ring']);
  await expect(unmapInHolder(socket, 'other', false)).rejects.toMatchObject({ code: 'ENOENT', exit: 3, hint: 'there is data' });
});

test('attach: descriptors by name, of the session and of each mapping', async () => {
  const { info, fds } = await attachToHolder(socket);
  expect(info.maps.map(({ name }) => name)).toEqual(['ring', 'data']);
  expect([...fds.keys()]).toEqual(['vfio-device', 'dma-ring', 'dma-data']);
  for (const name of ['ring', 'data']) expect(fs.readFileSync(fds.get(`dma-${name}`)!, 'utf8')).toBe(name);
  for (const fd of fds.values()) fs.closeSync(fd);
});

test('an unknown operation is an error; so is a holder that is gone, with the command that helps', async () => {
  await expect(ask(socket, { service: 'dma map' }, 'format')).rejects.toMatchObject({ code: 'EPROTO', exit: 5 });
  holder.close();
  await expect(listHolder(socket)).rejects.toMatchObject({
    code: 'ENOENT',
    message: `connect ${socket}: ENOENT (No such file or directory)`,
    hint: expect.stringContaining('--listen'),
  });
});
