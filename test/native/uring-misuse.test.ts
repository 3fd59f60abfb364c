import fs from 'node:fs';
import { ALLOC, addressOf, type File, FileTable, Op, Ring, Slot } from '../../src/uring/index.js';
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
  ['shared memory', new Uint8Array(new SharedArrayBuffer(8))],
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
  await expect(ring.request({ opcode: Op.read, fd, buffer: view, length: 64, offset: 0 })).rejects.toThrow(saying('EFAULT', /./));
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
