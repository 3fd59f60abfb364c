import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Background } from '../support/background.js';
import { program, vioctl } from '../support/cli.js';

let dir: string;
const running: Background[] = [];
beforeEach(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-vhu-cli-'));
});
afterEach(async () => {
  for (const program of running.splice(0).reverse()) await program.stop();
  fs.rmSync(dir, { recursive: true });
});
const at = (name: string): string => path.join(dir, name);
async function serve(...args: string[]): Promise<Background> {
  const server = Background.vioctl(['vhost-user', ...args]);
  running.push(server);
  await server.sees(/serving/);
  return server;
}

test.each([
  [['probe'], 2, /SOCKET/],
  [['probe', '/nonexistent/socket'], 1, /ENOENT .*hint/s],
  [['probe', '--device', 'toaster', 'x'], 2, /no such device type/],
  [['trace', 'x'], 2, /both sockets/],
  [['trace', '--read', '/nonexistent'], 1, /ENOENT/],
  [['shmem', 'serve', 'x'], 2, /no region/],
  [['shmem', 'serve', 'x', '--region', '0=1000'], 2, /multiple of 4096/],
  [['shmem', 'serve', 'x', '--region', '0=16M', '--region', '1=8M'], 3, /power of two.*--any-regions/s],
  [['shmem', 'serve', 'x', ...['0', '1', '2', '3'].flatMap((id) => ['--region', `${id}=1M`])], 3, /at most 3/],
  [['shmem', 'serve', 'x', '--region', '256=1M'], 2, /not a region/],
  [['shmem', 'serve', 'x', '--region', '0=1M', '--map', '0=file'], 2, /not a mapping|not a place/],
  [['shmem', 'serve', 'x', '--region', '0=1M', '--map', '0:0=/nonexistent'], 1, /ENOENT/],
  [['shmem', 'serve', 'x', '--region', '0=1M', '--fd', '9'], 2, /one of/],
  [['shmem', 'unmap', 'x', '0:zz'], 2, /not a size/],
  [['serve', 'blk', 'x'], 2, /--file/],
  [['serve', 'blk', 'x', '--file', '/nonexistent'], 1, /ENOENT/],
  [['check', '/nonexistent'], 1, /ENOENT/],
])('%j ends with status %d', (args, status, text) => {
  const result = vioctl(['vhost-user', ...args]);
  expect({ status: result.status, stdout: result.stdout }).toEqual({ status, stdout: '' });
  expect(result.stderr).toMatch(text);
});

test('what the vhost-user conventions ask of a back-end program', () => {
  expect(JSON.parse(vioctl(['vhost-user', 'serve', 'blk', '--print-capabilities']).stdout)).toEqual({
    type: 'block',
    features: ['read-only', 'blk-file'],
  });
  expect(JSON.parse(vioctl(['vhost-user', 'shmem', 'serve', '--print-capabilities']).stdout)).toMatchObject({ type: 'pmem' });
});

test('the vhost-user.json of the package is one that list reads', () => {
  const dirOf = at('usr/share/qemu/vhost-user');
  fs.mkdirSync(dirOf, { recursive: true });
  const ours = path.resolve(program, '../../vhost-user/50-vioctl-blk.json');
  fs.copyFileSync(ours, path.join(dirOf, '50-vioctl-blk.json'));
  const { installed } = JSON.parse(vioctl(['vhost-user', 'list', '--installed', '--json'], { env: { VIOCTL_SYSROOT: dir } }).stdout);
  expect(installed).toEqual([expect.objectContaining({ type: 'block', binary: '/usr/libexec/vioctl-vhost-user-blk' })]);
});

test('the options that vhost-user.json prescribes for a block back-end', async () => {
  fs.writeFileSync(at('img'), Buffer.alloc(4096));
  await serve('serve', 'blk', `--socket-path=${at('b')}`, `--blk-file=${at('img')}`, '--read-only');
  expect(JSON.parse(vioctl(['vhost-user', 'probe', '--json', '--device', 'blk', at('b')]).stdout).features.names).toContain('RO');
});

test('serve, list, map, unmap, window', async () => {
  fs.writeFileSync(at('a'), Buffer.alloc(8192, 'A'));
  fs.writeFileSync(at('b'), 'five!');
  const server = await serve('shmem', 'serve', at('s'), '--region', '0=16M', '--map', `0:0=${at('a')}:rw`);
  expect(fs.statSync(at('s')).mode & 0o777).toBe(0o600);
  expect(server.stderr).toMatch(/can be cut short/);
  const list = (): { running: boolean; mappings: unknown[] } =>
    JSON.parse(vioctl(['vhost-user', 'shmem', 'list', at('s.ctl'), '--json']).stdout);
  expect(list()).toMatchObject({
    connected: false,
    running: false,
    regions: [{ id: 0, size: 0x1000000 }],
    mappings: [{ state: 'queued', how: 'shared' }],
  });
  const map = ['vhost-user', 'shmem', 'map', at('s.ctl'), `0:1M=${at('b')}:ro`, '--json'];
  expect(JSON.parse(vioctl([...map, '--dry-run']).stdout)).toMatchObject({ state: 'planned', offset: '0x100000' });
  expect(JSON.parse(vioctl([...map, '--wait', '10ms']).stdout)).toMatchObject({ state: 'queued', how: 'sealed-copy', len: 0x1000 });
  expect(JSON.parse(vioctl(map).stdout)).toMatchObject({ already: true });
  expect(vioctl(['vhost-user', 'shmem', 'map', at('s.ctl'), `0:4K=${at('b')}:ro`])).toMatchObject({
    status: 1,
    stderr: expect.stringContaining('is mapped there'),
  });
  expect(vioctl(['vhost-user', 'shmem', 'map', at('s.ctl'), `0:2M=${at('b')}:rw`])).toMatchObject({
    status: 1,
    stderr: expect.stringContaining('truncate'),
  });
  expect(vioctl(['vhost-user', 'shmem', 'map', at('s.ctl'), `5:0=${at('b')}:ro`])).toMatchObject({
    status: 1,
    stderr: expect.stringContaining('no region 5'),
  });

  const window = Background.vioctl(['vhost-user', 'shmem', 'window', at('s'), '--ndjson']);
  running.push(window);
  await window.sees(/"offset":"0x100000"/);
  expect(
    window.stdout
      .trim()
      .split('\n')
      .map((l) => JSON.parse(l)),
  ).toEqual(
    expect.arrayContaining([
      { event: 'started', regions: [{ id: 0, size: 0x1000000 }], queues: 1 },
      expect.objectContaining({ event: 'map', shmid: 0, offset: '0x0', len: 0x2000, writable: true }),
      expect.objectContaining({
        event: 'map',
        offset: '0x100000',
        fd: expect.objectContaining({ kind: 'memfd', seals: ['seal', 'shrink', 'grow'] }),
      }),
    ]),
  );
  expect(list()).toMatchObject({ running: true, mappings: [{ state: 'mapped' }, { state: 'mapped' }] });
  expect(vioctl(['vhost-user', 'shmem', 'unmap', at('s.ctl'), '0:1M', '--json'])).toMatchObject({
    status: 0,
    stdout: expect.stringContaining('"unmapped"'),
  });
  await window.sees(/"event":"unmap".*"0x100000"/);
  expect(vioctl(['vhost-user', 'list', '--json']).stdout).toContain(at('s'));
  expect(await window.stop()).toBe(0);
  expect(await server.stop()).toBe(0);
  expect(fs.existsSync(at('s'))).toBe(false);
  expect(fs.existsSync(at('s.ctl'))).toBe(false);
});

test('window with a command sees the mapped file; its status is passed on', async () => {
  fs.writeFileSync(at('a'), Buffer.alloc(4096, 'look at me '));
  await serve('shmem', 'serve', at('s'), '--region', '0=16M', '--map', `0:0=${at('a')}:ro`);
  const result = vioctl([
    'vhost-user',
    'shmem',
    'window',
    at('s'),
    '--timeout',
    '5s',
    '--',
    'sh',
    '-c',
    'head -c 10 <&3; echo; echo "$VIOCTL_SHMEM"; exit 7',
  ]);
  expect(result.status).toBe(7);
  expect(result.stdout).toMatch(/^look at me$/m);
  expect(result.stdout).toContain('[{"fd":3,"shmid":0,"offset":"0x0"');
});

test('window without a mapping times out with status 124', async () => {
  await serve('shmem', 'serve', at('s'), '--region', '0=16M');
  expect(vioctl(['vhost-user', 'shmem', 'window', at('s'), '--timeout', '200ms', '--', 'true'])).toMatchObject({ status: 124 });
});

test('probe of our own back-ends', async () => {
  fs.writeFileSync(at('img'), Buffer.alloc(1 << 20));
  await serve('serve', 'blk', at('b'), '--file', at('img'), '--queues', '3');
  await serve('shmem', 'serve', at('p'), '--region', '0=16M', '--pmem');
  expect(JSON.parse(vioctl(['vhost-user', 'probe', '--json', at('b')]).stdout)).toMatchObject({
    device: { name: 'blk' },
    queues: 3,
    config: { fields: { capacity: 2048, num_queues: 3, seg_max: 126 } },
  });
  expect(JSON.parse(vioctl(['vhost-user', 'probe', '--json', '--device', 'pmem', at('p')]).stdout)).toMatchObject({
    protocol: { names: expect.arrayContaining(['SHMEM']) },
    config: { fields: { size: 0x1000000 } },
    shmem: { regions: [{ id: 0, size: 0x1000000 }] },
    shmemDialects: ['standard'],
    warnings: [],
  });
  expect(vioctl(['vhost-user', 'probe', at('p')]).stdout).toMatch(/shared memory: +0=0x1000000/);
});

test('a socket that somebody serves is not taken over, and its server sees no connection; a left-over one is', async () => {
  const server = await serve('shmem', 'serve', at('s'), '--region', '0=16M');
  expect(vioctl(['vhost-user', 'shmem', 'serve', at('s'), '--region', '0=16M', '--control', at('other')])).toMatchObject({
    status: 1,
    stderr: expect.stringContaining('EADDRINUSE'),
  });
  expect(server.stderr).not.toContain('connection');
  await server.stop('SIGKILL');
  expect(fs.existsSync(at('s'))).toBe(true);
  await serve('shmem', 'serve', at('s'), '--region', '0=16M');
});

test('a back-end that is busy with one front-end lets the next one wait', async () => {
  await serve('shmem', 'serve', at('s'), '--region', '0=16M');
  const window = Background.vioctl(['vhost-user', 'shmem', 'window', at('s'), '--ndjson']);
  running.push(window);
  await window.sees(/started/);
  const busy = vioctl(['vhost-user', 'probe', at('s'), '--timeout', '300ms']);
  expect(busy).toMatchObject({ status: 124, stderr: expect.stringContaining('hint:') });
});

test('trace --read of a damaged capture gives what came before, and status 5', () => {
  const good = { t: 1, connection: 1, channel: 'main', from: 'front-end', fds: [], bytes: '010000000100000000000000' };
  fs.writeFileSync(at('t'), `${JSON.stringify(good)}\n{"t":2`);
  const result = vioctl(['vhost-user', 'trace', '--read', at('t')]);
  expect(result).toMatchObject({
    status: 5,
    stdout: expect.stringContaining('main > GET_FEATURES'),
    stderr: expect.stringContaining('line 2'),
  });
});

test('list reads sockets and command lines only, in any system root', () => {
  const write = (file: string, text: string): void => {
    fs.mkdirSync(path.dirname(at(file)), { recursive: true });
    fs.writeFileSync(at(file), text);
  };
  const head = 'Num       RefCount Protocol Flags    Type St Inode Path\n';
  const line = (flags: string, st: string, inode: number, name: string): string =>
    `0000000000000000: 00000002 00000000 ${flags} 0001 ${st} ${inode} ${name}\n`;
  write(
    'proc/net/unix',
    `${head}${line('00010000', '01', 100, '/run/fs.sock')}${line('00000000', '03', 101, '/run/fs.sock')}${line('00010000', '01', 200, '/run/other')}`,
  );
  write('proc/42/cmdline', 'virtiofsd\0--socket-path=/run/fs.sock\0');
  fs.mkdirSync(at('proc/42/fd'));
  fs.symlinkSync('socket:[100]', at('proc/42/fd/3'));
  fs.symlinkSync('socket:[101]', at('proc/42/fd/4'));
  fs.symlinkSync('/usr/libexec/virtiofsd', at('proc/42/exe'));
  const result = vioctl(['vhost-user', 'list', '--json'], { env: { VIOCTL_SYSROOT: dir } });
  expect(JSON.parse(result.stdout)).toEqual({
    sockets: [
      {
        socket: '/run/fs.sock',
        evidence: 'server',
        device: 'fs',
        servers: [{ pid: 42, command: 'virtiofsd --socket-path=/run/fs.sock', exe: '/usr/libexec/virtiofsd' }],
        users: [],
        connections: 1,
      },
    ],
  });
  write(
    'usr/share/qemu/vhost-user/50-fs.json',
    JSON.stringify({ description: 'a file system', type: 'fs', binary: '/usr/libexec/virtiofsd' }),
  );
  write('usr/share/qemu/vhost-user/60-broken.json', '{');
  const installed = vioctl(['vhost-user', 'list', '--installed', '--json'], { env: { VIOCTL_SYSROOT: dir } });
  expect(JSON.parse(installed.stdout)).toEqual({
    installed: [
      { file: '/usr/share/qemu/vhost-user/50-fs.json', type: 'fs', binary: '/usr/libexec/virtiofsd', description: 'a file system' },
    ],
  });
});
