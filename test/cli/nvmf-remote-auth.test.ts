/** The native host authenticates: bulk commands, the load generator, and a source that connects again. */
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { formatChapKey, noHash } from '../../src/nvme/auth/keys.js';
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
}, 30_000);

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
}, 30_000);
