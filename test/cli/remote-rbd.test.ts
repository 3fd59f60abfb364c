/** Images of Ceph as sources: a real cluster of one node, and what can happen to it. */
import { spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { vioctl } from '../support/cli.js';
import { skip, which } from '../support/skip.js';
import { at, refused, serve } from '../support/storage-servers.js';

const missing = ['ceph-mon', 'ceph-mgr', 'ceph-osd', 'rbd'].find((program) => which(program) === undefined);
let cluster: string;
const conf = (): string => path.join(cluster, 'ceph.conf');
const run = (program: string, ...args: string[]) => {
  const result = spawnSync(program, ['-c', conf(), ...args], { encoding: 'utf8', timeout: 30_000 });
  if (result.status !== 0) throw new Error(`${program} ${args.join(' ')}: ${result.stderr}`);
  return result.stdout;
};
const pid = (daemon: string): number => Number(fs.readFileSync(path.join(cluster, `${daemon}.p`), 'utf8'));

beforeAll(async () => {
  if (missing) return;
  cluster = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-ceph-'));
  const free = net.createServer().listen(0, '127.0.0.1');
  await new Promise((ready) => free.once('listening', ready));
  const { port } = free.address() as net.AddressInfo;
  await new Promise((closed) => free.close(closed));
  const script = path.resolve(__dirname, '..', 'support', 'programs', 'ceph-one-node.sh');
  const { status, stderr } = spawnSync('bash', [script, cluster, String(port)], { encoding: 'utf8', timeout: 110_000 });
  if (status !== 0) throw new Error(stderr);
}, 120_000);
afterAll(() => {
  if (missing) return;
  for (const daemon of ['osd', 'mgr', 'mon']) process.kill(pid(daemon), 'SIGKILL');
  fs.rmSync(cluster, { recursive: true, maxRetries: 5 });
});

/** A server of an image, and the commands of a host. */
async function served(image: string) {
  const server = await serve('nvmf', `rbd:${image},conf=${conf()},timeout=3s`, '--control', at('ctl'), '--discovery-port', 'none');
  const { listen, subsystems } = JSON.parse(vioctl(['nvmf', 'ctl', at('ctl'), 'list', '--json']).stdout);
  const host = ['-s', String(listen[0].port), '-n', subsystems[0].nqn];
  return {
    server,
    write: (file: string) => vioctl(['nvmf', 'write', ...host, '-d', file], { timeout: 60_000 }),
    read: (bytes: number) => vioctl(['nvmf', 'read', ...host, '--count', String(bytes), '-d', at('read')], { timeout: 60_000 }),
    ctl: (...words: string[]) => vioctl(['nvmf', 'ctl', at('ctl'), ...words], { timeout: 60_000 }),
  };
}
const data = (seed: number, size = 1 << 20): string => {
  const bytes = Buffer.alloc(size);
  for (let i = 0; i < size; i += 4) bytes.writeUInt32LE((i * 2654435761 + seed) >>> 0, i);
  fs.writeFileSync(at('data'), bytes);
  return at('data');
};

test('an image: its data, its size, its lock, a snapshot, and the stops of its cluster', async () => {
  if (missing) return skip('rbd sources', `needs ${missing}`);
  const { server, write, read, ctl } = await served('rbd/disk');
  expect(write(data(1))).toMatchObject({ status: 0 });
  run('rbd', 'export', 'disk', at('out'));
  expect(fs.readFileSync(at('out')).subarray(0, 1 << 20)).toEqual(fs.readFileSync(at('data')));
  // the lock of the image keeps a second writer out, and a reader in
  expect(refused('nvmf', `rbd:rbd/disk,conf=${conf()}`)).toMatchObject({ status: 3, stderr: expect.stringContaining('already in use') });
  // a snapshot is read-only, whatever it is asked for
  run('rbd', 'snap', 'create', 'disk@one');
  expect(write(data(2))).toMatchObject({ status: 0 });
  expect(ctl('add', `rbd:rbd/disk@one,conf=${conf()}`, '--json').stdout).toMatch(/"readOnly": ?true/);
  expect(ctl('remove', '2')).toMatchObject({ status: 0 });
  // a size that changes elsewhere
  run('rbd', 'resize', '--size', '96M', 'disk');
  await server.sees(/has 100663296 bytes now/);
  // an OSD that stops for less than the time-out is a pause; for longer, a path error, and all is well afterwards
  process.kill(pid('osd'), 'SIGSTOP');
  spawn('sh', ['-c', `sleep 1; kill -CONT ${pid('osd')}`], { stdio: 'ignore' });
  expect(write(data(3))).toMatchObject({ status: 0 });
  process.kill(pid('osd'), 'SIGSTOP');
  const late = write(data(4));
  process.kill(pid('osd'), 'SIGCONT');
  expect(late).toMatchObject({ status: 1, stderr: expect.stringContaining('Internal Path Error') });
  await sleep(1000);
  expect(write(data(5))).toMatchObject({ status: 0 });
  expect(read(1 << 20)).toMatchObject({ status: 0 });
  expect(fs.readFileSync(at('read'))).toEqual(fs.readFileSync(at('data')));
  const { syncError } = JSON.parse(ctl('list', '--json').stdout).subsystems[0].namespaces[0];
  expect(syncError).toBeUndefined(); // nothing that was answered is lost
}, 180_000);

test('a client that is fenced: path errors and a latch, until the image is opened anew', async () => {
  if (missing) return skip('rbd sources: fenced', `needs ${missing}`);
  run('rbd', 'create', '--size', '8M', 'fenced');
  const { server, write, ctl } = await served('rbd/fenced');
  expect(write(data(1))).toMatchObject({ status: 0 });
  const address = run('rbd', 'lock', 'ls', 'fenced').trim().split(/\s+/).at(-1)!;
  run('ceph', 'osd', 'blocklist', 'add', address);
  await sleep(500);
  let failed = write(data(2));
  for (let tries = 0; failed.status === 0 && tries < 20; tries++) failed = write(data(2)); // OSDs learn of it lazily
  expect(failed).toMatchObject({ status: 1, stderr: expect.stringContaining('Internal Path Error') });
  await server.sees(/fenced this one.*ESHUTDOWN/);
  expect(JSON.parse(ctl('list', '--json').stdout).subsystems[0].namespaces[0]).toMatchObject({ syncError: 'ESHUTDOWN' });
  expect(ctl('reopen', '1')).toMatchObject({ status: 0 });
  expect(write(data(3))).toMatchObject({ status: 0 });
}, 120_000);

test('what is not there is named', () => {
  if (missing) return skip('rbd sources: errors', `needs ${missing}`);
  expect(refused('nvmf', `rbd:rbd/none,conf=${conf()}`)).toMatchObject({ status: 1, stderr: expect.stringContaining('ENOENT') });
  expect(refused('nvmf', `rbd:nopool/x,conf=${conf()}`)).toMatchObject({ status: 1, stderr: expect.stringContaining('ENOENT') });
  expect(refused('vhost-user', `rbd:rbd/none,conf=/nowhere`)).toMatchObject({ status: 1, stderr: expect.stringContaining('ENOENT') });
}, 60_000);
