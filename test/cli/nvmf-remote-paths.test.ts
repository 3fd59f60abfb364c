/** A source that follows what a discovery service says of its subsystem, and targets that would serve themselves by a detour. */
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { formatTlsKey } from '../../src/nvme/auth/keys.js';
import { Background } from '../support/background.js';
import { plainEnv, program } from '../support/cli.js';
import { nvmf, type ServedTarget, serveTarget } from '../support/nvme-target.js';
import { NvmeDisk } from '../support/served-disk.js';

const nqn = 'nqn.2014-08.org.nvmexpress:far';
const near = 'nqn.2014-08.org.nvmexpress:near';
let dir: string;
const at = (name: string): string => path.join(dir, name);
beforeEach(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-paths-'));
  fs.writeFileSync(at('disk'), Buffer.alloc(1 << 20));
});
afterEach(() => fs.rmSync(dir, { recursive: true, force: true }));

/** Changes a target, or asks it. */
const ctl = async (socket: string, ...args: string[]): Promise<string> => {
  const { status, stdout, stderr } = await nvmf(['ctl', at(socket), ...args]);
  expect({ args, status, stderr }).toEqual({ args, status: 0, stderr: '' });
  return stdout.toString();
};
interface Listed {
  listeners: { address: string; port: number; discoveryOnly?: boolean }[];
}
const listeners = async (socket: string): Promise<Listed['listeners']> =>
  (JSON.parse(await ctl(socket, 'list', '--json')) as Listed).listeners;
/** A port of loopback that a listener of the target has from now on. */
async function addListener(socket: string, ...options: string[]): Promise<number> {
  const before = new Set((await listeners(socket)).map(({ port }) => port));
  await ctl(socket, 'listener', 'add', '127.0.0.1:0', ...options);
  return (await listeners(socket)).find(({ port }) => !before.has(port))!.port;
}

const serveFar = (port: number, discovery: number | string): Promise<ServedTarget> =>
  serveTarget([at('disk'), '--nqn', nqn, '--listen', `127.0.0.1:${port}`, '--discovery-port', String(discovery), '--control', at('far')]);
const serveNear = (source: string, ...more: string[]): Background =>
  Background.vioctl(['nvmf', 'serve', source, '--nqn', near, '--listen', '127.0.0.1:0', '--discovery-port', 'none', ...more]);

test('addresses come and go as the discovery service says; requests wait for the next one', async () => {
  const far = await serveFar(0, 'none');
  const discovery = await addListener('far', '--discovery-only');
  const server = serveNear(`nvme+tcp://127.0.0.1:${far.port}/${nqn}/1,discovery=127.0.0.1:${discovery}`);
  const [, port] = await server.sees(/on 127\.0\.0\.1:(\d+)/);
  const disk = await NvmeDisk.open(Number(port), near);
  const model = Buffer.alloc(64 << 10);
  let last = far.port;
  for (let round = 0; round < 2; round++) {
    const next = await addListener('far');
    await ctl('far', 'listener', 'remove', `127.0.0.1:${last}`);
    // what waits now can only be done through an address that was not known when the source was opened
    const data = randomBytes(4096);
    data.copy(model, round * 8192);
    expect(await disk.write(round * 8192, data)).toBe('ok');
    await server.sees(new RegExp(`discovery names these addresses: 127\\.0\\.0\\.1:${next}$`, 'm'));
    last = next;
  }
  expect(await disk.flush()).toBe('ok');
  const back = Buffer.alloc(model.length);
  expect(await disk.read(0, back)).toBe('ok');
  expect(back.equals(model)).toBe(true);
  disk.close();
  expect(await server.stop()).toBe(0);
  expect(await far.stop()).toBe(0);
  expect(fs.readFileSync(at('disk')).subarray(0, model.length).equals(model)).toBe(true);
});

test('an address that is dead when the source is opened, and a service that leads to another one', async () => {
  const far = await serveFar(0, 'none');
  const dead = await addListener('far');
  await ctl('far', 'listener', 'remove', `127.0.0.1:${dead}`);
  // the first service knows nothing but the second one
  const other = await serveTarget([
    'ram:1M',
    '--nqn',
    'nqn.2014-08.org.nvmexpress:other',
    '--discovery-port',
    'none',
    '--control',
    at('other'),
  ]);
  const discovery = await addListener('far', '--discovery-only');
  await ctl('other', 'referral', 'add', `127.0.0.1:${discovery}`);
  const source = `nvme+tcp://127.0.0.1:${dead}/${nqn}/1`;
  const lost = await nvmf(['serve', `${source},discovery=127.0.0.1:${dead}`, '--listen', '127.0.0.1:0']);
  expect(lost).toMatchObject({ status: 1, stderr: expect.stringContaining('ECONNREFUSED') });
  const server = serveNear(`${source},discovery=127.0.0.1:${dead},discovery=127.0.0.1:${other.port}`);
  const [, port] = await server.sees(/on 127\.0\.0\.1:(\d+)/);
  await server.sees(/discovery: .*ECONNREFUSED/);
  const disk = await NvmeDisk.open(Number(port), near);
  expect(await disk.write(0, randomBytes(512))).toBe('ok');
  disk.close();
  expect(await server.stop()).toBe(0);
  await other.stop();
  await far.stop();
});

test('a key of TLS that can be read only once serves the discovery service too', () => {
  fs.writeFileSync(at('key'), `${formatTlsKey({ hash: 1, bytes: randomBytes(32) })}\n`, { mode: 0o600 });
  const source = `nvme+tcp://127.0.0.1:1/${nqn}/1,tls,tls-key-file=/dev/stdin,discovery=127.0.0.1:1`;
  const words = [process.execPath, program, 'nvmf', 'serve', source, '--listen', '127.0.0.1:0'];
  const result = spawnSync('sh', ['-c', 'cat "$0" | "$@"', at('key'), ...words], { encoding: 'utf8', env: plainEnv(), timeout: 90_000 });
  expect(result).toMatchObject({ status: 1, stderr: expect.stringContaining('ECONNREFUSED') });
});

test('a target that would serve itself by way of another process is refused, when it is asked to and later', async () => {
  const ids = 'uuid=11111111-2222-4333-8444-555555555555,nguid=11111111222243338444555555555555';
  const start = (source: string, port: number) =>
    serveTarget([`${source},${ids}`, '--nqn', nqn, '--listen', `127.0.0.1:${port}`, '--discovery-port', 'none', '--control', at('far')]);
  let far = await start('ram:1M', 0);
  const from = (port: number, name: string) => `nvme+tcp://127.0.0.1:${port}/${name}/1`;
  const server = serveNear(`${from(far.port, nqn)},${ids}`);
  const [, port] = await server.sees(/on 127\.0\.0\.1:(\d+)/);
  // a third one between them hides nothing
  const third = await serveTarget([from(Number(port), near), '--nqn', `${near}:3`, '--discovery-port', 'none']);
  for (const source of [from(Number(port), near), from(third.port, `${near}:3`)])
    expect({ source, ...(await nvmf(['ctl', at('far'), 'add', source])) }).toMatchObject({
      status: 3,
      stderr: expect.stringContaining('would serve itself'),
    });
  await third.stop();
  // what another process has of its own is served, although this process is a source of it
  const own = await serveTarget(['ram:2M', from(far.port, nqn), '--nqn', `${near}:own`, '--discovery-port', 'none']);
  await ctl('far', 'add', from(own.port, `${near}:own`), '--nqn', `${nqn}:2`);
  await ctl('far', 'remove', '--nqn', `${nqn}:2`);
  await own.stop();
  // The first target comes back with the second one as its source: that one must not connect to it again.
  await far.stop('SIGKILL');
  await server.sees(/the connection is lost/);
  // (it does not look at the data: that waits for itself)
  far = await start(`${from(Number(port), near)},format=raw`, far.port);
  await server.sees(/the target there serves this one by now: it is not used/);
  await server.stop('SIGKILL');
  await far.stop('SIGKILL');
});
