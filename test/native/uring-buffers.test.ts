import fs from 'node:fs';
import os from 'node:os';
import { codeOf } from '../../src/common/errors.js';
import { kernelAtLeast } from '../../src/uring/host/unavailable.js';
import { addressOf, BufferRing, CqeFlag, Op, Operations, Ring, SqeFlag } from '../../src/uring/index.js';
import { skip } from '../support/skip.js';
import { go, offers, until, Workspace } from '../support/uring.js';

// Registered and provided buffers, as liburing's regbuf-clone, regbuf-merge, fixed-seg, fixed-buf-iter, fixed-buf-merge, vec-regbuf, buf-ring, read-mshot
// and read-mshot-empty look at them. Those that need memory which the addon does not map are in ring-setups.c.
const [EFAULT, EINVAL, ENOBUFS, ECANCELED] = [-14, -22, -105, -125] as const;
const PAGE = 4096;
/** Whether each registered buffer has references of its own (6.13). */
const ownReferences = kernelAtLeast(os.release(), 6, 13);
const work = new Workspace();
afterAll(() => work.end());

let ring: Ring;
beforeEach(() => {
  ring = new Ring({ entries: 32 });
});
afterEach(() => ring.close());
const code = (expected: string) => expect.objectContaining({ code: expected });
const pattern = (size: number, step = 7) => Buffer.from(Uint8Array.from({ length: size }, (_, i) => (i * step + (i >> 8)) & 255));
const fixed = (on: Ring, fd: number, buffer: NodeJS.ArrayBufferView, bufIndex: number, offset = 0) =>
  go(on, { opcode: Op.readFixed, fd, buffer, bufIndex, offset })[0]!;
/** Calls, and gives its errno back where this kernel is too old for it. */
const unlessOld = (what: string, run: () => void): boolean => {
  try {
    run();
    return true;
  } catch (err) {
    if (codeOf(err) !== 'EINVAL') throw err;
    skip(what, 'this kernel has none');
    return false;
  }
};

describe('registered buffers', () => {
  test('register, update, empty, unregister, register again; a sparse table', () => {
    const [a, b, c] = [Buffer.alloc(PAGE), Buffer.alloc(PAGE), Buffer.alloc(PAGE)];
    const fd = work.file(pattern(100));
    const { buffers } = ring;
    expect(() => buffers.unregister()).toThrow(code('ENXIO'));
    expect(() => buffers.update(0, [a])).toThrow(code('ENXIO'));
    buffers.register([a, b]);
    expect(() => buffers.register([c])).toThrow(code('EBUSY'));
    expect([fixed(ring, fd, a, 0), fixed(ring, fd, b, 1), a.equals(b)]).toEqual([100, 100, true]);
    buffers.update(1, [c]);
    expect([fixed(ring, fd, c, 1), fixed(ring, fd, b, 1)]).toEqual([100, EFAULT]);
    buffers.update(0, [null]);
    expect([fixed(ring, fd, a, 0), buffers.size, buffers.at(0), buffers.at(1)]).toEqual([EFAULT, 2, undefined, c]);
    expect(() => buffers.update(2, [a])).toThrow(code('EINVAL'));
    buffers.unregister();
    expect([fixed(ring, fd, c, 1), buffers.size]).toEqual([EFAULT, 0]);
    buffers.registerSparse(4);
    expect(fixed(ring, fd, a, 3)).toBe(EFAULT);
    buffers.update(3, [a]);
    expect(fixed(ring, fd, a, 3)).toBe(100);
    buffers[Symbol.dispose]();
    buffers[Symbol.dispose]();
    expect(buffers.size).toBe(0);
  });

  test('tags tell when a buffer was let go', () => {
    const tags: number[] = [];
    ring.onTag = (tag) => tags.push(tag);
    ring.buffers.register([Buffer.alloc(64), Buffer.alloc(64)], [11, 12]);
    ring.buffers.update(0, [Buffer.alloc(64)], [13]);
    until(ring, () => tags.length >= 1);
    ring.buffers.unregister();
    // Before 6.13 the end of the whole table is told of by unregister() itself, and not by tags.
    if (ownReferences) until(ring, () => tags.length >= 3);
    expect([tags[0], tags.slice(1).sort()]).toEqual([11, ownReferences ? [12, 13] : []]);
    expect(() => ring.buffers.register([Buffer.alloc(8)], [])).toThrow(code('EINVAL'));
  });

  test('a write under way keeps the memory of a buffer that is no longer registered', async () => {
    if (!ownReferences) return skip('a buffer let go under a request', 'before 6.13 unregistering waits for the request');
    const [reader, writer] = work.pipe();
    let memory: Buffer | undefined = Buffer.from(new ArrayBuffer(PAGE)).fill('m');
    ring.buffers.register([memory]);
    const io = new Operations(ring);
    const reading = io.readFixed(reader, memory.subarray(0, 4), 0);
    ring.submit();
    ring.buffers.unregister();
    fs.writeSync(writer, 'data');
    expect(await reading).toBe(4);
    expect(memory.toString('latin1', 0, 6)).toBe('datamm');
    memory = undefined;
  });

  test('clone: the whole table, parts of it, over others; the clone lives on without its source (regbuf-clone)', () => {
    const [a, b, c, d] = [0, 1, 2, 3].map(() => Buffer.alloc(PAGE)) as [Buffer, Buffer, Buffer, Buffer];
    const fd = work.file(pattern(50));
    const other = new Ring({ entries: 8 });
    try {
      expect(() => other.buffers.clone(ring)).toThrow(expect.objectContaining({ code: expect.stringMatching(/^(ENXIO|EINVAL)$/) }));
      ring.buffers.register([a, b, c]);
      if (!unlessOld('CLONE_BUFFERS', () => other.buffers.clone(ring))) return;
      expect([other.buffers.size, fixed(other, fd, c, 2)]).toEqual([3, 50]);
      expect(() => other.buffers.clone(ring)).toThrow(code('EBUSY'));
      ring.buffers.unregister();
      expect([fixed(ring, fd, b, 1), fixed(other, fd, b, 1)]).toEqual([EFAULT, 50]);
      ring.buffers.register([d]);
      if (!ownReferences) return skip('CLONE_BUFFERS of a part', 'this kernel has none (6.13)');
      other.buffers.clone(ring, { from: 0, to: 1, count: 1, replace: true });
      expect([fixed(other, fd, d, 1), fixed(other, fd, a, 0), fixed(other, fd, c, 2), fixed(other, fd, b, 1)]).toEqual([
        50,
        50,
        50,
        EFAULT,
      ]);
      expect(other.buffers.at(1)).toBe(d);
      for (const bad of [{ from: 2 }, { count: 2, replace: true }]) expect(() => other.buffers.clone(ring, bad)).toThrow();
      expect(() => other.buffers.clone(ring, { form: 1 } as never)).toThrow(code('EINVAL'));
    } finally {
      other.close();
    }
  });

  test('any part of a large buffer, across pages and behind its end (fixed-buf-iter)', () => {
    const memory = Buffer.from(new ArrayBuffer(6 * PAGE + 8192)).subarray(13, 13 + 6 * PAGE);
    const data = pattern(6 * PAGE);
    const fd = work.file(data);
    ring.registerBuffers([memory]);
    for (const [at, size] of [[0, 1], [1, PAGE], [PAGE - 1, 2], [PAGE, PAGE], [2 * PAGE - 13, 3 * PAGE], [6 * PAGE - 1, 1], [0, 6 * PAGE]] as const) {
      memory.fill(0);
      expect(fixed(ring, fd, memory.subarray(at, at + size), 0, at)).toBe(size);
      expect(memory.subarray(at, at + size).equals(data.subarray(at, at + size))).toBe(true);
      expect(memory.subarray(0, at).every((byte) => byte === 0) && memory.subarray(at + size).every((byte) => byte === 0)).toBe(true);
    } // biome-ignore format: a table
    const address = addressOf(memory) + 6 * PAGE - 4;
    expect(go(ring, { opcode: Op.readFixed, fd, address, length: 5, keep: memory, offset: 0 })).toEqual([EFAULT]);
    expect(go(ring, { opcode: Op.readFixed, fd, address: addressOf(memory) - 1, length: 5, keep: memory, offset: 0 })).toEqual([EFAULT]);
  });

  test('neighbours that were registered one by one are separate buffers (regbuf-merge)', () => {
    const memory = Buffer.from(new ArrayBuffer(2 * PAGE));
    ring.registerBuffers([memory.subarray(0, PAGE), memory.subarray(PAGE)]);
    const fd = work.file(pattern(2 * PAGE));
    expect([fixed(ring, fd, memory.subarray(0, PAGE), 0), fixed(ring, fd, memory.subarray(PAGE), 1)]).toEqual([PAGE, PAGE]);
    const across = { opcode: Op.readFixed, fd, buffer: memory.subarray(PAGE - 8, PAGE + 8), offset: 0 };
    expect(go(ring, { ...across, bufIndex: 0 }, { ...across, bufIndex: 1 })).toEqual([EFAULT, EFAULT]);
  });

  test('pages that the kernel merges into one piece: each byte is its own, wherever the buffer and the part begin (fixed-buf-merge)', () => {
    // Memory of hugepages where the kernel gives them: neighbouring pages are one piece of the registered buffer.
    const huge = 2 << 20;
    const arena = Buffer.from(new ArrayBuffer(3 * huge));
    const aligned = huge - (addressOf(arena) % huge);
    const size = 24 * PAGE;
    const data = pattern(size, 11);
    const fd = work.file(data);
    for (const begin of [0, 100, PAGE - 1, huge - 5 * PAGE, huge - 3]) {
      const memory = arena.subarray(aligned + begin - (begin === 0 ? 0 : 1), aligned + begin + size);
      arena.fill(0xee);
      ring.registerBuffers([memory]);
      for (const [at, length] of [
        [0, PAGE],
        [1, 3 * PAGE],
        [PAGE - 1, 2],
        [5 * PAGE + 7, 9 * PAGE + 1],
        [memory.length - 16 * PAGE, 16 * PAGE],
      ] as const) {
        const part = memory.subarray(at, at + length);
        const before = Buffer.from(arena);
        expect(fixed(ring, fd, part, 0, at % 50)).toBe(length);
        data.copy(before, part.byteOffset - arena.byteOffset, at % 50, (at % 50) + length);
        expect({ begin, at, same: arena.equals(before) }).toEqual({ begin, at, same: true });
        const copy = work.file('');
        expect(go(ring, { opcode: Op.writeFixed, fd: copy, buffer: part, bufIndex: 0, offset: 0 })).toEqual([length]);
        expect(fs.readFileSync(`/proc/self/fd/${copy}`).equals(part)).toBe(true);
      }
      ring.buffers.unregister();
    }
  });

  test('O_DIRECT out of and into the middle of a large block (fixed-seg)', () => {
    const memory = Buffer.from(new ArrayBuffer(2 << 20));
    const begin = (PAGE - (addressOf(memory) % PAGE)) % PAGE;
    const data = pattern(64 * 1024);
    const name = work.path('direct');
    fs.writeFileSync(name, data);
    ring.registerBuffers([memory]);
    let fd: number;
    try {
      fd = work.open(name, fs.constants.O_RDWR | fs.constants.O_DIRECT);
    } catch {
      return skip('O_DIRECT', 'this file system has none');
    }
    for (const at of [0, 512, 4096 + 512]) {
      const part = memory.subarray(begin + 4096 * 3 + at, begin + 4096 * 3 + at + 16384);
      const size = fixed(ring, fd, part, 0, 8192);
      if (size === EINVAL && at % PAGE !== 0) continue; // a device with larger blocks
      expect([size, part.equals(data.subarray(8192, 8192 + 16384))]).toEqual([16384, true]);
    }
  });

  test('vectors in a registered buffer (vec-regbuf)', () => {
    if (!offers(ring, Op.readvFixed)) return skip('READV_FIXED', 'this kernel has none (6.15)');
    const memory = Buffer.from(new ArrayBuffer(3 * PAGE));
    ring.registerBuffers([memory]);
    const fd = work.file(pattern(3000));
    const iovec = (...parts: Buffer[]) => BigUint64Array.from(parts.flatMap((p) => [BigInt(addressOf(p)), BigInt(p.length)]));
    const parts = [memory.subarray(0, 1000), memory.subarray(5000, 5500), memory.subarray(9000, 10500)];
    expect(go(ring, { opcode: Op.readvFixed, fd, buffer: iovec(...parts), length: 3, offset: 0, keep: memory })).toEqual([3000]);
    expect(Buffer.concat(parts).equals(pattern(3000))).toBe(true);
    const outside = Buffer.alloc(10);
    expect(
      go(ring, { opcode: Op.readvFixed, fd, buffer: iovec(parts[0]!, outside), length: 2, offset: 0, keep: [memory, outside] }),
    ).toEqual([EFAULT]);
    expect(go(ring, { opcode: Op.writevFixed, fd, buffer: iovec(parts[1]!), length: 1, offset: 0, keep: memory })).toEqual([500]);
    expect(fs.readFileSync(`/proc/self/fd/${fd}`).subarray(0, 500).equals(pattern(3000).subarray(1000, 1500))).toBe(true);
  });

  test('memory that threads share: read, written, registered', async () => {
    const shared = new Uint8Array(new SharedArrayBuffer(2 * PAGE), 100, PAGE);
    const fd = work.file('shared memory');
    const io = new Operations(ring);
    expect(await io.read(fd, shared, 0)).toBe(13);
    expect(Buffer.from(shared.subarray(0, 13)).toString()).toBe('shared memory');
    ring.registerBuffers([shared]);
    expect(await io.readFixed(fd, shared.subarray(200, 206), 0, 7)).toBe(6);
    expect(Buffer.from(shared.subarray(200, 206)).toString()).toBe('memory');
    expect(await io.writeFixed(fd, shared.subarray(200, 206), 0, 13)).toBe(6);
    expect(fs.readFileSync(`/proc/self/fd/${fd}`, 'utf8')).toBe('shared memorymemory');
  });
});

describe('provided buffers', () => {
  /** One read that takes a buffer of the group. */
  const pick = (fd: number, group: number) => {
    let answer: [number, number] | undefined;
    ring.push({ opcode: Op.read, fd, flags: SqeFlag.bufferSelect, bufIndex: group, length: 100, offset: -1 }, (n, f) => {
      answer = [n, f];
    });
    until(ring, () => answer !== undefined);
    return answer!;
  };

  test('a read takes a buffer, none is left, one is given back (buf-ring)', () => {
    const buffers = new BufferRing(ring, { count: 2, size: 16 });
    const fd = work.file('0123456789012345678901234567890123456789');
    const seen: string[] = [];
    const ids: number[] = [];
    for (let i = 0; i < 2; i++) {
      const [size, flags] = pick(fd, buffers.group);
      expect(size).toBe(16);
      ids.push(BufferRing.idOf(flags)!);
      seen.push(buffers.take(ids[i]!, size).toString());
    }
    expect([seen, [...ids].sort(), buffers.free]).toEqual([['0123456789012345', '6789012345678901'], [0, 1], 0]);
    expect(pick(fd, buffers.group)[0]).toBe(ENOBUFS);
    buffers.give(ids[1]!);
    expect(() => buffers.give(ids[1]!)).toThrow(code('EINVAL'));
    const [size, flags] = pick(fd, buffers.group);
    expect([size, flags & CqeFlag.buffer, BufferRing.idOf(flags)]).toEqual([8, CqeFlag.buffer, ids[1]]);
    buffers.unregister();
    buffers[Symbol.dispose]();
    expect(pick(fd, buffers.group)[0]).toBe(ENOBUFS);
  });

  test('around the largest ring of buffers, past the 65,536 that its tail can count', () => {
    const count = 1 << 15;
    const buffers = new BufferRing(ring, { count, size: 1 });
    const zero = work.open('/dev/zero', fs.constants.O_RDONLY);
    const reads = count + 100; // the tail begins behind the buffers that were given first
    let done = 0;
    const next = (): void => {
      if (done === reads) return;
      done++;
      ring.push({ opcode: Op.read, fd: zero, flags: SqeFlag.bufferSelect, bufIndex: buffers.group, length: 1 }, (size, flags) => {
        if (size !== 1) throw new Error(`${size} after ${done}`);
        const id = BufferRing.idOf(flags)!;
        buffers.take(id, size);
        buffers.give(id);
        next();
      });
    };
    for (let i = 0; i < 8; i++) next();
    while (ring.inFlight > 0 || ring.queued > 0) ring.submit(1, 500);
    expect([done, buffers.free]).toEqual([reads, count]);
  });

  test('groups: each its own buffers, a number in use is EEXIST, an unknown one ENOBUFS; arguments', () => {
    const [a, b] = [new BufferRing(ring, { count: 1, size: 4 }), new BufferRing(ring, { count: 1, size: 8 })];
    expect(a.group).not.toBe(b.group);
    const fd = work.file('0123456789');
    expect([pick(fd, a.group)[0], pick(fd, b.group)[0]]).toEqual([4, 6]);
    expect(() => new BufferRing(ring, { group: a.group })).toThrow(code('EEXIST'));
    expect(pick(fd, 77)[0]).toBe(ENOBUFS);
    for (const bad of [{ count: 3 }, { count: 0 }, { size: 0 }, { group: 65536 }, { counts: 1 }, { size: Number.NaN }])
      expect(() => new BufferRing(ring, bad as never)).toThrow(code('EINVAL'));
    for (const bad of [-1, 1, 1.5]) expect(() => a.take(bad, 1)).toThrow(code('EINVAL'));
    expect(() => a.take(0, 5)).toThrow(code('EINVAL'));
  });

  test('multishot reads of a pipe: a completion for each piece, ended by the end of the pipe or by a lack of buffers (read-mshot)', () => {
    if (!offers(ring, Op.readMultishot)) return skip('READ_MULTISHOT', 'this kernel has none (6.7)');
    const buffers = new BufferRing(ring, { count: 4, size: 32 });
    const [reader, writer] = work.pipe(fs.constants.O_NONBLOCK);
    const got: [number, number][] = [];
    const start = () =>
      ring.push({ opcode: Op.readMultishot, fd: reader, flags: SqeFlag.bufferSelect, bufIndex: buffers.group, offset: -1 }, (n, f) =>
        got.push([n, f]),
      );
    start();
    for (const text of ['one', 'two', 'three', 'four']) {
      const before = got.length;
      fs.writeSync(writer, text);
      until(ring, () => got.length > before);
      const [size, flags] = got.at(-1)!;
      expect([buffers.take(BufferRing.idOf(flags)!, size).toString(), flags & CqeFlag.more]).toEqual([text, CqeFlag.more]);
    }
    fs.writeSync(writer, 'lost to nobody');
    until(ring, () => got.length >= 5);
    expect(got.at(-1)).toEqual([ENOBUFS, 0]);
    for (const [, flags] of got.slice(0, 4)) buffers.give(BufferRing.idOf(flags)!);
    start();
    until(ring, () => got.length >= 6);
    expect(buffers.take(BufferRing.idOf(got.at(-1)![1])!, got.at(-1)![0]).toString()).toBe('lost to nobody');
    work.close(writer);
    until(ring, () => got.length >= 7);
    expect([got.at(-1)![0], got.at(-1)![1] & CqeFlag.more]).toEqual([0, 0]);
    const plain = work.file('not for multishot');
    expect(
      go(ring, { opcode: Op.readMultishot, fd: plain, flags: SqeFlag.bufferSelect, bufIndex: buffers.group, offset: 0 })[0],
    ).toBeLessThan(0);
  });

  test('a multishot request is cancelled, and its buffers stay (read-mshot)', () => {
    if (!offers(ring, Op.readMultishot)) return skip('READ_MULTISHOT', 'this kernel has none (6.7)');
    const buffers = new BufferRing(ring, { count: 4, size: 32 });
    const [reader] = work.pipe(fs.constants.O_NONBLOCK);
    let result: number | undefined;
    const request = { opcode: Op.readMultishot, fd: reader, flags: SqeFlag.bufferSelect, bufIndex: buffers.group, offset: -1 };
    const token = ring.push(request, (n) => {
      result = n;
    });
    ring.submit();
    ring.cancel(token);
    until(ring, () => result !== undefined);
    expect([result, buffers.free]).toEqual([ECANCELED, 4]);
  });
});
