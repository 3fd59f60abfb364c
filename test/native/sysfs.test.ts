import { execFileSync, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Sysroot } from '../../src/common/sysroot.js';
import { native } from '../../src/native/index.js';
import { ChildWriter, StuckWrite } from '../../src/vfio/transaction/writer.js';
import { skip, which } from '../support/skip.js';

let dir: string;
beforeEach(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-sysfs-'));
});
afterEach(() => fs.rmSync(dir, { recursive: true }));
const at = (name: string) => path.join(dir, name);
const write = (file: string, value: string, timeout = 10_000, signal?: AbortSignal) =>
  new ChildWriter(new Sysroot()).write(file, value, { timeout, signal });
const fifo = (name: string) => {
  execFileSync('mkfifo', [at(name)]);
  return at(name);
};
/** Lets processes go that wait to open a FIFO. */
const release = (file: string) => fs.closeSync(fs.openSync(file, fs.constants.O_RDWR | fs.constants.O_NONBLOCK));

describe('a write in a process of its own', () => {
  test('arrives', async () => {
    fs.writeFileSync(at('a'), '');
    await write(at('a'), 'vfio-pci\n');
    expect(fs.readFileSync(at('a'), 'utf8')).toBe('vfio-pci\n');
  });

  test.each([
    ['no such file', 'none', 'ENOENT'],
    ['a folder', '.', 'EISDIR'],
    ['a folder that is a file', 'a/b', 'ENOTDIR'],
  ])('%s', async (_, name, code) => {
    fs.writeFileSync(at('a'), '');
    await expect(write(at(name), 'x')).rejects.toMatchObject({ code, syscall: 'write' });
  });

  test('the error of write(2) itself', () => expect(write('/dev/full', 'x')).rejects.toMatchObject({ code: 'ENOSPC' }));

  test('one that does not come back is given up; its process is known and holds none of our descriptors', async () => {
    const file = fifo('stuck');
    const err = await write(file, 'x', 200).catch((e: unknown) => e);
    expect(err).toBeInstanceOf(StuckWrite);
    const { pid } = err as StuckWrite;
    const open = fs.readdirSync(`/proc/${pid}/fd`).map((fd) => fs.readlinkSync(`/proc/${pid}/fd/${fd}`));
    expect(open).toEqual([expect.stringMatching(/^pipe:/)]);
    expect(fs.readFileSync(`/proc/${pid}/stat`, 'utf8')).not.toMatch(new RegExp(`\\) S ${process.pid} `)); // not our child
    release(file);
  });

  test('the program ends while such a write still waits, and its output pipe is closed', () => {
    const file = fifo('stuck');
    const script = `const n=require(${JSON.stringify(process.env.VIOCTL_ADDON ?? path.resolve('build/native/release/vioctl.node'))});n.sysfs.startWrite(${JSON.stringify(file)},'x');console.log('done')`;
    const { status, stdout, error } = spawnSync(process.execPath, ['-e', script], { encoding: 'utf8', timeout: 90_000 });
    release(file);
    expect({ status, stdout, error }).toEqual({ status: 0, stdout: 'done\n', error: undefined });
  });
});

describe('reads in a process of its own', () => {
  test('contents, failures, and one that blocks between them', () => {
    fs.writeFileSync(at('a'), 'one\n');
    fs.writeFileSync(at('empty'), '');
    fs.writeFileSync(at('large'), 'x'.repeat(10_000));
    const file = fifo('stuck');
    const begun = Date.now();
    try {
      expect(native().sysfs.readAll([at('a'), at('none'), file, at('empty'), file, at('large'), dir], 1500)).toEqual([
        'one\n',
        null,
        false,
        '',
        false,
        'x'.repeat(4000),
        null,
      ]);
      expect(Date.now() - begun).toBeGreaterThanOrEqual(3000);
    } finally {
      release(file);
    }
  });
  test('nothing to read', () => expect(native().sysfs.readAll([], 100)).toEqual([]));
  test('more records than a pipe holds', () => {
    fs.writeFileSync(at('a'), 'y'.repeat(4000));
    expect(native().sysfs.readAll(new Array(100).fill(at('a')), 5000)).toEqual(new Array(100).fill('y'.repeat(4000)));
  });
});

test('routes are those that ip(8) shows: every table, both families, every next hop', () => {
  if (!which('ip')) return skip('routes of rtnetlink', 'iproute2 is missing');
  const lines = ([4, 6] as const).flatMap((family) => {
    const { status, stdout } = spawnSync('ip', [`-${family}`, '-N', '-j', 'route', 'show', 'table', 'all'], {
      encoding: 'utf8',
      env: { ...process.env, LD_PRELOAD: '' }, // the sanitiser's runtime is not for ip
    });
    expect(status).toBe(0);
    type Row = { dst: string; dev?: string; type?: string; table?: string; nexthops?: { dev: string }[] };
    return (JSON.parse(stdout || '[]') as Row[])
      .filter(({ type }) => type === undefined || type === 'unicast' || type === '1')
      .flatMap(({ dst, dev, table, nexthops }) => {
        const any = family === 4 ? '0.0.0.0/0' : '::/0';
        const to = dst === 'default' ? any : dst.includes('/') ? dst : `${dst}/${family === 4 ? 32 : 128}`;
        const devices = dev === undefined ? (nexthops ?? []).map((hop) => hop.dev) : [dev];
        return devices.map((device) => `${family} ${to} ${device} ${table === undefined || table === 'main' ? 254 : table}`);
      });
  });
  const ours = native()
    .sysfs.routes()
    .map(({ family, destination, prefix, device, table }) => `${family} ${destination}/${prefix} ${device} ${table}`);
  expect(ours.sort()).toEqual(lines.sort());
});

test('peers of WireGuard: none of no interface; without the module or the privilege the kernel says so', () => {
  const { sysfs } = native();
  expect(sysfs.wireguardPeers([])).toEqual([]);
  // there is no such interface, or no WireGuard at all; the lab has peers (test/vm/vfio-census.test.ts)
  try {
    expect(sysfs.wireguardPeers(['vioctl-none', 'a name longer than that of any interface'])).toEqual([]);
  } catch (err) {
    expect((err as NodeJS.ErrnoException).code).toMatch(/^(ENOENT|ENODEV|EPERM|EOPNOTSUPP)$/);
  }
});

describe('many folders at once', () => {
  const read = (names: string[]) => native().sysfs.readFolders(dir, names, ['vendor', 'none'], ['driver'], ['config']);

  test('names, links, files without their last newlines, headers as bytes; what is absent or cannot be read is null', () => {
    fs.mkdirSync(at('real/folder'), { recursive: true });
    fs.writeFileSync(at('real/vendor'), '0x8086\n\n');
    fs.writeFileSync(at('real/config'), Buffer.from(Array.from({ length: 256 }, (_, i) => 255 - i)));
    fs.symlinkSync('../../drivers/igb', at('real/driver'));
    fs.symlinkSync('real', at('link'));
    fs.mkdirSync(at('bare/vendor'), { recursive: true }); // a folder where a file is wanted
    fs.writeFileSync(at('bare/driver'), 'no link');
    fs.writeFileSync(at('file'), '');
    const header = Buffer.from(Array.from({ length: 64 }, (_, i) => 255 - i));
    const all = ['0x8086', null, '../../drivers/igb', header];
    expect(read(['real', 'gone', 'link', 'file', 'bare'])).toEqual([
      ...['/config/driver/folder/vendor/', null, ...all],
      ...[null, null, null, null, null, null],
      ...['/config/driver/folder/vendor/', 'real', ...all],
      ...[null, null, null, null, null, null],
      ...['/driver/vendor/', null, null, null, null, null],
    ]);
  });

  test('an attribute is cut at a page; an empty folder has no names', () => {
    fs.mkdirSync(at('long'));
    fs.mkdirSync(at('empty'));
    fs.writeFileSync(at('long/vendor'), 'x'.repeat(5000));
    expect(read(['long', 'empty'])).toEqual(['/vendor/', null, 'x'.repeat(4096), null, null, null, '/', null, null, null, null, null]);
    expect(native().sysfs.readFolders(at('none'), ['a'], [], [], [])).toEqual([null, null]);
  });

  test('thousands of folders leave no descriptor open', () => {
    for (let i = 0; i < 2000; i++) fs.mkdirSync(at(`${i}`));
    const open = () => fs.readdirSync('/proc/self/fd').length;
    const before = open();
    read(Array.from({ length: 2000 }, (_, i) => `${i}`));
    expect(open()).toBeLessThanOrEqual(before);
  });
});
