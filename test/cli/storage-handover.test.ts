/** A disk that changes hands between vhost-user servers, and one that changes its size. */

import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { native } from '../../src/native/index.js';
import { OwnedFd } from '../../src/native/owned-fd.js';
import { Window } from '../../src/vhost-user/frontend/window.js';
import { Channel, connect } from '../../src/vhost-user/wire/channel.js';
import { protocolMask } from '../../src/vhost-user/wire/features.js';
import { Background } from '../support/background.js';
import { skip, which } from '../support/skip.js';
import { image, lastSocket, refused, running, serve } from '../support/storage-servers.js';
import { Driver } from '../support/vhost-user.js';
import { eventually } from '../support/wait.js';

describe('vhost-user: whose disk it is', () => {
  /** A front-end of a server. */
  const open = async (server: Background) => Window.open(await connect((await server.sees(/^serving .* at (\S+)$/m))[1]!));
  const starts = async (window: Window): Promise<boolean> =>
    window.start().then(
      () => true,
      () => false,
    );
  /** A ring that was refused is tried again, as the refusal stands for a moment. */
  const startsInTime = async (server: Background): Promise<Window> => {
    for (let tries = 0; tries < 100; tries++) {
      const window = await open(server);
      if (await starts(window)) return window;
      window.close();
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    throw new Error('the ring never started');
  };
  const write = async (window: Window, fill: string): Promise<number> => {
    const header = Buffer.alloc(16);
    header.writeUInt32LE(1);
    return (await new Driver(window).request([header, Buffer.alloc(512, fill)], 1))[0]!;
  };

  test('a live migration: the destination starts meanwhile, and has the disk when the source has let go', async () => {
    const file = image('disk');
    const source = await serve('vhost-user', file);
    const destination = await serve('vhost-user', file, '--incoming');
    const before = await open(source);
    await before.start();
    expect(await write(before, 'source')).toBe(0);
    const early = await open(destination);
    expect(await starts(early)).toBe(false);
    const [line] = await destination.sees(/refused: .*disk: already in use by \S+ \(pid (\d+)\)/);
    expect(line).toContain(`pid ${source.child.pid}`);
    early.close();

    expect(await before.stop(false)).toHaveLength(1);
    const after = await startsInTime(destination);
    expect(await write(after, 'destination')).toBe(0);
    expect(fs.readFileSync(file).subarray(0, 11).toString()).toBe('destination');
    // and the other way round
    expect(await starts(before)).toBe(false);
    await source.sees(new RegExp(`already in use by \\S+ \\(pid ${destination.child.pid}\\)`));
    before.close();
    after.close(); // a front-end that goes lets go as well
    const back = await startsInTime(source);
    expect(await write(back, 'back')).toBe(0);
    back.close();
    // each said it once, not for each of its rings and tries in the same connection
    expect(await source.stop()).toBe(0);
    expect(await destination.stop()).toBe(0);
  });

  test('once its VM has gone, a server has nothing locked: others may use the disk, and it waits for its turn', async () => {
    const file = image('disk');
    const first = await serve('vhost-user', file);
    expect(refused('vhost-user', file).status).toBe(3); // its first VM may come at any time
    let window = await open(first);
    await window.start();
    expect(refused('vhost-user', file).status).toBe(3);
    await window.stop(false);
    window.close();
    if (which('qemu-io'))
      expect(spawnSync('qemu-io', ['-f', 'raw', '-c', 'write -P 7 0 4k', file], { encoding: 'utf8' })).toMatchObject({ status: 0 });
    const second = await serve('nvmf', file);
    window = await open(first);
    expect(await starts(window)).toBe(false);
    await first.sees(new RegExp(`already in use by \\S+ \\(pid ${second.child.pid}\\)`));
    window.close();
    expect(await second.stop()).toBe(0);
    window = await startsInTime(first);
    if (which('qemu-io')) {
      const { status, stderr } = spawnSync('qemu-io', ['-f', 'raw', '-c', 'write 0 4k', file], { encoding: 'utf8' });
      expect([status, stderr]).toEqual([1, expect.stringContaining('lock')]);
    }
    window.close();
    expect(await first.stop()).toBe(0);
  });

  test('a block device changes hands too', async () => {
    const { stdout, status } = spawnSync('losetup', ['-f', '--show', image('disk', 16 << 20)], { encoding: 'utf8' });
    if (process.getuid?.() !== 0 || status !== 0) return skip('devices that change hands', 'needs root and a loop device');
    const device = stdout.trim();
    try {
      const [source, destination] = [await serve('vhost-user', device), await serve('vhost-user', device, '--incoming')];
      expect(spawnSync('mkfs.ext4', ['-q', device]).status).not.toBe(0);
      const before = await open(source);
      await before.start();
      const early = await open(destination);
      expect(await starts(early)).toBe(false);
      early.close();
      await before.stop(false);
      before.close();
      const after = await startsInTime(destination);
      expect(await write(after, 'destination')).toBe(0);
      expect(spawnSync('mkfs.ext4', ['-q', device]).status).not.toBe(0); // claimed (O_EXCL)
      after.close();
      for (const server of [source, destination]) expect(await server.stop()).toBe(0);
    } finally {
      for (const server of running.splice(0)) await server.stop('SIGKILL');
      spawnSync('losetup', ['-d', device]);
    }
  });
});

test('vhost-user: a file that grows or shrinks is announced, and the new size counts at once', async () => {
  const file = image('grow', 1 << 20);
  const server = await serve('vhost-user', file);
  const changes: string[] = [];
  const window = await Window.open(await connect(lastSocket()), {
    want: protocolMask('REPLY_ACK', 'CONFIG', 'BACKEND_REQ'),
  });
  await window.start();
  const [ours, theirs] = native().vhostUser.socketPair();
  const channel = new Channel(new OwnedFd(ours), { peer: 'back-end' });
  channel.start(
    (message) => changes.push(`${message.id}`),
    () => {},
  );
  await window.front.request('SET_BACKEND_REQ_FD', {}, [new OwnedFd(theirs)]);
  const driver = new Driver(window);
  const write = async (sector: bigint): Promise<number> => {
    const header = Buffer.alloc(16);
    header.writeUInt32LE(1);
    header.writeBigUInt64LE(sector, 8);
    return (await driver.request([header, Buffer.alloc(512, 'n')], 1))[0]!;
  };
  expect(await write(3000n)).toBe(1);
  fs.truncateSync(file, 2 << 20);
  await server.sees(/grow has 2097152 bytes now/);
  expect(await write(3000n)).toBe(0);
  fs.truncateSync(file, 1 << 20);
  await server.sees(/grow has 1048576 bytes now/);
  expect(await write(3000n)).toBe(1);
  await eventually(() => changes.length > 0);
  expect(changes[0]).toBe('2'); // BACKEND_CONFIG_CHANGE_MSG
  channel.close();
  window.close();
  expect(await server.stop()).toBe(0);
});
