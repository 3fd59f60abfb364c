import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Sysroot } from '../../../src/common/sysroot.js';
import { native } from '../../../src/native/index.js';
import type { FileIdentity, Geometry } from '../../../src/native/storage.js';
import { atomicWriteOf, blockSizeOf, queueLimits } from '../../../src/storage/geometry.js';
import { sourceNames } from '../../../src/storage/identity.js';

let root: string;
beforeEach(() => {
  root = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-identity-'));
});
afterEach(() => fs.rmSync(root, { recursive: true }));
const put = (file: string, text: string): void => {
  fs.mkdirSync(path.join(root, path.dirname(file)), { recursive: true });
  fs.writeFileSync(path.join(root, file), text);
};
const link = (file: string, target: string): void => {
  fs.mkdirSync(path.join(root, path.dirname(file)), { recursive: true });
  fs.symlinkSync(target, path.join(root, file));
};

describe('a file', () => {
  const of = (identity: Partial<FileIdentity>, file = path.join(root, 'f')) => {
    fs.writeFileSync(file, '');
    return sourceNames(new Sysroot(root), file, { block: false, device: 0xfd01n, inode: 7n, fsid: 0x1234n, ...identity }).identity;
  };
  test('its file system, inode and generation; the path is no part of it', () => {
    const filesystem = '00112233445566778899aabbccddeeff';
    const one = of({ filesystem, generation: 5 });
    expect(one).toBe('file 00112233445566778899aabbccddeeff 7 5');
    expect(of({ filesystem, generation: 5 }, path.join(root, 'other'))).toBe(one);
    expect(of({ filesystem, generation: 5, device: 0xfd02n, fsid: 1n })).toBe(one);
    for (const other of [
      { filesystem, generation: 6 },
      { filesystem, generation: 5, inode: 8n },
      { filesystem: '0'.repeat(32), generation: 5 },
    ])
      expect(of(other)).not.toBe(one);
  });
  test('a kernel that does not tell the UUID: udev does, else statfs', () => {
    link('sys/dev/block/253:1', '../../devices/virtual/block/dm-1');
    expect(of({ generation: 5 })).toBe('file 1234 7 5');
    link('dev/disk/by-uuid/00112233-4455-6677-8899-AABBCCDDEEFF', '../../dm-1');
    expect(of({ generation: 5 })).toBe('file 00112233445566778899aabbccddeeff 7 5');
  });
  test('a snapshot of its file system has the same one, although statfs and the device differ', () => {
    const file = path.join(root, 'f');
    fs.writeFileSync(file, '');
    const filesystem = '07'.repeat(16);
    const [origin, snapshot] = [
      { device: 0x2bn, fsid: 1n },
      { device: 0x2cn, fsid: 2n },
    ].map((where) => sourceNames(new Sysroot(root), file, { block: false, inode: 257n, generation: 9, filesystem, ...where }));
    expect(snapshot!.strong).toEqual(origin!.strong);
    expect(snapshot!.identity).toBe(origin!.identity);
    expect(snapshot!.weak).not.toEqual(origin!.weak);
  });
  test('of this machine', () => {
    const file = path.join(root, 'real');
    const ids = (): string => {
      const store = native().storage.open(file, { readonly: true });
      try {
        return sourceNames(new Sysroot(), file, native().storage.identity(store)).identity;
      } finally {
        native().storage.close(store);
      }
    };
    fs.writeFileSync(file, 'a');
    const first = ids();
    expect(ids()).toBe(first);
    fs.appendFileSync(file, 'more');
    expect(ids()).toBe(first);
    fs.copyFileSync(file, `${file}2`);
    fs.renameSync(`${file}2`, file);
    expect(ids()).not.toBe(first);
  });
});

const rom: Geometry = {
  logical: 4096,
  physical: 4096,
  minimumIo: 0,
  optimalIo: 0,
  alignmentOffset: 0,
  directMemory: 0,
  directOffset: 0,
  rotational: false,
  device: true,
  readonly: false,
};

test('limits of a partition are those of its disk', () => {
  put('sys/devices/sda/queue/discard_granularity', '4096\n');
  put('sys/devices/sda/queue/discard_max_bytes', '1048576\n');
  put('sys/devices/sda/sda1/dev', '8:1\n');
  link('sys/dev/block/8:1', '../../devices/sda/sda1');
  link('sys/dev/block/8:0', '../../devices/sda');
  const limits = { discardGranularity: 4096, discardMax: 1048576, zeroesMax: 0, chunk: 0 };
  for (const device of [0x801n, 0x800n]) expect(queueLimits(new Sysroot(root), rom, device)).toEqual(limits);
  expect(queueLimits(new Sysroot(root), { ...rom, device: false }, 1n)).toBeUndefined();
});

test('a chunk counts for a disk, and for a partition that begins at one', () => {
  put('sys/devices/md0/queue/chunk_sectors', '1024\n');
  put('sys/devices/md0/md0p1/start', '2048\n');
  put('sys/devices/md0/md0p2/start', '2047\n');
  link('sys/dev/block/9:0', '../../devices/md0');
  link('sys/dev/block/259:1', '../../devices/md0/md0p1');
  link('sys/dev/block/259:2', '../../devices/md0/md0p2');
  const chunk = (device: bigint) => queueLimits(new Sysroot(root), rom, device)?.chunk;
  expect([chunk(0x900n), chunk(0x10301n), chunk(0x10302n)]).toEqual([524288, 524288, 0]);
});

test('what a power failure does not tear: the physical block, of a file that of the device below', () => {
  put('sys/devices/sda/queue/physical_block_size', '4096\n');
  put('sys/devices/sda/sda1/alignment_offset', '0\n');
  put('sys/devices/sda/sda2/alignment_offset', '3584\n');
  link('sys/dev/block/8:1', '../../devices/sda/sda1');
  link('sys/dev/block/8:2', '../../devices/sda/sda2');
  const of = (geometry: Partial<Geometry>, device: bigint | undefined) =>
    atomicWriteOf(new Sysroot(root), { ...rom, logical: 512, ...geometry }, device);
  const file = { device: false, physical: 4096 };
  expect(of(file, 0x801n)).toBe(4096);
  expect(of({ ...file, physical: 1024 }, 0x801n)).toBe(1024); // blocks of the file system
  expect(of({ ...file, physical: 65536 }, 0x801n)).toBe(4096);
  expect(of(file, 0x802n)).toBe(512); // its partition is not aligned
  expect(of(file, 0x2bn)).toBe(512); // btrfs, NFS: no device
  expect(of(file, undefined)).toBe(512);
  expect(of({ physical: 4096 }, 0x800n)).toBe(4096);
  expect(of({ physical: 4096, alignmentOffset: 3584 }, 0x800n)).toBe(512);
});

test.each([
  [undefined, 4096, 4096],
  [4096, 512, 4096],
  [undefined, 16384, 16384],
  [16384, 16384, 16384],
])('block size %j of a device with %j: %j', (wanted, logical, expected) => {
  expect(blockSizeOf('x', { ...rom, logical }, wanted)).toBe(expected);
});
test.each([
  [512, 4096],
  [1024, 512],
  [0, 512],
  [131072, 512],
])('block size %j of a device with %j is wrong usage', (wanted, logical) => {
  expect(() => blockSizeOf('x', { ...rom, logical }, wanted)).toThrow(expect.objectContaining({ exit: 2 }));
});

test('direct=on raises the block size to what O_DIRECT takes', () => {
  const geometry = { ...rom, logical: 512, directOffset: 4096 };
  expect(blockSizeOf('x', geometry, undefined, true)).toBe(4096);
  expect(blockSizeOf('x', geometry, undefined)).toBe(512);
  expect(() => blockSizeOf('x', geometry, 512, true)).toThrow(expect.objectContaining({ exit: 2 }));
});
