/** An independent front-end on `serve blk`: libblkio, behind qemu-io and qemu-img of QEMU 11. */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Background } from '../support/background.js';
import { plainEnv } from '../support/cli.js';
import { skip } from '../support/skip.js';
import { blkioEnv, blkioForTest } from './blkio.js';
import { type Peer, peerForTest } from './peers.js';

const MIB = 1 << 20;
let dir: string;
let peer: Peer | undefined;
let module: string | undefined;
beforeAll(async () => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-blkio-'));
  peer = await peerForTest('sid', 'serve blk under libblkio');
  module = peer && (await blkioForTest('serve blk under libblkio'));
});
afterAll(() => fs.rmSync(dir, { recursive: true }));

test.each(['uring', 'sync'])('engine %s: what qemu-io writes, zeroes and discards reads back, and is in the file', async (engine) => {
  if (!peer || !module) return;
  const [socket, file] = [path.join(dir, 's'), path.join(dir, 'img')];
  fs.writeFileSync(file, Buffer.alloc(64 * MIB));
  const server = Background.vioctl(['vhost-user', 'serve', 'blk', `${socket}=${file}`, '--engine', engine]);
  const options = ['--image-opts', `driver=virtio-blk-vhost-user,path=${socket},cache.direct=on`];
  const run = (program: string, ...args: string[]) => {
    const [command, ...rest] = peer!.argv([program, ...args], [module!]);
    return spawnSync(command, rest, { encoding: 'utf8', timeout: 60_000, env: { ...plainEnv(), ...blkioEnv(module!) } });
  };
  try {
    await server.sees(/^serving /m);
    const commands = [
      'write -P 0x5a 4096 1M',
      'aio_write -P 0xa5 8M 64k',
      'aio_write -P 0xa6 9M 64k',
      'aio_flush',
      'read -P 0x5a 4096 1M',
      'read -P 0xa5 8M 64k',
      'read -P 0xa6 9M 64k',
      'write -z 8192 4096',
      'read -P 0 8192 4096',
      'discard 8M 64k',
      'flush',
    ];
    const io = run('qemu-io', ...options, ...commands.flatMap((command) => ['-c', command]));
    if (/Unknown driver|Unknown protocol/.test(io.stderr))
      return skip('serve blk under libblkio', 'its module is of another QEMU; remove both from the cache');
    expect({ status: io.status, stderr: io.stderr }).toEqual({ status: 0, stderr: '' });
    expect(io.stdout).not.toMatch(/Pattern verification failed/);
    const image = fs.readFileSync(file);
    const filled = (from: number, to: number, byte: number): boolean => image.subarray(from, to).equals(Buffer.alloc(to - from, byte));
    expect([filled(0, 4096, 0), filled(4096, 8192, 0x5a), filled(8192, 12288, 0), filled(12288, 4096 + MIB, 0x5a)]).toEqual([
      true,
      true,
      true,
      true,
    ]);
    expect(filled(9 * MIB, 9 * MIB + 65536, 0xa6)).toBe(true);
    for (const words of [['-w', '--pattern=7'], []]) {
      const bench = run('qemu-img', 'bench', '-c', '2000', '-d', '32', '-s', '4096', ...words, ...options);
      expect({ status: bench.status, stderr: bench.stderr }).toEqual({ status: 0, stderr: '' });
    }
    expect(
      fs
        .readFileSync(file)
        .subarray(0, 2000 * 4096)
        .equals(Buffer.alloc(2000 * 4096, 7)),
    ).toBe(true);
    expect(await server.stop()).toBe(0);
    expect(server.stderr).toMatch(/ 0 errors/);
  } finally {
    await server.stop('SIGKILL');
  }
});
