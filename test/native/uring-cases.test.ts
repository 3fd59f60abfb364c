import { type StdioOptions, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { codeOf } from '../../src/common/errors.js';
import { native } from '../../src/native/index.js';
import {
  ALLOC,
  addressOf,
  CqeFlag,
  FileTable,
  Op,
  Reg,
  Ring,
  type RingOptions,
  registerOps,
  Setup,
  Slot,
  SqeFlag,
} from '../../src/uring/index.js';
import { skip } from '../support/skip.js';
import { go, offers, ringCount, until, Workspace } from '../support/uring.js';

const [EPERM, EBADF, EFAULT, EINVAL, ENFILE, ENOSPC, ECANCELED, ENOTCONN] = [-1, -9, -14, -22, -23, -28, -125, -107] as const;
const work = new Workspace();
afterAll(() => work.end());

let ring: Ring;
let table: FileTable;
beforeEach(() => {
  ring = new Ring({ entries: 32 });
  table = new FileTable(ring);
});
afterEach(() => ring.close());

const reg = (name: string): number => registerOps.find((op) => op.name === name)!.value;
const content = (slot: number): string | number => {
  const buffer = Buffer.alloc(64);
  const [size] = go(ring, { opcode: Op.read, fd: new Slot(slot), buffer, offset: 0 });
  return size! < 0 ? size! : buffer.toString('utf8', 0, size);
};
/** Runs a program of the packed interface in a process of its own. */
const inChild = (source: string, options: { args?: string[]; stdio?: StdioOptions } = {}) => {
  const lead = `const { Ring, FileTable, Slot, Op, Setup } = require(${JSON.stringify(path.resolve('dist/uring.cjs'))}); const fs = require('node:fs');`;
  const { args = [], stdio = 'pipe' } = options;
  return spawnSync(process.execPath, ['-e', lead + source, ...args], { encoding: 'utf8', timeout: 100_000, stdio });
};

describe('registered buffers', () => {
  const iovec = (...buffers: (Uint8Array | undefined)[]): Uint8Array =>
    new Uint8Array(BigUint64Array.from(buffers.flatMap((b) => (b ? [BigInt(addressOf(b)), BigInt(b.length)] : [0n, 0n]))).buffer);
  /** struct io_uring_rsrc_register {nr, flags, resv2, data, tags}, or io_uring_rsrc_update2 {offset, resv, data, tags, nr, resv2}. */
  const tagged = (opcode: number, offset: number, vectors: Uint8Array, tags: number[]): number => {
    const words = BigUint64Array.from(tags, (tag) => (tag === 0 ? 0n : (1n << 63n) | BigInt(tag)));
    const arg = new DataView(new ArrayBuffer(32));
    const update = opcode === Reg.registerBuffersUpdate;
    arg.setUint32(0, update ? offset : tags.length, true);
    arg.setBigUint64(update ? 8 : 16, BigInt(addressOf(vectors)), true);
    arg.setBigUint64(update ? 16 : 24, BigInt(addressOf(words)), true);
    if (update) arg.setUint32(24, tags.length, true);
    return ring.register(opcode, new Uint8Array(arg.buffer), 32);
  };
  const fixed = (fd: number, buffer: Buffer, bufIndex: number): number =>
    go(ring, { opcode: Op.readFixed, fd, buffer, bufIndex, offset: 0 })[0]!;

  test('tags: an update posts the tag of the buffer it replaces; an emptied entry is EFAULT; unregistering posts the rest', () => {
    const tags: number[] = [];
    ring.onTag = (tag) => tags.push(tag);
    const [a, b, c] = [Buffer.alloc(4096), Buffer.alloc(4096), Buffer.alloc(4096)];
    const fd = work.file('fixed content');
    expect(tagged(Reg.registerBuffers2, 0, iovec(a, b), [1, 2])).toBe(0);
    expect([fixed(fd, a, 0), a.toString('utf8', 0, 13)]).toEqual([13, 'fixed content']);
    expect(tagged(Reg.registerBuffersUpdate, 0, iovec(c), [3])).toBe(1);
    until(ring, () => tags.length >= 1);
    expect(tags).toEqual([1]);
    expect([fixed(fd, c, 0), c.toString('utf8', 0, 13), fixed(fd, a, 0)]).toEqual([13, 'fixed content', EFAULT]);
    expect(tagged(Reg.registerBuffersUpdate, 1, iovec(undefined), [0])).toBe(1);
    until(ring, () => tags.length >= 2);
    expect([tags, fixed(fd, b, 1)]).toEqual([[1, 2], EFAULT]);
    expect(tagged(Reg.registerBuffersUpdate, 2, iovec(a), [0])).toBe(EINVAL);
    expect(tagged(Reg.registerBuffersUpdate, 0, iovec(undefined), [9])).toBe(EINVAL);
    expect(ring.register(Reg.unregisterBuffers, null, 0)).toBe(0);
    ring.submit(1, 200);
    expect(tags.slice(0, 2)).toEqual([1, 2]);
    expect(fixed(fd, c, 0)).toBe(EFAULT);
  });

  test('no buffers, none registered, a second time, an address that is not there, lengths', () => {
    const buffer = Buffer.alloc(4096);
    expect(ring.register(Reg.unregisterBuffers, null, 0)).toBe(-6);
    expect(() => ring.registerBuffers([])).toThrow(expect.objectContaining({ code: 'EINVAL' }));
    expect(ring.register(Reg.registerBuffers, null, 1)).toBe(EFAULT);
    expect(ring.register(Reg.registerBuffers, new Uint8Array(BigUint64Array.of(8n, 4096n).buffer), 1)).toBe(EFAULT);
    expect(ring.register(Reg.registerBuffers, new Uint8Array(BigUint64Array.of(BigInt(addressOf(buffer)), 1n << 31n).buffer), 1)).toBe(
      EFAULT,
    );
    expect(ring.register(Reg.registerBuffers, new Uint8Array(16 << 15), 1 << 15)).toBe(EINVAL); // UIO_MAXIOV, 2^14 since 5.13
    ring.registerBuffers([buffer]);
    expect(() => ring.registerBuffers([buffer])).toThrow(expect.objectContaining({ code: 'EBUSY' }));
    const fd = work.file('0123456789');
    expect(fixed(fd, buffer, 1)).toBe(EFAULT);
    const address = addressOf(buffer) + 4000;
    expect(go(ring, { opcode: Op.readFixed, fd, address, keep: buffer, length: 200, bufIndex: 0, offset: 0 })).toEqual([EFAULT]);
  });
});

describe('accepting into slots', () => {
  const MULTISHOT = 1; // IORING_ACCEPT_MULTISHOT
  let server: net.Server;
  let address: Uint8Array;
  let listener: number;
  beforeEach(async () => {
    server = net.createServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as net.AddressInfo;
    address = Uint8Array.of(2, 0, port >> 8, port & 255, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0); // struct sockaddr_in
    // Node would accept in the event loop, which has no turn while a test works on rings.
    listener = (server as unknown as { _handle: { fd: number } })._handle.fd;
  });
  afterEach(() => new Promise((resolve) => server.close(resolve)));
  const dial = (slot: number): void => {
    expect(go(ring, { opcode: Op.socket, fd: 2, offset: 1, length: 0, fileIndex: slot + 1 })).toEqual([0]);
    expect(go(ring, { opcode: Op.connect, fd: new Slot(slot), buffer: address, length: 0, offset: 16 })).toEqual([0]);
  };
  const say = (from: number, to: number): string => {
    expect(go(ring, { opcode: Op.write, fd: new Slot(from), buffer: Buffer.from('hello'), offset: -1 })).toEqual([5]);
    const buffer = Buffer.alloc(5);
    go(ring, { opcode: Op.read, fd: new Slot(to), buffer, offset: -1 });
    return buffer.toString();
  };
  const kinds: [string, RingOptions][] = [
    ['one-thread ring', {}],
    ['SQPOLL ring', { require: Setup.sqpoll }],
  ];
  test.each(kinds)('a slot of ours, one that the kernel picks, a full table; %s', (_, options) => {
    ring.close();
    ring = new Ring({ entries: 32, ...options });
    table = new FileTable(ring);
    table.registerSparse(6);
    dial(0);
    expect(go(ring, { opcode: Op.accept, fd: listener, fileIndex: 3 + 1 })).toEqual([0]);
    expect(say(0, 3)).toBe('hello');
    dial(1);
    const [picked] = go(ring, { opcode: Op.accept, fd: listener, fileIndex: ALLOC });
    expect([2, 4, 5]).toContain(picked);
    expect(say(1, picked!)).toBe('hello');
    table.allocRange(0, 1);
    dial(5);
    expect(go(ring, { opcode: Op.accept, fd: listener, fileIndex: ALLOC })).toEqual([ENFILE]);
    dial(5);
    expect(go(ring, { opcode: Op.accept, fd: listener, fileIndex: 7 })).toEqual([EINVAL]); // outside
  });

  test('multishot: one request, a slot for each connection, MORE on each completion', () => {
    table.registerSparse(8);
    table.allocRange(4, 4);
    for (const slot of [0, 1, 2]) dial(slot);
    const got: [number, number][] = [];
    ring.push({ opcode: Op.accept, fd: listener, ioprio: MULTISHOT, fileIndex: ALLOC }, (result, flags) =>
      got.push([result, flags & CqeFlag.more]),
    );
    until(ring, () => got.length >= 3);
    expect(got).toEqual([4, 5, 6].map((slot) => [slot, CqeFlag.more]));
    expect(say(2, 6)).toBe('hello');
    expect(ring.inFlight).toBe(1);
    ring.close();
    expect(got.at(-1)![1]).toBe(0);
  });
});

describe('what must not leak or hang', () => {
  test('NOP on a registered file lets it go: its pipe ends when the table does', () => {
    const [reader, writer] = work.pipe(fs.constants.O_NONBLOCK);
    table.register([writer]);
    work.close(writer);
    // nop_flags FILE | FIXED_FILE (6.13); before, a NOP looks at no file
    const [result] = go(ring, { opcode: Op.nop, fd: new Slot(0), opFlags: 2 | 4 });
    expect([0, EINVAL]).toContain(result);
    table.unregister();
    expect(fs.readSync(reader, Buffer.alloc(1))).toBe(0);
  });

  test('a linked close ends a file for good: end of file on its pipe', () => {
    const [reader, writer] = work.pipe(fs.constants.O_NONBLOCK);
    table.register([writer]);
    work.close(writer);
    const write = { opcode: Op.write, fd: table.slot(0), buffer: Buffer.from('x'), offset: -1, flags: SqeFlag.link };
    expect(go(ring, write, table.closeRequest(table.slot(0)))).toEqual([1, 0]);
    expect(fs.readSync(reader, Buffer.alloc(4))).toBe(1);
    let size: number | undefined;
    const ended = (): boolean => {
      try {
        size = fs.readSync(reader, Buffer.alloc(4));
      } catch (err) {
        if (codeOf(err) !== 'EAGAIN') throw err;
      }
      return size !== undefined;
    };
    until(ring, ended);
    expect(size).toBe(0);
  });

  test('an O_PATH descriptor opened and closed by requests', () => {
    const path = Buffer.from(`${work.dir}\0`);
    const [fd] = go(ring, { opcode: Op.openat, fd: -100, buffer: path, length: 0, opFlags: 0o10000000 });
    expect(fd).toBeGreaterThan(2);
    expect(go(ring, { opcode: Op.read, fd: fd!, buffer: Buffer.alloc(1) })).toEqual([EBADF]);
    expect(go(ring, { opcode: Op.close, fd: fd! })).toEqual([0]);
    expect(go(ring, { opcode: Op.close, fd: fd! })).toEqual([EBADF]);
  });

  test('a ring that polls its own descriptor can be closed', () => {
    const before = ringCount();
    const own = new Ring({ entries: 4, watch: false });
    let result: number | undefined;
    own.push({ opcode: Op.pollAdd, fd: own.fd, opFlags: 1 }, (n) => {
      result = n;
    });
    own.submit();
    own.close();
    expect(result).toBeDefined();
    expect(ringCount()).toBe(before);
  });

  test('a process that ends with tagged files registered and a request under way ends at once', () => {
    const { status, stderr, signal } = inChild(`const ring = new Ring({ entries: 8 }); const files = new FileTable(ring);
      const [r] = [fs.openSync('/dev/zero')]; files.register([r, r], [1, 2]); files.update(0, [-1]);
      ring.push({ opcode: Op.timeout, buffer: BigInt64Array.of(1000n, 0n), length: 1 }, () => {}); ring.submit();
      process.exit(5);`);
    expect({ status, signal, stderr }).toEqual({ status: 5, signal: null, stderr: '' });
  });

  test.each(['', 'process.exit(0)', "throw new Error('mine')"])(
    'a program that ends without closing its ring (%s) lets its files go at once',
    (end) => {
      const [reader, writer] = work.pipe(fs.constants.O_NONBLOCK);
      const source = `const files = new FileTable(new Ring({ entries: 8 })); files.register([3]); ${end}`;
      const { status } = inChild(source, { stdio: ['ignore', 'pipe', 'pipe', writer] });
      expect(status).toBe(end.startsWith('throw') ? 1 : 0);
      work.close(writer);
      expect(fs.readSync(reader, Buffer.alloc(1))).toBe(0);
    },
  );

  test('a ring forgotten by the program does not keep it alive, nor crash it at the end', () => {
    const { status, stderr } = inChild(
      `for (let i = 0; i < 50; i++) { const r = new Ring({ entries: 8 }); new FileTable(r).registerSparse(4); r.push({ opcode: Op.nop }, () => {}); r.submit(); }`,
    );
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  });

  test('a ring cannot be sent over a socket: no cycle of descriptors', () => {
    const [socket] = go(ring, { opcode: Op.socket, fd: 1, offset: 2, length: 0 }); // AF_UNIX, SOCK_DGRAM
    expect(socket).toBeGreaterThan(2);
    const message = (fd: number): number => {
      const control = Buffer.alloc(24); // struct cmsghdr {len, SOL_SOCKET, SCM_RIGHTS}, one descriptor
      control.writeUInt32LE(20, 0);
      control.writeUInt32LE(1, 8);
      control.writeUInt32LE(1, 12);
      control.writeInt32LE(fd, 16);
      const header = Buffer.alloc(56); // struct msghdr: control at 32, its length at 40
      header.writeBigUInt64LE(BigInt(addressOf(control)), 32);
      header.writeBigUInt64LE(24n, 40);
      return go(ring, { opcode: 9, fd: socket!, buffer: header, length: 1, keep: control })[0]!; // SENDMSG
    };
    // The descriptors are looked at before the (missing) peer is.
    expect(message(work.file())).toBe(ENOTCONN);
    expect([EINVAL, ENOTCONN]).toContain(message(ring.fd)); // refused since 6.7
    expect(go(ring, { opcode: Op.close, fd: socket! })).toEqual([0]);
  });
});

describe('install', () => {
  test('linked behind an open; a hole and a descriptor are EBADF; with other credentials EPERM', async () => {
    if (!offers(ring, Op.fixedFdInstall)) return skip('FIXED_FD_INSTALL', 'this kernel has none (6.8)');
    table.registerSparse(2);
    fs.writeFileSync(work.path('linked'), 'linked');
    const open = { ...table.openRequest(work.path('linked'), 0, 0), flags: SqeFlag.link };
    const [opened, fd] = go(ring, open, { opcode: Op.fixedFdInstall, fd: table.slot(0) });
    expect(opened).toBe(0);
    expect(fs.readFileSync(fd!, 'utf8')).toBe('linked');
    fs.closeSync(fd!);
    expect(go(ring, { opcode: Op.fixedFdInstall, fd: table.slot(1) })).toEqual([EBADF]);
    const missing = { ...table.openRequest(work.path('none'), 0, 1), flags: SqeFlag.link };
    expect(go(ring, missing, { opcode: Op.fixedFdInstall, fd: table.slot(1) })).toEqual([-2, ECANCELED]);
    const personality = ring.register(reg('register_personality'), null, 0);
    expect(personality).toBeGreaterThan(0);
    // sqe->personality is the upper half of the word that begins with buf_index
    expect(go(ring, { opcode: Op.fixedFdInstall, fd: table.slot(0), bufIndex: personality << 16 })).toEqual([EPERM]);
    expect(ring.register(reg('unregister_personality'), null, personality)).toBe(0);
  });
});

test('a pipe into slots leaves slot 0 and the slots beside it alone', () => {
  table.register([work.file('zero'), -1, -1, -1, work.file('four')]);
  const [result] = go(ring, { opcode: Op.pipe, fd: 0, buffer: new Int32Array(2), length: 0, fileIndex: 2 + 1 });
  expect(result).toBe(offers(ring, Op.pipe) ? 0 : EINVAL);
  expect([content(0), content(1), content(4)]).toEqual(['zero', EBADF, 'four']);
});

test('a device that is full: ENOSPC of each write, the ring goes on', () => {
  const full = work.open('/dev/full', fs.constants.O_WRONLY);
  table.register([full, work.file('')]);
  const data = Buffer.from('data');
  const write = (slot: number) => ({ opcode: Op.write, fd: table.slot(slot), buffer: data, offset: 0 });
  expect(go(ring, write(0), write(1), write(0))).toEqual([ENOSPC, 4, ENOSPC]);
  expect(content(1)).toBe('data');
});

test('privileges dropped after a ring was opened are dropped for its requests too', () => {
  if (process.getuid?.() !== 0) return skip('dropping privileges', 'not root');
  const secret = work.path('secret');
  fs.writeFileSync(secret, 'secret', { mode: 0o600 });
  fs.chmodSync(work.dir, 0o755);
  const { stdout, stderr } = inChild(
    `const secret = process.argv[1]; const ring = new Ring({ entries: 8 }); const files = new FileTable(ring); files.registerSparse(2);
    const attempt = () => files.open(secret, 0, 0).then(() => 'open', (err) => err.code);
    (async () => { const before = await attempt(); process.setgroups([]); process.setgid(65534); process.setuid(65534);
      console.log(before, await attempt()); ring.close(); })();`,
    { args: [secret] },
  );
  expect([stdout, stderr]).toEqual(['open EACCES\n', '']);
});

test('registering is of the ring itself, not of who holds its number: a closed ring says EBADF', () => {
  const other = new Ring({ entries: 1 });
  const { fd } = other;
  other.close();
  expect(native().uring.registerRaw(fd, Reg.unregisterFiles, null, 0)).toBe(EBADF);
  expect(() => other.register(Reg.unregisterFiles, null, 0)).toThrow(expect.objectContaining({ code: 'EBADF' }));
});
