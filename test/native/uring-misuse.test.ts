import fs from 'node:fs';
import { ALLOC, addressOf, type File, FileTable, Op, Reg, type Request, Ring, requestOps, Slot } from '../../src/uring/index.js';
import { go, Workspace } from '../support/uring.js';

// What a program in JavaScript can get wrong, types or not: each is an error that says so. Where the kernel's structures take
// a number, anything else would become 0 there: descriptor 0, slot 0, offset 0.
const work = new Workspace();
afterAll(() => work.end());
const saying = (code: string, text: RegExp) => expect.objectContaining({ code, message: expect.stringMatching(text) });

let ring: Ring;
let table: FileTable;
let fd: number;
const buffer = Buffer.alloc(64);
beforeEach(() => {
  ring = new Ring({ entries: 8 });
  table = new FileTable(ring);
  table.registerSparse(4);
  fd = work.file('content');
});
afterEach(() => ring.close());
const any = (value: unknown) => value as never;

test.each([0, -1, 1.5, Number.NaN, 'x', 1e9])('new Ring with %p entries', (entries) => {
  expect(() => new Ring({ entries: any(entries) })).toThrow(saying('EINVAL', /^entries: expected a whole number from 1 to 32768, found/));
  expect(() => new Ring({ entries: 8, cqEntries: any(entries) })).toThrow(saying('EINVAL', /^cqEntries: /));
});

test.each([-1, 1.5, Number.NaN, 'a', undefined, null, 2 ** 32])('slot %p', async (index) => {
  expect(() => table.slot(any(index))).toThrow(saying('EINVAL', /^slot: expected a whole number from 0 to \d+, found/));
  if (index !== undefined) await expect(table.open('/dev/null', 0, any(index))).rejects.toThrow(saying('EINVAL', /^slot: /));
  expect(() => table.update(any(index), [fd])).toThrow(saying('EINVAL', /^slot: /));
  expect(() => ring.closeSlot(any(index), () => {})).toThrow(saying('EINVAL', /^slot: /));
});

test('closing a number instead of a slot leaves descriptor 0 alone', async () => {
  const before = fs.fstatSync(0);
  await expect((async () => table.close(any(0)))()).rejects.toThrow(saying('EINVAL', /^slot: .* found undefined/));
  expect(fs.fstatSync(0)).toMatchObject({ ino: before.ino, dev: before.dev });
});

test.each([-1, 0, 1.5, Number.NaN, 2 ** 32, 'x', undefined])('a sparse table of %p slots', (size) => {
  table.unregister();
  expect(() => table.registerSparse(any(size))).toThrow(saying('EINVAL', /^size of the table: expected a whole number from 1 to 1048576/));
});

test.each([1.5, Number.NaN, undefined, null, '3', 2 ** 32])('%p as a descriptor to register', (bad) => {
  const list = [fd, any(bad)];
  expect(() => table.update(0, list)).toThrow(saying('EINVAL', /^entry 1: expected a descriptor, found/));
  table.unregister();
  expect(() => table.register(list)).toThrow(saying('EINVAL', /^entry 1: expected a descriptor, found/));
});

test.each(['x', undefined, null, 1.5, Number.NaN, {}, '3'])('%p as a file', async (file) => {
  const read = async () => ring.readAsync(any(file), buffer, 0);
  await expect(read()).rejects.toThrow(saying('EINVAL', /^file: expected a descriptor or a Slot, found/));
  if (file !== undefined)
    await expect((async () => ring.request({ opcode: Op.fsync, fd: any(file) }))()).rejects.toThrow(saying('EINVAL', /^file: /));
});

test.each([1.5, Number.NaN, undefined, null, '0', 2 ** 53, Number.POSITIVE_INFINITY])('offset %p', async (offset) => {
  await expect((async () => ring.readAsync(fd, buffer, any(offset)))()).rejects.toThrow(saying('EINVAL', /^offset: /));
});

test.each([
  ['a string', 'str'],
  ['nothing', undefined],
  ['a number', 5],
  ['an ArrayBuffer', new ArrayBuffer(8)],
])('%s as a buffer; nothing is queued', async (_, bad) => {
  expect(go(ring, { opcode: Op.nop })).toEqual([0]);
  await expect((async () => ring.readAsync(fd, any(bad), 0))()).rejects.toThrow(saying('EINVAL', /^buffer: expected a Buffer/));
  expect(() => ring.registerBuffers([any(bad)])).toThrow(saying('EINVAL', /^buffer: /));
  expect(() => ring.readWhole(Buffer.from('/dev/null\0'), 0, 0, any(bad), () => {})).toThrow(saying('EINVAL', /^buffer: /));
  expect(ring.queued).toBe(0);
});

test('memory that was transferred away is not written to', async () => {
  const view = new Uint8Array(64);
  expect(await ring.readAsync(fd, view, 0)).toBe(7);
  const moved = structuredClone(view.buffer, { transfer: [view.buffer] });
  new Uint8Array(moved).fill(0);
  expect(addressOf(view)).toBe(0);
  expect(await ring.readAsync(fd, view, 0)).toBe(0);
  await expect(ring.request({ opcode: Op.read, fd, buffer: view, length: 64, offset: 0 })).rejects.toThrow(
    saying('EINVAL', /^length: expected at most what the buffer of 0 bytes holds/),
  );
  expect(new Uint8Array(moved).some((byte) => byte !== 0)).toBe(false);
});

test('opcodes and flags that do not fit, our own opcode, a missing callback', () => {
  for (const opcode of [300, -1, 1.5, undefined, 0xf0])
    expect(() => ring.push({ opcode: any(opcode) }, () => {})).toThrow(saying('EINVAL', /^opcode: /));
  expect(() => ring.push({ opcode: Op.nop, flags: 256 }, () => {})).toThrow(saying('EINVAL', /^flags: /));
  expect(() => ring.read(fd, buffer, 0, any(undefined))).toThrow(saying('EINVAL', /^done: expected a function/));
  expect(ring.queued).toBe(0);
});

test('paths and flags of open', async () => {
  const name = work.path('name');
  fs.writeFileSync(name, '');
  for (const path of [`${name}\0x`, Buffer.from(`${name}\0`), 5, undefined, new URL('file:///dev/null')])
    await expect(table.open(any(path), 0)).rejects.toThrow(saying('EINVAL', /^path: expected a string or bytes without NUL/));
  for (const flags of ['r', 'w', undefined, null, -1])
    await expect(table.open(name, any(flags))).rejects.toThrow(saying('EINVAL', /^flags of open: /));
  await expect(table.open(work.path('none'), 0)).rejects.toThrow(saying('ENOENT', /^ENOENT: openat '.*none'$/));
});

test('a slot that was freed, one outside the table, no table: said so', async () => {
  const slot = await table.open('/dev/null', 0);
  await table.close(slot);
  await expect(ring.readAsync(slot, buffer, 0)).rejects.toThrow(saying('EBADF', /read: slot 0 is empty or outside the table/));
  await expect(ring.writeAsync(slot, buffer, 0)).rejects.toThrow(saying('EBADF', /write: slot 0 is empty/));
  await expect(ring.request({ opcode: Op.fsync, fd: slot }, 'fsync')).rejects.toThrow(saying('EBADF', /fsync: slot 0 is empty/));
  await expect(table.close(slot)).rejects.toThrow(saying('EBADF', /slot 0 is empty/));
  await expect(ring.readAsync(new Slot(4), buffer, 0)).rejects.toThrow(saying('EBADF', /slot 4 is empty or outside the table/));
  await expect(table.open('/dev/null', 0, 4)).rejects.toThrow(saying('EINVAL', /slot 4 of a table of 4: out of range/));
  for (let i = 0; i < 4; i++) await table.open('/dev/null', 0);
  await expect(table.open('/dev/null', 0)).rejects.toThrow(saying('ENFILE', /no slot is free/));
  await expect(table.socket(1, 1, 0)).rejects.toThrow(saying('ENFILE', /no slot is free/));
  table.unregister();
  await expect(table.open('/dev/null', 0)).rejects.toThrow(saying('ENFILE', /no table is registered/));
  await expect(table.open('/dev/null', 0, 1)).rejects.toThrow(
    expect.objectContaining({ message: expect.stringMatching(/no table is registered/) }),
  );
});

test("after close() everything says that the ring is closed; its descriptor is nobody's", async () => {
  ring.close();
  const closed = saying('EBADF', /the ring is closed/);
  const calls: (() => unknown)[] = [
    () => ring.submit(),
    () => ring.reserve(2),
    () => ring.readAsync(fd as File, buffer, 0),
    () => ring.registerBuffers([buffer]),
    () => ring.watch(),
    () => ring.enable(),
    () => table.open('/dev/null', 0, ALLOC),
    () => table.register([fd]),
    () => table.registerSparse(2),
    () => table.update(0, [fd]),
    () => table.unregister(),
    () => table.readOnce('/dev/null', new Slot(0), buffer),
  ];
  for (const call of calls) await expect((async () => call())()).rejects.toThrow(closed);
  expect([ring.fd, table.size, ring.closed]).toEqual([-1, 0, true]);
  ring.close();
});

test('a ring whose descriptor somebody else has closed can still be closed', () => {
  const other = new Ring({ entries: 2, registered: false, watch: false });
  new FileTable(other).registerSparse(2);
  const spare = fs.openSync('/dev/null', 'r');
  fs.closeSync(other.fd);
  other.close();
  expect(other.closed).toBe(true);
  fs.closeSync(spare);
});

/** A view of a few bytes in the middle of a block whose other bytes must stay as they are. */
function island(size: number): { view: Buffer; untouched(): boolean } {
  const block = Buffer.alloc(8192, 'z');
  const view = block.subarray(4096, 4096 + size);
  return { view, untouched: () => block.every((byte, i) => byte === 0x7a || (i >= 4096 && i < 4096 + size)) };
}
const op = (name: string): number => requestOps.find((o) => o.name === name)!.value;

// A length beyond the buffer: the kernel would read or write what lies behind it.
test.each<[string, number, Partial<Request>]>([
  ['read', 4, { length: 64 }],
  ['read', 0, { length: 1 }],
  ['write', 16, { length: 17 }],
  ['recv', 8, { length: 2 ** 32 - 1 }],
  ['send', 8, { length: 9 }],
  ['read_fixed', 8, { length: 9, bufIndex: 0 }],
  ['readv', 31, { length: 2 }],
  ['writev', 16, { length: 2 }],
  ['files_update', 8, { length: 3 }],
  ['timeout', 15, {}],
  ['link_timeout', 8, { length: 1 }],
  ['sendmsg', 55, {}],
  ['recvmsg', 55, { length: 1 }],
  ['connect', 16, { offset: 17 }],
  ['bind', 16, { offset: 128n }],
  ['epoll_wait', 11, { length: 1 }],
  ['futex_waitv', 47, { length: 2 }],
  ['provide_buffers', 100, { fd: 3, length: 50 }],
  ['pipe', 7, {}],
  ['uring_cmd', 8, { length: 9 }],
])('%s of a buffer of %d bytes with %p', async (name, size, more) => {
  const { view, untouched } = island(size);
  await expect((async () => ring.request({ opcode: op(name), fd, buffer: view, ...more }))()).rejects.toThrow(
    saying('EINVAL', /^length: /),
  );
  expect([ring.queued, ring.inFlight, untouched()]).toEqual([0, 0, true]);
});

test.each(['openat', 'openat2', 'statx', 'unlinkat', 'mkdirat', 'renameat'])('%s with a path that does not end', async (name) => {
  await expect((async () => ring.request({ opcode: op(name), fd: -100, buffer: Buffer.from('/dev/null') }))()).rejects.toThrow(
    saying('EINVAL', /NUL/),
  );
  expect(() => ring.openSlot(Buffer.from('/dev/null'), 0, 0, 0, () => {})).toThrow(saying('EINVAL', /NUL/));
  expect(() => ring.readWhole(Buffer.from('/dev/null'), 0, 0, buffer, () => {})).toThrow(saying('EINVAL', /NUL/));
});

test.each(['length', 'opFlags', 'bufIndex', 'fileIndex', 'ioprio', 'offset', 'address', 'addr3'] as const)(
  '%s that is no number or does not fit',
  (field) => {
    for (const value of [Number.NaN, 1.5, Number.POSITIVE_INFINITY, 'x', null, {}, 2 ** 53, -(2 ** 53)])
      expect(() => ring.push({ opcode: Op.nop, [field]: any(value) }, () => {})).toThrow(saying('EINVAL', new RegExp(`^${field}: `)));
    expect(() => ring.push({ opcode: Op.nop, buffer, address: 1 }, () => {})).toThrow(saying('EINVAL', /^address: /));
    expect(ring.queued).toBe(0);
  },
);

test.each([-2, -1.5, 1n << 63n, -2n])('offset %p of a read', async (offset) => {
  await expect((async () => ring.readAsync(fd, buffer, any(offset)))()).rejects.toThrow(saying('EINVAL', /^offset: /));
});

test('offsets may be bigint', async () => {
  expect(await ring.readAsync(fd, buffer, 4n)).toBe(3);
  expect(buffer.toString('latin1', 0, 3)).toBe('ent');
});

test.each([Number.NaN, -1, 1.5, 'x', 2 ** 32])('submit() that waits for %p', (want) => {
  expect(() => ring.submit(any(want))).toThrow(saying('EINVAL', /^want: /));
  expect(() => ring.submit(0, any('x'))).toThrow(saying('EINVAL', /^timeout: /));
  expect(() => ring.reserve(any(want))).toThrow(saying('EINVAL', /^count: /));
});

test.each<[string, number, number, number]>([
  ['a probe', Reg.registerProbe, 16 + 255 * 8, 256],
  ['files', Reg.registerFiles, 8, 3],
  ['buffers', Reg.registerBuffers, 16, 2],
  ['a sparse table', Reg.registerFiles2, 31, 32],
  ['a cancellation', Reg.registerSyncCancel, 63, 1],
  ['restrictions', Reg.registerRestrictions, 15, 1],
  ['an opcode that nobody knows yet', 1000, 3, 4],
])('register(): %s, opcode %d, with %d bytes for %d', (_, opcode, size, nr) => {
  const { view, untouched } = island(size);
  expect(() => ring.register(opcode, view, nr)).toThrow(saying('EINVAL', /^argument: expected at least \d+ bytes/));
  expect(untouched()).toBe(true);
  expect(() => ring.register(opcode, any('text'), nr)).toThrow(saying('EINVAL', /^argument: /));
  expect(() => ring.register(any(Number.NaN), view, nr)).toThrow(saying('EINVAL', /^opcode: /));
  expect(() => ring.register(opcode, view, any(-1))).toThrow(saying('EINVAL', /^nr: /));
});

test('set-up flags that change the layout of a ring, and options that do not exist', () => {
  for (const bit of [10, 11, 14, 15, 18, 19, 20, 31])
    expect(() => new Ring({ entries: 2, require: 2 ** bit })).toThrow(saying('EINVAL', /./));
  new Ring({ entries: 2, prefer: 0xffff_ffff, watch: false }).close();
  for (const require of [-1, 1.5, 2 ** 32, 'x']) expect(() => new Ring({ require: any(require) })).toThrow(saying('EINVAL', /^require: /));
  expect(() => new Ring(any({ entry: 8 }))).toThrow(saying('EINVAL', /^option: .*"entry"/));
});

test('memory that is transferred away between the call and its submission is not touched', async () => {
  const views = [new Uint8Array(4096), new Uint8Array(4096), new Uint8Array(4096)];
  const results = Promise.allSettled([
    ring.readAsync(fd, views[0]!, 0),
    ring.request({ opcode: Op.read, fd, buffer: views[1]!, offset: 0 }),
    new Promise((resolve) => ring.readWhole(Buffer.from('/etc/passwd\0'), 0, 0, views[2]!, resolve)),
  ]);
  const moved = views.map((view) => structuredClone(view.buffer, { transfer: [view.buffer] }));
  expect((await results).map((r) => (r.status === 'fulfilled' ? r.value : r.reason.code))).toEqual(['EFAULT', 'EFAULT', -14]);
  for (const memory of moved) expect(new Uint8Array(memory).every((byte) => byte === 0)).toBe(true);
});

test('tags: one for each entry, each a number', () => {
  expect(() => table.update(0, [fd], [])).toThrow(saying('EINVAL', /^tags: /));
  for (const tag of [-1, 1.5, 2 ** 31, Number.NaN, 'x'])
    expect(() => table.update(0, [fd], [any(tag)])).toThrow(saying('EINVAL', /^tag 0: /));
  for (const bad of [Number.NaN, -1, 2 ** 32]) {
    expect(() => table.allocRange(any(bad), 1)).toThrow(saying('EINVAL', /^offset: /));
    expect(() => table.allocRange(0, any(bad))).toThrow(saying('EINVAL', /^length: /));
  }
  expect(() => ring.closeSlot(ALLOC, () => {})).toThrow(saying('EINVAL', /^slot: /));
  expect(() => ring.readWhole(Buffer.from('/dev/null\0'), 0, ALLOC, buffer, () => {})).toThrow(saying('EINVAL', /^slot: /));
});

test('Request.keep lives as long as its request, also beside a buffer', async () => {
  const [reader, writer] = work.pipe();
  const ended = jest.fn();
  const registry = new FinalizationRegistry(ended);
  const read = (() => {
    const memory = new Uint8Array(new ArrayBuffer(1 << 20));
    const vector = Buffer.alloc(16);
    vector.writeBigUInt64LE(BigInt(addressOf(memory)), 0);
    vector.writeBigUInt64LE(1n << 20n, 8);
    registry.register(memory.buffer, 1);
    return ring.request({ opcode: op('readv'), fd: reader, buffer: vector, offset: -1, keep: memory });
  })();
  ring.submit();
  for (let i = 0; i < 5; i++) {
    await new Promise((resolve) => setTimeout(resolve, 10));
    (globalThis as { gc?: () => void }).gc?.();
  }
  expect(ended).not.toHaveBeenCalled();
  fs.writeSync(writer, 'x');
  expect(await read).toBe(1);
});
