/** `vhost-user serve blk --config`: what a file says is served, and SIGHUP takes over what it says then. */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Window } from '../../src/vhost-user/frontend/window.js';
import { connect } from '../../src/vhost-user/wire/channel.js';
import { Background } from '../support/background.js';
import { vioctl } from '../support/cli.js';
import { Driver } from '../support/vhost-user.js';
import { eventually } from '../support/wait.js';

let dir: string;
let server: Background | undefined;
beforeEach(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-config-'));
  for (const name of ['a', 'b', 'c']) fs.writeFileSync(at(name), Buffer.alloc(1 << 20));
});
afterEach(async () => {
  await server?.stop('SIGKILL');
  server = undefined;
  fs.rmSync(dir, { recursive: true });
});
const at = (name: string): string => path.join(dir, name);
const write = (disks: object[], more: object = {}): void =>
  fs.writeFileSync(at('conf.json'), JSON.stringify({ control: 'ctl', ...more, disks }));
const disks = () => JSON.parse(vioctl(['vhost-user', 'ctl', at('ctl'), 'list', '--json']).stdout).disks;
async function serve(...words: string[]): Promise<void> {
  server = Background.vioctl(['vhost-user', 'serve', 'blk', '--config', at('conf.json'), ...words]);
  await server.sees(/^serving /m);
}
let reloads = 0;
/** SIGHUP, and what the log says of it. */
async function reload(said: RegExp): Promise<void> {
  const before = server!.stderr.length;
  server!.child.kill('SIGHUP');
  await eventually(() => said.test(server!.stderr.slice(before)));
  expect(server!.stderr.slice(before)).toMatch(said);
  reloads++;
}

test('disks of a file, with paths that start in its folder; keys of the file hold for all disks', async () => {
  write(
    [
      { socket: 's1', source: 'a', serial: 'one', iops: '10/20' },
      { socket: at('s2'), source: at('b'), readOnly: true, queues: 2, socketMode: '0666' },
    ],
    { socketMode: '0640', queues: 3 },
  );
  await serve();
  expect(disks()).toMatchObject([
    { socket: at('s1'), source: at('a'), queues: 3, readOnly: false, limits: { iops: { average: 10, burst: 20 } } },
    { socket: at('s2'), source: at('b'), queues: 2, readOnly: true },
  ]);
  expect(['s1', 's2'].map((name) => fs.statSync(at(name)).mode & 0o777)).toEqual([0o640, 0o666]);
  // their sockets are in no command line
  vioctl(['vhost-user', 'ctl', at('ctl'), 'add', `${at('s3')}=ram:1M`]);
  const { sockets } = JSON.parse(vioctl(['vhost-user', 'list', '--json']).stdout);
  const ours = sockets.filter(({ socket }: { socket: string }) => socket.startsWith(dir));
  expect(ours.map(({ socket, device }: { socket: string; device: string }) => [socket, device])).toEqual(
    ['s1', 's2', 's3'].map((name) => [at(name), 'blk']),
  );
  expect(await server!.stop()).toBe(0);
});

test('YAML on standard input, where 0660 is a text', () => {
  const input = `disks:\n  - {socket: ${at('s1')}, source: ${at('missing')}, socketMode: 0660}\n`;
  const result = vioctl(['vhost-user', 'serve', 'blk', '--config', '-'], { input });
  expect(result).toMatchObject({ status: 1, stderr: expect.stringMatching(/missing: ENOENT/) });
});

test('a reload changes what differs, and a disk in use that stays the same does not notice', async () => {
  write([
    { socket: 's1', source: 'a', iops: 1000 },
    { socket: 's2', source: 'b' },
  ]);
  await serve();
  const window = await Window.open(await connect(at('s1')));
  await window.start();
  const driver = new Driver(window);
  const header = Buffer.alloc(16);
  header.writeUInt32LE(1);
  const write512 = async () => (await driver.request([header, Buffer.alloc(512, 'w')], 1, 60_000))[0];
  expect(await write512()).toBe(0);
  await reload(/conf\.json: nothing has changed/);
  // s2 ends, its source moves to s3, s1 has another limit
  write([
    { socket: 's1', source: 'a', iops: 2000 },
    { socket: 's3', source: 'b', readOnly: true },
    { socket: 's4', source: 'c' },
  ]);
  await reload(/end .*b at .*s2\n.*limit .*a to iops=2000 .*\n.*serve .*b at .*s3\n.*serve .*c at .*s4/);
  expect(disks()).toMatchObject([
    { socket: at('s1'), connected: true, running: true, limits: { iops: { average: 2000 } } },
    { socket: at('s3'), source: at('b'), readOnly: true },
    { socket: at('s4'), source: at('c') },
  ]);
  expect(await write512()).toBe(0);
  expect(fs.existsSync(at('s2'))).toBe(false);
  // what ctl has changed since is undone
  vioctl(['vhost-user', 'ctl', at('ctl'), 'remove', at('s4')]);
  vioctl(['vhost-user', 'ctl', at('ctl'), 'throttle', at('s1'), 'iops=none']);
  await reload(/limit .*a to iops=2000 .*\n.*serve .*c at .*s4/);
  window.close();
  expect(await server!.stop()).toBe(0);
});

test('ctl adds only what the list of sources allows, which a reload changes; the file itself may have any', async () => {
  write([{ socket: 's1', source: 'a' }], { sources: [at('c'), 'ram:*'] });
  await serve();
  const add = (source: string) => vioctl(['vhost-user', 'ctl', at('ctl'), 'add', `${at('s2')}=${source}`, '--dry-run']);
  fs.symlinkSync(at('b'), at('link'));
  for (const source of [at('b'), at('link'), `${dir}/./b,ro`])
    expect(add(source)).toMatchObject({ status: 3, stderr: expect.stringMatching(/list of sources does not allow it/) });
  for (const source of [at('c'), 'ram:1M', `${dir}/../${path.basename(dir)}/c`]) expect(add(source).status).toBe(0);
  write([{ socket: 's1', source: 'a' }], { sources: [] });
  await reload(/nothing has changed/);
  expect(add(at('c')).status).toBe(3);
  write([{ socket: 's1', source: 'a' }]);
  await reload(/nothing has changed/);
  expect(add(at('b')).status).toBe(0);
  expect(await server!.stop()).toBe(0);
  server = Background.vioctl([
    'vhost-user',
    'serve',
    'blk',
    '--control',
    at('ctl'),
    '--allow-source',
    at('c'),
    '--allow-source',
    `${dir}/x*`,
  ]);
  await server.sees(/^serving /m);
  expect([add(at('b')).status, add(at('c')).status]).toEqual([3, 0]);
  expect(await server.stop()).toBe(0);
});

test('a file that is wrong, or cannot be served, changes nothing; one that another process keeps is tried first', async () => {
  write([{ socket: 's1', source: 'a' }]);
  await serve();
  const before = disks();
  fs.writeFileSync(at('conf.json'), '{"disks": [');
  await reload(/is not taken over: .*conf\.json/);
  write([{ socket: 's1', source: 'a', colour: 1 }]);
  await reload(/is not taken over: .*disks\[0\]\.colour: is not known/);
  write([{ socket: 's9', source: 'b' }], { control: 'other' });
  await reload(/is not taken over: another control needs a restart/);
  write([{ socket: 's2', source: 'missing' }]); // s1 is to go, but s2 cannot come
  await reload(/is not taken over: .*missing: ENOENT/);
  const other = Background.vioctl(['vhost-user', 'serve', 'blk', `${at('elsewhere')}=${at('b')}`]);
  try {
    await other.sees(/^serving /m);
    write([{ socket: 's2', source: 'b' }]);
    await reload(/is not taken over: .*already in use/);
  } finally {
    await other.stop();
  }
  expect(disks()).toEqual(before);
  fs.rmSync(at('conf.json'));
  await reload(/is not taken over: .*ENOENT/);
  expect(await server!.stop()).toBe(0);
  expect(reloads).toBeGreaterThan(0);
});

test.each([
  [[{ socket: 's1', source: 'a' }], { queues: 257 }, [], /queues: must be a number from 1 to 256/],
  [[{ socket: 's1' }], {}, [], /disks\[0\]: "source" is missing/],
  [[{ source: 'a' }], {}, [], /disks\[0\]: "socket" is missing/],
  [
    [
      { socket: 's1', source: 'a' },
      { socket: './s1', source: 'b' },
    ],
    {},
    [],
    /disks\[1\]: socket .* is that of \[0\] too/,
  ],
  [[{ socket: 's1', source: 'a', serial: 'x'.repeat(21) }], {}, [], /disks\[0\]\.serial: more than 20 bytes/],
  [[{ socket: 's1', source: 'a', socketMode: '999' }], {}, [], /disks\[0\]\.socketMode: not a mode/],
  [[{ socket: 's1', source: 'a', socketOwner: 'nobody-of-this-name' }], {}, [], /socketOwner: no such user/],
  [[{ socket: 's1', source: 'a', blockSize: 513 }], {}, [], /blockSize: must be a power of two/],
  [[{ socket: 's1', source: 'a', iops: 'much' }], {}, [], /disks\[0\]\.iops: not a number/],
  [[{ socket: 's1', source: 'a' }], {}, ['--queues', '2'], /--queues and --config exclude each other/],
  [[{ socket: 's1', source: 'a' }], {}, ['--read-only'], /--read-only and --config exclude each other/],
  [[{ socket: 's1', source: 'a' }], {}, ['s2=b'], /disks on the command line and --config exclude/],
] as const)('%j %j %j is wrong usage', (list, more, words, text) => {
  write([...list], more);
  const result = vioctl(['vhost-user', 'serve', 'blk', '--config', at('conf.json'), ...words]);
  expect(result).toMatchObject({ status: 2, stdout: '', stderr: expect.stringMatching(text) });
  expect(fs.existsSync(at('s1'))).toBe(false);
});

describe('save and load', () => {
  const ctl = (...args: string[]) => vioctl(['vhost-user', 'ctl', at('ctl'), ...args]);
  const saved = () => JSON.parse(ctl('save').stdout) as { disks: object[]; sources?: string[] };
  const keep = (name: string, config: object): string => {
    fs.writeFileSync(at(name), JSON.stringify(config));
    return at(name);
  };
  /** A server that was told everything on its command line, changed since. */
  async function changed(): Promise<void> {
    const words = [`${at('s1')}=${at('a')},serial=one,iops=10/20`, `${at('s2')}=${at('b')},ro,queues=2`];
    const options = ['--queues', '3', '--socket-mode', '0640', '--socket-group', '0', '--engine', 'sync', '--allow-source', 'ram:*'];
    server = Background.vioctl(['vhost-user', 'serve', 'blk', ...words, '--control', at('ctl'), ...options]);
    await server.sees(/^serving [\s\S]*^serving /m);
    for (const words of [
      ['throttle', at('s1'), 'iops=none', 'bps=1M/2M/3'],
      ['add', `${at('s3')}=ram:1M,bs=4096`],
      ['remove', at('s2')],
    ])
      expect(ctl(...words).status).toBe(0);
  }

  test('what is saved starts the same server again, and loading it changes nothing', async () => {
    await changed();
    const first = saved();
    expect(first).toEqual({
      control: at('ctl'),
      engine: 'sync',
      sources: ['ram:*'],
      disks: [
        { socket: at('s1'), source: at('a'), serial: 'one', queues: 3, socketMode: '0640', socketGroup: '0', bps: expect.any(String) },
        { socket: at('s3'), source: 'ram:1048576', blockSize: 4096, queues: 3, socketMode: '0640', socketGroup: '0' },
      ],
    });
    const file = keep('saved.json', first);
    expect(ctl('load', file)).toMatchObject({ status: 0, stdout: 'nothing differs\n' });
    const before = disks();
    expect(await server!.stop()).toBe(0);
    server = Background.vioctl(['vhost-user', 'serve', 'blk', '--config', file]);
    await server.sees(/^serving /m);
    expect(saved()).toEqual(first);
    expect(disks()).toEqual(before);
    expect(ctl('load', file, '--check')).toMatchObject({ status: 0, stdout: 'nothing differs\n' });
    expect(await server!.stop()).toBe(0);
  });

  test('load changes what differs; --check tells it with status 4 and changes nothing', async () => {
    await changed();
    const first = saved();
    const [one] = first.disks;
    const file = keep('next.json', {
      disks: [
        { ...one, bps: 'none' },
        { socket: 's4', source: 'ram:2M' },
      ],
    });
    const would = [`end ram:1048576 at ${at('s3')}`, expect.stringMatching(/^limit .*a to bps=none /), `serve ram:2097152 at ${at('s4')}`];
    const check = ctl('load', file, '--check', '--json');
    expect(check.status).toBe(4);
    expect(JSON.parse(check.stdout)).toEqual({ changed: false, dryRun: true, changes: would });
    expect(saved()).toEqual(first);
    expect(JSON.parse(ctl('load', file, '--json').stdout)).toEqual({ changed: true, changes: would });
    expect(saved().disks).toEqual([
      { ...one, bps: undefined },
      { socket: at('s4'), source: 'ram:2097152', queues: 3, socketMode: '0640', socketGroup: '0' },
    ]);
    expect(await server!.stop()).toBe(0);
  });

  test('a load that is refused changes nothing', async () => {
    await changed();
    const first = saved();
    const [one] = first.disks;
    for (const [config, status, said] of [
      [{ disks: [one, { socket: 's4', source: 'c' }] }, 3, /list of sources does not allow it/],
      [{ disks: [one], sources: ['**'] }, 3, /sources cannot change over the control socket/],
      [{ disks: [one], engine: 'uring' }, 3, /another engine needs a restart/],
      [{ disks: [one], control: 'other' }, 3, /another control needs a restart/],
      [{ disks: [...first.disks, { socket: 'missing/s4', source: 'ram:1M' }] }, 1, /missing/],
      [{ disks: [...first.disks, { socket: 's4', source: 'ram:1000' }] }, 1, /no multiple of 512 bytes/],
      [{ disks: [one, one] }, 2, /socket/],
      [{ disks: [one], discs: [] }, 2, /discs/],
    ] as const) {
      expect(ctl('load', keep('bad.json', config))).toMatchObject({ status, stderr: expect.stringMatching(said) });
      expect(saved()).toEqual(first);
    }
    expect(ctl('load', at('none'))).toMatchObject({ status: 1, stderr: expect.stringMatching(/none: ENOENT/) });
    for (const wrong of [['load'], ['load', 'a', 'b'], ['save', 'a'], ['list', '--check']]) expect(ctl(...wrong).status).toBe(2);
    expect(await server!.stop()).toBe(0);
  });
});
