import fs from 'node:fs';
import { Operations, prep, Ring, Setup } from '../../src/uring/index.js';
import { skip } from '../support/skip.js';
import { go, ringForEach, Workspace } from '../support/uring.js';

// Chains, cancelling, backpressure, and options that do not exist.
const work = new Workspace();
afterAll(() => work.end());

let ring: Ring;
let io: Operations;
ringForEach(16, (...fresh) => {
  [ring, io] = fresh;
});
const code = (expected: string) => expect.objectContaining({ code: expected });
const ECANCELED = -125;

describe('chain()', () => {
  test('write, fsync, rename: each behind the other', async () => {
    const [from, to] = [work.path('new'), work.path('final')];
    const fd = await io.open(from, 'wx');
    expect(await io.chain([prep.write(fd, Buffer.from('durable')), prep.fsync(fd), prep.renameat(from, to), prep.close(fd)])).toEqual([
      7, 0, 0, 0,
    ]);
    expect([fs.readFileSync(to, 'utf8'), fs.existsSync(from)]).toEqual(['durable', false]);
  });

  test('the first failure ends a chain and is its error; a hard chain goes on', async () => {
    const fd = work.file('text');
    const steps = () => [prep.read(fd, Buffer.alloc(4), 0), prep.openat(work.path('none')), prep.write(fd, Buffer.from('TEXT'), 0)];
    await expect(io.chain(steps())).rejects.toMatchObject({ code: 'ENOENT', index: 1, results: [4, -2, ECANCELED] });
    expect(fs.readFileSync(`/proc/self/fd/${fd}`, 'utf8')).toBe('text');
    await expect(io.chain(steps(), { hard: true })).rejects.toMatchObject({ code: 'ENOENT', index: 1, results: [4, -2, 4] });
    expect(fs.readFileSync(`/proc/self/fd/${fd}`, 'utf8')).toBe('TEXT');
    const short = [prep.read(fd, Buffer.alloc(100), 0), prep.fsync(fd)];
    await expect(io.chain(short)).rejects.toMatchObject({ code: 'ECANCELED', index: 1, results: [4, ECANCELED] });
    expect(await io.chain(short, { hard: true })).toEqual([4, 0]);
  });

  test('trap: to the kernel, a failing unlink, rename, mkdir or link ends no chain; the chain is rejected all the same', async () => {
    const fd = work.file('text');
    const none = work.path('none');
    for (const step of [prep.unlinkat(none), prep.renameat(none, none), prep.mkdirat(work.dir), prep.linkat(none, none)]) {
      const chain = io.chain([step, prep.write(fd, Buffer.from('TEXT'), 0)]);
      await expect(chain).rejects.toMatchObject({ index: 0, results: [expect.any(Number), expect.any(Number)] });
      const results = await chain.catch((err) => err.results);
      expect([4, ECANCELED]).toContain(results[1]);
    }
  });

  test('a signal ends a chain that waits', async () => {
    const [reader] = work.pipe();
    const buffer = Buffer.alloc(4);
    const chain = [prep.read(reader, buffer), prep.fsync(work.file())];
    await expect(io.chain(chain, { signal: AbortSignal.timeout(20) })).rejects.toMatchObject({ name: 'TimeoutError' });
    await expect(io.chain(chain, { signal: AbortSignal.abort(new Error('before')) })).rejects.toThrow('before');
  });

  test('a bad request anywhere queues nothing; too many, none', async () => {
    const bad = [prep.nop(), { opcode: 999 }, prep.nop()];
    await expect(io.chain(bad)).rejects.toThrow(code('EINVAL'));
    expect(() => ring.pushChain([], false, () => {})).toThrow(code('EINVAL'));
    expect(() => ring.pushChain([prep.nop()], false, undefined as never)).toThrow(code('EINVAL'));
    await expect(io.chain(Array.from({ length: 17 }, prep.nop))).rejects.toThrow(code('EINVAL'));
    expect(ring.queued).toBe(0);
    expect(await io.chain(Array.from({ length: 16 }, prep.nop))).toHaveLength(16);
  });
});

describe('cancel()', () => {
  test('one by its token, the first or all on a descriptor or a slot, any', async () => {
    const [reader] = work.pipe();
    const read = () => io.read(reader, Buffer.alloc(4)).then(Number, (err) => err.code);
    const reading = [read(), read(), read()];
    const token = ring.push(prep.read(reader, Buffer.alloc(4)), () => {});
    ring.submit();
    expect(await io.cancel({ token })).toBe(0);
    await expect(io.cancel({ token })).rejects.toThrow(code('ENOENT'));
    expect(await io.cancel({ file: reader, all: true })).toBe(3);
    expect(await Promise.all(reading)).toEqual(['ECANCELED', 'ECANCELED', 'ECANCELED']);
    await expect(io.cancel({ file: reader })).rejects.toThrow(code('ENOENT'));
    const more = [read(), io.timeout(60_000).then(Number, (err) => err.code)];
    ring.submit();
    expect(await io.cancel({ any: true })).toBe(2);
    expect(await Promise.all(more)).toEqual(['ECANCELED', 'ECANCELED']);
    for (const target of [{}, { any: true, token: 1 }, { file: 0, token: 1 }, { fd: 1 }, { token: -1 }])
      await expect((async () => io.cancel(target as never))()).rejects.toThrow(code('EINVAL'));
  });
});

describe('room()', () => {
  test('a producer that waits for room never has more under way than the queue holds', async () => {
    const small = new Ring({ entries: 4, cqEntries: 8 });
    const fd = work.file('0123456789');
    let most = 0;
    let done = 0;
    for (let i = 0; i < 500; i++) {
      await small.room();
      small.read(fd, Buffer.alloc(4), i % 8, (n) => {
        if (n < 0) throw new Error(String(n));
        done++;
      });
      most = Math.max(most, small.inFlight + small.queued);
    }
    while (done < 500) small.submit(1, 1000);
    expect(most).toBeLessThanOrEqual(8);
    small.close();
  });

  test('those that wait go in their order, and end with the ring', async () => {
    const small = new Ring({ entries: 2, cqEntries: 2 });
    const [reader, writer] = work.pipe();
    const reads = [0, 1].map(() => small.readAsync(reader, Buffer.alloc(1), -1));
    small.submit();
    expect(small.space).toBe(0);
    const order: number[] = [];
    const waits = [1, 2, 3].map((n) => small.room(n === 3 ? 2 : 1).then(() => order.push(n)));
    await new Promise((resolve) => setTimeout(resolve, 10));
    expect(order).toEqual([]);
    fs.writeSync(writer, 'ab');
    await Promise.all([...reads, ...waits]);
    expect(order).toEqual([1, 2, 3]);
    const again = [0, 1].map(() => small.readAsync(reader, Buffer.alloc(1), -1).catch((err) => err.code));
    small.submit();
    const late = small.room().catch((err) => err.code);
    small.close();
    expect(await Promise.all([...again, late])).toEqual(['ECANCELED', 'ECANCELED', 'EBADF']);
    expect(() => small.room()).toThrow(code('EBADF'));
    for (const bad of [0, -1, 1.5, Number.NaN]) expect(() => ring.room(bad)).toThrow(code('EINVAL'));
  });
});

test('options that do not exist are refused everywhere', async () => {
  const fd = work.file();
  const wrong = { timeuot: 5 } as never;
  const calls: (() => unknown)[] = [
    () => io.read(fd, Buffer.alloc(1), 0, wrong),
    () => io.fsync(fd, wrong),
    () => io.open('/', 'r', 0, wrong),
    () => io.stat('/', wrong),
    () => io.rename('/none', '/none', 0, wrong),
    () => io.timeout(1, wrong),
    () => io.chain([prep.nop()], wrong),
    () => io.connections(fd, wrong).next(),
    () => io.createReadStream(fd, wrong),
    () => io.createWriteStream(fd, wrong),
    () => new Ring(wrong),
    () => io.read(fd, Buffer.alloc(1), 0, 5 as never),
  ];
  for (const call of calls) await expect((async () => call())()).rejects.toThrow(code('EINVAL'));
});

test('paths that begin in a folder', async () => {
  const at = work.open(work.dir, fs.constants.O_RDONLY);
  await io.mkdir('in', 0o755, { at });
  const inside = work.open(work.path('in'), fs.constants.O_RDONLY);
  const fd = await io.open('file', 'wx', 0o600, { at: inside });
  await io.close(fd);
  await io.link('file', 'second', { at: inside, toAt: at });
  await io.symlink('second', 'third', { at });
  expect((await io.stat('third', { at })).links).toBe(2);
  expect((await io.stat('third', { at, follow: false })).links).toBe(1);
  await io.rename('second', 'moved', 0, { at, toAt: inside });
  expect(fs.readdirSync(work.path('in')).sort()).toEqual(['file', 'moved']);
  for (const name of ['file', 'moved']) await io.unlink(name, { at: inside });
  await io.unlink('in', { at, directory: true });
  expect(fs.existsSync(work.path('in'))).toBe(false);
});

test('the thread of SQPOLL sleeps after the time it was given', () => {
  let polled: Ring;
  try {
    polled = new Ring({ entries: 8, require: Setup.sqpoll, idle: 1 });
  } catch (err) {
    return skip('SQPOLL', String(err));
  }
  expect(go(polled, prep.nop())).toEqual([0]);
  polled.close();
});
