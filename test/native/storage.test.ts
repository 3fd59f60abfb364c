import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { native } from '../../src/native/index.js';
import type { Store, StoreOptions } from '../../src/native/storage.js';
import { formatOf } from '../../src/storage/formats.js';
import { openSource } from '../../src/storage/open.js';
import { runNow } from '../../src/storage/steps.js';
import { FaultDisk, noFaultDisk } from '../support/fault-disk.js';
import { openLater } from '../support/open-later.js';
import { skip } from '../support/skip.js';

const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-storage-'));
afterAll(() => fs.rmSync(dir, { recursive: true }));
const opened: Store[] = [];
const open = (file: string, options: StoreOptions = {}): Store => {
  const store = native().storage.open(file, options);
  opened.push(store);
  return store;
};
afterEach(() => {
  for (const store of opened.splice(0)) native().storage.close(store);
});
function image(name: string, size = 1 << 20, content: Record<number, string | Buffer> = {}): string {
  const file = path.join(dir, name);
  const fd = fs.openSync(file, 'w');
  for (const [at, bytes] of Object.entries(content)) {
    const data = typeof bytes === 'string' ? Buffer.from(bytes, 'latin1') : bytes;
    fs.writeSync(fd, data, 0, data.length, Number(at));
  }
  fs.ftruncateSync(fd, size);
  fs.closeSync(fd);
  return file;
}
const busy = expect.objectContaining({ code: 'EBUSY' });

describe('one writer at a time', () => {
  test('the same file by its name, a hard link and a symbolic link', () => {
    const file = image('locked');
    fs.linkSync(file, `${file}.hard`);
    fs.symlinkSync(file, `${file}.sym`);
    const first = open(file);
    for (const name of [file, `${file}.hard`, `${file}.sym`])
      for (const options of [{}, { readonly: true }, { shared: true }]) expect(() => open(name, options)).toThrow(busy);
    native().storage.close(first);
    open(`${file}.hard`);
    expect(() => open(file)).toThrow(busy);
  });

  test('readers share, and keep writers out', () => {
    const file = image('read');
    open(file, { readonly: true });
    open(file, { readonly: true });
    expect(() => open(file)).toThrow(busy);
    expect(() => open(file, { shared: true })).toThrow(busy);
  });

  test('writers share a file if all of them say so', () => {
    const file = image('shared');
    open(file, { shared: true });
    open(file, { shared: true });
    expect(() => open(file)).toThrow(busy);
    expect(() => open(file, { readonly: true })).toThrow(busy);
  });

  test('force opens it and is seen by others', () => {
    const file = image('forced');
    const first = open(file);
    open(file, { force: true });
    native().storage.close(first);
    expect(() => open(file)).toThrow(busy);
  });

  test('a refused open leaves no lock and no descriptor behind', () => {
    const file = image('refused');
    const first = open(file, { readonly: true });
    const before = fs.readdirSync('/proc/self/fd').length;
    for (let i = 0; i < 3; i++) expect(() => open(file)).toThrow(busy);
    expect(fs.readdirSync('/proc/self/fd').length).toBeLessThanOrEqual(before);
    open(file, { readonly: true });
    native().storage.close(first);
  });

  test('a pipe and a folder are refused at once', () => {
    const fifo = path.join(dir, 'fifo');
    spawnSync('mkfifo', [fifo]);
    for (const name of [fifo, '/dev/null']) expect(() => open(name)).toThrow(expect.objectContaining({ code: 'EOPNOTSUPP' }));
    for (const readonly of [true, false]) expect(() => open(dir, { readonly })).toThrow(expect.objectContaining({ code: 'EISDIR' }));
  });

  test('openSource: exit 3, and this process is named', () => {
    const file = image('source');
    open(file);
    expect(() => openSource({ source: file })).toThrow(
      expect.objectContaining({ exit: 3, code: 'IN_USE', message: `${file}: already in use by this process` }),
    );
  });
});

/** Those of this process. The collector closes others at any moment. */
const descriptorsOf = (file: string): number =>
  fs.readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return fs.readlinkSync(`/proc/self/fd/${fd}`) === file;
    } catch {
      return false; // that of the listing
    }
  }).length;

describe('opening anew', () => {
  test('another file of the name is refused, and the first one stays', async () => {
    const file = image('first');
    const store = open(file);
    fs.renameSync(file, `${file}.moved`);
    await expect(native().storage.reopen(store)).rejects.toEqual(expect.objectContaining({ code: 'ENOENT' }));
    image('first', 1 << 12);
    await expect(native().storage.reopen(store)).rejects.toEqual(expect.objectContaining({ code: 'ESTALE' }));
    expect(native().storage.refresh(store)).toBe(1 << 20);
    expect(() => open(`${file}.moved`)).toThrow(busy);
    native().storage.close(store);
    open(`${file}.moved`);
  });

  test('locks and descriptors stay the same, however often', async () => {
    const file = image('again');
    const store = open(file);
    const before = descriptorsOf(file);
    expect(before).toBeGreaterThan(0);
    for (let i = 0; i < 3; i++) await native().storage.reopen(store);
    expect(descriptorsOf(file)).toBe(before);
    expect(() => open(file)).toThrow(busy);
    native().storage.close(store);
    open(file);
  });

  test('a file in memory that was opened anew, and let go: others may use it, and then it again', async () => {
    if (!fs.existsSync('/dev/shm')) return skip('storage: opening a file in memory anew', 'needs /dev/shm');
    const memory = fs.mkdtempSync('/dev/shm/vioctl-storage-');
    try {
      const file = path.join(memory, 'disk');
      fs.writeFileSync(file, Buffer.alloc(1 << 20, 'data'));
      const store = open(file);
      expect(String(native().storage.peek(store, [[4096, 4]]))).toBe('data');
      await native().storage.reopen(store);
      expect(() => open(file)).toThrow(busy);
      await native().storage.release(store);
      native().storage.close(native().storage.open(file, {}));
      await native().storage.claim(store);
      expect(() => open(file)).toThrow(busy);
      expect(String(native().storage.peek(store, [[4096, 4]]))).toBe('data');
    } finally {
      fs.rmSync(memory, { recursive: true });
    }
  });

  test('a block device is claimed again', async () => {
    const { stdout, status } = spawnSync('losetup', ['-f', '--show', image('loop')], { encoding: 'utf8' });
    if (process.getuid?.() !== 0 || status !== 0) return skip('storage: opening a device anew', 'needs root and a loop device');
    try {
      const store = open(stdout.trim());
      await native().storage.reopen(store);
      expect(() => open(stdout.trim())).toThrow(busy);
      expect(spawnSync('mkfs.ext4', ['-q', stdout.trim()]).status).not.toBe(0);
      native().storage.close(store);
      opened.push(await openLater(stdout.trim()));
    } finally {
      for (const store of opened.splice(0)) native().storage.close(store);
      spawnSync('losetup', ['-d', stdout.trim()]);
    }
  });
});

test('parts of a source: from its begin and its end, cut at its end; a hole has nothing', () => {
  const { storage } = native();
  const texts = (store: Store, ...parts: [number, number][]) => storage.peek(store, parts).map((part) => part?.toString('latin1'));
  const sparse = open(image('parts', 1 << 20, { 65536: 'middle', [(1 << 20) - 4]: 'last' }));
  expect(texts(sparse, [65536, 6], [-4, 4], [-2, 8], [0, 4096], [32768, 6], [1 << 20, 6])).toEqual([
    'middle',
    'last',
    'st',
    undefined,
    undefined,
    '',
  ]);
  expect(texts(sparse, [65530, 12])).toEqual(['\0\0\0\0\0\0middle']);
  expect(texts(open(image('short parts', 3, { 0: 'abc' })), [-512, 512], [1, 9], [9, 1])).toEqual(['abc', 'bc', '']);
  expect(texts(open(image('hole parts', 4096)), [0, 512], [-512, 512], [100, 8000])).toEqual([undefined, undefined, undefined]);
});

test('what is no store is an error, and so is a closed one', () => {
  const { storage, nvme } = native();
  const store = open(image('handle'));
  storage.close(store);
  storage.close(store);
  for (const wrong of [store, {}, null, undefined, 7, nvme.controllerNew()] as Store[])
    for (const use of [
      storage.size,
      storage.refresh,
      storage.syncError,
      storage.flush,
      storage.measure,
      storage.failures,
      storage.reopen,
    ] as ((store: Store) => unknown)[])
      expect(() => use(wrong)).toThrow(expect.objectContaining({ code: 'EINVAL' }));
});

describe('formats', () => {
  const footer = (size: number): Buffer => {
    const bytes = Buffer.alloc(512);
    bytes.write('conectix');
    bytes.writeBigUInt64BE(BigInt(size), 48);
    bytes.writeUInt32BE(~bytes.reduce((a, b) => a + b, 0) >>> 0, 64);
    return bytes;
  };
  const mebibyte = 1 << 20;
  const others: [string, string, Record<number, string | Buffer>, number?][] = [
    ['qcow2', 'version 3', { 0: 'QFI\xfb\0\0\0\x03' }],
    ['qcow2', 'version 2', { 0: 'QFI\xfb\0\0\0\x02' }],
    ['vmdk', 'sparse', { 0: 'KDMV\x01\0\0\0' }],
    ['vmdk', 'COWD', { 0: 'COWD\x01\0\0\0' }],
    ['vmdk', 'a descriptor', { 0: '# Disk DescriptorFile\nversion=1\n' }, 300],
    ['vmdk', 'a descriptor behind comments', { 0: '\n# made by hand\n\n# Disk DescriptorFile\nversion=1\n' }, 300],
    ['vhdx', '', { 0: 'vhdxfile' }],
    ['vhd', 'dynamic', { 0: 'conectix' }],
    ['vhd', 'fixed', { [mebibyte]: footer(mebibyte) }, mebibyte + 512],
    ['vdi', '', { 0: '<<< Oracle VM VirtualBox Disk Image >>>\n', 64: '\x7f\x10\xda\xbe' }],
    ['LUKS', 'version 1', { 0: 'LUKS\xba\xbe\0\x01' }],
    ['LUKS', 'version 2', { 0: 'LUKS\xba\xbe\0\x02' }],
    ['iso9660', '', { 32768: '\x01CD001\x01' }],
    ['iso9660', 'that boots from a disk', { 510: '\x55\xaa', 32768: '\x01CD001\x01' }],
    ['gzip', '', { 0: '\x1f\x8b\x08\x08' }],
    ['xz', '', { 0: '\xfd7zXZ\0\0\x04' }],
    ['zstd', '', { 0: '\x28\xb5\x2f\xfd' }],
    ['bzip2', '', { 0: 'BZh91AY&SY' }],
    ['tar (an OVA is one)', '', { 0: 'disk.ovf', 257: 'ustar\x0000' }],
    ['zip', '', { 0: 'PK\x03\x04' }],
  ];
  test.each(others.map((row) => [...row, mebibyte].slice(0, 4) as [string, string, Record<number, string | Buffer>, number]))(
    '%s %s',
    (format, _kind, content, size) => {
      const file = image('format', size, content);
      const store = open(file);
      expect(runNow(formatOf(store, false))).toBe(format);
      native().storage.close(store);
      expect(() => openSource({ source: file })).toThrow(
        expect.objectContaining({ exit: 3, code: 'FORMAT', message: expect.stringContaining(format) }),
      );
      for (const options of [{ format: 'raw' as const }, { force: true }])
        native().storage.close(openSource({ source: file, ...options }).store);
      if (format === 'iso9660') native().storage.close(openSource({ source: file, readonly: true }).store);
      else expect(() => openSource({ source: file, readonly: true })).toThrow(expect.objectContaining({ code: 'FORMAT' }));
    },
  );

  const raw: [string, Record<number, string | Buffer>, number?][] = [
    ['zeros', {}],
    ['nothing', {}, 0],
    ['one byte', { 0: 'Q' }, 1],
    ['a partition table', { 510: '\x55\xaa' }],
    ['a GPT', { 510: '\x55\xaa', 512: 'EFI PART' }],
    ['ext4', { [1024 + 56]: '\x53\xef' }],
    ['XFS', { 0: 'XFSB' }],
    ['an LVM volume', { 512: 'LABELONE' }],
    ['signatures elsewhere', { 512: 'QFI\xfb', 1024: 'KDMV', 4096: 'LUKS\xba\xbe', 65536: '\x1f\x8b\x08' }],
    ['text', { 0: '# Disk DescriptorFiles\n' }],
    ['a footer of another size', { [mebibyte]: footer(mebibyte + 512) }, mebibyte + 512],
    ['a footer with a wrong sum', { [mebibyte]: Buffer.concat([footer(mebibyte).subarray(0, 508), Buffer.from('oops')]) }, mebibyte + 512],
  ];
  test.each(raw.map((row) => [...row, mebibyte].slice(0, 3) as [string, Record<number, string | Buffer>, number]))(
    'a raw disk with %s',
    (_what, content, size) => {
      expect(runNow(formatOf(open(image('raw', size, content)), false))).toBeUndefined();
    },
  );
});

describe('a sync that fails', () => {
  const { storage } = native();
  const missing = noFaultDisk();
  const io = expect.objectContaining({ code: 'EIO' });
  async function withDisk(use: (disk: FaultDisk) => Promise<void>): Promise<void> {
    if (missing) return skip('storage: failing syncs', missing);
    const disk = await FaultDisk.open(1 << 20);
    try {
      await use(disk);
    } finally {
      for (const store of opened.splice(0)) storage.close(store);
      await disk.close();
    }
  }
  const outcome = (flush: Promise<void>): Promise<string> =>
    flush.then(
      () => 'ok',
      (err: { code: string }) => err.code,
    );

  test('is told to everybody from then on, is not repeated, and is forgotten when the last one has closed the file', () =>
    withDisk(async (disk) => {
      const [a, b] = [open(disk.file, { shared: true }), open(disk.file, { shared: true })];
      await storage.flush(a);
      expect(storage.syncError(a)).toBeUndefined();
      await disk.set({ fail_syncs: 1 });
      await expect(storage.flush(a)).rejects.toEqual(io);
      const syncs = (await disk.ops()).filter((op) => op === 'fsync').length;
      for (const store of [a, b, a]) await expect(storage.flush(store)).rejects.toEqual(io);
      expect([storage.syncError(a), storage.syncError(b)]).toEqual(['EIO', 'EIO']);
      expect((await disk.ops()).filter((op) => op === 'fsync').length).toBe(syncs);
      storage.close(a);
      // the other one never closed it
      const c = open(disk.file, { shared: true });
      await expect(storage.flush(c)).rejects.toEqual(io);
      storage.close(b);
      storage.close(c);
      const d = open(disk.file);
      await storage.flush(d);
      expect(storage.syncError(d)).toBeUndefined();
    }));

  test('is forgotten when the source is opened anew, which keeps its lock', () =>
    withDisk(async (disk) => {
      const store = open(disk.file);
      await disk.set({ fail_syncs: 1 });
      await expect(storage.flush(store)).rejects.toEqual(io);
      await storage.reopen(store);
      expect(storage.syncError(store)).toBeUndefined();
      await storage.flush(store);
      expect(() => open(disk.file)).toThrow(busy);
      await disk.set({ fail_syncs: 1 });
      await expect(storage.flush(store)).rejects.toEqual(io);
      expect(storage.syncError(store)).toBe('EIO');
    }));

  test('fails all flushes that wait for it or come while it runs', () =>
    withDisk(async (disk) => {
      const store = open(disk.file);
      await disk.set({ fail_syncs: 1, sync_delay: 0.3 });
      const flushes = Array.from({ length: 4 }, () => outcome(storage.flush(store)));
      expect(await Promise.all(flushes)).toEqual(['EIO', 'EIO', 'EIO', 'EIO']);
    }));

  test('flushes that come while one runs share the next one', () =>
    withDisk(async (disk) => {
      const store = open(disk.file);
      await disk.set({ sync_delay: 0.3 });
      const flushes = Array.from({ length: 4 }, () => outcome(storage.flush(store)));
      expect(await Promise.all(flushes)).toEqual(['ok', 'ok', 'ok', 'ok']);
      expect((await disk.ops()).filter((op) => op === 'fsync').length).toBeLessThanOrEqual(2);
    }));
});
