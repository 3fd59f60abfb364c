import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { Worker } from 'node:worker_threads';
import { addonFile } from '../support/addon.js';
import { program } from '../support/cli.js';
import { effort } from '../support/effort.js';
import { Workspace } from '../support/uring.js';

// Workers that end while they hold something of the addon. The main thread never loads it, so the last worker that ends takes
// it along: whatever libuv or the kernel still has to give back must find its code and memory there.
const work = new Workspace();
afterAll(() => work.end());

const packageRoot = path.dirname(path.dirname(program));
const fifo = work.path('fifo');
spawnSync('mkfifo', [fifo]);
const disk = work.path('disk');
fs.writeFileSync(disk, Buffer.alloc(1 << 20));

/** What a worker holds when it ends. `addon` and `uring` are there; each may leave work under way in `busy`. */
const kinds: Record<string, string> = {
  'a ring': `new uring.Ring({ entries: 8 });`,
  'a ring that nothing watches': `new uring.Ring({ entries: 8, watch: false });`,
  'a ring that was never started': `new uring.Ring({ entries: 8, require: uring.Setup.rDisabled });`,
  'a ring with a thread of the kernel': `const ring = new uring.Ring({ entries: 8, require: uring.Setup.sqpoll });
    await ring.readAsync(fs.openSync('/etc/passwd'), Buffer.alloc(8), 0);`,
  'a read that never ends': `const ring = new uring.Ring({ entries: 8 });
    ring.read(fs.openSync(${JSON.stringify(fifo)}, 'r+'), Buffer.alloc(8), -1, () => {}); ring.submit();`,
  'a file of a table': `const ring = new uring.Ring({ entries: 8 }); const table = new uring.FileTable(ring);
    table.registerSparse(4); await table.open('/etc/passwd', 0); ring.registerBuffers([Buffer.alloc(4096)]);`,
  'a callback that never returns': `const ring = new uring.Ring({ entries: 8 });
    busy = () => ring.read(fs.openSync('/etc/passwd'), Buffer.alloc(8), 0, () => { for (;;); });`,
  'threads with rings': `addon.uring.bulkPush(addon.uring.bulkOpen({ work: 0, algorithm: 'crc32c', threads: 2, depth: 8 }, () => {}),
    Buffer.from('/dev/zero\\0/etc/passwd\\0'), 0);`,
  'threads without rings': `addon.uring.bulkOpen({ work: 1, plain: true, threads: 2, depth: 8 }, () => {});`,
  'an eventfd that is signalled': `const fd = addon.common.eventfd(); addon.common.watchEventfd(fd, () => addon.common.signalEventfd(fd, 1));
    addon.common.signalEventfd(fd, 1);`,
  'a target with a namespace that listens, and a flush under way': `const { nvme, storage } = addon;
    const store = storage.open(${JSON.stringify(disk)}, {}), namespace = nvme.namespaceNew(store, 9, false), controller = nvme.controllerNew();
    nvme.controllerNamespaces(controller, [[1, namespace, 0]]);
    globalThis.target = nvme.targetStart({ threads: 2 }, () => {});
    nvme.targetListen(globalThis.target, '127.0.0.1', 0, false);
    fs.writeSync(fs.openSync(${JSON.stringify(disk)}, 'r+'), Buffer.alloc(1 << 20));
    storage.flush(store).catch(() => {});`,
  'a load that waits for its target': `globalThis.target = addon.nvme.targetStart({ threads: 1, handshakeMs: 60000 }, () => {});
    const port = addon.nvme.targetListen(globalThis.target, '127.0.0.1', 0, false);
    addon.nvmeHost.loadRun({ addresses: [{ host: '127.0.0.1', port }], hostnqn: 'nqn.2014-08.org.nvmexpress:uuid:1', subnqn: 'nqn.x',
      hostid: Buffer.alloc(16), nsid: 1, queues: 1, entries: 4, keepAliveMs: 0, timeoutMs: 1000, lossMs: 0, headerDigest: false,
      dataDigest: false, flowControl: true, replay: false, threads: 1, depth: 1, blockSize: 512, ioBlocks: 1, first: 0n, blocks: 8n,
      readPercent: 100, random: false, durationMs: 1000, warmupMs: 0, spinUs: 0, seed: 1 }).done.catch(() => {});`,
  'memories, sources, walks, spaces, digests and queues': `const { migration, iova, uring: ring, vfio, vhostUser, common } = addon;
    const fd = fs.openSync(${JSON.stringify(disk)}, 'r+'), source = migration.openSource({ fd, kind: 'file', start: 0 });
    migration.read(source, 4);
    const memory = vhostUser.guestMemory([{ gpa: 0n, size: 65536n, uva: 0n, offset: 0n }], [fd]);
    globalThis.held = [source, migration.newRam({ pageSize: 4096 }), ring.digestNew('crc32c'), vfio.newMemory('m', 65536n, 0n, 0n, 0n),
      vfio.fileMemory(${JSON.stringify(disk)}, 65536n, true, 0n, 0n), memory,
      iova.create(BigUint64Array.of(0n, 0xffffn), BigUint64Array.of(4096n), 0n, 0x1000n),
      vhostUser.virtqueue(memory, { num: 4, desc: 0n, avail: 1024n, used: 2048n, base: 0, features: 0n, physical: true })];`,
};

const script = work.path('worker.cjs');
fs.writeFileSync(
  script,
  `const fs = require('node:fs');
const { isMainThread, parentPort, Worker, workerData } = require('node:worker_threads');
const kinds = ${JSON.stringify(kinds)};
const [, , root, kind, how] = process.argv;
if (isMainThread) (async () => {
  for (let round = 0; round < 6; round++)
    await new Promise((resolve, reject) => {
      const worker = new Worker(__filename, { argv: process.argv.slice(2) });
      worker.on('exit', resolve).on('error', reject).on('message', () => worker.terminate());
    });
  console.log('alive');
})(); else (async () => {
  const addon = { exports: {} };
  process.dlopen(addon, process.env.VIOCTL_ADDON || root + '/build/native/release/vioctl.node');
  const uring = require(root + '/dist/uring.cjs');
  let busy = () => {};
  await (new Function('addon', 'uring', 'fs', 'return async () => { let busy = () => {};' + kinds[kind] + '; return busy; }')(addon.exports, uring, fs))().then((b) => { busy = b; });
  if (how === 'exit') process.exit(0);
  if (how === 'end') { parentPort.close(); return; }
  setInterval(() => {}, 1000);
  parentPort.postMessage(1);
  busy();
})();
`,
);

// "end": the script runs out. What keeps a worker alive by itself (a read under way, a watch) cannot end like that.
const endless = [
  'a read that never ends',
  'a callback that never returns',
  'threads with rings',
  'threads without rings',
  'an eventfd that is signalled',
  'a target with a namespace that listens, and a flush under way',
  'a load that waits for its target',
];
const cases = Object.keys(kinds).flatMap((kind) =>
  ['exit', 'terminate', ...(endless.includes(kind) ? [] : ['end'])].map((how) => [kind, how] as const),
);

test.each(cases)('%s, and the worker ends by %s', (kind, how) => {
  const run = spawnSync(process.env.VIOCTL_TEST_NODE || process.execPath, [script, packageRoot, kind, how], {
    encoding: 'utf8',
    timeout: 60_000,
  });
  expect({ stdout: run.stdout, stderr: run.stderr, signal: run.signal }).toEqual({ stdout: 'alive\n', stderr: '', signal: null });
});

test('workers that are terminated at any moment while they load the addon', () => {
  const at = work.path('load.cjs');
  fs.writeFileSync(
    at,
    `const { isMainThread, Worker } = require('node:worker_threads');
const load = () => require(process.argv[2] + '/dist/uring.cjs');
if (!isMainThread) {
  const { Ring, FileTable } = load();
  const ring = new Ring({ entries: 8 });
  new FileTable(ring).registerSparse(4);
  const again = () => ring.read(fd, Buffer.alloc(8), 0, again);
  const fd = require('node:fs').openSync('/etc/passwd');
  again();
} else (async () => {
  new (load().Ring)({ entries: 4 }).close();
  const start = performance.now();
  await new Promise((done) => new Worker('1', { eval: true }).on('exit', done));
  const time = performance.now() - start;
  for (let i = 0; i < ${effort(20, 60)}; i++)
    await new Promise((done) => {
      const worker = new Worker(__filename, { argv: process.argv.slice(2) });
      worker.on('exit', done).on('error', done);
      setTimeout(() => worker.terminate(), time * (0.3 + (i * 7 % 60) / 20));
    });
  console.log('alive');
})();
`,
  );
  const run = spawnSync(process.env.VIOCTL_TEST_NODE || process.execPath, [at, packageRoot], { encoding: 'utf8', timeout: 80_000 });
  expect({ stdout: run.stdout, stderr: run.stderr, signal: run.signal }).toEqual({ stdout: 'alive\n', stderr: '', signal: null });
});

test('a worker that ends while a queue of it is being opened: its connection ends too', async () => {
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as net.AddressInfo;
  const queue = { host: '127.0.0.1', port, qid: 0, entries: 32, headerDigest: false, dataDigest: false, timeoutMs: 600_000 };
  const worker = new Worker(
    "const { addon, queue } = require('node:worker_threads').workerData; require(addon).nvmeHost.queueOpen(queue);",
    {
      eval: true,
      workerData: { addon: addonFile, queue },
    },
  );
  const [socket] = (await once(server, 'connection')) as [net.Socket];
  const closed = once(
    socket.resume().on('error', () => {}),
    'close',
  );
  await worker.terminate();
  await closed;
  server.close();
});
