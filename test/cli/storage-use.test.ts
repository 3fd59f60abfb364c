/** Who may use a source, and what is no disk: the same for both servers. */

import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import { Background } from '../support/background.js';
import { vioctl } from '../support/cli.js';
import { skip, which } from '../support/skip.js';
import { at, both, image, refused, running, serve, servers } from '../support/storage-servers.js';
import { eventually } from '../support/wait.js';

describe.each(both)('%s', (server) => {
  test('a file that is served is refused by both servers, by any name, and free after kill -9', async () => {
    const file = image('disk');
    fs.linkSync(file, at('hard'));
    fs.symlinkSync(file, at('sym'));
    const first = await serve(server, file);
    for (const [other, name] of [
      ['nvmf', 'disk'],
      ['vhost-user', 'disk'],
      [server, 'hard'],
      [server, 'sym'],
      [server, 'disk,ro'],
    ] as const)
      expect(refused(other, at(name))).toEqual({
        status: 3,
        stderr: expect.stringMatching(
          new RegExp(`already in use by \\S+ \\(pid ${first.child.pid}\\)\\n.*hint: ps -fp ${first.child.pid}\\n`),
        ),
      });
    await (await serve(server, file, '--force')).stop();
    await first.stop('SIGKILL');
    expect(await (await serve(server, file)).stop()).toBe(0);
  });

  test('readers share, and keep writers out', async () => {
    const file = image('disk');
    await serve(server, file, '--read-only');
    await (await serve(server, `${file},ro`)).stop();
    expect(refused(server, file).status).toBe(3);
    await serve('nvmf', `${file},ro`);
  });

  test('shared=on: servers that say so share', async () => {
    const file = image('disk');
    await serve(server, `${file},shared=on`);
    expect(refused(server, file).status).toBe(3);
    await serve('nvmf', `${file},shared=on`);
  });

  test('two that start at once: one serves', async () => {
    const file = image('disk');
    const started = [0, 1].map(() => Background.vioctl(servers[server](file)));
    running.push(...started);
    const outcomes = await Promise.all(started.map((one) => one.sees(/^serving |already in use/m).then(([text]) => text)));
    expect(outcomes.filter((text) => text === 'serving ').length).toBeLessThanOrEqual(1);
    expect(outcomes).toContain('already in use');
  });

  test('QEMU and vioctl refuse what the other one has', async () => {
    if (!which('qemu-io')) return skip(`${server}: images in use by QEMU`, 'qemu-io is missing');
    const file = image('disk');
    const qemu = spawn('qemu-io', ['-f', 'raw', file], { stdio: ['pipe', 'pipe', 'ignore'] });
    qemu.stdin.write('write 0 4k\n');
    await once(qemu.stdout, 'data');
    expect(refused(server, file)).toEqual({ status: 3, stderr: expect.stringContaining(`already in use by qemu-io (pid ${qemu.pid})`) });
    qemu.stdin.end('quit\n');
    await once(qemu, 'exit');
    const served = await serve(server, file);
    const { status, stderr } = spawnSync('qemu-io', ['-f', 'raw', '-c', 'write 0 4k', file], { encoding: 'utf8' });
    expect([status, stderr]).toEqual([1, expect.stringContaining('lock')]);
    await served.stop();
  });

  test('a disk of qemu-storage-daemon and vioctl, by any name', async () => {
    if (!which('qemu-storage-daemon')) return skip(`${server}: images in use by qemu-storage-daemon`, 'qemu-storage-daemon is missing');
    const file = image('disk');
    fs.linkSync(file, at('hard'));
    fs.symlinkSync(file, at('sym'));
    const daemon = (name: string) => [
      ...['qemu-storage-daemon', '--blockdev', `driver=file,node-name=f,filename=${at(name)}`],
      ...['--export', `type=vhost-user-blk,id=e,node-name=f,addr.type=unix,addr.path=${at('q')},writable=on`],
    ];
    const qemu = new Background(daemon('disk'));
    running.push(qemu);
    await eventually(() => fs.existsSync(at('q')));
    for (const name of ['disk', 'hard', 'sym', 'disk,ro'])
      expect(refused(server, at(name))).toEqual({
        status: 3,
        stderr: expect.stringMatching(new RegExp(`already in use by qemu-storage-d.* \\(pid ${qemu.child.pid}\\)`)),
      });
    await qemu.stop();
    for (const name of ['sym', 'hard']) {
      const served = await serve(server, at(name));
      for (const other of ['disk', 'hard', 'sym']) {
        const [program, ...args] = daemon(other);
        const { status, stderr } = spawnSync(program!, args, { encoding: 'utf8', timeout: 90_000 });
        expect([status, stderr]).toEqual([1, expect.stringContaining('lock')]);
      }
      await served.stop();
    }
  });

  test('an image of another format is refused unless it is served raw', async () => {
    const file = image('disk', 1 << 20, 'QFI\xfb\0\0\0\x03');
    expect(refused(server, file)).toEqual({
      status: 3,
      stderr: expect.stringMatching(/no raw disk but qcow2.*,format=raw.*\n.*hint: qemu-img convert -O raw /),
    });
    expect(await (await serve(server, `${file},format=raw`)).stop()).toBe(0);
    expect(await (await serve(server, file, '--force')).stop()).toBe(0);
  });

  test('a comma in a file name is written twice', async () => {
    const file = image('a,ro');
    expect(await (await serve(server, file.replace(',', ',,'))).stop()).toBe(0);
    expect(refused(server, at('a,formt=raw'))).toEqual({
      status: 1,
      stderr: expect.stringContaining('"formt=raw" is no option'),
    });
  });
});

test('a mounted device is not served for writing, whole or in part; the file behind a loop device neither', async () => {
  if (process.getuid?.() !== 0 || !which('losetup', 'mkfs.ext4')) return skip('mounted sources', 'needs root and losetup');
  const file = image('fs', 16 << 20);
  spawnSync('mkfs.ext4', ['-q', '-F', file]);
  const { stdout, status } = spawnSync('losetup', ['-f', '--show', file], { encoding: 'utf8' });
  if (status !== 0) return skip('mounted sources', 'no loop device');
  const device = stdout.trim();
  const mount = at('m');
  fs.mkdirSync(mount);
  try {
    expect(spawnSync('mount', [device, mount]).status).toBe(0);
    for (const server of both) {
      expect(refused(server, device)).toEqual({ status: 3, stderr: expect.stringContaining(`already in use: mounted on ${mount}\n`) });
      expect(refused(server, file)).toEqual({
        status: 3,
        stderr: expect.stringContaining(`already in use by loop device ${device.slice(5)}\n`),
      });
    }
    await (await serve('nvmf', `${device},ro`)).stop();
    spawnSync('umount', [mount]);
    const served = await serve('vhost-user', device);
    expect(refused('nvmf', device).stderr).toContain(`(pid ${served.child.pid})`);
    expect(spawnSync('mount', [device, mount]).status).not.toBe(0);
    expect(spawnSync('mkfs.ext4', ['-q', device]).status).not.toBe(0);
    await served.stop();
  } finally {
    spawnSync('umount', [mount]);
    spawnSync('losetup', ['-d', device]);
  }
});

test('ctl add refuses what is in use and what is no disk, as serve does', async () => {
  const [file, other, control] = [image('disk'), image('other', 1 << 20, 'KDMV'), at('ctl')];
  const target = await serve('nvmf', file, '--control', control);
  fs.linkSync(file, at('hard'));
  const add = (...args: string[]) => {
    const { status, stderr } = vioctl(['nvmf', 'ctl', control, 'add', ...args]);
    return [status, stderr];
  };
  expect(add(at('hard'))).toEqual([3, expect.stringContaining('already in use by this process')]);
  expect(add(other)).toEqual([3, expect.stringContaining('no raw disk but vmdk')]);
  expect(add(`${other},format=raw`)).toEqual([0, '']);
  expect(add(at('hard'), '--force')).toEqual([0, '']);
  await target.stop();
});
