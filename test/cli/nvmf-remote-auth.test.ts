/** The native host authenticates: bulk commands, the load generator, and a source that connects again. */
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { formatChapKey, formatTlsKey, noHash } from '../../src/nvme/auth/keys.js';
import { Background } from '../support/background.js';
import { nvmf, type ServedTarget, serveTarget } from '../support/nvme-target.js';
import { NvmeDisk } from '../support/served-disk.js';

const nqn = 'nqn.2014-08.org.nvmexpress:guarded';
const near = 'nqn.2014-08.org.nvmexpress:near';
let dir: string;
let target: ServedTarget;
const at = (name: string): string => path.join(dir, name);
const start = async (port = 0): Promise<void> => {
  const listen = ['--listen', `127.0.0.1:${port}`, '--discovery-port', 'none'];
  target = await serveTarget([at('disk'), '--nqn', nqn, ...listen, '--dhchap-secret-file', at('key')]);
};
const key = (name: string): void =>
  fs.writeFileSync(at(name), `${formatChapKey({ hash: noHash, bytes: randomBytes(32) })}\n`, { mode: 0o600 });
beforeAll(async () => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-auth-'));
  fs.writeFileSync(at('disk'), Buffer.alloc(1 << 20));
  key('key');
  key('wrong');
  await start();
});
afterAll(async () => {
  await target.stop();
  fs.rmSync(dir, { recursive: true, force: true });
});
const host = (verb: string, ...args: string[]): string[] => [verb, '-s', String(target.port), '-n', nqn, ...args];

test('write, read and bench with the key, and without it or with another one', async () => {
  const data = randomBytes(100_000);
  const secret = ['--dhchap-secret-file', at('key')];
  expect(await nvmf(host('write', ...secret, '-i', '2'), { input: data })).toMatchObject({ status: 0 });
  const read = await nvmf(host('read', ...secret, '--count', '100000'));
  expect([read.status, read.stdout.equals(data)]).toEqual([0, true]);
  expect(await nvmf(host('bench', ...secret, '--runtime', '100ms', '-i', '2'))).toMatchObject({ status: 0 });
  expect(await nvmf(host('read'))).toMatchObject({ status: 6, stderr: expect.stringContaining('--dhchap-secret-file') });
  expect(await nvmf(host('read', '--dhchap-secret-file', at('wrong')))).toMatchObject({
    status: 6,
    stderr: expect.stringContaining('authentication'),
  });
});

test('a source authenticates at every connection', async () => {
  const source = `nvme+tcp://127.0.0.1:${target.port}/${nqn}/1,queues=2,dhchap-file=${at('key')}`;
  const server = Background.vioctl(['nvmf', 'serve', source, '--nqn', near, '--listen', '127.0.0.1:0', '--discovery-port', 'none']);
  const [, port] = await server.sees(/on 127\.0\.0\.1:(\d+)/);
  const disk = await NvmeDisk.open(Number(port), near);
  const data = randomBytes(4096);
  expect(await disk.write(0, data)).toBe('ok');
  await target.stop('SIGKILL');
  await start(target.port);
  expect(await disk.flush()).toBe('ok');
  const back = Buffer.alloc(4096);
  expect(await disk.read(0, back)).toBe('ok');
  expect(back.equals(data)).toBe(true);
  disk.close();
  expect(await server.stop()).toBe(0);
});

test('a source by TLS, with keys of both sides: at every connection, and not without them', async () => {
  for (const name of ['tls', 'other']) fs.writeFileSync(at(name), formatTlsKey({ hash: 1, bytes: randomBytes(32) }), { mode: 0o600 });
  key('controller');
  const keys = ['--dhchap-secret-file', at('key'), '--dhchap-ctrl-secret-file', at('controller'), '--tls-key-file', at('tls')];
  const listen = (port: number) => ['--listen', `127.0.0.1:${port}`, '--discovery-port', 'none'];
  fs.writeFileSync(at('secret-disk'), Buffer.alloc(1 << 20));
  let far = await serveTarget([at('secret-disk'), '--nqn', `${nqn}:tls`, ...listen(0), ...keys]);
  const source = `nvme+tcp://127.0.0.1:${far.port}/${nqn}:tls/1`;
  const chap = `dhchap-secret-file=${at('key')},dhchap-ctrl-secret-file=${at('controller')}`;
  const serve = (options: string) => ['serve', `${source},${options}`, '--nqn', near, ...listen(0)];
  const refusals: [string, number, string][] = [
    [chap, 1, 'open nvme+tcp://'],
    [`${chap},tls-key-file=${at('other')}`, 6, 'TLS'],
    [`tls-key-file=${at('tls')}`, 6, 'authentication'],
    [`dhchap-secret-file=${at('key')},dhchap-ctrl-secret-file=${at('wrong')},tls,tls-key-file=${at('tls')}`, 6, 'authentication'],
    [`${chap},tls`, 2, 'tls needs tls-key-file='],
    [`${chap},tls=off,tls-key-file=${at('tls')}`, 2, 'tls=off'],
    [`dhchap-ctrl-secret-file=${at('key')}`, 2, 'needs dhchap-secret-file='],
    [`${chap},tls-key-file=${at('none')}`, 1, 'ENOENT'],
  ];
  for (const [options, status, text] of refusals)
    expect({ options, ...(await nvmf(serve(options))) }).toMatchObject({ options, status, stderr: expect.stringContaining(text) });
  const server = Background.vioctl(['nvmf', ...serve(`${chap},tls-key-file=${at('tls')},queues=2`)]);
  const [, port] = await server.sees(/on 127\.0\.0\.1:(\d+)/);
  const disk = await NvmeDisk.open(Number(port), near);
  const data = randomBytes(8192);
  expect(await disk.write(4096, data)).toBe('ok');
  await far.stop('SIGKILL');
  far = await serveTarget([at('secret-disk'), '--nqn', `${nqn}:tls`, ...listen(far.port), ...keys]);
  expect(await disk.flush()).toBe('ok');
  const back = Buffer.alloc(8192);
  expect(await disk.read(4096, back)).toBe('ok');
  expect(back.equals(data)).toBe(true);
  disk.close();
  expect(await server.stop()).toBe(0);
  await far.stop();
});
