/** Every source against the one interface (test/support/programs/store-conform.cc), with the sanitizers. */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { compileSanitized } from '../support/compile.js';
import { FaultDisk, noFaultDisk } from '../support/fault-disk.js';
import { skip } from '../support/skip.js';

const root = path.resolve(__dirname, '..', '..');
const SIZE = 8 << 20;
let dir: string;
let program: string;
beforeAll(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-conform-'));
  const storage = fs.readdirSync(path.join(root, 'native/storage')).filter((file) => file.endsWith('.cc'));
  program = compileSanitized(
    [
      'test/support/programs/store-conform.cc',
      ...['native/common/error.cc', 'native/common/assert.cc', 'native/uring/ring.cc'],
      ...['fd.cc', 'mapping.cc', 'eventfd.cc'].map((file) => `native/os/${file}`),
      ...storage.map((file) => `native/storage/${file}`),
      'native/storage/remote/remote.cc',
    ],
    path.join(dir, 'conform'),
  );
}, 180_000);
afterAll(() => fs.rmSync(dir, { recursive: true, force: true }));

function image(folder = dir): string {
  const file = path.join(folder, 'disk');
  fs.writeFileSync(file, '');
  fs.truncateSync(file, SIZE);
  return file;
}
/** Not synchronous: the fault disk is served by a process whose pipes this one reads. */
async function conform(kind: string, file: string): Promise<string> {
  // another seed at each run; a failure names it
  const child = spawn(program, [kind, `${process.env.SEED ?? Date.now() % 1_000_000}`, file], { stdio: ['ignore', 'pipe', 'pipe'] });
  let said = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (text) => (said += text));
  await once(child, 'close');
  return said;
}

test.each(['ram', 'file', 'direct', 'readonly'])('%s', async (kind) => {
  expect(await conform(kind, image())).toBe('ok\n');
});

test('a file in memory', async () => {
  const folder = fs.mkdtempSync('/dev/shm/vioctl-conform-');
  try {
    expect(await conform('file', image(folder))).toBe('ok\n');
  } finally {
    fs.rmSync(folder, { recursive: true });
  }
});

test.each(['file', 'direct', 'readonly'])('a block device: %s', async (kind) => {
  const { stdout, status } = spawnSync('losetup', ['-f', '--show', image()], { encoding: 'utf8' });
  if (process.getuid?.() !== 0 || status !== 0) return skip(`storage conformance of a device: ${kind}`, 'needs root and a loop device');
  try {
    expect(await conform(kind, stdout.trim())).toBe('ok\n');
  } finally {
    spawnSync('losetup', ['-d', stdout.trim()]);
  }
});

test('a file system in user space; one that fails is told', async () => {
  const missing = noFaultDisk();
  if (missing) return skip('storage conformance of a FUSE file', missing);
  const disk = await FaultDisk.open(SIZE);
  try {
    expect(await conform('readonly', disk.file)).toBe('ok\n');
    await disk.set({ fail_writes: 1 });
    expect(await conform('file', disk.file)).toMatch(/: EIO\n/);
    await disk.set({ fail_writes: 0, fail_syncs: 1 });
    expect(await conform('file', disk.file)).toMatch(/: EIO\n/);
    await disk.set({ fail_syncs: 0, full_after: 1 });
    expect(await conform('file', disk.file)).toMatch(/: ENOSPC\n/);
  } finally {
    await disk.close();
  }
});
