import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Sysroot } from '../../../src/common/sysroot.js';
import { native } from '../../../src/native/index.js';
import { claimSource, reopenSource, type Source } from '../../../src/storage/open.js';
import { claimantOfDevice, lockHolder, userOf } from '../../../src/storage/users.js';

let root: string;
beforeEach(() => {
  root = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-users-'));
});
afterEach(() => {
  jest.restoreAllMocks();
  fs.rmSync(root, { recursive: true });
});

const put = (file: string, text: string): void => {
  fs.mkdirSync(path.join(root, path.dirname(file)), { recursive: true });
  fs.writeFileSync(path.join(root, file), text);
};
/** A file of the tree, with what stat says of it. */
function image(name = 'disk.img') {
  put(name, '');
  const file = path.join(root, name);
  return { file, stat: fs.statSync(file, { bigint: true }) };
}
/** A process that has `file` open as descriptor 7 with these lines of fdinfo. */
function process_(pid: number, comm: string, file: string, fdinfo: string): void {
  put(`proc/${pid}/comm`, `${comm}\n`);
  put(`proc/${pid}/fdinfo/7`, `pos:\t0\nflags:\t02100002\n${fdinfo}`);
  fs.mkdirSync(path.join(root, `proc/${pid}/fd`), { recursive: true });
  fs.symlinkSync(file, path.join(root, `proc/${pid}/fd/7`));
}

test.each([
  ['QEMU', (ino: bigint) => `lock:\t1: OFDLCK ADVISORY  READ -1 fd:01:${ino} 100 101\n`, / by qemu-system-x86 \(pid 4711\)/],
  ['a reader', (ino: bigint) => `lock:\t1: OFDLCK ADVISORY  READ -1 fd:01:${ino} 201 201\n`, / by qemu-system-x86 \(pid 4711\)/],
  ['the whole file', (ino: bigint) => `lock:\t1: POSIX  ADVISORY  WRITE 4711 fd:01:${ino} 0 EOF\n`, / by qemu-system-x86 \(pid 4711\)/],
  ['another range', (ino: bigint) => `lock:\t1: OFDLCK ADVISORY  READ -1 fd:01:${ino} 110 120\n`, undefined],
  ['another inode', (ino: bigint) => `lock:\t1: OFDLCK ADVISORY  READ -1 fd:01:${ino + 1n} 100 101\n`, undefined],
  ['no lock', () => '', undefined],
])('a lock of %s', (_what, lock, expected) => {
  const { file, stat } = image();
  process_(4711, 'qemu-system-x86', file, lock(stat.ino));
  const user = lockHolder(new Sysroot(root), stat);
  if (expected) expect(user).toEqual({ text: expect.stringMatching(expected), fix: 'ps -fp 4711' });
  else expect(user).toBeUndefined();
});

test('a process whose descriptors are hidden shows in /proc/locks if its locks are POSIX ones', () => {
  const { stat } = image();
  put('proc/locks', `1: OFDLCK ADVISORY  READ -1 fd:01:${stat.ino} 100 100\n2: POSIX  ADVISORY  READ 99 fd:01:${stat.ino} 100 100\n`);
  put('proc/99/comm', 'evil\x1b[2J\n');
  expect(lockHolder(new Sysroot(root), stat)).toEqual({ text: String.raw` by evil\x1b[2J (pid 99)`, fix: 'ps -fp 99' });
});

test('this process is left out where it has locked the source itself', () => {
  const { file, stat } = image();
  process_(process.pid, 'node', file, `lock:\t1: OFDLCK ADVISORY  READ -1 fd:01:${stat.ino} 100 101\n`);
  put('proc/locks', `1: POSIX  ADVISORY  READ ${process.pid} fd:01:${stat.ino} 100 100\n`);
  expect(lockHolder(new Sysroot(root), stat, false)).toBeUndefined();
});

test.each([claimSource, (source: Source, at: Sysroot) => reopenSource(source, '', at)])(
  'a source that is busy when it is locked or opened again: the error names who has it (%#)',
  async (again) => {
    const { file, stat } = image();
    const busy = Object.assign(new Error('busy'), { code: 'EBUSY' });
    for (const call of ['claim', 'reopen'] as const) jest.spyOn(native().storage, call).mockRejectedValue(busy);
    const source = { name: file } as Source;
    await expect(again(source, new Sysroot(root))).rejects.toThrow(expect.objectContaining({ code: 'IN_USE', exit: 3 }));
    process_(4711, 'qemu-system-x86', file, `lock:\t1: OFDLCK ADVISORY  READ -1 fd:01:${stat.ino} 100 101\n`);
    const named = { code: 'IN_USE', exit: 3, message: `${file}: already in use by qemu-system-x86 (pid 4711)`, hint: 'ps -fp 4711' };
    await expect(again(source, new Sysroot(root))).rejects.toThrow(expect.objectContaining(named));
    put('proc/swaps', `Filename Type Size Used Priority\n/disk.img file 1 0 -2\n`);
    await expect(again(source, new Sysroot(root))).rejects.toThrow(
      expect.objectContaining({ message: `${file}: already in use: active swap` }),
    );
    fs.rmSync(file);
    await expect(again(source, new Sysroot(root))).rejects.toThrow(expect.objectContaining({ code: 'IN_USE' }));
  },
);

test('this process comes last', () => {
  const { file, stat } = image();
  const lock = `lock:\t1: OFDLCK ADVISORY  READ -1 fd:01:${stat.ino} 100 101\n`;
  process_(process.pid, 'node', file, lock);
  expect(lockHolder(new Sysroot(root), stat)?.text).toBe(' by this process');
  process_(9_999_999, 'other', file, lock);
  expect(lockHolder(new Sysroot(root), stat)?.text).toBe(' by other (pid 9999999)');
});

test.each([
  [
    'a swap file',
    (file: string) => put('proc/swaps', `Filename Type Size Used Priority\n${file} file 1 0 -2\n`),
    ': active swap',
    /^swapoff /,
  ],
  [
    'the file behind a loop device',
    (file: string) => {
      put('sys/devices/virtual/block/loop3/loop/backing_file', `${file}\n`);
      fs.mkdirSync(path.join(root, 'sys/class/block'), { recursive: true });
      fs.symlinkSync('../../devices/virtual/block/loop3', path.join(root, 'sys/class/block/loop3'));
    },
    ' by loop device loop3',
    /^losetup -d \/dev\/loop3$/,
  ],
  [
    'a namespace of the kernel',
    (file: string) => {
      put('sys/kernel/config/nvmet/subsystems/nqn.x/namespaces/1/device_path', `${file}\n`);
      put('sys/kernel/config/nvmet/subsystems/nqn.x/namespaces/1/enable', '1\n');
    },
    ' by NVMe target nqn.x namespace 1',
    undefined,
  ],
])('%s', (_what, make, text, fix) => {
  const { stat } = image('real.img');
  fs.linkSync(path.join(root, 'real.img'), path.join(root, 'linked.img'));
  make('/linked.img');
  expect(userOf(new Sysroot(root), '/real.img', stat)).toEqual({ text, fix: fix ? expect.stringMatching(fix) : undefined });
});

test('a file that nobody uses', () => {
  const { file, stat } = image();
  expect(userOf(new Sysroot(root), file, stat)).toBeUndefined();
});

describe('block devices that the kernel has', () => {
  const uuid = 'd3f7a1c2-0b1e-4c55-9a35-6a0c9be1f0a2';
  const sdb = { mode: 0o60660n, rdev: 0x810n, dev: 5n, ino: 99n };
  /** /dev/sdb, as sysfs shows it. */
  const device = '/sys/devices/pci0000:00/0000:00:1f.2/ata2/host1/target1:0:0/1:0:0:0/block/sdb';
  const link = (file: string, target: string): void => {
    fs.mkdirSync(path.join(root, path.dirname(file)), { recursive: true });
    fs.symlinkSync(target, path.join(root, file));
  };
  beforeEach(() => {
    put(`${device}/dev`, '8:16\n');
    link('/sys/class/block/sdb', `../..${device.slice(4)}`);
    link('/sys/dev/block/8:16', `../..${device.slice(4)}`);
  });
  const user = () => userOf(new Sysroot(root), '/dev/sdb', sdb);
  /** The way from the device's folder to the root of sysfs. */
  const up = '../'.repeat(device.split('/').length - 1);

  test('a cache device of bcache without a backing device', () => {
    put(`${device}/bcache/block_size`, '0.5k\n');
    link(`${device}/bcache/set`, `${up}fs/bcache/${uuid}`);
    expect(user()).toEqual({ text: ` by bcache set ${uuid}`, fix: `echo 1 > /sys/fs/bcache/${uuid}/stop` });
  });

  test('a backing device of bcache: with a cache, and before it has one', () => {
    put(`${device}/bcache/state`, 'no cache\n');
    expect(user()).toEqual({ text: ' by bcache', fix: 'echo 1 > /sys/class/block/sdb/bcache/stop' });
    link(`${device}/bcache/cache`, `${up}fs/bcache/${uuid}`);
    expect(user()).toMatchObject({ text: ` by bcache set ${uuid}` });
    // running: it holds the device as others do
    fs.mkdirSync(path.join(root, device, 'holders'));
    link(`${device}/holders/bcache0`, '../../bcache0');
    link('/sys/class/block/bcache0', '../../devices/virtual/block/bcache0');
    link('/sys/devices/virtual/block/bcache0/bcache', `../../../..${device.slice(4)}/bcache`);
    put('/sys/devices/virtual/block/bcache0/dev', '252:0\n');
    expect(user()).toMatchObject({ text: expect.stringContaining('bcache') });
  });

  test('a member of a ZFS pool shows nothing: a claim that fails is told to be that of an imported pool', () => {
    const claimant = () => claimantOfDevice(new Sysroot(root), sdb);
    expect([user(), claimant()]).toEqual([undefined, undefined]);
    put('/proc/spl/kstat/zfs/arcstats', '13 1 0x01 147\n'); // the module, without a pool
    expect(claimant()).toBeUndefined();
    put('/proc/spl/kstat/zfs/tank/state', 'ONLINE\n');
    expect(claimant()).toEqual({ text: ' by ZFS pool tank, probably', fix: 'zpool export tank' });
    put('/proc/spl/kstat/zfs/spare pool/state', 'ONLINE\n');
    expect(claimant()).toMatchObject({ fix: 'zpool status' });
    expect(claimantOfDevice(new Sysroot(root), { ...sdb, mode: 0o100660n })).toBeUndefined();
    expect(user()).toBeUndefined();
  });
});
