import fs from 'node:fs';
import { ALLOC, FileTable, Op, Reg, Ring, SKIP, Slot, SqeFlag } from '../../src/uring/index.js';
import { go, Workspace } from '../support/uring.js';

const [ENOENT, ENXIO, EBADF, EFAULT, EBUSY, EISDIR, EINVAL, EMFILE, ECANCELED] = [-2, -6, -9, -14, -16, -21, -22, -24, -125] as const;

const work = new Workspace();
afterAll(() => work.end());

let ring: Ring;
let table: FileTable;
beforeEach(() => {
  ring = new Ring({ entries: 64 });
  table = new FileTable(ring);
});
afterEach(() => ring.close());

/** What a slot holds: the text of its file, or the negative errno of reading it. */
function content(slot: number, of = ring): string | number {
  const buffer = Buffer.alloc(64);
  const [size] = go(of, { opcode: Op.read, fd: new Slot(slot), buffer, offset: 0 });
  return size! < 0 ? size! : buffer.toString('utf8', 0, size);
}
const raw = (fds: number[]): number => ring.register(Reg.registerFiles, new Uint8Array(Int32Array.from(fds).buffer), fds.length);
const files = (count: number, name: string): number[] => Array.from({ length: count }, (_, i) => work.file(`${name}${i}`));
/** A descriptor number that nobody has. */
const closed = 9999;
const code = (expected: string) => expect.objectContaining({ code: expected });

describe('registering', () => {
  test('basic, many: every slot reads its own file, also after the descriptors are closed', () => {
    const fds = files(768, 'many');
    table.register(fds);
    expect(table.size).toBe(768);
    for (const fd of fds) work.close(fd);
    for (const i of [0, 1, 383, 767]) expect(content(i)).toBe(`many${i}`);
    table.unregister();
    expect(content(0)).toBe(EBADF);
  });

  test('unregister without a table, a second table, arguments where none belong', () => {
    expect(ring.register(Reg.unregisterFiles, null, 0)).toBe(ENXIO);
    expect(() => table.unregister()).toThrow(code('ENXIO'));
    expect(ring.register(Reg.unregisterFiles, null, 1)).toBe(EINVAL);
    expect(ring.register(Reg.unregisterFiles, new Uint8Array(4), 0)).toBe(EINVAL);
    table.register([work.file('one')]);
    expect(() => table.register([work.file('two')])).toThrow(code('EBUSY'));
    expect(raw([work.file()])).toBe(EBUSY);
    expect(content(0)).toBe('one');
  });

  test('zero entries, no pointer', () => {
    expect(() => table.register([])).toThrow(code('EINVAL'));
    expect(ring.register(Reg.registerFiles, null, 1)).toBe(EFAULT);
    expect(table.size).toBe(0);
  });

  test('sparse: -1 is a hole, reading it is EBADF, other slots work; index out of range too', () => {
    table.register([work.file('a'), -1, work.file('c'), -1]);
    expect([0, 1, 2, 3, 4].map((i) => content(i))).toEqual(['a', EBADF, 'c', EBADF, EBADF]);
    expect(go(ring, { opcode: Op.read, fd: -1, flags: SqeFlag.fixedFile, buffer: Buffer.alloc(1) })).toEqual([EBADF]);
  });

  test('the same descriptor four times, and a directory (EISDIR to read)', () => {
    const fd = work.file('same');
    table.register([fd, fd, fd, fd, work.open(work.dir, fs.constants.O_RDONLY)]);
    expect([0, 1, 2, 3, 4].map((i) => content(i))).toEqual(['same', 'same', 'same', 'same', EISDIR]);
  });

  test('partial failure: a bad entry anywhere leaves no table, and we name it', () => {
    const good = work.file('good');
    const opath = work.open(work.dir, 0o10000000);
    const other = new Ring({ entries: 1 });
    for (const [bad, why] of [
      [closed, 'is closed'],
      [ring.fd, 'is an io_uring'],
      [other.fd, 'is an io_uring'],
      [opath, 'is an O_PATH descriptor'],
      [-2, 'is negative'],
    ] as const) {
      expect(raw([good, bad])).toBe(EBADF);
      expect(() => table.register([good, good, bad])).toThrow(
        expect.objectContaining({ code: 'EBADF', message: expect.stringContaining(`entry 2: descriptor ${bad} ${why}`) }),
      );
    }
    other.close();
    table.register([good]);
    expect(content(0)).toBe('good');
  });

  test('huge: more entries than RLIMIT_NOFILE is EMFILE, sparse or not, and the message says the limit', () => {
    const limit = Number(/Max open files\s+(\d+)/.exec(fs.readFileSync('/proc/self/limits', 'utf8'))![1]);
    expect(() => table.registerSparse(limit + 1)).toThrow(
      expect.objectContaining({ code: 'EMFILE', message: expect.stringContaining('RLIMIT_NOFILE') }),
    );
    expect(raw(new Array(limit + 1).fill(-1))).toBe(EMFILE);
    if (limit <= 1 << 20) table.registerSparse(limit);
  });

  test('mixed with AF_UNIX sockets', async () => {
    table.registerSparse(4);
    await table.socket(1, 1, 0, 3);
    table.update(0, [work.file('plain')]);
    expect(content(0)).toBe('plain');
    expect(go(ring, { opcode: Op.read, fd: table.slot(3), buffer: Buffer.alloc(1) })[0]).toBeLessThan(0);
    table.unregister();
  });

  test('fixed read and write', () => {
    table.register([work.file('')]);
    expect(go(ring, { opcode: Op.write, fd: table.slot(0), buffer: Buffer.from('written'), offset: 2 })).toEqual([7]);
    expect(content(0)).toBe('\0\0written');
  });
});

describe('updating', () => {
  test('shrink, grow, replace, replace all, remove, add', () => {
    const first = files(100, 'first');
    table.register([...first, ...new Array(50).fill(-1)]);
    table.update(50, new Array(50).fill(-1));
    expect([content(49), content(50), content(99)]).toEqual(['first49', EBADF, EBADF]);
    table.update(100, files(50, 'grown'));
    expect([content(100), content(149)]).toEqual(['grown0', 'grown49']);
    table.update(0, files(150, 'all'));
    expect([content(0), content(75), content(149)]).toEqual(['all0', 'all75', 'all149']);
    table.update(10, files(3, 'mid'));
    expect([9, 10, 12, 13].map((i) => content(i))).toEqual(['all9', 'mid0', 'mid2', 'all13']);
    table.update(10, [-1, work.file('added')]);
    expect([10, 11, 12].map((i) => content(i))).toEqual([EBADF, 'added', 'mid2']);
    for (const fd of first) work.close(fd);
  });

  test('skip leaves a slot and counts as done', () => {
    table.register(files(3, 'skip'));
    table.update(0, [work.file('new0'), SKIP, work.file('new2')]);
    expect([0, 1, 2].map((i) => content(i))).toEqual(['new0', 'skip1', 'new2']);
  });

  test('sparse table, filled and emptied again', () => {
    table.registerSparse(256);
    expect(content(200)).toBe(EBADF);
    table.update(200, [work.file('late')]);
    expect(content(200)).toBe('late');
    table.update(200, [-1]);
    expect(content(200)).toBe(EBADF);
  });

  test('beyond the table, without entries, without a table', () => {
    expect(() => table.update(0, [work.file()])).toThrow(code('ENXIO'));
    table.registerSparse(4);
    expect(() => table.update(3, [work.file(), work.file()])).toThrow(code('EINVAL'));
    expect(() => table.update(0, [])).toThrow(code('EINVAL'));
    expect(() => table.update(0, [ring.fd])).toThrow(expect.objectContaining({ message: expect.stringContaining('io_uring') }));
  });

  test('trap: the kernel returns 1 for {good, bad} and empties the slot of the bad one; ours changes nothing', () => {
    table.register([work.file('a'), work.file('b'), work.file('c')]);
    expect(() => table.update(0, [work.file('x'), closed])).toThrow(
      expect.objectContaining({ code: 'EBADF', message: expect.stringContaining(`entry 1: descriptor ${closed} is closed`) }),
    );
    expect([0, 1, 2].map((i) => content(i))).toEqual(['a', 'b', 'c']);
    const fds = Int32Array.of(work.file('x'), closed, work.file('y'));
    expect(go(ring, { opcode: Op.filesUpdate, buffer: fds, length: 3, offset: 0 })).toEqual([1]);
    expect([0, 1, 2].map((i) => content(i))).toEqual(['x', EBADF, 'c']);
  });

  test('trap: an entry that goes bad between check and update: the slot that is empty now is named', async () => {
    table.register([work.file('a'), work.file('b'), work.file('c')]);
    const bad = work.file('x');
    const update = table.updateAsync(0, [work.file('y'), bad, work.file('z')]);
    work.close(bad); // the request has been checked and has not left
    await expect(update).rejects.toThrow(
      expect.objectContaining({ code: 'PARTIAL', message: expect.stringContaining('slot 1 is now empty'), details: { done: 1, slot: 1 } }),
    );
    expect([0, 1, 2].map((i) => content(i))).toEqual(['y', EBADF, 'c']);
  });

  test('through a request; with ALLOC the kernel picks slots and writes them back', async () => {
    await expect(table.updateAsync(0, [work.file()])).rejects.toThrow(code('ENXIO'));
    table.registerSparse(8);
    expect(await table.updateAsync(2, [work.file('two'), work.file('three')])).toEqual([2, 3]);
    expect([content(2), content(3)]).toEqual(['two', 'three']);
    const picked = await table.updateAsync(ALLOC, [work.file('p'), work.file('q')]);
    expect(picked.map((slot) => content(slot))).toEqual(['p', 'q']);
    expect([content(2), content(3)]).toEqual(['two', 'three']);
  });

  test('several rings at once', () => {
    const rings = Array.from({ length: 4 }, () => new Ring({ entries: 8 }));
    const tables = rings.map((r) => new FileTable(r));
    const fd = work.file('shared');
    for (const t of tables) t.registerSparse(4);
    for (const t of tables) t.update(1, [fd]);
    for (const r of rings) expect(content(1, r)).toBe('shared');
    tables[0]!.update(1, [-1]);
    expect([content(1, rings[0]), content(1, rings[1])]).toEqual([EBADF, 'shared']);
    for (const r of rings) r.close();
  });

  test('removal while requests are under way: they finish on the old file, then the next sees the hole', () => {
    const [reader, writer] = work.pipe();
    table.register([reader]);
    const results: string[] = [];
    const buffer = Buffer.alloc(4);
    ring.push({ opcode: Op.read, fd: table.slot(0), buffer, offset: -1 }, (n) => results.push(`read ${n}`));
    ring.submit();
    table.update(0, [-1]);
    expect(go(ring, { opcode: Op.read, fd: table.slot(0), buffer: Buffer.alloc(1), offset: -1 })).toEqual([EBADF]);
    expect(results).toEqual([]);
    fs.writeSync(writer, 'late');
    while (results.length === 0) ring.submit(1, 1000);
    expect([results, buffer.toString()]).toEqual([['read 4'], 'late']);
  });
});

describe('slots that the kernel picks', () => {
  test('ALLOC until full, then ENFILE; freed slots come back', async () => {
    table.registerSparse(3);
    const name = work.path('pick');
    fs.writeFileSync(name, 'picked');
    const got = [];
    for (let i = 0; i < 3; i++) got.push((await table.open(name, 0)).index);
    expect(got.sort()).toEqual([0, 1, 2]);
    await expect(table.open(name, 0)).rejects.toThrow(code('ENFILE'));
    await table.close(table.slot(1));
    expect((await table.open(name, 0)).index).toBe(1);
  });

  test('an allocation range is kept, also after explicit slots below and above it', async () => {
    table.registerSparse(10);
    const name = work.path('range');
    fs.writeFileSync(name, 'in range');
    table.allocRange(4, 2);
    await table.open(name, 0, 0);
    await table.open(name, 0, 9);
    expect((await table.open(name, 0)).index).toBe(4);
    await table.close(table.slot(0));
    await table.close(table.slot(9));
    expect((await table.open(name, 0)).index).toBe(5);
    await expect(table.open(name, 0)).rejects.toThrow(code('ENFILE'));
    expect(content(5)).toBe('in range');
  });

  test('ranges that do not fit, overflow, or are empty', async () => {
    expect(() => table.allocRange(0, 4)).toThrow(expect.objectContaining({ code: expect.stringMatching(/ENXIO|EINVAL/) }));
    table.registerSparse(8);
    expect(() => table.allocRange(8, 1)).toThrow(code('EINVAL'));
    expect(() => table.allocRange(7, 2)).toThrow(code('EINVAL'));
    expect(() => table.allocRange(1, 0xffff_ffff)).toThrow(code('EOVERFLOW'));
    table.allocRange(7, 0);
    const name = work.path('zero');
    fs.writeFileSync(name, '');
    await expect(table.open(name, 0)).rejects.toThrow(code('ENFILE'));
  });
});

describe('direct descriptors', () => {
  test('slot, O_CLOEXEC, slot outside, occupied slot, missing file', async () => {
    table.registerSparse(4);
    for (const name of ['d0', 'd1']) fs.writeFileSync(work.path(name), name);
    await table.open(work.path('d0'), fs.constants.O_RDONLY | 0o2000000, 2);
    expect(content(2)).toBe('d0');
    expect(go(ring, { ...table.openRequest(work.path('d0'), 0, 1), opFlags: 0o2000000 })).toEqual([EINVAL]);
    expect(go(ring, table.openRequest(work.path('d0'), 0, 4))).toEqual([EINVAL]);
    await table.open(work.path('d1'), 0, 2);
    expect(content(2)).toBe('d1');
    await expect(table.open(work.path('none'), 0, 1)).rejects.toThrow(code('ENOENT'));
  });

  test('close: twice is EBADF, outside EINVAL, with the fixed-file flag EBADF', async () => {
    table.registerSparse(2);
    fs.writeFileSync(work.path('c'), 'c');
    const slot = await table.open(work.path('c'), 0, 1);
    await table.close(slot);
    await expect(table.close(slot)).rejects.toThrow(code('EBADF'));
    await expect(table.close(table.slot(2))).rejects.toThrow(code('EINVAL'));
    expect(go(ring, { opcode: Op.close, fd: table.slot(0) })).toEqual([EBADF]);
  });

  test('open → read → close in one chain, also into an occupied slot; the slot is free behind it', async () => {
    table.registerSparse(1);
    fs.writeFileSync(work.path('chain'), 'chained');
    const buffer = Buffer.alloc(64);
    for (let i = 0; i < 3; i++) expect(await table.readOnce(work.path('chain'), table.slot(0), buffer)).toBe(7);
    expect(buffer.toString('utf8', 0, 7)).toBe('chained');
    expect(content(0)).toBe(EBADF);
    await table.open(work.path('chain'), 0, 0);
    expect(await table.readOnce(work.path('chain'), table.slot(0), buffer)).toBe(7);
  });

  test('a chain whose open fails: ENOENT, then ECANCELED twice; readOnce reports the root only', async () => {
    table.registerSparse(1);
    const read = { opcode: Op.read, fd: table.slot(0), buffer: Buffer.alloc(8), offset: 0 };
    const open = { ...table.openRequest(work.path('missing'), 0, 0), flags: SqeFlag.link };
    expect(go(ring, open, { ...read, flags: SqeFlag.hardlink }, table.closeRequest(table.slot(0)))).toEqual([ENOENT, ECANCELED, ECANCELED]);
    await expect(table.readOnce(work.path('missing'), table.slot(0), Buffer.alloc(8))).rejects.toThrow(code('ENOENT'));
  });

  test('trap: a short read breaks a soft link, the close is cancelled, the slot leaks; a hard link closes', () => {
    table.registerSparse(1);
    fs.writeFileSync(work.path('short'), 'short');
    const slot = table.slot(0);
    const chain = (flag: number) => [
      { ...table.openRequest(work.path('short'), 0, 0), flags: SqeFlag.link },
      { opcode: Op.read, fd: slot, buffer: Buffer.alloc(64), offset: 0, flags: flag },
      table.closeRequest(slot),
    ];
    expect(go(ring, ...chain(SqeFlag.link))).toEqual([0, 5, ECANCELED]);
    expect(content(0)).toBe('short');
    expect(go(ring, ...chain(SqeFlag.hardlink))).toEqual([0, 5, 0]);
    expect(content(0)).toBe(EBADF);
  });

  test('trap: slots are reused on the completion of the close only: 2,000 files over 4 slots, none lost', async () => {
    table.registerSparse(4);
    const names = Array.from({ length: 50 }, (_, i) => work.path(`reuse${i}`));
    for (const name of names) fs.writeFileSync(name, name);
    let wrong = 0;
    await Promise.all(
      [0, 1, 2, 3].map(async (index) => {
        const buffer = Buffer.alloc(256);
        for (let i = 0; i < 500; i++) {
          const name = names[(i * 7 + index) % 50]!;
          const size = await table.readOnce(name, table.slot(index), buffer);
          if (buffer.toString('utf8', 0, size) !== name) wrong++;
        }
      }),
    );
    expect(wrong).toBe(0);
    expect([0, 1, 2, 3].map((i) => content(i))).toEqual([EBADF, EBADF, EBADF, EBADF]);
  });

  test('files opened into slots take no descriptor of the process', async () => {
    table.registerSparse(32);
    fs.writeFileSync(work.path('nofd'), '');
    for (let i = 0; i < 32; i++) await table.open(work.path('nofd'), 0);
    const links = fs.readdirSync('/proc/self/fd').map((fd) => {
      try {
        return fs.readlinkSync(`/proc/self/fd/${fd}`);
      } catch {
        return ''; // the descriptor of the listing itself
      }
    });
    expect(links).not.toContain(work.path('nofd'));
  });
});
