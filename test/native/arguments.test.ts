import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { native } from '../../src/native/index.js';
import { addonFile, runScript } from '../support/addon.js';
import { mayFetchNode, npmNode } from '../support/npm-node.js';
import { skip } from '../support/skip.js';

/** What each argument of each export may be. A new export needs its line here: the test below fails without it. */
const signatures: Record<string, Record<string, string>> = {
  common: {
    crc32c: 'bytes uint32?',
    crc32cTable: 'bytes uint32?',
    crc32cEngine: '',
    eventfd: '',
    signalEventfd: 'int32 uint64',
    watchEventfd: 'int32 function',
    sdNotify: 'path text array?',
    tcpListen: 'path uint32 boolean',
    tcpListener: 'int32',
    tcpShutdown: 'int32',
    pageSize: '',
    lastWords: 'text path boolean',
    exitNow: 'int32',
    secret: 'uint32',
  },
  uring: {
    open: 'object',
    info: 'handle:ring',
    submit: 'handle:ring uint32 uint32 number?',
    watch: 'handle:ring function',
    register: 'handle:ring uint32 bytes? uint32',
    enable: 'handle:ring',
    close: 'handle:ring',
    setup: 'uint32 uint32 uint32',
    registerRaw: 'int32 uint32 bytes? uint32',
    addressOf: 'bytes',
    checkFds: 'int32s',
    syncfs: 'int32',
    pour: 'int32 int32 uint64 uint64',
    digestSize: 'text',
    digestNew: 'text',
    digestUpdate: 'handle:digest bytes',
    digestFinish: 'handle:digest',
    bulkOpen: 'object function',
    bulkPush: 'handle:bulk bytes uint32',
    bulkTake: 'handle:bulk bytes',
    bulkStats: 'handle:bulk',
    bulkClose: 'handle:bulk',
  },
  storage: {
    open: 'path object',
    ram: 'uint64',
    size: 'handle:store',
    geometry: 'handle:store',
    identity: 'handle:store',
    refresh: 'handle:store',
    measure: 'handle:store',
    failures: 'handle:store',
    peek: 'handle:store array',
    peekLater: 'handle:store array',
    openNbd: 'object',
    openRbd: 'object',
    news: 'handle:store',
    lastingName: 'handle:store',
    openLater: 'array',
    reach: 'array',
    flush: 'handle:store',
    ringRefusal: '',
    bufferRefusal: '',
    farewells: 'uint32',
    syncError: 'handle:store',
    claim: 'handle:store',
    release: 'handle:store',
    setLimits: 'handle:store object',
    limits: 'handle:store',
    reopen: 'handle:store',
    close: 'handle:store',
  },
  nvmeHost: {
    tlsClient: 'text bytes',
    tlsServer: 'text bytes',
    tlsTake: 'handle:TLS bytes',
    tlsPut: 'handle:TLS bytes',
    loadRun: 'object',
    authenticatorNew: '',
    authenticatorNext: 'handle:authenticator',
    authenticatorClose: 'handle:authenticator',
    queueOpen: 'object',
    queueRun: 'handle:queue object',
    queueOver: 'handle:queue',
    queueClose: 'handle:queue',
    hostOpen: 'object',
    hostSource: 'object',
    hostStamp: '',
    hostHops: 'handle:store',
    hostPaths: 'handle:store array?',
    hostFacts: 'handle:remote',
    hostCopy: 'handle:remote object',
    hostClose: 'handle:remote',
  },
  nvme: {
    namespaceRelease: 'handle:namespace',
    namespaceNew: 'handle:store uint32 boolean',
    namespaceResize: 'handle:namespace uint64',
    namespaceUsage: 'handle:namespace',
    controllerNew: '',
    controllerReady: 'handle:controller boolean',
    controllerWriteCache: 'handle:controller boolean',
    controllerNamespaces: 'handle:controller array',
    controllerRunning: 'handle:controller',
    controllerIdle: 'handle:controller',
    controllerStats: 'handle:controller',
    controllerQueues: 'handle:controller',
    controllerBudget: 'handle:controller handle:budget',
    budgetNew: '',
    budgetLimit: 'handle:budget uint64',
    targetStart: 'object function',
    targetListen: 'handle:target path uint32 boolean',
    targetUnlisten: 'handle:target uint32',
    targetMaxConnections: 'handle:target uint32',
    targetListenFd: 'handle:target int32 uint32',
    targetTls: 'handle:target uint32 uint32',
    targetSetup: 'handle:target uint32 uint32 uint32 boolean handle:controller boolean',
    targetComplete: 'handle:target array',
    targetClose: 'handle:target uint32',
    targetConnections: 'handle:target',
    targetRenew: 'handle:target',
    targetEngine: 'handle:target',
    targetStop: 'handle:target',
    targetKey: 'handle:target uint32 text bytes',
    targetUnlock: 'handle:target uint32',
    dhPower: 'bytes bytes bytes',
  },
  vhostUser: {
    connect: 'path',
    listen: 'path int32 uint32 uint32 uint32',
    listenerPath: 'int32',
    accept: 'int32',
    socketPair: '',
    peer: 'int32',
    send: 'int32 bytes array',
    receive: 'int32 bytes array',
    watchReadable: 'int32 function',
    unixSockets: '',
    memfd: 'path uint64 int32',
    seals: 'int32',
    addSeals: 'int32 int32',
    fdFlags: 'int32',
    dup: 'int32',
    tryMap: 'int32 uint64 uint64 boolean',
    lock: 'int32 boolean',
    signal: 'int32',
    guestMemory: 'array array',
    virtqueue: 'object object',
    inflightBytes: 'uint32',
    inflightRegion: 'int32 uint64 uint64 uint32 uint32',
    dirtyLog: 'int32 uint64 uint64',
    blkQueue: 'handle:store object object object',
  },
  migration: {
    openSource: 'object',
    pipe: '',
    seekFd: 'int32 uint64',
    allocate: 'int32 uint64',
    setNonblocking: 'int32',
    sourceState: 'handle:source',
    read: 'handle:source uint64',
    peek: 'handle:source uint64',
    nextNumber: 'handle:source uint32 boolean',
    position: 'handle:source',
    sourceSize: 'handle:source',
    skip: 'handle:source uint64',
    seek: 'handle:source uint64',
    setLimit: 'handle:source integer',
    findFooter: 'handle:source uint32 uint64',
    newRam: 'object',
    addBlock: 'handle:ram text uint64',
    stepRam: 'handle:ram handle:source uint64',
    readBitmap: 'handle:ram handle:source uint32 text',
    mappedPages: 'handle:ram handle:source uint32 uint64 uint64 uint64 int32',
    settleBitmap: 'handle:ram uint32',
    cutMapped: 'handle:ram uint32 uint64',
    extractTo: 'handle:ram int32 int64s',
    blockStates: 'handle:ram',
    pageRuns: 'handle:ram uint32 text uint64 uint64',
    pageHashes: 'handle:ram uint32',
    ramIssues: 'handle:ram',
  },
  sysfs: {
    startWrite: 'path text',
    readAll: 'array int32',
    readFolders: 'path array array array array',
    routes: '',
    xdpPrograms: '',
    xdpSockets: '',
    wireguardPeers: 'array',
    descriptors: '',
  },
  iova: {
    create: 'uint64s uint64s uint64 uint64',
    run: 'handle:space uint64s uint64s',
    ranges: 'handle:space',
    mappings: 'handle:space',
    measure: 'handle:space',
  },
  vfio: {
    openGroup: 'path path path boolean handle:session?',
    openDevice: 'path path handle:session? bytes?',
    adopt: 'int32 int32 int32 uint32',
    close: 'handle:session',
    info: 'handle:session',
    available: 'handle:session',
    region: 'handle:session uint32',
    irq: 'handle:session uint32',
    read: 'handle:session uint32 uint64 bytes',
    write: 'handle:session uint32 uint64 bytes',
    load: 'handle:session uint32 uint64 uint32',
    store: 'handle:session uint32 uint64 uint32 uint64',
    mapRegion: 'handle:session uint32',
    mapDma: 'handle:session uint64s',
    unmapDma: 'handle:session uint64 uint64',
    enableIrq: 'handle:session uint32 uint32 uint32',
    disableIrq: 'handle:session uint32',
    setVfToken: 'handle:session bytes',
    maskIrq: 'handle:session uint32 boolean',
    reset: 'handle:session',
    resetPeers: 'handle:session',
    hotReset: 'handle:session array',
    newMemory: 'path uint64 uint64 uint64 uint64',
    fileMemory: 'path uint64 boolean uint64 uint64',
    populate: 'handle:memory uint64 uint64 boolean',
    memoryInfo: 'handle:memory',
    loadMemory: 'handle:memory uint64 uint32',
    readMemory: 'handle:memory uint64 bytes',
    writeMemory: 'handle:memory uint64 bytes',
    closeMemory: 'handle:memory',
    chain: 'bytes uint32 uint32',
    memlock: '',
    setMemlock: 'number',
    exec: 'path array array array object?',
  },
};

test('every export has its line', () => {
  const names = Object.entries(native()).map(([domain, object]) => [domain, Object.keys(object as object).sort()]);
  expect(Object.fromEntries(Object.entries(signatures).map(([domain, rows]) => [domain, Object.keys(rows).sort()]))).toEqual(
    Object.fromEntries(names),
  );
});

// Runs in a Node of its own: a crash is a result. Prints what was accepted though it must not be, and `done` with the number of calls.
const script = (dir: string) => `
const signatures = ${JSON.stringify(signatures)};
const dir = ${JSON.stringify(dir)};
const { common, uring, storage, nvme, nvmeHost, vhostUser, migration, iova, vfio } = addon;
const file = dir + '/file';
const file2 = dir + '/file2';
fs.writeFileSync(file, Buffer.alloc(65536));
fs.writeFileSync(file2, Buffer.alloc(65536));
const fd = fs.openSync(file, 'r+');
const optional = (make) => { try { return make(); } catch (err) { return undefined; } }; // no io_uring here

// Two handles of each type: one stays open, one is closed where the type can be closed.
const make = {
  ring: () => optional(() => uring.open({ entries: 4 })),
  bulk: () => uring.bulkOpen({ work: 1, plain: true, threads: 1, depth: 4 }, () => {}),
  digest: () => uring.digestNew('crc32c'),
  store: () => storage.ram(65536),
  authenticator: () => nvmeHost.authenticatorNew(),
  remote: () => undefined, // it takes a target and a promise: handles of other types are refused all the same
  namespace: () => nvme.namespaceNew(open.store, 9, false),
  controller: () => nvme.controllerNew(),
  target: () => nvme.targetStart({ threads: 1 }, () => {}),
  source: () => migration.openSource({ fd, kind: 'file', start: 0 }),
  ram: () => migration.newRam({ pageSize: 4096 }),
  space: () => iova.create(BigUint64Array.of(0n, 0xffffn), BigUint64Array.of(4096n), 0n, 0x1000n),
  memory: () => vfio.newMemory('test', 65536n, 0n, 0n, 0n),
  guest: () => vhostUser.guestMemory([{ gpa: 0n, size: 4096n, uva: 0n, offset: 0n }], [fd]),
};
const close = {
  ring: uring.close, bulk: uring.bulkClose, store: storage.close, namespace: nvme.namespaceRelease, target: nvme.targetStop,
  authenticator: nvmeHost.authenticatorClose, memory: vfio.closeMemory, guest: (memory) => memory.close(),
};
const open = {}, closed = {};
for (const [type, of] of Object.entries(make)) {
  open[type] = of();
  if (close[type] && open[type]) close[type]((closed[type] = of()));
}

const detached = new Uint8Array(8);
structuredClone(detached.buffer, { transfer: [detached.buffer] });
const gone = new ArrayBuffer(8);
structuredClone(gone, { transfer: [gone] });
const revoked = Proxy.revocable({}, {});
revoked.revoke();
const { TCP } = process.binding('tcp_wrap');
const foreign = new TCP(0)._externalStream; // an External of Node itself
if (!require('node:util').types.isExternal(foreign)) throw new Error('no foreign External');

// Each value with the kinds that it is.
const values = [
  [undefined, '?'], [null, '?'], [true, 'boolean'], [NaN, ''], [Infinity, 'number'], [-1, 'int32 integer number'], [1.5, 'number'],
  [0, 'int32 uint32 uint64 integer number'], [2 ** 31, 'uint32 uint64 integer number'], [2 ** 32, 'uint64 integer number'],
  [2 ** 53, 'number'], [-(2 ** 53), 'number'], [1n, 'uint64'], [-1n, ''], [1n << 64n, ''], ['', 'text path'], ['a\\0b', 'text'],
  [Symbol('s'), ''], [{}, 'object'], [[], 'object array'], [() => {}, 'function'], [class {}, 'function'], [new Date(), 'object'],
  [Buffer.alloc(8), 'object bytes'], [new Uint8Array(8), 'object bytes'], [new Float64Array(2), 'object'], [new Int32Array(2), 'object int32s'],
  [new BigUint64Array(2), 'object uint64s'], [new BigInt64Array(2), 'object int64s'], [new DataView(new ArrayBuffer(8)), 'object'],
  [new ArrayBuffer(8), 'object arrayBuffer'], [new SharedArrayBuffer(8), 'object'], [detached, 'object'], [gone, 'object'],
  [new Proxy({}, {}), 'object'], [revoked.proxy, 'object'], [Object.create(null), 'object'], [new Error('e'), 'object'],
  [{ valueOf() { throw new Error('asked'); }, toString() { throw new Error('asked'); } }, 'object'], [foreign, 'external'],
  [new Proxy([], {}), 'object array'],
];
const harmless = {
  boolean: false, number: 0, int32: -1, uint32: 0, integer: 0, uint64: 0, text: '', path: '/nonexistent/file', bytes: new Uint8Array(8),
  int32s: new Int32Array(0), uint64s: new BigUint64Array(0), int64s: new BigInt64Array(0), arrayBuffer: new ArrayBuffer(8), function: () => {},
  object: {}, array: [],
};
let calls = 0;
const bad = [];
function refused(name, call) {
  calls++;
  try {
    call();
  } catch (err) {
    if (err instanceof TypeError || err instanceof RangeError || err.code === 'EINVAL') return;
    bad.push(name + ': ' + err);
    return;
  }
  bad.push(name + ': accepted');
}
const shown = (value) => { try { return typeof value + ' ' + String(value).slice(0, 20); } catch { return typeof value; } };

for (const [domain, rows] of Object.entries(signatures))
  for (const [name, row] of Object.entries(rows)) {
    const kinds = row.split(' ').filter(Boolean);
    const plain = kinds.map((kind) => kind.replace('?', ''));
    const usual = plain.map((kind) => (kind.startsWith('handle:') ? open[kind.slice(7)] : harmless[kind]));
    plain.forEach((kind, at) => {
      const call = (value) => () => addon[domain][name](...usual.map((other, i) => (i === at ? value : other)));
      const wanted = kind.startsWith('handle:') ? kind.slice(7) : undefined;
      for (const [value, is] of values) {
        if (is.split(' ').includes(kind) || (is === '?' && kinds[at].endsWith('?'))) continue;
        refused(domain + '.' + name + ' argument ' + (at + 1) + ' = ' + shown(value), call(value));
      }
      // Too few arguments.
      if (!kinds[at].endsWith('?')) refused(domain + '.' + name + ' with ' + at + ' arguments', () => addon[domain][name](...usual.slice(0, at)));
      if (wanted || kind === 'object') {
        // Objects that are no handles have a handle inside: every type in its place.
        for (const [type, handle] of [...Object.entries(open), ...Object.entries(closed)]) {
          if (!handle || (type === wanted && handle === open[type])) continue;
          if (!wanted && name !== 'virtqueue' && name !== 'blkQueue') continue; // any object serves as options
          if (wanted && type === wanted && close[wanted] === addon[domain][name]) { call(handle)(); continue; } // closing again is no error
          refused(domain + '.' + name + ' argument ' + (at + 1) + ' = handle of ' + type, call(handle));
          if (!wanted) refused(domain + '.' + name + ' argument ' + (at + 1) + ' = object with ' + type, call({ handle: handle.handle ?? handle }));
        }
      }
    });
  }

// Fields of options: never a crash, and never a value of another type taken for the right one.
const layout = { num: 4, desc: 0n, avail: 1024n, used: 2048n, base: 0, features: 0n, physical: true };
const options = [
  ['openSource', (o) => migration.openSource(o), { fd, kind: 'file', start: 0 }, { fd: 'int32', kind: 'text', start: 'uint64' }],
  ['extents', (o) => migration.openSource(o), { fd, kind: 'extents', start: 0, extents: new BigInt64Array(3) }, { extents: 'int64s' }],
  ['newRam', (o) => migration.newRam(o), { pageSize: 4096 }, { pageSize: 'uint32' }],
  ['bulkOpen', (o) => uring.bulkClose(uring.bulkOpen(o, () => {})), { work: 1, plain: true, threads: 1, depth: 1 }, { work: 'uint32', depth: 'uint32' }],
  ['region', (o) => vhostUser.guestMemory([o], [fd]), { gpa: 0n, size: 4096n, uva: 0n, offset: 0n }, { gpa: 'uint64', size: 'uint64', uva: 'uint64', offset: 'uint64' }],
  ['layout', (o) => vhostUser.virtqueue(open.guest, o).close(), layout, { num: 'uint32', desc: 'uint64', avail: 'uint64', used: 'uint64', base: 'uint32', features: 'uint64' }],
];
for (const [name, call, right, fields] of options) {
  for (const [field, kind] of Object.entries(fields))
    for (const [value, is] of values) {
      if (is.split(' ').includes(kind)) continue;
      refused(name + '.' + field + ' = ' + shown(value), () => call({ ...right, [field]: value }));
    }
  for (const field of Object.keys(right))
    refused(name + ' that throws for ' + field, () => call({ ...right, get [field]() { throw new TypeError('asked'); } }));
}
for (const [value, is] of values) {
  if (is.includes('int32')) continue;
  refused('descriptor = ' + shown(value), () => vhostUser.send(-1, Buffer.alloc(1), [value]));
  refused('row = ' + shown(value), () => nvme.controllerNamespaces(open.controller, [[1, value, 0]]));
  refused('completion = ' + shown(value), () => nvme.targetComplete(open.target, [[0, 0, value, 0]]));
}

// Methods of objects.
const watch = common.watchEventfd(common.eventfd(), () => {});
const queue = vhostUser.virtqueue(open.guest, layout);
for (const [value, is] of values) {
  if (!is.includes('boolean')) refused('ref ' + shown(value), () => watch.ref(value));
  if (!is.includes('uint64')) refused('contains ' + shown(value), () => open.guest.contains(value, 0n, true));
  if (!is.includes('bytes')) refused('answer ' + shown(value), () => queue.answer(0, value));
  refused('setMemory ' + shown(value), () => queue.setMemory(value, layout));
}
watch.close();
watch.close();
queue.close();
queue.close();
for (const method of ['take', 'base']) refused('closed queue ' + method, () => queue[method]());
refused('closed memory', () => closed.guest.contains(0n, 1n, true));
for (const [type, of] of Object.entries(close)) if (open[type]) of(open[type]);

for (const line of bad.slice(0, 60)) console.log(line);
console.log('done ' + (calls > 3000));
process.exit(0);
`;

describe('every export and every other type of handle, closed handles, and values of any kind: EINVAL, TypeError or RangeError', () => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-arguments-'));
  afterAll(() => fs.rmSync(dir, { recursive: true }));
  const expected = { status: 0, signal: null, stdout: 'done true\n', stderr: expect.stringMatching(/^(\(node|$)/) };

  test('this Node', () => expect(runScript(script(dir))).toMatchObject(expected), 120_000);

  const versions = [20, 22, 24].filter((major) => major !== Number(process.versions.node.split('.')[0]));
  test.each(versions)('Node %i', (major) => {
    if (addonFile.includes('asan')) return; // the sanitizer's addon is for this Node
    if (!mayFetchNode) return skip(`Node ${major}`, 'other Nodes are fetched in CI only');
    expect(runScript(script(dir), { node: npmNode('x64', major) })).toMatchObject(expected);
  });
});
