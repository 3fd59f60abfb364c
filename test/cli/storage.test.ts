/** What both servers do with their sources: who may use one, what is no disk, and what a failed sync means. */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { native } from '../../src/native/index.js';
import { OwnedFd } from '../../src/native/owned-fd.js';
import { AdminOpcode, Cns, featureCmd, identifyNamespace, NvmOpcode, rwCmd, sqe } from '../../src/nvme/wire/index.js';
import { Window } from '../../src/vhost-user/frontend/window.js';
import { Channel, connect } from '../../src/vhost-user/wire/channel.js';
import { deviceByName } from '../../src/vhost-user/wire/devices.js';
import { protocolMask, VirtioF } from '../../src/vhost-user/wire/features.js';
import { Background } from '../support/background.js';
import { plainEnv, program, vioctl } from '../support/cli.js';
import { FaultDisk, noFaultDisk } from '../support/fault-disk.js';
import { connectHost, serveTarget } from '../support/nvme-target.js';
import { skip, which } from '../support/skip.js';
import { Driver } from '../support/vhost-user.js';

let dir: string;
const running: Background[] = [];
beforeEach(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-storage-'));
});
afterEach(async () => {
  for (const server of running.splice(0)) await server.stop('SIGKILL');
  fs.rmSync(dir, { recursive: true });
});
const image = (name: string, size = 1 << 20, head = ''): string => {
  const file = path.join(dir, name);
  fs.writeFileSync(file, Buffer.from(head, 'latin1'));
  fs.truncateSync(file, size);
  return file;
};

let sockets = 0;
/** Each server as a command line over a source. */
const servers = {
  nvmf: (source: string, ...more: string[]) => ['nvmf', 'serve', source, '--listen', '127.0.0.1:0', ...more],
  'vhost-user': (source: string, ...more: string[]) => [
    'vhost-user',
    'serve',
    'blk',
    path.join(dir, `s${sockets++}`),
    '--file',
    source,
    ...more,
  ],
} as const;
type Server = keyof typeof servers;
const both: Server[] = ['nvmf', 'vhost-user'];

async function serve(server: Server, source: string, ...more: string[]): Promise<Background> {
  const started = Background.vioctl(servers[server](source, ...more));
  running.push(started);
  await started.sees(/^serving /m);
  return started;
}
const refused = (server: Server, source: string, ...more: string[]) => {
  const { status, stderr, stdout } = vioctl(servers[server](source, ...more));
  expect(stdout).toBe('');
  return { status, stderr };
};

describe.each(both)('%s', (server) => {
  test('a file that is served is refused by both servers, by any name, and free after kill -9', async () => {
    const file = image('disk');
    fs.linkSync(file, path.join(dir, 'hard'));
    fs.symlinkSync(file, path.join(dir, 'sym'));
    const first = await serve(server, file);
    for (const [other, name] of [
      ['nvmf', 'disk'],
      ['vhost-user', 'disk'],
      [server, 'hard'],
      [server, 'sym'],
      [server, 'disk,ro'],
    ] as const)
      expect(refused(other, path.join(dir, name))).toEqual({
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
    fs.linkSync(file, path.join(dir, 'hard'));
    fs.symlinkSync(file, path.join(dir, 'sym'));
    const daemon = (name: string) => [
      ...['qemu-storage-daemon', '--blockdev', `driver=file,node-name=f,filename=${path.join(dir, name)}`],
      ...['--export', `type=vhost-user-blk,id=e,node-name=f,addr.type=unix,addr.path=${path.join(dir, 'q')},writable=on`],
    ];
    const qemu = new Background(daemon('disk'));
    running.push(qemu);
    for (let i = 0; !fs.existsSync(path.join(dir, 'q')) && i < 200; i++) await new Promise((resolve) => setTimeout(resolve, 50));
    for (const name of ['disk', 'hard', 'sym', 'disk,ro'])
      expect(refused(server, path.join(dir, name))).toEqual({
        status: 3,
        stderr: expect.stringMatching(new RegExp(`already in use by qemu-storage-d.* \\(pid ${qemu.child.pid}\\)`)),
      });
    await qemu.stop();
    for (const name of ['sym', 'hard']) {
      const served = await serve(server, path.join(dir, name));
      for (const other of ['disk', 'hard', 'sym']) {
        const [program, ...args] = daemon(other);
        const { status, stderr } = spawnSync(program!, args, { encoding: 'utf8', timeout: 20_000 });
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
    expect(refused(server, path.join(dir, 'a,formt=raw'))).toEqual({
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
  const mount = path.join(dir, 'm');
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
}, 60_000);

test('a device with blocks of 4096 bytes is served with them', async () => {
  const { stdout, status } = spawnSync('losetup', ['-f', '--show', '-b', '4096', image('big', 16 << 20)], { encoding: 'utf8' });
  if (process.getuid?.() !== 0 || status !== 0) return skip('devices with 4096-byte blocks', 'needs root and losetup -b');
  const device = stdout.trim();
  try {
    const target = await serveTarget([device]);
    expect(target.namespaces[0]).toMatchObject({ blockSize: 4096, size: 16 << 20 });
    const host = await connectHost(target, { ioQueues: 1 });
    const at = rwCmd.encode({ slba: 1n, nlb: 0 }, sqe.encode({ opcode: NvmOpcode.write, nsid: 1 }));
    expect((await host.queues[0]!.send(at, { out: Buffer.alloc(4096, 'w') })).status.sc).toBe(0);
    const identified = identifyNamespace.decode(await host.identifyData(Cns.namespace, 1));
    expect(identified).toMatchObject({ nsfeat: 0x12, npwg: 0, npwa: 0, nawun: 0, nawupf: 0, noiob: 0 });
    expect(await target.stop()).toBe(0);
    for (const server of both)
      expect(refused(server, `${device},bs=512`)).toEqual({ status: 2, stderr: expect.stringContaining('blocks of 4096 bytes') });
    await serve('vhost-user', device);
    const window = await Window.open(await connect(path.join(dir, `s${sockets - 1}`)));
    await window.start();
    const config = deviceByName('blk')!.config!.decode(Buffer.from((await window.front.config(0, 96))!));
    expect(config).toMatchObject({ capacity: BigInt((16 << 20) / 512), blk_size: 4096, physical_block_exp: 0, alignment_offset: 0 });
    expect(config.discard_sector_alignment).toBeGreaterThanOrEqual(8);
    const driver = new Driver(window);
    const read = Buffer.alloc(16);
    read.writeBigUInt64LE(8n, 8);
    expect(await driver.request([read], 4097)).toEqual(Buffer.concat([Buffer.alloc(4096, 'w'), Buffer.from([0])]));
    window.close();
  } finally {
    for (const server of running.splice(0)) await server.stop();
    spawnSync('losetup', ['-d', device]);
  }
}, 60_000);

describe('identity', () => {
  const nqn = 'nqn.2014-08.org.example:identity';
  const idsUnder = async (name: string, ...args: string[]): Promise<string[]> => {
    const target = await serveTarget([...args, '--nqn', name]);
    const ids = target.namespaces.map((ns) => ns.nguid);
    expect(await target.stop()).toBe(0);
    return ids;
  };
  const idsOf = (...args: string[]) => idsUnder(nqn, ...args);

  test('a renamed file keeps it, a copy has its own, two servers of one file give the same', async () => {
    const file = image('disk');
    const [first] = await idsOf(file);
    fs.renameSync(file, `${file}2`);
    expect(await idsOf(`${file}2`)).toEqual([first]);
    fs.copyFileSync(`${file}2`, file);
    expect(await idsOf(file)).not.toEqual([first]);
    const targets = await Promise.all([0, 1].map(() => serveTarget([`${file}2,shared=on`, '--nqn', nqn])));
    expect(targets.map((target) => target.namespaces[0]!.nguid)).toEqual([first, first]);
    for (const target of targets) expect(await target.stop()).toBe(0);
    expect(await idsUnder(`${nqn}2`, `${file}2`)).not.toEqual([first]);
  });

  test('uuid= and nguid= give it, once in a subsystem; --state-dir keeps what a source was called', async () => {
    const [a, b, states] = [image('a'), image('b'), path.join(dir, 'state')];
    const nguid = '00112233445566778899aabbccddeeff';
    expect(await idsOf(`${a},nguid=${nguid}`)).toEqual([nguid]);
    const uuid = '6ba7b810-9dad-11d1-80b4-00c04fd430c8';
    const [given] = await idsOf(`${a},uuid=${uuid}`);
    expect(await idsOf(`${b},uuid=${uuid}`)).toEqual([given]); // a copy takes its place
    expect(refused('nvmf', `${a},uuid=${uuid}`, `${b},uuid=${uuid}`)).toEqual({
      status: 3,
      stderr: expect.stringMatching(/namespace 1 of \S+ has this UUID already\n.*hint: append ,uuid=/),
    });
    expect(refused('nvmf', `${a},uuid=x`).status).toBe(2);
    const [plain] = await idsOf(a);
    expect(await idsOf(a, '--state-dir', states)).toEqual([plain]);
    const file = path.join(states, 'identities.json');
    const state = JSON.parse(fs.readFileSync(file, 'utf8'));
    state.sources[0].identity = 'what an older kernel called it';
    fs.writeFileSync(file, JSON.stringify(state));
    const [kept] = await idsOf(a, '--state-dir', states);
    expect(kept).not.toBe(plain);
    expect(await idsOf(a, '--state-dir', states)).toEqual([kept]);
    fs.writeFileSync(file, 'no state');
    for (const server of both)
      expect(refused(server, a, '--state-dir', states)).toEqual({
        status: 5,
        stderr: expect.stringMatching(/identities\.json is damaged: .*\n.*hint: .*rm /),
      });
  });
});

test('ctl add refuses what is in use and what is no disk, as serve does', async () => {
  const [file, other, control] = [image('disk'), image('other', 1 << 20, 'KDMV'), path.join(dir, 'ctl')];
  const target = await serve('nvmf', file, '--control', control);
  fs.linkSync(file, path.join(dir, 'hard'));
  const add = (...args: string[]) => {
    const { status, stderr } = vioctl(['nvmf', 'ctl', control, 'add', ...args]);
    return [status, stderr];
  };
  expect(add(path.join(dir, 'hard'))).toEqual([3, expect.stringContaining('already in use by this process')]);
  expect(add(other)).toEqual([3, expect.stringContaining('no raw disk but vmdk')]);
  expect(add(`${other},format=raw`)).toEqual([0, '']);
  expect(add(path.join(dir, 'hard'), '--force')).toEqual([0, '']);
  await target.stop();
});

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
  }, 60_000);

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
  }, 60_000);

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
  }, 60_000);
});

test('vhost-user: a file that grows or shrinks is announced, and the new size counts at once', async () => {
  const file = image('grow', 1 << 20);
  const server = await serve('vhost-user', file);
  const changes: string[] = [];
  const window = await Window.open(await connect(path.join(dir, `s${sockets - 1}`)), {
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
  for (let i = 0; i < 100 && changes.length === 0; i++) await new Promise((resolve) => setTimeout(resolve, 20));
  expect(changes[0]).toBe('2'); // BACKEND_CONFIG_CHANGE_MSG
  channel.close();
  window.close();
  expect(await server.stop()).toBe(0);
});

describe('data', () => {
  const MiB = 1 << 20;
  const allocated = (file: string): number => {
    const fd = fs.openSync(file, 'r');
    fs.fsyncSync(fd); // delayed allocation counts as none
    fs.closeSync(fd);
    return fs.statSync(file).blocks * 512;
  };
  /** Writes 64 KiB at a MiB of the disk: through NVMe, or through a virtqueue. */
  interface Disk {
    pid: number;
    write: (mebibyte: number, fill: number | string) => Promise<void>;
    read: (mebibyte: number) => Promise<Buffer>;
    flush: () => Promise<void>;
    end: () => Promise<void>;
  }
  async function writer(server: Server, engine: string, source: string): Promise<Disk> {
    const body = (fill: number | string): Buffer => Buffer.alloc(65536, fill);
    if (server === 'nvmf') {
      const target = await serveTarget([source, '--engine', engine]);
      const host = await connectHost(target, { ioQueues: 1 });
      const run = async (opcode: number, at: number, transfer?: { out: Buffer } | { into: Buffer }) => {
        const command = rwCmd.encode({ slba: BigInt((at * MiB) / blockSize), nlb: 65536 / blockSize - 1 }, sqe.encode({ opcode, nsid: 1 }));
        expect((await host.queues[0]!.send(command, transfer)).status.sc).toBe(0);
      };
      const { blockSize } = target.namespaces[0]!;
      return {
        pid: target.child.pid!,
        read: async (at) => {
          const into = Buffer.alloc(65536);
          await run(NvmOpcode.read, at, { into });
          return into;
        },
        flush: () => run(NvmOpcode.flush, 0),
        write: (at, fill) => run(NvmOpcode.write, at, { out: body(fill) }),
        end: async () => expect(await target.stop()).toBe(0),
      };
    }
    const started = await serve(server, source, '--engine', engine);
    const window = await Window.open(await connect(path.join(dir, `s${sockets - 1}`)));
    await window.start();
    const driver = new Driver(window);
    const run = async (type: number, at: number, out: Buffer[], inSize: number): Promise<Buffer> => {
      const header = Buffer.alloc(16);
      header.writeUInt32LE(type);
      header.writeBigUInt64LE(BigInt(at * 2048), 8);
      const answer = await driver.request([header, ...out], inSize + 1);
      expect(answer[inSize]).toBe(0);
      return answer.subarray(0, inSize);
    };
    return {
      pid: started.child.pid!,
      read: (at) => run(0, at, [], 65536),
      flush: async () => void (await run(4, 0, [], 0)),
      write: async (at, fill) => void (await run(1, at, [body(fill)], 0)),
      end: async () => {
        window.close();
        expect(await started.stop()).toBe(0);
      },
    };
  }

  test.each([
    ['nvmf', 'sync'],
    ['nvmf', 'uring'],
    ['vhost-user', 'sync'],
    ['vhost-user', 'io_uring'],
  ] as const)('%s, engine %s: a hole stays one; zero=unmap makes holes, zero=off none', async (server, engine) => {
    const file = image('sparse', 8 * MiB);
    fs.writeSync(fs.openSync(`${file}2`, 'w'), Buffer.alloc(65536));
    if (allocated(file) !== 0 || allocated(`${file}2`) < 65536) return skip('sparse files', 'the file system of the tests has none');
    let disk = await writer(server, engine, file);
    await disk.write(1, 0);
    expect(allocated(file)).toBe(0);
    await disk.write(2, 'data');
    await disk.write(2, 0); // over data: the space stays, the data goes
    await disk.write(3, 'data');
    expect(allocated(file)).toBeGreaterThanOrEqual(2 * 65536);
    await disk.end();
    const contents = fs.readFileSync(file);
    expect(contents.subarray(MiB, 3 * MiB).equals(Buffer.alloc(2 * MiB))).toBe(true);
    expect(contents.subarray(3 * MiB, 3 * MiB + 65536).equals(Buffer.alloc(65536, 'data'))).toBe(true);
    disk = await writer(server, engine, `${file},zero=unmap`);
    await disk.write(2, 0);
    await disk.write(3, 0);
    await disk.end();
    expect(allocated(file)).toBe(0);
    expect(fs.readFileSync(file).equals(Buffer.alloc(8 * MiB))).toBe(true);
    disk = await writer(server, engine, `${file},zero=off`);
    await disk.write(1, 0);
    await disk.end();
    expect(allocated(file)).toBeGreaterThanOrEqual(65536);
  });

  /** Numbers of the buffers that the rings of a process know. */
  const registeredBuffers = (pid: number): string[] =>
    fs
      .readdirSync(`/proc/${pid}/fdinfo`)
      .flatMap((fd) => /^UserBufs:\s+(\d+)/m.exec(fs.readFileSync(`/proc/${pid}/fdinfo/${fd}`, 'utf8'))?.[1] ?? []);

  test.each([
    ['nvmf', 'sync', 512],
    ['nvmf', 'uring', 4096],
    ['vhost-user', 'sync', 4096],
    ['vhost-user', 'io_uring', 512],
  ] as const)(
    '%s, engine %s, blocks of %d: direct=on does not use the page cache, whatever buffers a guest has',
    async (server, engine, bs) => {
      const file = image('direct', 8 * MiB);
      try {
        fs.closeSync(fs.openSync(file, fs.constants.O_RDWR | fs.constants.O_DIRECT));
      } catch {
        return skip('direct=on', 'the file system of the tests has no O_DIRECT');
      }
      const disk = await writer(server, engine, `${file},direct=on,bs=${bs}`);
      const flags = fs
        .readdirSync(`/proc/${disk.pid}/fd`)
        .filter((fd) => fs.readlinkSync(`/proc/${disk.pid}/fd/${fd}`) === file)
        .map((fd) => Number.parseInt(/^flags:\s+(\d+)/m.exec(fs.readFileSync(`/proc/${disk.pid}/fdinfo/${fd}`, 'utf8'))![1]!, 8));
      expect(flags.map((bits) => bits & fs.constants.O_DIRECT)).toEqual([fs.constants.O_DIRECT]);
      for (const [at, fill] of [
        [1, 'one'],
        [2, 'two'],
        [2, 0],
      ] as const)
        await disk.write(at, fill);
      await disk.flush();
      expect(await disk.read(1)).toEqual(Buffer.alloc(65536, 'one'));
      expect(await disk.read(2)).toEqual(Buffer.alloc(65536));
      if (engine === 'io_uring') expect(registeredBuffers(disk.pid)).toContain('8'); // the guest's are not aligned
      await disk.end();
      expect(fs.readFileSync(file).subarray(MiB, MiB + 65536)).toEqual(Buffer.alloc(65536, 'one'));
    },
  );
});

describe('write-through', () => {
  const missing = noFaultDisk();
  /** What reaches the disk while `use` runs: true if a sync ends it. */
  async function synced(disk: FaultDisk, use: () => Promise<unknown>): Promise<boolean> {
    const before = (await disk.ops()).length;
    await use();
    const ops = (await disk.ops()).slice(before);
    expect(ops).toContain('write');
    return ops.lastIndexOf('fsync') > ops.lastIndexOf('write');
  }

  test.each(['sync', 'uring'])(
    'nvmf, engine %s: a host that switches the write cache off has durable writes, other hosts their cache',
    async (engine) => {
      if (missing) return skip(`nvmf ${engine}: write-through`, missing);
      const disk = await FaultDisk.open(8 << 20);
      try {
        const target = await serveTarget([disk.file, '--engine', engine]);
        const [host, other] = [await connectHost(target, { ioQueues: 1 }), await connectHost(target, { ioQueues: 1 })];
        const write = (who: typeof host, opcode: number = NvmOpcode.write) =>
          who.queues[0]!.send(
            rwCmd.encode({ slba: 0n, nlb: 7 }, sqe.encode({ opcode, nsid: 1 })),
            opcode === NvmOpcode.write ? { out: Buffer.alloc(4096, 'w') } : undefined,
          );
        const cache = async (value?: number): Promise<number> => {
          const opcode = value === undefined ? AdminOpcode.getFeatures : AdminOpcode.setFeatures;
          const { status, dw0 } = await host.admin.send(
            featureCmd.encode({ fid: 6, value: value ?? 0 }, sqe.encode({ opcode })),
            undefined,
          );
          expect(status.sc).toBe(0);
          return dw0 & 1;
        };
        expect(await cache()).toBe(1);
        expect(await synced(disk, () => write(host))).toBe(false);
        // what the cache holds is durable before the answer comes
        expect(await synced(disk, async () => [await write(host), await cache(0)])).toBe(true);
        expect(await cache()).toBe(0);
        for (let i = 0; i < 3; i++) expect(await synced(disk, () => write(host))).toBe(true);
        expect(await synced(disk, async () => [await write(host), await write(host, NvmOpcode.writeZeroes)])).toBe(true);
        expect(await synced(disk, () => write(other))).toBe(false);
        await cache(1);
        expect(await synced(disk, () => write(host))).toBe(false);
        await cache(0);
        await disk.set({ fail_syncs: 1 });
        expect((await write(host)).status.sct).toBe(2);
        await disk.set({ fail_syncs: 0 });
        expect((await write(host)).status.sct).toBe(2);
        expect((await write(other)).status.sct).toBe(0);
        await target.stop();
      } finally {
        await disk.close();
      }
    },
    60_000,
  );

  test.each(['sync', 'io_uring'])(
    'vhost-user, engine %s: a driver without VIRTIO_BLK_F_FLUSH has durable writes',
    async (engine) => {
      if (missing) return skip(`vhost-user ${engine}: write-through`, missing);
      const disk = await FaultDisk.open(8 << 20);
      try {
        await serve('vhost-user', disk.file, '--engine', engine);
        const header = (type: number): Buffer => {
          const bytes = Buffer.alloc(16);
          bytes.writeUInt32LE(type);
          return bytes;
        };
        const range = Buffer.alloc(16);
        range.writeUInt32LE(8, 8);
        for (const features of [VirtioF.version1 | VirtioF.protocolFeatures, VirtioF.version1 | VirtioF.protocolFeatures | (1n << 9n)]) {
          const flushes = (features >> 9n) & 1n;
          const window = await Window.open(await connect(path.join(dir, `s${sockets - 1}`)), { features });
          await window.start();
          const driver = new Driver(window);
          const write = () => driver.request([header(1), Buffer.alloc(4096, 'w')], 1);
          for (let i = 0; i < 3; i++) expect(await synced(disk, write)).toBe(flushes === 0n);
          expect(await synced(disk, async () => [await write(), await driver.request([header(13), range], 1)])).toBe(flushes === 0n);
          if (flushes === 0n) {
            const { length } = await disk.ops();
            expect((await driver.request([header(13), range], 1))[0]).toBe(0);
            expect((await disk.ops()).slice(length)).toContain('fsync');
          } else {
            await disk.set({ fail_syncs: 1 });
            expect((await write())[0]).toBe(0);
          }
          window.close();
        }
      } finally {
        await disk.close();
      }
    },
    60_000,
  );
});

describe('a sync that fails', () => {
  const missing = noFaultDisk();
  const command = (opcode: number, fields: { fua?: number; slba?: bigint; nlb?: number } = {}): Buffer =>
    rwCmd.encode({ slba: 0n, nlb: 0, fua: 0, ...fields }, sqe.encode({ opcode, nsid: 1 }));
  const data = Buffer.alloc(512, 'x');

  test.each(['sync', 'uring'])(
    'nvmf, engine %s: flush and FUA fail for every host from then on, plain writes and reads go on, and ctl list tells',
    async (engine) => {
      if (missing) return skip(`nvmf ${engine}: failing syncs`, missing);
      const disk = await FaultDisk.open(8 << 20);
      try {
        const control = path.join(dir, 'ctl');
        const target = await serveTarget([disk.file, '--engine', engine, '--control', control]);
        const [a, b] = [await connectHost(target, { ioQueues: 2 }), await connectHost(target, { ioQueues: 1 })];
        const run = async (host: typeof a, opcode: number, fua = 0, queue = 0) => {
          const out = opcode === NvmOpcode.write ? { out: data } : opcode === NvmOpcode.read ? { into: Buffer.alloc(512) } : undefined;
          const { status } = await host.queues[queue]!.send(command(opcode, { fua }), out);
          return [status.sct, status.sc];
        };
        const [ok, fault] = [
          [0, 0],
          [2, 0x80],
        ];
        expect(await run(a, NvmOpcode.write, 1)).toEqual(ok);
        expect(await run(b, NvmOpcode.flush)).toEqual(ok);
        await disk.set({ fail_syncs: 1 });
        expect(await run(a, NvmOpcode.write, 1)).toEqual(fault);
        for (const [host, queue] of [
          [a, 0],
          [a, 1],
          [b, 0],
          [await connectHost(target, { ioQueues: 1 }), 0],
        ] as const) {
          expect(await run(host, NvmOpcode.flush, 0, queue)).toEqual(fault);
          expect(await run(host, NvmOpcode.write, 1, queue)).toEqual(fault);
          expect(await run(host, NvmOpcode.write, 0, queue)).toEqual(ok);
          expect(await run(host, NvmOpcode.read, 0, queue)).toEqual(ok);
        }
        const listed = JSON.parse(vioctl(['nvmf', 'ctl', control, 'list', '--json']).stdout) as typeof target.document & {
          subsystems: { namespaces: object[] }[];
        };
        expect(listed.subsystems[0]!.namespaces[0]).toMatchObject({ syncError: 'EIO' });
        expect(vioctl(['nvmf', 'ctl', control, 'list']).stdout).toContain('data may be lost (EIO)');
        const warning = async (): Promise<number> => (await a.getLog(2, 512))[0]!;
        expect(await warning()).toBe(4); // the reliability is degraded
        const reopen = (...more: string[]) => vioctl(['nvmf', 'ctl', control, 'reopen', '1', ...more]);
        expect(reopen('--dry-run').stdout).toContain(`would open ${disk.file} of namespace 1 anew`);
        expect(await run(b, NvmOpcode.flush)).toEqual(fault);
        expect(reopen().status).toBe(0);
        for (const host of [a, b]) expect(await run(host, NvmOpcode.flush)).toEqual(ok);
        expect(await warning()).toBe(0);
        expect(vioctl(['nvmf', 'ctl', control, 'list', '--json']).stdout).not.toContain('syncError');
        await disk.set({ fail_syncs: 1 });
        expect(await run(b, NvmOpcode.write, 1)).toEqual(fault);
        expect(await run(a, NvmOpcode.flush)).toEqual(fault);
        expect(await target.stop()).toBe(1);
        const lines = target.messages().split('\n');
        const told = lines.filter((line) => line.includes('data may be lost'));
        expect(told.length).toBe(2); // once before it was opened anew, once after
        for (const line of told) expect(line).toContain(`${disk.file}: `);
      } finally {
        await disk.close();
      }
    },
    60_000,
  );

  test.each(['sync', 'uring'])(
    'nvmf, engine %s: a full disk is no failed sync',
    async (engine) => {
      if (missing) return skip(`nvmf ${engine}: a full disk`, missing);
      const disk = await FaultDisk.open(8 << 20);
      try {
        const target = await serveTarget([disk.file, '--engine', engine]);
        const host = await connectHost(target, { ioQueues: 1 });
        await disk.set({ full_after: 1 });
        const full = await host.queues[0]!.send(command(NvmOpcode.write, { fua: 1 }), { out: data });
        expect([full.status.sct, full.status.sc]).toEqual([0, 0x81]);
        await disk.set({ full_after: 0 });
        const flush = await host.queues[0]!.send(command(NvmOpcode.flush), undefined);
        expect(flush.status.sc).toBe(0);
        expect(await target.stop()).toBe(0);
        expect(target.messages()).toContain(`${disk.file}: a request has failed: ENOSPC\n`);
      } finally {
        await disk.close();
      }
    },
    60_000,
  );

  test.each(['sync', 'io_uring'])(
    'vhost-user, engine %s: on all queues, and on the next connection',
    async (engine) => {
      if (missing) return skip(`vhost-user ${engine}: failing syncs`, missing);
      const disk = await FaultDisk.open(8 << 20);
      try {
        const socket = path.join(dir, 'sock');
        const argv = [process.execPath, program, 'vhost-user', 'serve', 'blk', socket, '--file', disk.file];
        const server = new Background([...argv, '--engine', engine, '--queues', '2'], plainEnv());
        running.push(server);
        await server.sees(/^serving /m);
        const open = async () => {
          const window = await Window.open(await connect(socket), { queues: 2 });
          await window.start();
          return { window, drivers: [new Driver(window, 0), new Driver(window, 1)] };
        };
        const request = async (driver: Driver, type: number, body = Buffer.alloc(0)) => {
          const header = Buffer.alloc(16);
          header.writeUInt32LE(type);
          return (await driver.request([header, ...(body.length > 0 ? [body] : [])], 1))[0];
        };
        const [write, flush] = [1, 4];
        const first = await open();
        expect(await request(first.drivers[0]!, write, data)).toBe(0);
        expect(await request(first.drivers[0]!, flush)).toBe(0);
        await disk.set({ fail_syncs: 1, sync_delay: 0.3 });
        // both at once: whoever leads, both are told
        expect(await Promise.all(first.drivers.map((driver) => request(driver, flush)))).toEqual([1, 1]);
        for (const driver of first.drivers) expect(await request(driver, flush)).toBe(1);
        expect(await request(first.drivers[1]!, write, data)).toBe(0);
        first.window.close();
        const second = await open();
        expect(await request(second.drivers[1]!, flush)).toBe(1);
        await server.sees(/data may be lost \(EIO/);
        await server.sees(/disk: a request has failed: EIO/);
        second.window.close();
        expect(await server.stop()).toBe(1);
      } finally {
        await disk.close();
      }
    },
    60_000,
  );
});
