/** Sockets of `vhost-user serve blk`: who may connect, and those that the service manager has opened. */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { FrontEnd } from '../../src/vhost-user/frontend/frontend.js';
import { Background } from '../support/background.js';
import { plainEnv, program, vioctl } from '../support/cli.js';
import { skip, which } from '../support/skip.js';

let dir: string;
let server: Background | undefined;
beforeEach(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-sockets-'));
  for (const name of ['a', 'b']) fs.writeFileSync(at(name), Buffer.alloc(1 << 20));
});
afterEach(async () => {
  await server?.stop('SIGKILL');
  server = undefined;
  fs.rmSync(dir, { recursive: true });
});
const at = (name: string): string => path.join(dir, name);
const access = (name: string) => {
  const { mode, uid, gid } = fs.statSync(at(name));
  return { mode: (mode & 0o777).toString(8), uid, gid };
};

test('mode, owner and group of sockets, whatever the umask is; the control socket stays private', async () => {
  if (process.getuid!() !== 0) return skip('owner of sockets', 'needs root');
  const argv = ['vhost-user', 'serve', 'blk', `${at('s1')}=${at('a')}`, `${at('s2')}=${at('b')}`, '--control', at('ctl')];
  const options = ['--socket-mode', '0666', '--socket-owner', 'daemon', '--socket-group', '4242'];
  const shell = (mask: string) => `umask ${mask}; exec "$0" "$@"`;
  const daemon = Number(/^daemon:[^:]*:(\d+):/m.exec(fs.readFileSync('/etc/passwd', 'utf8'))![1]);
  for (const mask of ['0077', '0000']) {
    server = new Background(['sh', '-c', shell(mask), process.execPath, program, ...argv, ...options], plainEnv());
    await server.sees(/^serving /m);
    for (const name of ['s1', 's2']) expect(access(name)).toEqual({ mode: '666', uid: daemon, gid: 4242 });
    expect(access('ctl').mode).toBe('600');
    expect(vioctl(['vhost-user', 'ctl', at('ctl'), 'add', `${at('s3')}=ram:1M`]).status).toBe(0);
    expect(access('s3')).toEqual({ mode: '666', uid: daemon, gid: 4242 });
    expect(await server.stop()).toBe(0);
  }
  server = new Background(['sh', '-c', shell('0000'), process.execPath, program, ...argv], plainEnv());
  await server.sees(/^serving /m);
  expect(access('s1')).toEqual({ mode: '600', uid: process.getuid!(), gid: process.getgid!() });
  expect(await server.stop()).toBe(0);
});

test.each([
  [['--socket-mode', '0888'], 2, /not a mode/],
  [['--socket-mode', '7777'], 2, /not a mode/],
  [['--socket-owner', 'nobody-of-this-name'], 2, /no such user/],
  [['--socket-group', 'nobody-of-this-name'], 2, /no such group/],
] as const)('%j is refused with status %d', (words, status, text) => {
  const result = vioctl(['vhost-user', 'serve', 'blk', `${at('s1')}=${at('a')}`, ...words]);
  expect(result).toMatchObject({ status, stdout: '', stderr: expect.stringMatching(text) });
  expect(fs.existsSync(at('s1'))).toBe(false);
});

test('an owner that this user may not give leaves no socket behind', () => {
  if (process.getuid!() !== 0) return skip('owner of sockets', 'needs root');
  fs.chmodSync(dir, 0o777);
  fs.chmodSync(at('a'), 0o666);
  const argv = [program, 'vhost-user', 'serve', 'blk', `${at('s1')}=${at('a')}`, '--socket-owner', 'root'];
  const result = spawnSync(process.execPath, argv, { encoding: 'utf8', uid: 65534, gid: 65534, env: plainEnv(), timeout: 90_000 });
  expect(result).toMatchObject({ status: 6, stdout: '', stderr: expect.stringMatching(/EPERM/) });
  expect(fs.existsSync(at('s1'))).toBe(false);
});

/** Runs a server as systemd does: with listening sockets from descriptor 3 on. */
const activated = (sockets: string[], words: string[], pid = 'os.getpid()'): Background => {
  const code = `import os, socket, sys
for i, path in enumerate(${JSON.stringify(sockets)}):
    s = socket.socket(socket.AF_UNIX); s.bind(path); s.listen(4)
    os.dup2(s.fileno(), 20 + i)
for i in range(${sockets.length}): os.dup2(20 + i, 3 + i)
os.environ.update(LISTEN_FDS='${sockets.length}', LISTEN_PID=str(${pid}))
os.execv(sys.argv[1], sys.argv[1:])`;
  return new Background(['python3', '-c', code, process.execPath, program, 'vhost-user', 'serve', 'blk', ...words], plainEnv());
};

test('sockets that the service manager has opened are used, and their files stay', async () => {
  server = activated([at('s2'), at('s1')], [`${at('s1')}=${at('a')}`, `${at('s2')}=${at('b')},ro`, `${at('s3')}=ram:1M`]);
  await server.sees(/^serving .*\n.*\nserving .*s3/m);
  for (const [name, readonly] of [
    ['s1', 0n],
    ['s2', 1n],
    ['s3', 0n],
  ] as const) {
    const front = await FrontEnd.connect(at(name));
    await front.negotiate(0n);
    expect((front.features >> 5n) & 1n).toBe(readonly);
    front.close();
  }
  expect(await server.stop()).toBe(0);
  expect(['s1', 's2', 's3'].map((name) => fs.existsSync(at(name)))).toEqual([true, true, false]);
});

test('one socket of the service manager needs no path; one that fits no disk is refused; those of another process are not ours', async () => {
  server = activated([at('s1')], ['--file', at('a')]);
  await server.sees(/^serving /m);
  const front = await FrontEnd.connect(at('s1'));
  await front.negotiate(0n);
  front.close();
  expect(await server.stop()).toBe(0);
  fs.rmSync(at('s1'));
  server = activated([at('s1')], [`${at('s2')}=${at('a')}`]);
  expect(await server.exited).toBe(2);
  expect(server.stderr).toMatch(/the service manager passes .*s1, but no disk is served there/);
  fs.rmSync(at('s1'));
  server = activated([at('s1')], [`${at('s2')}=${at('a')}`], '1');
  await server.sees(/^serving .*s2/m);
  expect(await server.stop()).toBe(0);
});

test('the units for systemd are well-formed, and the service can do little', () => {
  if (!which('systemd-analyze')) return skip('systemd units of vhost-user', 'systemd-analyze is missing');
  const units = path.resolve(program, '../../systemd');
  const analyze = (...words: string[]) => spawnSync('systemd-analyze', words, { encoding: 'utf8', env: plainEnv({ TERM: 'dumb' }) });
  const files = ['service', 'socket'].map((kind) => {
    const text = fs.readFileSync(path.join(units, `vioctl-vhost-user@.${kind}`), 'utf8');
    fs.writeFileSync(at(`vioctl-vhost-user@x.${kind}`), text.replace(/^(Exec\w+=-?)\S+/gm, '$1/bin/true'));
    return at(`vioctl-vhost-user@x.${kind}`);
  });
  const verified = analyze('verify', '--man=no', ...files);
  expect({ status: verified.status, said: verified.stderr.split('\n').filter((line) => line.includes('vioctl')) }).toEqual({
    status: 0,
    said: [],
  });
  // The threshold is in tenths; an exposure above it is a failure.
  const { status, stdout, stderr } = analyze('security', '--offline=yes', '--threshold=20', '--no-pager', files[0]!);
  if (/unrecognized option/.test(stderr)) return skip('exposure of the unit', 'this systemd-analyze is too old');
  expect({ status, overall: /Overall exposure level.*/.exec(stdout)?.[0] }).toMatchObject({ status: 0 });
});
