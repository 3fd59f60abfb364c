/** `nvmf serve` under a service manager: readiness, reload, watchdog, sockets that are handed over and kept. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { plainEnv, program } from '../support/cli.js';
import { connectHost } from '../support/nvme-target.js';
import { skip, which } from '../support/skip.js';

interface Said {
  event: string;
  pid?: number;
  port?: number;
  status?: number;
  fields?: Record<string, string>;
  kept?: string[];
  given?: string[];
  fds?: number;
}

const nqn = 'nqn.2014-08.org.example:systemd';
const python = which('python3');
let dir: string;
let manager: ChildProcess | undefined;
let said: Said[];
beforeEach(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-systemd-'));
});
afterEach(() => {
  manager?.stdin?.end();
  manager = undefined;
  fs.rmSync(dir, { recursive: true });
});

/** The next thing that the manager says and that fits. */
async function next(fits: (one: Said) => boolean): Promise<Said> {
  for (;;) {
    const at = said.findIndex(fits);
    if (at >= 0) return said.splice(0, at + 1).at(-1)!;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
const message = (key: string) => next(({ fields }) => fields?.[key] !== undefined);

async function manage(config: object): Promise<void> {
  const file = path.join(dir, 'c.json');
  fs.writeFileSync(file, JSON.stringify(config));
  const script = path.resolve(__dirname, '../support/programs/service-manager.py');
  const command = [process.execPath, program, 'nvmf', 'serve', '--config', file, '--quiet'];
  manager = spawn(python!, [script, path.join(dir, 'notify'), ...command], { env: plainEnv(), stdio: ['pipe', 'pipe', 'ignore'] });
  said = [];
  let rest = '';
  manager.stdout!.setEncoding('utf8').on('data', (text: string) => {
    const lines = (rest + text).split('\n');
    rest = lines.pop()!;
    for (const line of lines) if (line.startsWith('{"event"')) said.push(JSON.parse(line) as Said);
  });
  await next(({ event }) => event === 'ready');
}
const tell = (line: string) => manager!.stdin!.write(`${line}\n`);

/** A port that is free now. */
async function freePort(): Promise<number> {
  const server = net.createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address() as net.AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

test('readiness, status, watchdog, reload, end', async () => {
  if (!python) return skip('a service manager', 'python3 is missing');
  const config = { listen: ['127.0.0.1:0'], subsystems: [{ nqn, namespaces: [{ source: 'ram:1M' }] }] };
  await manage(config);
  tell('start');
  const { pid } = await next(({ event }) => event === 'started');
  expect((await message('READY')).fields).toEqual({ READY: '1', STATUS: '1 namespace in 1 subsystem, 0 hosts connected' });
  await message('WATCHDOG');
  await message('WATCHDOG');
  fs.writeFileSync(
    path.join(dir, 'c.json'),
    JSON.stringify({ ...config, subsystems: [...config.subsystems, { nqn: `${nqn}2`, namespaces: [] }] }),
  );
  process.kill(pid!, 'SIGHUP');
  const reloading = (await message('RELOADING')).fields!;
  expect(Number(reloading.MONOTONIC_USEC)).toBeGreaterThan(0);
  expect((await message('READY')).fields!.STATUS).toBe('1 namespace in 2 subsystems, 0 hosts connected');
  fs.writeFileSync(path.join(dir, 'c.json'), '{');
  process.kill(pid!, 'SIGHUP');
  await message('RELOADING');
  expect((await message('READY')).fields!.STATUS).toMatch(/^reload failed: .*c\.json: not valid JSON/);
  process.kill(pid!, 'SIGTERM');
  await message('STOPPING');
  expect((await next(({ event }) => event === 'exit')).status).toBe(0);
});

test('listening sockets survive a kill: hosts wait, and are served by the next server on the same port', async () => {
  if (!python) return skip('a service manager', 'python3 is missing');
  const port = await freePort();
  const config = { listen: [`127.0.0.1:${port}`], discoveryPort: 'none', subsystems: [{ nqn, namespaces: [{ source: 'ram:1M' }] }] };
  await manage(config);
  tell('start');
  const first = await next(({ event }) => event === 'started');
  expect(first.given).toEqual([]);
  const name = `vioctl-listen-127.0.0.1-${port}`;
  expect(await message('FDSTORE')).toMatchObject({ fds: 1, kept: [name], fields: { FDNAME: name } });
  const before = await connectHost({ port, nqn });
  process.kill(first.pid!, 'SIGKILL');
  await next(({ event }) => event === 'exit');
  // nobody serves now: the connection is taken by the kernel, and waits
  const waiting = connectHost({ port, nqn }, { timeout: 30_000 });
  waiting.catch(() => {});
  await new Promise((resolve) => setTimeout(resolve, 300));
  tell('start');
  const second = await next(({ event }) => event === 'started');
  expect(second.given).toEqual([name]);
  const host = await waiting;
  expect((await host.namespace(1)).nsid).toBe(1);
  await host.disconnect();
  before.close();
  // a configuration that does not listen there gives the socket back
  await message('READY');
  fs.writeFileSync(path.join(dir, 'c.json'), JSON.stringify({ ...config, listen: ['127.0.0.2:0'] }));
  process.kill(second.pid!, 'SIGHUP');
  expect((await message('FDSTOREREMOVE')).fields).toMatchObject({ FDNAME: name });
  process.kill(second.pid!, 'SIGTERM');
  expect((await next(({ event }) => event === 'exit')).status).toBe(0);
});

test('a socket of a socket unit is listened on besides the addresses of the configuration', async () => {
  if (!python) return skip('a service manager', 'python3 is missing');
  await manage({ listen: ['127.0.0.1:0'], subsystems: [{ nqn, namespaces: [{ source: 'ram:1M' }] }] });
  tell('open 127.0.0.1 nvmf');
  const { port } = await next(({ event }) => event === 'opened');
  const early = connectHost({ port: port!, nqn }, { timeout: 30_000 });
  early.catch(() => {});
  tell('start');
  const { pid } = await next(({ event }) => event === 'started');
  const host = await early;
  await host.disconnect();
  process.kill(pid!, 'SIGTERM');
  expect((await next(({ event }) => event === 'exit')).status).toBe(0);
});

test('the units are well-formed and hardened, and the template differs in its names alone', () => {
  const units = path.resolve(program, '../../systemd');
  const read = (name: string) => fs.readFileSync(path.join(units, name), 'utf8');
  const plain = (text: string) =>
    text
      .split('\n')
      .filter((line) => !line.startsWith('#'))
      .join('\n');
  expect(
    plain(read('vioctl-nvmf@.service')).replaceAll('nvmf/%i.', 'nvmf.').replaceAll('nvmf-%i.', 'nvmf.').replace('target %i', 'target'),
  ).toBe(plain(read('vioctl-nvmf.service')));
  if (!which('systemd-analyze')) return skip('systemd units of nvmf', 'systemd-analyze is missing');
  const analyze = (...words: string[]) => spawnSync('systemd-analyze', words, { encoding: 'utf8', env: plainEnv({ TERM: 'dumb' }) });
  const files = ['vioctl-nvmf.service', 'vioctl-nvmf@.service', 'vioctl-nvmf.socket'].map((name) => {
    const file = path.join(dir, name.replace('@.', '@x.'));
    fs.writeFileSync(file, read(name).replace(/^(Exec\w+=-?)\S+/gm, '$1/bin/true'));
    return file;
  });
  const verified = analyze('verify', '--man=no', ...files);
  expect({ status: verified.status, said: verified.stderr.split('\n').filter((line) => line.includes('vioctl')) }).toEqual({
    status: 0,
    said: [],
  });
  for (const file of files.filter((one) => one.endsWith('.service'))) {
    // The threshold is in tenths; an exposure above it is a failure.
    const { status, stdout, stderr } = analyze('security', '--offline=yes', '--threshold=20', '--no-pager', file);
    if (/unrecognized option/.test(stderr)) return skip('exposure of the units', 'this systemd-analyze is too old');
    expect({ status, overall: /Overall exposure level.*/.exec(stdout)?.[0] }).toMatchObject({ status: 0 });
  }
});
