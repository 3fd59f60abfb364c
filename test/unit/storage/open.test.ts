import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { native } from '../../../src/native/index.js';
import { openSource, openSources } from '../../../src/storage/open.js';
import { IdentityState } from '../../../src/storage/state.js';

let dir: string;
beforeEach(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-open-'));
});
afterEach(() => fs.rmSync(dir, { recursive: true }));

const disk = (name: string, content?: Buffer): string => {
  const file = path.join(dir, name);
  fs.writeFileSync(file, content ?? '');
  fs.truncateSync(file, 1 << 20);
  return file;
};
const disks = (count: number) => Array.from({ length: count }, (_, i) => ({ source: disk(`${i}.img`) }));
const descriptors = () => fs.readdirSync('/proc/self/fd').length;

test('sources that are opened together are what they are when opened alone, in their order', async () => {
  const list = [...disks(200), { source: 'ram:1048576' }, { source: disk('ro.img'), readonly: true, blockSize: 4096 }];
  const state = new IdentityState(path.join(dir, 'state'));
  const together = await openSources(list, undefined, state);
  for (const { store } of together) native().storage.close(store);
  const alone = list.map((options) => openSource(options, undefined, state));
  for (const { store } of alone) native().storage.close(store);
  const withoutStore = ({ store: _, ...rest }: (typeof alone)[number]) => rest;
  expect(together.map(withoutStore)).toEqual(alone.map(withoutStore));
  expect(new Set(together.slice(0, 200).map(({ identity }) => identity)).size).toBe(200);
});

test('all are closed and unlocked if one cannot be opened; the first of those is named', async () => {
  const list = disks(100);
  const before = descriptors();
  const bad = [...list.slice(0, 50), { source: disk('image.qcow2', Buffer.from('QFI\xfb', 'latin1')) }, { source: path.join(dir, 'none') }];
  await expect(openSources([...bad, ...list.slice(50)])).rejects.toMatchObject({
    code: 'FORMAT',
    message: expect.stringContaining('image.qcow2'),
  });
  expect(descriptors()).toBeLessThanOrEqual(before);
  // the same file twice: its own lock is in the way
  await expect(openSources([...list, list[7]!])).rejects.toMatchObject({ code: 'IN_USE', message: expect.stringContaining('7.img') });
  expect(descriptors()).toBeLessThanOrEqual(before);
  for (const { store } of await openSources(list)) native().storage.close(store);
  expect(descriptors()).toBeLessThanOrEqual(before);
});

test('a state that cannot be read leaves nothing open', async () => {
  const state = new IdentityState(path.join(dir, 'state'));
  fs.mkdirSync(path.join(dir, 'state'));
  fs.writeFileSync(path.join(dir, 'state', 'identities.json'), '{');
  const before = descriptors();
  await expect(openSources(disks(3), undefined, state)).rejects.toMatchObject({ code: 'STATE_DAMAGED' });
  expect(descriptors()).toBeLessThanOrEqual(before);
});
