/** Images of Ceph as sources: a real cluster of one node, and what can happen to it. */
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { Background } from '../support/background.js';
import { Ceph, cephMissing } from '../support/ceph.js';
import { vioctl } from '../support/cli.js';
import { RingDisk } from '../support/served-disk.js';
import { skip } from '../support/skip.js';
import { at, lastSocket, refused, running, serve } from '../support/storage-servers.js';
import { eventually } from '../support/wait.js';

const missing = cephMissing();
let ceph: Ceph;
beforeAll(async () => {
  if (!missing) ceph = await Ceph.start();
});
afterAll(() => ceph?.stop());

/** A server of an image, and the commands of a host. */
async function served(image: string, timeout = '3s') {
  const source = `rbd:${image},conf=${ceph.conf},timeout=${timeout}`;
  const server = await serve('nvmf', source, '--control', at('ctl'), '--discovery-port', 'none');
  const { listen, subsystems } = JSON.parse(vioctl(['nvmf', 'ctl', at('ctl'), 'list', '--json']).stdout);
  const host = ['-s', String(listen[0].port), '-n', subsystems[0].nqn];
  return {
    server,
    host,
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
  ceph.run('rbd', 'export', 'disk', at('out'));
  expect(fs.readFileSync(at('out')).subarray(0, 1 << 20)).toEqual(fs.readFileSync(at('data')));
  // the lock of the image keeps a second writer out, and a reader in
  expect(refused('nvmf', `rbd:rbd/disk,conf=${ceph.conf}`)).toMatchObject({ status: 3, stderr: expect.stringContaining('already in use') });
  // a snapshot is read-only, whatever it is asked for
  ceph.run('rbd', 'snap', 'create', 'disk@one');
  expect(write(data(2))).toMatchObject({ status: 0 });
  expect(ctl('add', `rbd:rbd/disk@one,conf=${ceph.conf}`, '--json').stdout).toMatch(/"readOnly": ?true/);
  expect(ctl('remove', '2')).toMatchObject({ status: 0 });
  // a size that changes elsewhere
  ceph.run('rbd', 'resize', '--size', '96M', 'disk');
  await server.sees(/has 100663296 bytes now/);
  // an OSD that stops for less than the time-out is a pause; for longer, a path error, and all is well afterwards
  ceph.signal('SIGSTOP', 'osd');
  spawn('sh', ['-c', `sleep 1; kill -CONT $(cat ${ceph.dir}/osd.p)`], { stdio: 'ignore' });
  expect(write(data(3))).toMatchObject({ status: 0 });
  ceph.signal('SIGSTOP', 'osd');
  const late = write(data(4));
  ceph.signal('SIGCONT', 'osd');
  expect(late).toMatchObject({ status: 1, stderr: expect.stringContaining('Internal Path Error') });
  await sleep(1000);
  expect(write(data(5))).toMatchObject({ status: 0 });
  expect(read(1 << 20)).toMatchObject({ status: 0 });
  expect(fs.readFileSync(at('read'))).toEqual(fs.readFileSync(at('data')));
  const { syncError } = JSON.parse(ctl('list', '--json').stdout).subsystems[0].namespaces[0];
  expect(syncError).toBeUndefined(); // nothing that was answered is lost
});

test('a client that is fenced: path errors and a latch, until the image is opened anew', async () => {
  if (missing) return skip('rbd sources: fenced', `needs ${missing}`);
  ceph.run('rbd', 'create', '--size', '8M', 'fenced');
  const { server, write, ctl } = await served('rbd/fenced');
  expect(write(data(1))).toMatchObject({ status: 0 });
  ceph.fence('fenced');
  await sleep(500);
  let failed = write(data(2));
  for (let tries = 0; failed.status === 0 && tries < 20; tries++) failed = write(data(2)); // OSDs learn of it lazily
  expect(failed).toMatchObject({ status: 1, stderr: expect.stringContaining('Internal Path Error') });
  await server.sees(/fenced this one.*ESHUTDOWN/);
  expect(JSON.parse(ctl('list', '--json').stdout).subsystems[0].namespaces[0]).toMatchObject({ syncError: 'ESHUTDOWN' });
  expect(ctl('reopen', '1')).toMatchObject({ status: 0 });
  expect(write(data(3))).toMatchObject({ status: 0 });
});

test('a guest that goes leaves the lock to others, and nothing to flush', async () => {
  if (missing) return skip('rbd sources: a guest that goes', `needs ${missing}`);
  ceph.run('rbd', 'create', '--size', '8M', 'left');
  const server = await serve('vhost-user', `rbd:rbd/left,conf=${ceph.conf}`);
  const disk = await RingDisk.open(lastSocket());
  expect(await disk.write(0, Buffer.alloc(4096, 1), true)).toBe('ok');
  expect(await disk.write(4096, Buffer.alloc(4096, 1))).toBe('ok');
  disk.close();
  await server.sees(/connection ended/);
  expect(await server.stop()).toBe(0);
  expect(server.stderr).not.toContain('EROFS');
});

test('a cluster that stops holds nobody else up, however much is under way', async () => {
  if (missing) return skip('rbd sources: many requests', `needs ${missing}`);
  // without an object map, which would answer reads of what was never written
  ceph.run('rbd', 'create', '--size', '8M', '--image-feature', 'layering', 'many');
  const { host, ctl } = await served('rbd/many', '10m');
  expect(ctl('add', 'ram:8M')).toMatchObject({ status: 0 });
  ceph.signal('SIGSTOP', 'osd');
  try {
    // more than the 1024 requests that librados takes before it has callers wait
    const many = ['--namespace-id', '1', '--iodepth', '127', '-i', '12', '--runtime', '10m', '--timeout', '10m'];
    const load = Background.vioctl(['nvmf', 'bench', ...host, ...many]);
    running.push(load);
    const outstanding = () =>
      [...ctl('stats', '--json').stdout.matchAll(/"outstanding": ?(\d+)/g)].reduce((sum, [, n]) => sum + Number(n), 0);
    await eventually(() => outstanding() >= 1200);
    expect(outstanding()).toBeGreaterThanOrEqual(1200);
    const reads = vioctl(['nvmf', 'read', ...host, '--namespace-id', '2', '--count', '4096', '-d', at('read')], { timeout: 120_000 });
    expect(reads).toMatchObject({ status: 0 });
    await load.stop('SIGKILL');
  } finally {
    ceph.signal('SIGCONT', 'osd');
  }
});

test('what is not there is named', () => {
  if (missing) return skip('rbd sources: errors', `needs ${missing}`);
  expect(refused('nvmf', `rbd:rbd/none,conf=${ceph.conf}`)).toMatchObject({ status: 1, stderr: expect.stringContaining('ENOENT') });
  expect(refused('nvmf', `rbd:nopool/x,conf=${ceph.conf}`)).toMatchObject({ status: 1, stderr: expect.stringContaining('ENOENT') });
  expect(refused('vhost-user', `rbd:rbd/none,conf=/nowhere`)).toMatchObject({ status: 1, stderr: expect.stringContaining('ENOENT') });
});
