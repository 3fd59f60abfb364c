/** Every source against the one interface (test/support/programs/store-conform.cc), with the sanitizers. */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { openChain } from '../../src/storage/qcow2/chain.js';
import { Daemon, exportName } from '../../src/storage/qcow2/daemon.js';
import { Ceph, cephMissing } from '../support/ceph.js';
import { compileSanitized } from '../support/compile.js';
import { FaultDisk, type Faults, noFaultDisk } from '../support/fault-disk.js';
import { serveTarget } from '../support/nvme-target.js';
import { skip } from '../support/skip.js';

const root = path.resolve(__dirname, '..', '..');
const SIZE = 8 << 20;
let dir: string;
let program: string;
beforeAll(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-conform-'));
  const folders = ['native/storage', 'native/storage/memory', 'native/storage/remote', 'native/nvme/host', 'native/nvme/host/engine'];
  // a host without what JavaScript asks of it: TLS, the load generator, queues by themselves
  const apart = ['secure.cc', 'load.cc', 'lone_queue.cc'];
  const storage = folders.flatMap((folder) =>
    fs
      .readdirSync(path.join(root, folder))
      .filter((file) => file.endsWith('.cc') && !apart.includes(file))
      .map((file) => `${folder}/${file}`),
  );
  program = compileSanitized(
    [
      'test/support/programs/store-conform.cc',
      ...['error.cc', 'assert.cc', 'crc32c.cc'].map((file) => `native/common/${file}`),
      ...['native/uring/ring.cc', 'native/nvme/pdu.cc'],
      ...['bus_guard.cc', 'fd.cc', 'mapping.cc', 'eventfd.cc', 'thread.cc', 'socket.cc'].map((file) => `native/os/${file}`),
      ...storage,
    ],
    path.join(dir, 'conform'),
  );
});
afterAll(() => fs.rmSync(dir, { recursive: true, force: true }));

function image(folder = dir): string {
  const file = path.join(folder, 'disk');
  fs.writeFileSync(file, '');
  fs.truncateSync(file, SIZE);
  return file;
}
/** Not synchronous: the fault disk is served by a process whose pipes this one reads. */
async function conform(kind: string, file: string, rounds = 400): Promise<string> {
  // another seed at each run; a failure names it
  const child = spawn(program, [kind, `${process.env.SEED ?? Date.now() % 1_000_000}`, file, `${rounds}`], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let said = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (text) => (said += text));
  await once(child, 'close');
  return said;
}

test.each(['ram', 'file', 'direct', 'readonly'])('%s', async (kind) => {
  expect(await conform(kind, image())).toBe('ok\n');
});

test('a file in memory', async () => {
  const folder = fs.mkdtempSync('/dev/shm/vioctl-conform-');
  try {
    expect(await conform('file', image(folder))).toBe('ok\n');
  } finally {
    fs.rmSync(folder, { recursive: true });
  }
});

test.each(['file', 'direct', 'readonly'])('a block device: %s', async (kind) => {
  const { stdout, status } = spawnSync('losetup', ['-f', '--show', image()], { encoding: 'utf8' });
  if (process.getuid?.() !== 0 || status !== 0) return skip(`storage conformance of a device: ${kind}`, 'needs root and a loop device');
  try {
    expect(await conform(kind, stdout.trim())).toBe('ok\n');
  } finally {
    spawnSync('losetup', ['-d', stdout.trim()]);
  }
});

test('a file system in user space; one that fails is told', async () => {
  const missing = noFaultDisk();
  if (missing) return skip('storage conformance of a FUSE file', missing);
  const disk = await FaultDisk.open(SIZE);
  try {
    expect(await conform('readonly', disk.file)).toBe('ok\n');
    const fails = async (fault: Faults): Promise<string> => {
      fs.writeFileSync(disk.file, Buffer.alloc(SIZE), { flag: 'r+' }); // what the run before has written
      await disk.set(fault);
      const said = await conform('file', disk.file);
      await disk.set({ fail_writes: 0, fail_syncs: 0, full_after: 0 });
      return said;
    };
    expect(await fails({ fail_writes: 1 })).toMatch(/: EIO\n/);
    expect(await fails({ fail_syncs: 1 })).toMatch(/: EIO\n/);
    expect(await fails({ full_after: 1 })).toMatch(/: ENOSPC\n/);
  } finally {
    await disk.close();
  }
});

/** A server of NBD at a socket, and its URI. */
async function nbdServer(
  command: string,
  args: (socket: string) => string[],
): Promise<{ uri: string; start(): Promise<void>; kill(): void }> {
  const socket = path.join(fs.mkdtempSync(path.join(dir, 'nbd-')), 's');
  let child: ReturnType<typeof spawn> | undefined;
  const kill = (): void => {
    child?.kill('SIGKILL');
    fs.rmSync(socket, { force: true });
  };
  const start = async (): Promise<void> => {
    child = spawn(command, args(socket), { stdio: 'ignore' });
    for (let tries = 0; !fs.existsSync(socket); tries++) {
      if (tries === 500) throw new Error(`${command} does not listen`);
      await sleep(20);
    }
  };
  await start();
  return { uri: `nbd+unix:///?socket=${socket}`, start, kill };
}
const has = (command: string): boolean => spawnSync('which', [command]).status === 0;

/** Filters and plugin of nbdkit, and what the program says then. */
const nbdkits: [string, string[], string | RegExp][] = [
  ['memory', ['memory', '8M'], 'ok\n'],
  ['a server that is slow', ['--filter=delay', 'memory', '8M', 'delay-read=2ms', 'delay-write=2ms'], 'ok\n'],
  ['large blocks', ['--filter=blocksize-policy', 'memory', '8M', 'blocksize-minimum=4096', 'blocksize-error-policy=error'], 'ok\n'],
  ['small commands', ['--filter=blocksize-policy', 'memory', '8M', 'blocksize-maximum=64K', 'blocksize-error-policy=error'], 'ok\n'],
  ['no flush, trim or zeroes', ['--filter=nozero', '--filter=exportname', 'memory', '8M'], 'ok\n'],
  [
    'errors that the server repeats for itself',
    ['--filter=retry', '--filter=error', 'memory', '8M', 'error-pwrite-rate=0.2%', 'retry-delay=1'],
    'ok\n',
  ],
  ['errors', ['--filter=error', 'memory', '8M', 'error=EIO', 'error-rate=5%'], /: EIO\n/],
  ['a full disk', ['--filter=error', 'memory', '8M', 'error-pwrite=ENOSPC', 'error-pwrite-rate=5%'], /: ENOSPC\n/],
];
test.each(nbdkits)('an export of nbdkit: %s', async (_what, args, said) => {
  if (!has('nbdkit')) return skip('storage conformance of NBD', 'needs nbdkit');
  const server = await nbdServer('nbdkit', (socket) => ['-f', '-U', socket, ...args]);
  try {
    if (typeof said === 'string') expect(await conform('nbd', server.uri, 100)).toBe(said);
    else expect(await conform('nbd', server.uri, 100)).toMatch(said);
  } finally {
    server.kill();
  }
});

test('a server that is killed and started again under load: no request fails, and no data is lost', async () => {
  if (!has('qemu-nbd')) return skip('storage conformance of NBD', 'needs qemu-nbd');
  const file = image();
  const server = await nbdServer('qemu-nbd', (socket) => ['-f', 'raw', '-t', '-k', socket, '--shared=8', '--discard=unmap', file]);
  try {
    const running = conform('nbd', server.uri, 1500);
    let ended = false;
    void running.finally(() => (ended = true));
    let kills = 0;
    for (; !ended && kills < 4; kills++) {
      await sleep(300);
      server.kill();
      await sleep(100);
      await server.start();
    }
    expect(kills).toBeGreaterThan(0);
    expect(await running).toBe('ok\n');
  } finally {
    server.kill();
  }
});

describe('a namespace of another target', () => {
  const nqn = 'nqn.2014-08.org.nvmexpress:conform';
  const serve = (source: string, port = 0) =>
    serveTarget([source, '--nqn', nqn, '--listen', `127.0.0.1:${port}`, '--discovery-port', 'none']);

  test.each(['nvme', 'nvme-digests'])('%s', async (kind) => {
    const target = await serve(image());
    expect(await conform(kind, `${target.port}/${nqn}`, 100)).toBe('ok\n');
    await target.stop();
  });

  test('that is write protected', async () => {
    const target = await serve(`${image()},ro`);
    expect(await conform('nvme-readonly', `${target.port}/${nqn}`)).toBe('ok\n');
    await target.stop();
  });

  test('whose target is killed and started again under load: no request fails, and no data is lost', async () => {
    const file = image();
    let target = await serve(file);
    const running = conform('nvme', `${target.port}/${nqn}`, 600);
    let ended = false;
    void running.finally(() => (ended = true));
    let kills = 0;
    for (; !ended && kills < 4; kills++) {
      await sleep(300);
      await target.stop('SIGKILL');
      target = await serve(file, target.port);
    }
    expect(kills).toBeGreaterThan(0);
    expect(await running).toBe('ok\n');
    await target.stop();
  });

  test('that answers with errors', async () => {
    const missing = noFaultDisk();
    if (missing) return skip('storage conformance of a namespace with errors', missing);
    const disk = await FaultDisk.open(SIZE);
    const faults: [Parameters<FaultDisk['set']>[0], RegExp][] = [
      [{ fail_writes: 1 }, /: EIO\n/],
      [{ fail_writes: 0, fail_syncs: 1 }, /: EIO\n/],
      [{ fail_syncs: 0, full_after: 1 }, /: ENOSPC\n/],
    ];
    try {
      for (const [fault, said] of faults) {
        // a failed flush is remembered until the source is opened anew
        const target = await serve(disk.file);
        await disk.set(fault);
        expect(await conform('nvme', `${target.port}/${nqn}`)).toMatch(said);
        await disk.set({ fail_writes: 0, fail_syncs: 0 });
        await target.stop();
      }
    } finally {
      await disk.close();
    }
  });
});

test('an image of Ceph, one whose OSD stops for a while, and a snapshot', async () => {
  const missing = cephMissing();
  if (missing) return skip('storage conformance of rbd', `needs ${missing}`);
  const ceph = await Ceph.start();
  try {
    for (const image of ['one', 'two']) ceph.run('rbd', 'create', '--size', `${SIZE}B`, image);
    expect(await conform('rbd', `${ceph.conf}:rbd/one`, 100)).toBe('ok\n');
    const running = conform('rbd', `${ceph.conf}:rbd/two`, 100);
    await sleep(500);
    ceph.signal('SIGSTOP', 'osd');
    await sleep(1000);
    ceph.signal('SIGCONT', 'osd');
    expect(await running).toBe('ok\n');
    ceph.run('rbd', 'snap', 'create', 'one@then');
    expect(await conform('rbd-readonly', `${ceph.conf}:rbd/one@then`)).toBe('ok\n');
  } finally {
    ceph.stop();
  }
});

test('a qcow2 image, through its daemon', async () => {
  const missing = ['qemu-img', 'qemu-storage-daemon', 'setpriv', 'unshare'].find((program) => !has(program));
  if (missing) return skip('storage conformance of qcow2', `needs ${missing}`);
  const file = path.join(dir, 'image.qcow2');
  // the sanitiser's runtime is not for qemu-img: it hangs
  const qemuImg = (...args: string[]) => spawnSync('qemu-img', args, { env: { ...process.env, LD_PRELOAD: '' } });
  qemuImg('create', '-q', '-f', 'qcow2', file, `${SIZE}`);
  const daemon = await Daemon.start(file, openChain(file, false, undefined), { readonly: false, direct: false, force: false });
  try {
    expect(await conform('nbd', `nbd+unix:///${exportName}?socket=${daemon.socket}`, 100)).toBe('ok\n');
  } finally {
    await daemon.stop();
  }
  expect(qemuImg('check', '-q', file).status).toBe(0);
});
