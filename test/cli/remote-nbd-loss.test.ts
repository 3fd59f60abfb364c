/** NBD servers that lose what they have acknowledged, hang, or know few commands: what hosts are told, and what it costs. */
import fs from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { vioctl } from '../support/cli.js';
import { NbdServer } from '../support/nbd-server.js';
import { NvmeDisk } from '../support/served-disk.js';
import { skip, which } from '../support/skip.js';
import { at, serve } from '../support/storage-servers.js';

const missing = which('nbdkit') === undefined;
const fars: NbdServer[] = [];
afterEach(async () => {
  for (const far of fars.splice(0)) await far.stop();
});

/** A server of nbdkit with these arguments, and a disk over it. */
async function open(argv: string[], options = '') {
  const far = await NbdServer.start(at('nbd'), (socket) => ['nbdkit', '-f', '-U', socket, ...argv]);
  fars.push(far);
  const server = await serve('nvmf', `${far.uri}${options}`, '--control', at('ctl'), '--discovery-port', 'none');
  const { listen, subsystems } = JSON.parse(vioctl(['nvmf', 'ctl', at('ctl'), 'list', '--json']).stdout);
  const disk = await NvmeDisk.open(listen[0].port, subsystems[0].nqn);
  const close = async (): Promise<void> => {
    disk.close();
    expect(await server.stop()).toBe(0);
  };
  return { far, server, disk, close };
}

/** Waits until a script of the server says by a file that it was there. */
async function appears(name: string): Promise<void> {
  for (let tries = 0; !fs.existsSync(at(name)); tries++) {
    if (tries === 500) throw new Error(`${name} does not appear`);
    await sleep(20);
  }
}

/** A disk in a file, of scripts. `flush` and `pwrite` run first. */
const scripts = (flush: string, pwrite: string): string[] => [
  ...['eval', 'get_size=echo 8M', 'thread_model=echo parallel', 'can_write=exit 0', 'can_flush=exit 0'],
  `pread=dd if=${at('data')} iflag=skip_bytes,count_bytes skip=$4 count=$3 status=none`,
  `pwrite=${pwrite}; dd of=${at('data')} oflag=seek_bytes seek=$4 conv=notrunc status=none`,
  `flush=${flush}`,
];
const data = (byte: number): Buffer => Buffer.alloc(4096, byte);
async function reads(disk: NvmeDisk, from: number): Promise<Buffer> {
  const into = Buffer.alloc(4096);
  expect(await disk.read(from, into)).toBe('ok');
  return into;
}

test('reopen while the server is away: what it had acknowledged, and loses, is written to it again', async () => {
  if (missing) return skip('NBD: reopen while the server is away', 'needs nbdkit');
  const { far, disk, close } = await open(['memory', '8M']);
  expect(await disk.write(0, data(1))).toBe('ok');
  await far.stop();
  expect(vioctl(['nvmf', 'ctl', at('ctl'), 'reopen', '1'])).toMatchObject({ status: 0, stderr: '' });
  await far.start();
  expect((await reads(disk, 0)).equals(data(1))).toBe(true);
  expect(await disk.flush()).toBe('ok');
  await close();
});

test('shared: a write that is acknowledged during a flush, and lost after it, is told until the source is reopened', async () => {
  if (missing) return skip('NBD: a loss of a shared export', 'needs nbdkit');
  fs.writeFileSync(at('data'), Buffer.alloc(8 << 20));
  const waits = `touch ${at('flushing')}; while [ ! -e ${at('go')} ]; do sleep 0.05; done`;
  const { far, disk, close } = await open(scripts(waits, ':'), ',shared=on');
  expect(await disk.write(0, data(1))).toBe('ok');
  const flushed = disk.flush();
  await appears('flushing');
  expect(await disk.write(8192, data(2))).toBe('ok');
  fs.writeFileSync(at('go'), '');
  expect(await flushed).toBe('ok');
  await far.restart();
  await reads(disk, 0);
  expect(await disk.flush()).toMatch(/^error/);
  expect(vioctl(['nvmf', 'ctl', at('ctl'), 'reopen', '1'])).toMatchObject({ status: 0 });
  expect(await disk.flush()).toBe('ok');
  // nothing was acknowledged since: a server that dies now loses nothing
  expect(await disk.write(8192, data(3))).toBe('ok');
  expect(await disk.flush()).toBe('ok');
  await far.restart();
  expect((await reads(disk, 8192)).equals(data(3))).toBe(true);
  expect(await disk.flush()).toBe('ok');
  // connections that an administrator ends lose nothing either
  expect(await disk.write(8192, data(4))).toBe('ok');
  expect(vioctl(['nvmf', 'ctl', at('ctl'), 'reopen', '1'])).toMatchObject({ status: 0 });
  expect(await disk.flush()).toBe('ok');
  await close();
});

test('shared: a new size loses nothing that was acknowledged and not flushed', async () => {
  if (missing) return skip('NBD: a new size of a shared export', 'needs nbdkit');
  fs.writeFileSync(at('data'), Buffer.alloc(8 << 20));
  const { server, disk, close } = await open(['file', at('data')], ',shared=on');
  expect(await disk.write(0, data(1))).toBe('ok');
  fs.truncateSync(at('data'), 16 << 20);
  await server.sees(/has 16777216 bytes now/);
  expect(await disk.flush()).toBe('ok');
  expect((await reads(disk, 0)).equals(data(1))).toBe(true);
  await close();
});

test('a server that hangs while it gets again what it may have lost is left for a new connection', async () => {
  if (missing) return skip('NBD: a replay that hangs', 'needs nbdkit');
  fs.writeFileSync(at('data'), Buffer.alloc(8 << 20));
  // the first write after `wedge` has appeared hangs for good
  const hangs = `if rm ${at('wedge')} 2>/dev/null; then touch ${at('hung')}; exec sleep 120; fi`;
  const { far, disk, close } = await open(scripts(':', hangs), ',timeout=1s');
  expect(await disk.write(0, data(1))).toBe('ok');
  await far.stop();
  fs.writeFileSync(at('wedge'), '');
  await far.start();
  await appears('hung');
  // no request of a host hangs at the server: the source finds out by itself
  for (let tries = 0; (await disk.flush()) !== 'ok'; tries++) expect(tries).toBeLessThan(20);
  expect((await reads(disk, 0)).equals(data(1))).toBe(true);
  await close();
});

test('zeroes to a server that knows no command for them take no memory of their size', async () => {
  if (missing) return skip('NBD: zeroes to a server without the command', 'needs nbdkit');
  const { server, disk, close } = await open(['--filter=nozero', 'null', '2G']);
  const peak = (): number => Number(/VmHWM:\s+(\d+) kB/.exec(fs.readFileSync(`/proc/${server.child.pid}/status`, 'utf8'))![1]) << 10;
  const before = peak();
  const piece = 32 << 20;
  const all = Array.from({ length: 32 }, (_, i) => disk.zero(i * piece, piece));
  expect(new Set(await Promise.all(all))).toEqual(new Set(['ok']));
  // less than half of what is zeroed, and more than may be kept until a flush
  expect(peak() - before).toBeLessThan(512 << 20);
  await close();
});
