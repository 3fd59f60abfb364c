import { AsyncLocalStorage } from 'node:async_hooks';
import fs from 'node:fs';
import { FileTable, Op, Ring, Setup } from '../../src/uring/index.js';
import { ringCount, Workspace } from '../support/uring.js';
import { eventually } from '../support/wait.js';

// What is under way is counted, called back once, in the context of its call, whatever the ring, its callbacks and its end are like.
const work = new Workspace();
afterAll(() => work.end());
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

const kinds: [string, number][] = [
  ['a plain ring', 0],
  ['a ring with SQPOLL', Setup.sqpoll],
];

describe.each(kinds)('%s', (_, require) => {
  let ring: Ring;
  beforeEach(() => {
    ring = new Ring({ entries: 8, require });
  });
  afterEach(() => ring.close());

  test('counts what is under way', async () => {
    const fd = work.file('0123456789');
    for (let i = 0; i < 100; i++) {
      const reads = Array.from({ length: (i % 20) + 1 }, () => ring.readAsync(fd, Buffer.alloc(4), 0));
      expect(await Promise.all(reads)).toEqual(reads.map(() => 4));
      expect([ring.inFlight, ring.queued]).toEqual([0, 0]);
    }
  });

  test('close() calls back what never completes by itself', async () => {
    const [reader] = work.pipe();
    const results: number[] = [];
    for (let i = 0; i < 5; i++) ring.read(reader, Buffer.alloc(8), -1, (n) => results.push(n));
    ring.submit();
    await pause(20);
    expect(ring.inFlight).toBe(5);
    ring.close();
    expect(results.length).toBe(5);
    for (const result of results) expect([-125, -4]).toContain(result);
  });

  test('a callback closes the ring, others throw: every request is called back once, the first exception comes out of close()', () => {
    const rings = ringCount();
    const fd = work.file('x');
    const [reader] = work.pipe();
    let called = 0;
    ring.read(reader, Buffer.alloc(8), -1, () => called++);
    ring.read(fd, Buffer.alloc(8), 0, () => {
      called++;
      ring.close();
      ring.close();
    });
    for (let i = 0; i < 3; i++)
      ring.read(fd, Buffer.alloc(8), 0, () => {
        called++;
        throw new Error(`mine ${i}`);
      });
    let thrown = 0;
    for (let i = 0; i < 8 && !(ring.closed && ringCount() < rings); i++)
      try {
        if (i === 0) ring.submit(1, 1000);
        ring.close();
      } catch (err) {
        expect((err as Error).message).toMatch(/^mine \d$/);
        thrown++;
      }
    expect([called, ringCount()]).toEqual([5, rings - 1]);
    expect(thrown).toBeGreaterThan(0);
    ring.close();
    expect(() => ring.read(fd, Buffer.alloc(1), 0, () => {})).toThrow(expect.objectContaining({ code: 'EBADF' }));
  });
});

test.each([1, 2, 4])('readWhole() on a ring of %d entries: files of every length, errors, many at once', async (entries) => {
  const ring = new Ring({ entries, cqEntries: entries });
  const table = new FileTable(ring);
  table.registerSparse(4);
  const whole = (name: string, slot: number, size: number) =>
    new Promise<number>((resolve) => ring.readWhole(Buffer.from(`${name}\0`), 0, slot, Buffer.alloc(size), (n) => resolve(n)));
  const name = work.path('whole');
  fs.writeFileSync(name, Buffer.alloc(5000));
  for (let i = 0; i < 5; i++)
    expect(await Promise.all([whole(name, 0, 8000), whole(work.path('none'), 1, 10), whole('/etc', 2, 10), whole(name, 3, 5001)])).toEqual([
      5000, -2, -21, 5000,
    ]);
  expect(ring.inFlight).toBe(0);
  expect(() => {
    ring.push({ opcode: Op.nop, flags: 4 }, () => {});
    ring.readWhole(Buffer.from('/dev/null\0'), 0, 0, Buffer.alloc(1), () => {});
  }).toThrow(expect.objectContaining({ code: expect.stringMatching(/^(EINVAL|EOVERFLOW)$/) }));
  ring.close();
});

test('each callback and promise has the AsyncLocalStorage of its call', async () => {
  const storage = new AsyncLocalStorage<string>();
  const ring = new Ring({ entries: 8 });
  const fd = work.file('content');
  const [reader, writer] = work.pipe();
  const seen: string[] = [];
  const note = (id: string) => () => seen.push(`${id} in ${storage.getStore()}`);
  for (const id of ['A', 'B']) storage.run(id, () => ring.read(fd, Buffer.alloc(8), 0, note(id)));
  storage.run('C', () => ring.read(reader, Buffer.alloc(1), -1, note('C')));
  storage.run('D', () => ring.push({ opcode: Op.nop }, note('D')));
  await storage.run('E', async () => {
    await ring.readAsync(fd, Buffer.alloc(8), 0);
    note('E')();
  });
  fs.writeSync(writer, 'x');
  await eventually(() => seen.length === 5);
  ring.close();
  expect(seen.sort()).toEqual(['A in A', 'B in B', 'C in C', 'D in D', 'E in E']);
});

test('a ring that the kernel does not let in: every request is told, nothing is thrown at the process', async () => {
  const ring = new Ring({ entries: 4, registered: false });
  new FileTable(ring).registerSparse(2);
  fs.closeSync(ring.fd); // io_uring_enter(2) says EBADF from now on
  fs.openSync('/dev/null', 'r'); // takes the number; the ring closes it with itself
  const reads = Array.from({ length: 20 }, () => ring.readAsync(0, Buffer.alloc(1), 0));
  const whole = new Promise((resolve) => ring.readWhole(Buffer.from('/etc/passwd\0'), 0, 0, Buffer.alloc(10), resolve));
  for (const read of await Promise.allSettled(reads))
    expect(read).toMatchObject({ status: 'rejected', reason: { code: expect.stringMatching(/^(EBADF|EOPNOTSUPP)$/) } });
  expect([-9, -95]).toContain(await whole);
  expect([ring.inFlight, ring.queued]).toEqual([0, 0]);
  ring.close();
});

test('a ring that was not started keeps requests until it is, and calls them back when it is closed', async () => {
  const ring = new Ring({ entries: 4, require: Setup.rDisabled });
  const early = ring.request({ opcode: Op.nop });
  await pause(5);
  expect(() => ring.submit()).toThrow(expect.objectContaining({ code: 'EBADFD' }));
  ring.enable();
  expect(await early).toBe(0);
  ring.close();
  const never = new Ring({ entries: 4, require: Setup.rDisabled });
  const lost = never.request({ opcode: Op.nop });
  never.close();
  await expect(lost).rejects.toThrow(expect.objectContaining({ code: 'ECANCELED' }));
});
