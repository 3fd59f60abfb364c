import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { native } from '../../../../src/native/index.js';
import { openSource, type Source } from '../../../../src/storage/open.js';
import { SourceWatch } from '../../../../src/storage/watch.js';
import { type BlkRequest, blkRequest, type DiskChange, perform } from '../../../../src/vhost-user/blk/control.js';
import { noStats } from '../../../../src/vhost-user/blk/device.js';
import type { ControlledDisk } from '../../../../src/vhost-user/blk/model.js';

let dir: string;
let log: string[];
const open: Source[] = [];
beforeEach(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-blk-'));
  log = [];
});
afterEach(() => {
  jest.restoreAllMocks();
  for (const { store } of open.splice(0)) native().storage.close(store);
  fs.rmSync(dir, { recursive: true });
});
const at = (name: string): string => path.join(dir, name);
/** A disk of 1 MiB; all changes of its size are told to `told`. */
function served(name: string, socket: string | undefined = at(`${name}.sock`)): ControlledDisk & { told: number[] } {
  if (!fs.existsSync(at(name))) {
    fs.writeFileSync(at(name), '');
    fs.truncateSync(at(name), 1 << 20);
  }
  const source = openSource({ source: at(name), readonly: true });
  open.push(source);
  const told: number[] = [];
  const resized = (bytes: number): number => {
    told.push(bytes);
    return bytes;
  };
  const watch = new SourceWatch(source, { log: (text) => log.push(text), resized, otherwise: 'start again' });
  return {
    options: { socket, source: { source: source.name } },
    source,
    socket,
    queues: 1,
    watch,
    told,
    state: () => ({ connected: false, running: false }),
    stats: noStats,
  };
}
const change = async (request: BlkRequest, disks: readonly ControlledDisk[]): Promise<DiskChange> => {
  const refuse = (): never => {
    throw new Error('no disk comes or goes here');
  };
  const coming = { idle: async () => {}, allow: refuse, find: () => undefined, try: refuse, add: refuse, remove: refuse, complete: refuse };
  return (await perform(request, { disks, ...coming, save: refuse, load: refuse })) as DiskChange;
};

test('resize: a dry run tells what the real one does, and an unchanged size is nothing to do', async () => {
  const disk = served('a');
  const resize = async (dryRun: boolean) => {
    const { changed, would, size } = await change({ op: 'resize', dryRun }, [disk]);
    return { changed, would, size };
  };
  expect(await resize(true)).toEqual({ changed: false, would: [], size: 1 << 20 });
  expect(await resize(false)).toEqual({ changed: false, size: 1 << 20 });
  fs.truncateSync(at('a'), 2 << 20);
  const would = [`resize ${at('a')} from ${1 << 20} to ${2 << 20} bytes`];
  for (let i = 0; i < 2; i++) expect(await resize(true)).toEqual({ changed: false, would, size: 2 << 20 });
  expect(disk.told).toEqual([]);
  expect(await resize(false)).toEqual({ changed: true, size: 2 << 20 });
  expect(await resize(false)).toEqual({ changed: false, size: 2 << 20 });
  expect(await resize(true)).toMatchObject({ would: [] });
  expect([disk.told, log]).toEqual([[2 << 20], [`${at('a')} has ${2 << 20} bytes now`]]);
});

test('resize: a size that cannot be read is an error, dry run or not', async () => {
  const disk = served('a');
  jest.spyOn(native().storage, 'measure').mockRejectedValue(Object.assign(new Error('gone'), { code: 'ENODEV' }));
  for (const dryRun of [true, false])
    await expect(change({ op: 'resize', dryRun }, [disk])).rejects.toMatchObject({
      code: 'ENODEV',
      message: expect.stringContaining(at('a')),
    });
});

test('a disk is found by its socket and its source as they are written, and by their full paths', async () => {
  const [a, b] = [served('a'), served('b', path.relative('.', at('b.sock')))];
  const disks = [a, b];
  const found = async (operand: string) => (await change(blkRequest('resize', [operand], true), disks)).source;
  for (const name of ['a', 'a.sock']) {
    expect(await found(at(name))).toBe(at('a'));
    expect(await found(path.relative('.', at(name)))).toBe(at('a'));
    expect(await found(`${dir}/./${name}`)).toBe(at('a'));
  }
  for (const name of ['b', 'b.sock', './b.sock']) expect(await found(`${dir}/${name}`)).toBe(at('b'));
  expect(await found(b.socket!)).toBe(at('b'));
  await expect(found('a')).rejects.toMatchObject({ code: 'NO_DISK', message: 'no disk a' });
});

test('a name that two disks have is ambiguous; each has a socket', async () => {
  const disks = [served('a', at('1.sock')), served('a', at('2.sock')), served('b')];
  await expect(change(blkRequest('resize', [at('a')], true), disks)).rejects.toMatchObject({
    code: 'NO_DISK',
    message: `several disks are called ${at('a')}`,
    hint: `name one by its socket: ${at('1.sock')}, ${at('2.sock')}`,
  });
  await expect(change(blkRequest('resize', [], true), disks)).rejects.toMatchObject({ message: 'there are several disks' });
});

test('reopen: another file of the name, and what to do', async () => {
  const disk = served('a');
  fs.renameSync(at('a'), at('moved'));
  served('a');
  await expect(change({ op: 'reopen' }, [disk])).rejects.toMatchObject({
    code: 'ESTALE',
    hint: 'another file has this name now: start again',
  });
});

test('reopen: failures that were held back are told before', async () => {
  const disk = served('a');
  jest.spyOn(native().storage, 'failures').mockReturnValue({ count: 2, error: 'EIO' });
  expect(await change({ op: 'reopen' }, [disk])).toMatchObject({ changed: true });
  expect(log).toEqual([expect.stringMatching(/: 2 requests have failed: EIO$/), expect.stringMatching(/ was opened anew$/)]);
});
