import fs from 'node:fs';
import os from 'node:os';
import { Worker } from 'node:worker_threads';
import { native } from '../../src/native/index.js';
import { kernelAtLeast } from '../../src/uring/host/unavailable.js';
import { ALLOC, FileTable, Op, READ_WHOLE_OPEN, Reg, Ring, Setup, Slot, SqeFlag } from '../../src/uring/index.js';
import { skip } from '../support/skip.js';
import { go, offers, ringCount, until, Workspace } from '../support/uring.js';
import { eventually } from '../support/wait.js';

const [EBADF, EAGAIN, EINVAL, ECANCELED, ETIME, EEXIST] = [-9, -11, -22, -125, -62, -17];
const work = new Workspace();
afterAll(() => work.end());

const code = (expected: string) => expect.objectContaining({ code: expected });
const timespec = (ms: number) => BigInt64Array.of(BigInt(Math.floor(ms / 1000)), BigInt((ms % 1000) * 1e6));
const timeout = (ms: number) => ({ opcode: Op.timeout, buffer: timespec(ms), length: 1 });
const later = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

let ring: Ring;
let table: FileTable;
beforeEach(() => {
  ring = new Ring({ entries: 16 });
  table = new FileTable(ring);
});
afterEach(() => ring.close());

describe('the ring', () => {
  test('has the set-up that the kernel offers', () => {
    const one = Setup.singleIssuer | Setup.deferTaskrun;
    if (native().uring.setup(4, 0, one) >= 0) expect(ring.info.flags & one).toBe(one);
    expect(ring.info.registered).toBe(true);
    const plain = new Ring({ entries: 4, prefer: 0, registered: false });
    expect([plain.info.flags & one, plain.info.registered]).toEqual([0, false]);
    expect(go(plain, { opcode: Op.nop })).toEqual([0]);
    plain.close();
  });

  test('what completes at once is called back from submit(), in order', () => {
    const order: number[] = [];
    for (let i = 0; i < 10; i++) ring.push({ opcode: Op.nop }, () => order.push(i));
    expect(order).toEqual([]);
    expect(ring.submit()).toBe(10);
    expect(order).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    expect([ring.inFlight, ring.queued]).toEqual([0, 0]);
  });

  test('queued requests leave by themselves, later completions come through the event loop', async () => {
    const buffer = Buffer.alloc(5);
    const [reader, writer] = work.pipe();
    const reading = ring.readAsync(reader, buffer, -1);
    await eventually(() => ring.inFlight === 1);
    fs.writeSync(writer, 'hello');
    expect([await reading, buffer.toString()]).toEqual([5, 'hello']);
    expect(await ring.request(timeout(20)).catch((err) => err.code)).toBe('ETIME');
  });

  test('what completes in kernel threads while the loop is at work comes back', async () => {
    // Most file systems hand writes to a kernel thread: some of them end between the reaping and the arming of the eventfd.
    const file = work.file();
    const memory = Buffer.alloc(4096, 1);
    let left = 3000;
    await Promise.all(
      Array.from({ length: 32 }, async () => {
        while (left > 0) expect(await ring.writeAsync(file, memory, (left-- % 64) * 4096)).toBe(4096);
      }),
    );
    expect([ring.inFlight, ring.queued]).toEqual([0, 0]);
  });

  test('more requests than entries, from callbacks too', () => {
    let called = 0;
    for (let i = 0; i < 1000; i++)
      ring.push({ opcode: Op.nop }, () => {
        called++;
        if (i < 100) ring.push({ opcode: Op.nop }, () => called++);
      });
    while (called < 1100) ring.submit(1, 1000);
    expect([called, ring.inFlight]).toEqual([1100, 0]);
  });

  test('a chain is never cut: a full queue says so, reserve() makes room; what does not fit the ring is refused', () => {
    const results: number[] = [];
    const note = (n: number) => results.push(n);
    for (let i = 0; i < 15; i++) ring.push({ opcode: Op.nop }, note);
    ring.push({ opcode: Op.nop, flags: SqeFlag.link }, note);
    expect(() => ring.push({ opcode: Op.nop }, note)).toThrow(code('EOVERFLOW'));
    ring.submit();
    for (let i = 0; i < 14; i++) ring.push({ opcode: Op.nop }, note);
    ring.reserve(3);
    expect(ring.queued).toBe(0);
    expect(() => ring.reserve(17)).toThrow(code('EINVAL'));
    const missing = { ...table.openRequest(work.path('none'), 0, 0), flags: SqeFlag.link };
    expect(go(ring, missing, { opcode: Op.nop, flags: SqeFlag.link }, { opcode: Op.nop })).toEqual([-2, ECANCELED, ECANCELED]);
    expect(results.length).toBe(30);
  });

  test('readWhole: the end is seen and the slot closed, or the buffer is full and the slot open', () => {
    table.registerSparse(2);
    const whole = (name: string, size: number, slot = 0): [result: number, flags: number, text: string] => {
      let answer: [number, number] | undefined;
      const buffer = Buffer.alloc(size);
      ring.readWhole(Buffer.from(`${name}\0`), 0, slot, buffer, (n, flags) => {
        answer = [n, flags];
      });
      while (!answer) ring.submit(1, 1000);
      return [...answer, buffer.toString('utf8', 0, Math.max(0, answer[0]))];
    };
    const name = work.path('whole');
    fs.writeFileSync(name, 'content');
    expect(whole(name, 64)).toEqual([7, 0, 'content']);
    expect(go(ring, { opcode: Op.read, fd: new Slot(0), buffer: Buffer.alloc(1) })).toEqual([EBADF]);
    expect(whole(name, 7)).toEqual([7, READ_WHOLE_OPEN, 'content']);
    expect(go(ring, { opcode: Op.read, fd: new Slot(0), buffer: Buffer.alloc(1), offset: 7 })).toEqual([0]);
    expect(whole(name, 64)).toEqual([7, 0, 'content']); // the occupied slot is replaced
    expect(whole(work.path('none'), 64)[0]).toBe(-2);
    expect(whole(work.dir, 64)[0]).toBe(-21);
    expect(whole(name, 64, 2)[0]).toBe(EINVAL);
    expect([ring.inFlight, ring.queued]).toEqual([0, 0]);
  });

  test('an endless chain of requests lets the event loop have its turns', async () => {
    let stop = false;
    let count = 0;
    const again = (): void => {
      count++;
      if (!stop) ring.push({ opcode: Op.nop }, again);
    };
    again();
    while (count < 1000) await later(1); // a chain that starves the loop never comes back from here
    stop = true;
    while (ring.inFlight + ring.queued > 0) await later(1);
    const last = count;
    await later(5);
    expect(count).toBe(last);
  });

  test('a callback that throws reaches the caller, the others still come', async () => {
    let called = 0;
    ring.push({ opcode: Op.nop }, () => {
      throw new Error('mine');
    });
    ring.push({ opcode: Op.nop }, () => called++);
    expect(() => ring.submit()).toThrow('mine');
    await eventually(() => called === 1);
  });

  test('completion queue overflow loses nothing', async () => {
    const small = new Ring({ entries: 4, cqEntries: 8, watch: false });
    const [reader, writer] = work.pipe();
    let polled = 0;
    for (let i = 0; i < 40; i++) small.push({ opcode: Op.pollAdd, fd: reader, opFlags: 1 }, () => polled++); // POLLIN
    while (small.queued > 0) small.submit();
    expect([polled, small.inFlight]).toEqual([0, 40]);
    fs.writeSync(writer, 'x');
    expect(small.stats.overflows).toBe(0);
    while (polled < 40) small.submit(1, 1000);
    expect([polled, small.inFlight]).toEqual([40, 0]);
    expect(small.stats.overflows).toBeGreaterThan(0);
    const { enters } = small.stats;
    go(small, { opcode: Op.nop });
    expect(small.stats.enters).toBe(enters + 1);
    small.close();
  });

  test('closing cancels what is under way and calls it back; afterwards everything says EBADF', async () => {
    const [reader] = work.pipe();
    const results: number[] = [];
    ring.push({ opcode: Op.read, fd: reader, buffer: Buffer.alloc(1), offset: -1 }, (n) => results.push(n));
    ring.submit();
    ring.close();
    expect(results.length).toBe(1);
    expect([ECANCELED, -4]).toContain(results[0]);
    expect(() => ring.push({ opcode: Op.nop }, () => {})).toThrow(code('EBADF'));
    expect(() => ring.submit()).toThrow(code('EBADF'));
    ring.close();
    const inside = new Ring({ entries: 4 });
    await new Promise<void>((resolve) => {
      inside.push(timeout(5), () => {
        inside.close();
        resolve();
      });
    });
    await eventually(() => inside.closed);
  });

  test('a callback that throws, or closes again, keeps nothing from being closed', () => {
    const [reader] = work.pipe();
    let called = 0;
    for (const act of [
      () => {
        throw new Error('mine');
      },
      () => ring.close(),
      () => {},
    ])
      ring.push({ opcode: Op.pollAdd, fd: reader, opFlags: 1 }, () => {
        called++;
        act();
      });
    ring.submit();
    const before = ringCount();
    expect(() => ring.close()).toThrow('mine');
    expect([called, ring.closed, ringCount()]).toEqual([3, true, before - 1]);
  });

  test('a ring that a callback closes is closed even if the next callback throws', async () => {
    const before = ringCount();
    ring.push({ opcode: Op.nop }, () => ring.close());
    ring.push({ opcode: Op.nop }, () => {
      throw new Error('mine');
    });
    expect(() => ring.submit()).toThrow('mine');
    await eventually(() => ring.closed && ringCount() === before - 1);
  });

  test('closing brings back everything, however much more is under way than the queues hold', () => {
    const small = new Ring({ entries: 4, watch: false });
    const [reader] = work.pipe();
    const results: number[] = [];
    for (let i = 0; i < 3000; i++) small.push({ opcode: Op.pollAdd, fd: reader, opFlags: 1 }, (n) => results.push(n)); // POLLIN
    while (small.queued > 0) small.submit();
    small.close();
    expect([results.length, new Set(results)]).toEqual([3000, new Set([ECANCELED])]);
  });

  test('bad requests: unknown opcode, unknown flag, bad address, misaligned O_DIRECT; past the end is 0', () => {
    expect(go(ring, { opcode: 255 }, { opcode: Op.nop, opFlags: 1 << 30 })).toEqual([EINVAL, EINVAL]);
    const fd = work.file(Buffer.alloc(8192, 7));
    expect(go(ring, { opcode: Op.read, fd, address: 8, length: 16, offset: 0 })).toEqual([-14]);
    expect(go(ring, { opcode: Op.read, fd, buffer: Buffer.alloc(16), offset: 1 << 20 })).toEqual([0]);
    expect(go(ring, { opcode: Op.readFixed, fd, buffer: Buffer.alloc(16), offset: 0 })).toEqual([-14]);
    const direct = directly(fd);
    if (direct === undefined || fs.statfsSync(work.dir).type !== 0xef53) skip('O_DIRECT alignment', `${work.dir} is not on ext4`);
    else expect(go(ring, { opcode: Op.read, fd: direct, buffer: Buffer.alloc(100), offset: 0 })).toEqual([EINVAL]);
    expect(() => ring.push({ opcode: Op.nop, flags: SqeFlag.cqeSkip }, () => {})).toThrow(code('EINVAL'));
  });

  test('NOP with a fixed file needs no table', () => {
    expect(go(ring, { opcode: Op.nop, fd: new Slot(3) })).toEqual([0]);
  });

  test('IOPOLL where the file system cannot: EOPNOTSUPP for each request, the ring lives', () => {
    const polled = new Ring({ entries: 4, require: Setup.iopoll, prefer: 0 });
    const fd = work.file(Buffer.alloc(4096));
    expect(go(polled, { opcode: Op.read, fd, buffer: Buffer.alloc(4096), offset: 0 })).toEqual([-95]);
    polled.close();
  });

  test('a ring of one thread refuses another: EEXIST', async () => {
    if (!(ring.info.flags & Setup.singleIssuer)) return skip('SINGLE_ISSUER', 'this kernel has none');
    const source = `const { parentPort, workerData: [addon, fd] } = require('node:worker_threads');
      parentPort.postMessage(require(addon).uring.registerRaw(fd, ${Reg.unregisterFiles}, null, 0));`;
    const addon = Object.keys(require.cache).find((name) => name.endsWith('.node')) ?? `${process.cwd()}/build/native/release/vioctl.node`;
    const worker = new Worker(source, { eval: true, workerData: [process.env.VIOCTL_ADDON ?? addon, ring.fd] });
    expect(await new Promise((resolve, reject) => worker.on('message', resolve).on('error', reject))).toBe(EEXIST);
    await worker.terminate();
  });

  test('a worker that ends with requests under way leaves no ring behind', async () => {
    const source = `const { parentPort, workerData: addon } = require('node:worker_threads');
      const { uring } = require(addon); const ring = uring.open({ entries: 8 }); const info = uring.info(ring);
      const sqe = new Uint32Array(info.sqes); sqe[0] = ${Op.timeout}; const ts = new BigInt64Array([1000n, 0n]);
      const at = uring.addressOf(new Uint8Array(ts.buffer)); sqe[4] = at; sqe[5] = at / 2 ** 32; sqe[6] = 1;
      uring.watch(ring, () => {}); uring.submit(ring, 1, 0); parentPort.postMessage(ts); setInterval(() => {}, 1000);`;
    const before = ringCount();
    const addon = `${process.cwd()}/build/native/release/vioctl.node`;
    // The event loops of Node 22 and later have rings of their own.
    const idle = new Worker("require('node:worker_threads').parentPort.postMessage('here'); setInterval(() => {}, 1000)", { eval: true });
    await new Promise((resolve, reject) => idle.on('message', resolve).on('error', reject));
    const loops = ringCount() - before;
    await idle.terminate();
    expect(ringCount()).toBe(before);
    const worker = new Worker(source, { eval: true, workerData: process.env.VIOCTL_ADDON ?? addon });
    await new Promise((resolve, reject) => worker.on('message', resolve).on('error', reject));
    expect(ringCount()).toBe(before + loops + 1);
    await worker.terminate();
    expect(ringCount()).toBe(before);
  });

  test('setup refuses what cannot be', () => {
    const { setup } = native().uring;
    expect(setup(0, 0, 0)).toBe(EINVAL);
    expect(setup(1 << 20, 0, 0)).toBe(EINVAL);
    expect(setup(1 << 20, 0, Setup.clamp)).toBeGreaterThan(0);
    expect(setup(8, 4, Setup.cqsize)).toBe(EINVAL);
    expect(setup(8, 0, Setup.deferTaskrun)).toBe(EINVAL);
    expect(setup(8, 0, 0x8000_0000)).toBe(EINVAL);
  });

  test('restrictions: a denied opcode is EACCES, submitting while disabled EBADFD', () => {
    const closed = new Ring({ entries: 4, require: Setup.rDisabled, prefer: 0, watch: false });
    const rules = new Uint8Array(32); // two struct io_uring_restriction: {opcode u16, u8, resv}
    rules.set([1, 0, Op.nop], 0);
    rules.set([0, 0, Reg.registerEnableRings], 16);
    expect(closed.register(Reg.registerRestrictions, rules, 2)).toBe(0);
    closed.push({ opcode: Op.nop }, () => {});
    expect(() => closed.submit()).toThrow(code('EBADFD'));
    closed.enable();
    expect(go(closed, { opcode: Op.nop }, { opcode: Op.read, fd: 0, buffer: Buffer.alloc(1) })).toEqual([0, -13]);
    closed.close();
  });
});

/** The same file opened with O_DIRECT, or undefined where its file system has none. */
const directly = (fd: number): number | undefined => {
  try {
    return work.open(`/proc/self/fd/${fd}`, fs.constants.O_RDONLY | fs.constants.O_DIRECT);
  } catch (err) {
    if ((err as NodeJS.ErrnoException).code === 'EINVAL') return undefined;
    throw err;
  }
};

// Kernels before 6.5 put files away only once a second.
describe('tags', () => {
  test('come when the last request on the old file has ended: read first, then tag', () => {
    const order: string[] = [];
    ring.onTag = (tag) => order.push(`tag ${tag}`);
    const [reader, writer] = work.pipe();
    table.register([reader, work.file()], [11, 22]);
    ring.push({ opcode: Op.read, fd: table.slot(0), buffer: Buffer.alloc(1), offset: -1 }, () => order.push('read'));
    ring.submit();
    table.update(0, [-1, work.file()], [0, 33]);
    ring.submit(1, 200);
    expect(order).not.toContain('tag 11');
    fs.writeSync(writer, 'x');
    until(ring, () => order.length >= 3);
    expect([...order].sort()).toEqual(['read', 'tag 11', 'tag 22']);
    expect(order.indexOf('tag 11')).toBeGreaterThan(order.indexOf('read'));
    table.unregister();
    // Unregistering posts the tags that are left, since 6.13.
    const tells = kernelAtLeast(os.release(), 6, 13);
    if (tells) until(ring, () => order.length >= 4);
    else ring.submit(1, 1500);
    expect(order[3]).toBe(tells ? 'tag 33' : undefined);
  });

  test('a tag on a hole is EINVAL, no tag posts nothing, a failed registration posts nothing', () => {
    const tags: number[] = [];
    ring.onTag = (tag) => tags.push(tag);
    expect(() => table.register([-1], [7])).toThrow(code('EINVAL'));
    expect(() => table.register([work.file(), ring.fd], [7, 8])).toThrow(code('EBADF'));
    table.register([work.file()], [0]);
    table.update(0, [work.file()]);
    table.unregister();
    ring.submit(1, 50);
    expect(tags).toEqual([]);
  });

  test('updates out of order with requests under way let each file go by itself', () => {
    const tags: number[] = [];
    ring.onTag = (tag) => tags.push(tag);
    const [first, firstIn] = work.pipe();
    const [second, secondIn] = work.pipe();
    table.register([first, second], [1, 2]);
    let reads = 0;
    for (const slot of [0, 1]) ring.push({ opcode: Op.read, fd: table.slot(slot), buffer: Buffer.alloc(1), offset: -1 }, () => reads++);
    ring.submit();
    table.update(0, [-1, -1]);
    fs.writeSync(secondIn, 'x');
    until(ring, () => reads === 1);
    fs.writeSync(firstIn, 'x');
    until(ring, () => reads === 2 && tags.length === 2);
    expect([reads, [...tags].sort()]).toEqual([2, [1, 2]]);
  });
});

describe('between slots, descriptors and rings', () => {
  test('install: a slot becomes a descriptor (close-on-exec unless asked); a normal descriptor is EBADF', async () => {
    table.register([work.file('inside')]);
    if (!offers(ring, Op.fixedFdInstall)) {
      await expect(table.install(table.slot(0))).rejects.toThrow(code('EINVAL'));
      return;
    }
    for (const [inherit, flag] of [
      [false, '02000000'],
      [true, '00'],
    ] as const) {
      const fd = await table.install(table.slot(0), inherit);
      const text = Buffer.alloc(6);
      fs.readSync(fd, text, 0, 6, 0);
      expect(text.toString()).toBe('inside');
      const flags = /flags:\s+0(\d+)/.exec(fs.readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))![1]!;
      expect((Number.parseInt(flags, 8) & 0o2000000) !== 0).toBe(flag !== '00');
      fs.closeSync(fd);
    }
    expect(go(ring, { opcode: Op.fixedFdInstall, fd: 0 })).toEqual([EBADF]);
    expect(go(ring, { opcode: Op.fixedFdInstall, fd: table.slot(0), opFlags: 2 })).toEqual([EINVAL]);
  });

  test('send: a file goes to another ring; a hole is EBADF, itself EINVAL', async () => {
    const plain = { entries: 8, prefer: 0 };
    const from = new Ring(plain);
    const to = new Ring(plain);
    const mine = new FileTable(from);
    const theirs = new FileTable(to);
    mine.register([work.file('sent'), -1]);
    theirs.registerSparse(4);
    expect(await mine.send(mine.slot(0), to.fd, 2)).toBe(0);
    const buffer = Buffer.alloc(4);
    expect([go(to, { opcode: Op.read, fd: theirs.slot(2), buffer, offset: 0 }), buffer.toString()]).toEqual([[4], 'sent']);
    const picked = await mine.send(mine.slot(0), to.fd, ALLOC);
    expect(go(to, { opcode: Op.read, fd: theirs.slot(picked), buffer, offset: 0 })).toEqual([4]);
    await expect(mine.send(mine.slot(1), to.fd, 0)).rejects.toThrow(code('EBADF'));
    await expect(mine.send(mine.slot(0), from.fd, 1)).rejects.toThrow(code('EINVAL'));
    from.close();
    to.close();
  });

  test('pipes and sockets into slots', async () => {
    table.registerSparse(4);
    const socket = await table.socket(2, 1, 0);
    expect(socket.index).toBe(0);
    const fds = new Int32Array(2);
    const [result] = go(ring, { opcode: Op.pipe, fd: 0, buffer: fds, length: 0, fileIndex: 3 });
    if (!offers(ring, Op.pipe)) {
      expect(result).toBe(EINVAL);
      return;
    }
    expect(result).toBe(0);
    expect(go(ring, { opcode: Op.write, fd: table.slot(3), buffer: Buffer.from('through'), offset: -1 })).toEqual([7]);
    const buffer = Buffer.alloc(7);
    expect(go(ring, { opcode: Op.read, fd: table.slot(2), buffer, offset: -1 })).toEqual([7]);
    expect(buffer.toString()).toBe('through');
  });

  test('the last close really happens: unregistering lets the writer of a pipe go at once', () => {
    const [reader, writer] = work.pipe(fs.constants.O_NONBLOCK);
    table.register([writer]);
    work.close(writer);
    expect(() => fs.readSync(reader, Buffer.alloc(1))).toThrow(code('EAGAIN'));
    table.unregister();
    expect(fs.readSync(reader, Buffer.alloc(1))).toBe(0);
  });

  test('trap: a closed ring lets files go late; ours unregisters first, so end of file comes at once', () => {
    const [reader, writer] = work.pipe(fs.constants.O_NONBLOCK);
    const other = new Ring({ entries: 4 });
    new FileTable(other).register([writer]);
    work.close(writer);
    other.close();
    expect(fs.readSync(reader, Buffer.alloc(1))).toBe(0);
  });

  test('EAGAIN: a read of a non-blocking empty pipe completes or can be timed out', () => {
    const [, writer] = work.pipe();
    const reader = work.open(`/proc/self/fd/${writer}`, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK);
    const read = { opcode: Op.read, fd: reader, buffer: Buffer.alloc(1), offset: -1, flags: SqeFlag.link };
    const [result, limit] = go(ring, read, { ...timeout(30), opcode: 15 }); // LINK_TIMEOUT
    if (result === EAGAIN) expect(limit).toBe(ECANCELED);
    else expect([result, limit]).toEqual([ECANCELED, ETIME]);
  });
});
