/** TLS of single listeners: what each admits, what discovery says of each, and how that changes while the target runs. */
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { formatTlsKey } from '../../src/nvme/auth/keys.js';
import { tlsPsk } from '../../src/nvme/auth/tls-psk.js';
import { Controller, Namespace } from '../../src/nvme/host/index.js';
import { nvmf, type ServedTarget, serveTarget } from '../support/nvme-target.js';

const nqn = 'nqn.2014-08.org.example:listeners';
const hostnqn = 'nqn.2014-08.org.example:host';
const psk = { hash: 1, bytes: randomBytes(32) };
let dir: string;
const at = (name: string) => path.join(dir, name);
const key = () => ['--tls-key-file', at('key')];
beforeAll(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'nvmf-listeners-'));
  fs.writeFileSync(at('key'), formatTlsKey(psk), { mode: 0o600 });
});
afterAll(() => fs.rmSync(dir, { recursive: true, force: true }));

interface Place {
  address: string;
  port: number;
}
const listening = (target: ServedTarget) => (target.document as { listen: Place[] }).listen;
const host = ({ address, port }: Place) => ['-a', address, '-s', String(port), '-q', hostnqn];
/** Exit statuses of a host with the key, and of one without. */
const admits = async (place: Place) => {
  const identify = ['identify', ...host(place), '-n', nqn, '--json'];
  return [(await nvmf([...identify, ...key()])).status, (await nvmf(identify)).status];
};
/** What the discovery log says, by address: SECTYPE and TREQ. */
const told = async (place: Place, ...keys: string[]) => {
  const { status, stdout, stderr } = await nvmf(['discover', ...host(place), ...keys, '--json']);
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  const records: { traddr: string; trsvcid: string; sectype: string; treq: string }[] = JSON.parse(stdout.toString()).records;
  return Object.fromEntries(records.map(({ traddr, sectype, treq }) => [traddr, `${sectype} ${treq.split(',')[0]}`]));
};
const ctl = async (...args: string[]) => {
  const { status, stdout, stderr } = await nvmf(['ctl', at('ctl'), ...args]);
  expect({ args, status, stderr }).toEqual({ args, status: 0, stderr: '' });
  return stdout.toString();
};

const required = 'tls13 required';
const allowed = 'tls13 not required';
const none = 'none not specified';

test('each listener is as it was told, and discovery says so of each', async () => {
  const listen = ['127.0.0.1:0', '127.0.0.2:0,tls=allow', '127.0.0.3:0,tls=off', '127.0.0.4:0,tls=required'].flatMap((one) => [
    '--listen',
    one,
  ]);
  const target = await serveTarget(['ram:4M', '--nqn', nqn, ...key(), ...listen, '--control', at('ctl')]);
  const [usual, choice, plain, always] = listening(target) as [Place, Place, Place, Place];
  expect(await admits(usual)).toEqual([0, 1]);
  expect(await admits(choice)).toEqual([0, 0]);
  expect(await admits(plain)).toEqual([6, 0]);
  expect(await admits(always)).toEqual([0, 1]);
  const all = { '127.0.0.1': required, '127.0.0.2': allowed, '127.0.0.3': none, '127.0.0.4': required };
  expect(await told(usual, ...key())).toEqual(all);
  expect(await told(plain)).toEqual(all);
  const { listeners } = JSON.parse(await ctl('list', '--json'));
  expect(listeners.map(({ tls }: { tls?: string }) => tls)).toEqual(['require', 'allow', undefined, 'require']);
  const text = await ctl('list');
  expect(text).toMatch(/^listening on 127\.0\.0\.2 port \d+, TLS allowed$/m);
  expect(text).toMatch(/^listening on 127\.0\.0\.3 port \d+$/m);
  expect(await target.stop()).toBe(0);
});

test('listeners come, change and are saved; hosts that are connected stay', async () => {
  const config = { control: at('ctl'), listen: ['127.0.0.1:0'], tls: 'off', discoveryPort: 'none', keys: [{ tlsKeyFile: 'key' }] };
  const subsystems = [{ nqn, namespaces: [{ source: 'ram:4M' }] }];
  fs.writeFileSync(at('config.json'), JSON.stringify({ ...config, subsystems }));
  const target = await serveTarget(['--config', at('config.json')]);
  const [first] = listening(target) as [Place];
  expect(await admits(first)).toEqual([6, 0]);
  await ctl('listener', 'add', '127.0.0.2:0', '--tls', 'require');
  const second = { address: '127.0.0.2', port: JSON.parse(await ctl('list', '--json')).listeners[1].port };
  const place = ({ address, port }: Place) => `${address}:${port}`;
  expect(await admits(second)).toEqual([0, 1]);
  expect(await ctl('listener', 'add', place(second), '--tls', 'require')).toMatch(/already done/);
  expect((await nvmf(['ctl', at('ctl'), 'listener', 'add', place(second), '--tls', 'allow'])).status).toBe(3);
  expect((await nvmf(['ctl', at('ctl'), 'listener', 'add', place(second)])).status).toBe(3);

  const saved = JSON.parse(await ctl('save'));
  expect(saved).toMatchObject({ tls: 'off', listen: ['127.0.0.1:0', `${place(second)},tls=require`] });
  const load = (listen: string[], ...options: string[]) => {
    fs.writeFileSync(at('next.json'), JSON.stringify({ ...saved, listen }));
    return ctl('load', at('next.json'), ...options);
  };
  expect(await load(saved.listen)).toMatch(/nothing differs/);

  // hosts stay while TLS of their listener changes
  const { address, port } = second;
  const ends = { address, port, timeout: 90_000, subnqn: nqn, hostnqn, hostid: Buffer.alloc(16, 5), ioQueues: 1 };
  const secured = await Controller.connect({ ...ends, tls: [tlsPsk(psk, hostnqn, nqn)] });
  const listen = (tls: string) => ['127.0.0.1:0', `${place(second)},tls=${tls}`];
  expect(await load(listen('allow'), '--dry-run')).toContain(`TLS allowed on ${place(second)} for new connections`);
  expect(await load(listen('allow'))).toContain(`TLS allowed on ${place(second)} for new connections`);
  expect(await admits(second)).toEqual([0, 0]);
  expect(await told(second, ...key())).toEqual({ '127.0.0.1': none, '127.0.0.2': allowed });
  const plain = await Controller.connect(ends);
  await load(listen('require'));
  expect(await admits(second)).toEqual([0, 1]);
  for (const controller of [secured, plain]) {
    const disk = new Namespace(controller, await controller.namespace(1));
    const [block, back] = [randomBytes(512), Buffer.alloc(512)];
    await disk.write(3n, block);
    await disk.read(3n, back);
    expect(back.equals(block)).toBe(true);
    await controller.disconnect();
  }
  const again = await ctl('save');
  fs.writeFileSync(at('next.json'), again);
  expect(await ctl('load', at('next.json'), '--check')).toMatch(/nothing differs/);
  expect(await target.stop()).toBe(0);
});

test('the discovery port of an address has the TLS of its listeners; where they differ, hosts choose', async () => {
  const target = await serveTarget([
    'ram:4M',
    '--nqn',
    nqn,
    ...key(),
    '--listen',
    '127.0.0.5:0,tls=off',
    '--discovery-port',
    '0',
    '--control',
    at('ctl'),
  ]);
  const listeners = async () => JSON.parse(await ctl('list', '--json')).listeners as (Place & { discoveryOnly: boolean; tls?: string })[];
  const discovery = async () => (await listeners()).find(({ discoveryOnly }) => discoveryOnly)!;
  const port = await discovery();
  expect(port.tls).toBeUndefined();
  expect(Object.values(await told(port))).toEqual([none]);
  await ctl('listener', 'add', '127.0.0.5:0', '--tls', 'require');
  expect((await discovery()).tls).toBe('allow');
  await told(port);
  await told(port, ...key());
  const off = (await listeners()).find(({ discoveryOnly, tls }) => !discoveryOnly && !tls)!;
  await ctl('listener', 'remove', `127.0.0.5:${off.port}`);
  expect((await discovery()).tls).toBe('require');
  expect((await nvmf(['discover', ...host(port)])).status).toBe(1);
  expect(await target.stop()).toBe(0);
});

test.each([
  [['--listen', '127.0.0.1:0,tls=require'], /TLS cannot be required without a key/],
  [['--listen', '127.0.0.1:0,tls=allow'], /TLS cannot be allowed without a key/],
  [['--listen', '127.0.0.1:0,tls=maybe'], /tls= is one of allow, require, off/],
  [['--listen', '127.0.0.1:0,tls=off,tls=off'], /"tls=off"/],
  [['--listen', '127.0.0.1:0,tls='], /"tls="/],
])('%j: usage error', async (listen, message) => {
  const { status, stderr } = await nvmf(['serve', 'ram:1M', ...listen]);
  expect({ status, stderr }).toEqual({ status: 2, stderr: expect.stringMatching(message) });
});

test('tls=off needs no key', async () => {
  const target = await serveTarget(['ram:1M', '--nqn', nqn, '--listen', '127.0.0.1:0,tls=off']);
  expect(await admits(listening(target)[0]!)).toEqual([6, 0]);
  expect(await target.stop()).toBe(0);
});
