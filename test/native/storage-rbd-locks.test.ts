/** The lock of an image of Ceph, lost or not there yet (test/support/programs/rbd-locks.cc). */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { compileSanitized } from '../support/compile.js';

const root = path.resolve(__dirname, '..', '..');
const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-rbd-locks-'));
afterAll(() => fs.rmSync(dir, { recursive: true, force: true }));

test('the lock of an image', () => {
  const all = (folder: string): string[] => fs.readdirSync(path.join(root, folder)).map((file) => `${folder}/${file}`);
  const program = compileSanitized(
    [
      'test/support/programs/rbd-locks.cc',
      ...['rbd', 'remote'].map((name) => `native/storage/remote/${name}.cc`),
      ...[...all('native/storage'), ...all('native/storage/memory')].filter((file) => file.endsWith('.cc')),
      ...['error', 'assert'].map((name) => `native/common/${name}.cc`),
      ...['bus_guard', 'fd', 'mapping', 'eventfd', 'thread'].map((name) => `native/os/${name}.cc`),
    ],
    path.join(dir, 'rbd-locks'),
  );
  const { stdout, stderr } = spawnSync(program, { encoding: 'utf8', timeout: 60_000 });
  expect({ stdout, stderr }).toEqual({ stdout: 'ok\n', stderr: '' });
});
