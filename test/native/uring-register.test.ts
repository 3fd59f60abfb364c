import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { native } from '../../src/native/index.js';
import { kernelAtLeast } from '../../src/uring/host/unavailable.js';
import { FileTable, Op, prep, Reg, Ring, registerOps, Setup, SqeFlag } from '../../src/uring/index.js';
import { compileC } from '../support/compile.js';
import { skip } from '../support/skip.js';
import { go, offers, until, Workspace } from '../support/uring.js';

// What io_uring_register(2) does to a ring beside its tables, as liburing's reg-reg-ring, reg-fd-only, reg-wait, sync-cancel, cancel-fd-userdata, eventfd,
// eventfd-disable, eventfd-reg, msg-ring-fd, restrictions and files-exit-hang-* look at it.
const [EBADF, EACCES, EBUSY, EINVAL, ENOENT, ENXIO, ENOSPC, ETIME, ECANCELED] = [-9, -13, -16, -22, -2, -6, -28, -62, -125] as const;
const work = new Workspace();
afterAll(() => work.end());

const { registerRaw } = native().uring;
const reg = (name: string): number => registerOps.find((op) => op.name === name)!.value;
const rings: Ring[] = [];
const open = (options: ConstructorParameters<typeof Ring>[0] = {}): Ring => {
  const ring = new Ring({ entries: 8, watch: false, ...options });
  rings.push(ring);
  return ring;
};
afterEach(() => {
  for (const ring of rings.splice(0)) ring.close();
});

describe('a registered ring descriptor', () => {
  /** struct io_uring_rsrc_update {offset, resv, data}: the ring as an index of the thread. */
  const indexOf = (ring: Ring): number => {
    const update = new DataView(new ArrayBuffer(16));
    update.setUint32(0, 0xffff_ffff, true);
    update.setBigUint64(8, BigInt(ring.fd), true);
    expect(ring.register(Reg.registerRingFds, new Uint8Array(update.buffer), 1)).toBe(1);
    return update.getUint32(0, true);
  };
  const forget = (ring: Ring, index: number): number => {
    const update = new DataView(new ArrayBuffer(16));
    update.setUint32(0, index, true);
    return registerRaw(ring.fd, Reg.unregisterRingFds, new Uint8Array(update.buffer), 1);
  };
  const USE_REGISTERED = 0x8000_0000;

  test('takes register calls by its index (6.3); an index of nobody is refused (reg-reg-ring)', () => {
    const ring = open({ registered: false });
    const index = indexOf(ring);
    try {
      const fds = Int32Array.of(work.file('by index'), -1);
      const bytes = new Uint8Array(fds.buffer);
      const result = registerRaw(index, (Reg.registerFiles | USE_REGISTERED) >>> 0, bytes, 2);
      if (result === EINVAL) return skip('REGISTER_USE_REGISTERED_RING', 'this kernel has none (6.3)');
      expect(result).toBe(0);
      const buffer = Buffer.alloc(8);
      expect(go(ring, prep.read(new FileTable(ring).slot(0), buffer, 0))).toEqual([8]);
      expect(registerRaw(index, (Reg.registerFiles | USE_REGISTERED) >>> 0, bytes, 2)).toBe(EBUSY);
      expect(registerRaw(ring.fd, Reg.unregisterFiles, null, 0)).toBe(0);
      for (const nobody of [index + 1, 15, 16, 1000]) {
        if (nobody === index) continue;
        expect([EBADF, EINVAL, ENXIO]).toContain(registerRaw(nobody, (Reg.unregisterFiles | USE_REGISTERED) >>> 0, null, 0));
      }
    } finally {
      expect(forget(ring, index)).toBe(1);
    }
    expect([EBADF, EINVAL, ENXIO]).toContain(registerRaw(index, (Reg.unregisterFiles | USE_REGISTERED) >>> 0, null, 0));
  });

  test('an option of ours: with and without, the same results', () => {
    for (const registered of [true, false]) {
      const ring = open({ registered });
      if (!registered) expect(ring.info.registered).toBe(false);
      expect(go(ring, prep.nop(), prep.nop())).toEqual([0, 0]);
    }
  });

  test('alone, without a descriptor; registered waits; hugepages; buffers in memory of the kernel: what this kernel does with rings that ours do not open (reg-fd-only, reg-wait, fixed-hugepage, buf-ring-nommap, buf-ring-put)', () => {
    expect(() => new Ring({ require: 2 ** 15 })).toThrow(expect.objectContaining({ code: 'EINVAL' }));
    expect(native().uring.setup(8, 0, 2 ** 15)).toBe(EINVAL); // REGISTERED_FD_ONLY wants NO_MMAP
    const binary = process.env.VIOCTL_RING_SETUPS ?? compileC('test/support/programs/ring-setups.c', work.path('ring-setups'));
    const { status, stdout } = spawnSync(binary, { encoding: 'utf8' });
    expect({ status, bad: stdout.split('\n').filter((line) => line.startsWith('bad')) }).toEqual({ status: 0, bad: [] });
    for (const line of stdout.trim().split('\n')) {
      const [, what] = /^lacks (.*)$/.exec(line) ?? [];
      if (what) skip(what, 'this kernel has none');
      else expect(line).toMatch(/^ok /);
    }
  });
});

describe('cancelling by a register call', () => {
  /** struct io_uring_sync_cancel_reg {addr, fd, flags, timeout, opcode, pad} */
  const cancel = (ring: Ring, { token = 0, fd = -1, flags = 0, ms = -1 }): number => {
    const arg = new DataView(new ArrayBuffer(64));
    arg.setBigUint64(0, BigInt(token), true);
    arg.setInt32(8, fd, true);
    arg.setUint32(12, flags, true);
    arg.setBigInt64(16, ms < 0 ? -1n : BigInt(Math.floor(ms / 1000)), true);
    arg.setBigInt64(24, ms < 0 ? -1n : BigInt((ms % 1000) * 1e6), true);
    return ring.register(Reg.registerSyncCancel, new Uint8Array(arg.buffer), 1);
  };
  const [ALL, FD, ANY, FD_FIXED] = [1, 2, 4, 8];

  test.each([0, Setup.coopTaskrun])('by token, by descriptor, by slot, all, any; ENOENT for none (sync-cancel, set-up %p)', (prefer) => {
    const ring = open({ prefer });
    const table = new FileTable(ring);
    const [reader, writer] = work.pipe();
    table.register([reader]);
    const results: number[] = [];
    const read = (fixed: boolean): number =>
      ring.push(prep.read(fixed ? table.slot(0) : reader, Buffer.alloc(4)), (result) => results.push(result));
    expect(cancel(ring, { token: 4242 })).toBe(ENOENT);
    const token = read(false);
    ring.submit();
    expect(cancel(ring, { token })).toBe(0);
    until(ring, () => results.length === 1);
    for (const [fixed, target] of [
      [false, { fd: reader, flags: FD }],
      [true, { fd: 0, flags: FD | FD_FIXED }],
      [false, { flags: ANY }],
    ] as const) {
      read(fixed);
      read(fixed);
      ring.submit();
      expect(cancel(ring, { ...target, flags: target.flags | ALL })).toBeGreaterThanOrEqual(0);
      const wanted = results.length % 2 === 1 ? results.length + 2 : results.length + 1;
      until(ring, () => results.length >= wanted);
    }
    expect(results).toEqual(Array.from({ length: 7 }, () => ECANCELED));
    expect(cancel(ring, { fd: writer, flags: FD })).toBe(ENOENT);
    expect(cancel(ring, { flags: 1 << 20 })).toBe(EINVAL);
  });

  test('a request that cannot be cancelled: the time runs out', () => {
    const ring = open({ prefer: 0 });
    const [reader, writer] = work.pipe();
    let result: number | undefined;
    // A kernel thread waits in read(2) and is interrupted, or not, within the time given.
    const token = ring.push({ ...prep.read(reader, Buffer.alloc(4)), flags: SqeFlag.async }, (n) => {
      result = n;
    });
    ring.submit();
    expect([0, ETIME, ENOENT, -114]).toContain(cancel(ring, { token, ms: 10 }));
    fs.writeSync(writer, 'text');
    until(ring, () => result !== undefined);
    expect([4, ECANCELED, -4]).toContain(result);
  });

  test('a request on a descriptor with a given token: both must fit (6.6) (cancel-fd-userdata)', () => {
    const ring = open();
    const [[a], [b]] = [work.pipe(), work.pipe()];
    const results: Record<string, number> = {};
    const read = (name: string, fd: number): number =>
      ring.push(prep.read(fd, Buffer.alloc(4)), (result) => {
        results[name] = result;
      });
    const [first, second] = [read('first', a), read('second', a)];
    read('other', b);
    ring.submit();
    const USERDATA = 16;
    const both = (fd: number, token: number) => ({ opcode: Op.asyncCancel, fd, address: token, opFlags: FD | USERDATA });
    const [wrong] = go(ring, both(b, first));
    // Kernels before 6.6 refuse the flag, or do not look at it.
    if (wrong === EINVAL || !kernelAtLeast(os.release(), 6, 6)) return skip('ASYNC_CANCEL_USERDATA', 'this kernel has none (6.6)');
    expect(wrong).toBe(ENOENT);
    expect(go(ring, both(a, second))).toEqual([0]);
    until(ring, () => 'second' in results);
    expect(results).toEqual({ second: ECANCELED });
  });
});

describe('eventfds', () => {
  const count = (fd: number): number =>
    Number.parseInt(/eventfd-count:\s*([0-9a-f]+)/.exec(fs.readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))![1]!, 16);
  const use = (ring: Ring, fd: number, opcode: number): number => registerRaw(ring.fd, opcode, new Uint8Array(Int32Array.of(fd).buffer), 1);

  test('one is signalled for completions; a second is EBUSY; unregistered it is silent (eventfd, eventfd-reg)', () => {
    const ring = open({ prefer: 0 });
    const fd = native().common.eventfd();
    try {
      expect(registerRaw(ring.fd, reg('unregister_eventfd'), null, 0)).toBe(ENXIO);
      expect(use(ring, 100_000, reg('register_eventfd'))).toBe(EBADF);
      expect(use(ring, fd, reg('register_eventfd'))).toBe(0);
      expect(use(ring, fd, reg('register_eventfd'))).toBe(EBUSY);
      expect(count(fd)).toBe(0);
      go(ring, prep.nop());
      expect(count(fd)).toBe(1);
      go(ring, prep.nop());
      expect(count(fd)).toBe(2);
      expect(registerRaw(ring.fd, reg('unregister_eventfd'), null, 0)).toBe(0);
      go(ring, prep.nop());
      expect(count(fd)).toBe(2);
    } finally {
      fs.closeSync(fd);
    }
  });

  test('the asynchronous kind is silent for what completes at once (eventfd-reg)', () => {
    const ring = open({ prefer: 0 });
    const fd = native().common.eventfd();
    try {
      expect(use(ring, fd, reg('register_eventfd_async'))).toBe(0);
      go(ring, prep.nop(), prep.nop());
      expect(count(fd)).toBe(0);
      expect(registerRaw(ring.fd, reg('unregister_eventfd'), null, 0)).toBe(0);
    } finally {
      fs.closeSync(fd);
    }
  });

  test('ours is silent for what submit() itself calls back, and wakes the event loop for the rest (eventfd-disable)', async () => {
    const before = new Set(fs.readdirSync('/proc/self/fd'));
    const ring = open({ watch: true });
    const link = (fd: string): string => {
      try {
        return fs.readlinkSync(`/proc/self/fd/${fd}`);
      } catch {
        return '';
      }
    };
    const own = fs.readdirSync('/proc/self/fd').find((fd) => !before.has(fd) && link(fd) === 'anon_inode:[eventfd]')!;
    for (let i = 0; i < 10; i++) go(ring, prep.nop());
    expect(count(Number(own))).toBe(0);
    const [reader, writer] = work.pipe();
    const reading = ring.readAsync(reader, Buffer.alloc(4), -1);
    ring.submit();
    fs.writeSync(writer, 'wake');
    expect(await reading).toBe(4);
  });

  test('the ring keeps its eventfd for itself', () => {
    const ring = open({ watch: true });
    for (const name of ['register_eventfd', 'unregister_eventfd', 'register_eventfd_async'])
      expect(() => ring.register(reg(name), new Uint8Array(4), 1)).toThrow(expect.objectContaining({ code: 'EINVAL' }));
  });
});

test('a file that is sent to another ring: into a slot of its, out of range, without a table, to what is no ring (msg-ring-fd)', async () => {
  const [from, to, bare] = [open({ watch: true, prefer: 0 }), open({ prefer: 0 }), open({ prefer: 0 })];
  const [mine, theirs] = [new FileTable(from), new FileTable(to)];
  mine.register([work.file('sent')]);
  theirs.registerSparse(2);
  const errno = (work: Promise<number>): Promise<number | undefined> =>
    work.then(
      (n) => n,
      (err) => err.errno,
    );
  expect(await errno(mine.send(mine.slot(0), to.fd, 1))).toBe(0);
  expect([EINVAL, ENXIO]).toContain(await errno(mine.send(mine.slot(0), to.fd, 2)));
  expect([EINVAL, ENXIO, -23]).toContain(await errno(mine.send(mine.slot(0), bare.fd, 0)));
  expect(await errno(mine.send(mine.slot(0), work.file(), 0))).toBe(-77); // EBADFD
  expect(await errno(mine.send(mine.slot(0), to.fd))).toBe(0);
  expect(await errno(mine.send(mine.slot(0), to.fd))).toBe(-23); // ENFILE
  expect(ENOSPC).toBeLessThan(0);
});

describe('restrictions (restrictions)', () => {
  /** struct io_uring_restriction {opcode u16, value u8, …}: REGISTER_OP 0, SQE_OP 1, SQE_FLAGS_ALLOWED 2, SQE_FLAGS_REQUIRED 3 */
  const restricted = (...rules: [number, number][]): Ring => {
    const ring = open({ require: Setup.rDisabled, prefer: 0 });
    const bytes = new Uint8Array(16 * rules.length);
    for (const [i, [kind, value]] of rules.entries()) bytes.set([kind, 0, value], i * 16);
    expect(ring.register(Reg.registerRestrictions, bytes, rules.length)).toBe(0);
    return ring;
  };

  test('opcodes that were not allowed are EACCES, those that were work', () => {
    const ring = restricted([1, Op.nop], [1, Op.writev]);
    ring.enable();
    const fd = work.file('0123');
    expect(go(ring, prep.writev(fd, [Buffer.from('ab')], 0), prep.readv(fd, [Buffer.alloc(2)], 0), prep.nop())).toEqual([2, EACCES, 0]);
  });

  test('register calls that were not allowed are EACCES', () => {
    const ring = restricted([0, Reg.registerBuffers], [0, Reg.registerEnableRings]);
    ring.enable();
    expect(ring.register(Reg.registerFiles, new Uint8Array(Int32Array.of(work.file()).buffer), 1)).toBe(EACCES);
    ring.registerBuffers([Buffer.alloc(64)]);
    expect(() => ring.buffers.unregister()).toThrow(expect.objectContaining({ code: 'EACCES' }));
  });

  test('flags of requests: allowed, required', () => {
    const ring = restricted([0, Reg.registerFiles], [1, Op.read], [2, SqeFlag.async | SqeFlag.link], [3, SqeFlag.fixedFile]);
    ring.enable();
    new FileTable(ring).register([work.file('text')]);
    const read = (flags: number, fd: number) => ({ opcode: Op.read, fd, buffer: Buffer.alloc(4), offset: 0, flags });
    expect(go(ring, read(SqeFlag.fixedFile, 0))).toEqual([4]);
    expect(go(ring, read(SqeFlag.fixedFile | SqeFlag.async, 0))).toEqual([4]);
    expect(go(ring, read(0, 0))).toEqual([EACCES]);
    expect(go(ring, read(SqeFlag.fixedFile | SqeFlag.drain, 0))).toEqual([EACCES]);
  });

  test('once a ring is started it takes no restrictions, before that only once', () => {
    const ring = restricted([1, Op.nop]);
    const again = new Uint8Array(16);
    expect(ring.register(Reg.registerRestrictions, again, 1)).toBe(EBUSY);
    expect(open({ prefer: 0 }).register(Reg.registerRestrictions, again, 1)).toBe(-77); // EBADFD
    const other = open({ require: Setup.rDisabled, prefer: 0 });
    expect([-14, EINVAL]).toContain(other.register(Reg.registerRestrictions, null, 1));
    expect(other.register(Reg.registerRestrictions, new Uint8Array([9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), 1)).toBe(EINVAL);
  });
});

describe('a process that ends', () => {
  const inChild = (source: string) => {
    const lead = `const { Ring, FileTable, Op, prep } = require(${JSON.stringify(path.resolve('dist/uring.cjs'))}); const fs = require('node:fs');`;
    return spawnSync(process.execPath, ['-e', lead + source], { encoding: 'utf8', timeout: 100_000, stdio: ['pipe', 'pipe', 'pipe'] });
  };
  test.each([
    [
      'a chain that waits for data',
      `ring.pushChain([prep.poll(files.slot(0), 1), prep.read(files.slot(0), Buffer.alloc(4)), prep.nop()], false, () => {});`,
    ],
    [
      'a hard chain behind a time-out',
      `ring.pushChain([prep.timeout(1e6), prep.poll(files.slot(0), 1), prep.read(files.slot(0), Buffer.alloc(4))], true, () => {});`,
    ],
    [
      'a request with a linked time-out',
      `ring.pushChain([prep.read(files.slot(0), Buffer.alloc(4)), prep.linkTimeout(1e6)], false, () => {});`,
    ],
    [
      'polls of its own ring and a chain',
      `ring.push(prep.poll(ring.fd, 1), () => {}); ring.pushChain([prep.poll(files.slot(0), 1), prep.nop()], false, () => {});`,
    ],
  ])('with %s and registered files under way ends at once (files-exit-hang-*)', (_, requests) => {
    const source = `const ring = new Ring({ entries: 8 }); const files = new FileTable(ring); files.register([0, 0]); ${requests}
      ring.submit(); process.exit(6);`;
    const { status, signal, stderr } = inChild(source);
    expect({ status, signal, stderr }).toEqual({ status: 6, signal: null, stderr: '' });
  });
});

test('offers() and the version table agree on what this kernel has', () => {
  const ring = open();
  for (const opcode of [Op.nop, Op.readv, Op.openat, Op.asyncCancel]) expect(offers(ring, opcode)).toBe(true);
  expect(offers(ring, 200)).toBe(false);
});
