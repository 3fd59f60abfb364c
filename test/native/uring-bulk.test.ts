import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { blake3 } from '@noble/hashes/blake3.js';
import { native } from '../../src/native/index.js';
import { BulkWork } from '../../src/native/uring.js';
import { overPool, type PoolResult } from '../../src/uring/bulk/engine/pool.js';
import { newHasher } from '../../src/uring/bulk/hashers.js';
import { algorithms } from '../../src/uring/bulk/lines.js';
import { ringCount, Workspace } from '../support/uring.js';

const work = new Workspace();
afterAll(() => work.end());
const code = (expected: string) => expect.objectContaining({ code: expected });
const { bulkOpen, bulkPush, bulkTake, bulkClose, digestSize } = native().uring;

async function* list(...batches: string[][]): AsyncGenerator<string[]> {
  yield* batches;
}
const sum = { work: 'sum', algorithm: 'sha256', threads: 2, depth: 8, backlog: 64, ordered: false } as const;
async function all(names: AsyncIterable<string[]>, options: Partial<Parameters<typeof overPool>[1]> = {}): Promise<PoolResult[]> {
  const results: PoolResult[] = [];
  for await (const batch of overPool(names, { ...sum, ...options })) results.push(...batch);
  return results;
}

// The buffers of native/uring/bulk.cc: 64 KiB first, then 512 KiB.
const sizes = [0, 1, 65535, 65536, 65537, 65536 + 524288, 65536 + 524288 + 1, 2_000_003];
const files = sizes.map((size) => {
  const name = work.path(`size-${size}`);
  fs.writeFileSync(name, Buffer.alloc(size, `${size}, `));
  return name;
});

/** The same checksum by other code: OpenSSL's through Node, noble's BLAKE3, the table of CRC-32C; xxHash in one piece. */
function reference(algorithm: string, bytes: Buffer): string {
  if (algorithm === 'blake3') return Buffer.from(blake3(bytes)).toString('hex');
  if (algorithm === 'crc32c') return native().common.crc32cTable(bytes).toString(16).padStart(8, '0');
  if (!algorithm.startsWith('xxh')) return createHash(algorithm).update(bytes).digest('hex');
  const hasher = newHasher(algorithm);
  hasher.update(bytes);
  return hasher.digest();
}

test.each(Object.keys(algorithms).flatMap((name) => [[name, false] as const, [name, true] as const]))(
  '%s of every size, plain %p',
  async (algorithm, plain) => {
    const results = await all(list(files, files), { algorithm, ordered: true, plain });
    expect(results.map(({ digest, size, error }) => [digest, size, error])).toEqual(
      [...files, ...files].map((name) => [reference(algorithm, fs.readFileSync(name)), fs.statSync(name).size, undefined]),
    );
  },
);

describe('sparse files', () => {
  const MIB = 1 << 20;
  /** Data in the middle of holes: [offset, size]. */
  const shapes: [string, number, [number, number][]][] = [
    ['nothing but a hole', 64 * MIB, []],
    ['a hole first', 8 * MIB, [[6 * MIB, 2 * MIB]]],
    ['a hole last', 8 * MIB, [[0, 100_000]]],
    ['data here and there, not at borders of anything', 40 * MIB + 12_345, [[0, 70_000], [1_000_003, 5], [3 * MIB - 1, 2], [20 * MIB + 77, 600_000]]],
    ['holes that are too small to skip', 300_000, [[0, 4096], [40_000, 4096], [90_000, 200_000]]],
    ['a small file that is a hole', 4096, []],
  ]; // biome-ignore format: a table
  const make = (size: number, parts: [number, number][]): string => {
    const name = work.path(`sparse-${size}`);
    const fd = fs.openSync(name, 'w');
    for (const [offset, length] of parts) fs.writeSync(fd, Buffer.alloc(length, `${offset} `), 0, length, offset);
    fs.ftruncateSync(fd, size);
    fs.fsyncSync(fd); // delayed blocks would count as none
    fs.closeSync(fd);
    return name;
  };

  test.each(shapes)('%s: the same sums, by ring and by threads, alone and beside others', async (_, size, parts) => {
    const name = make(size, parts);
    const expected = reference('xxh3', fs.readFileSync(name));
    for (const plain of [false, true])
      for (const names of [[name], Array.from({ length: 24 }, () => name)]) {
        const results = await all(list(names), { algorithm: 'xxh3', plain, depth: 24 });
        expect(results.map(({ digest, size, error }) => [digest, size, error])).toEqual(names.map(() => [expected, size, undefined]));
      }
  });

  test.each([false, true])('a hole of 8 GiB - 1 takes no page of the cache; stopped at once (plain %p)', async (plain) => {
    const name = make(2 ** 33 - 1, []);
    const stop = new AbortController();
    setTimeout(() => stop.abort(new Error('enough')), 200);
    await expect(all(list([name]), { plain, signal: stop.signal })).rejects.toThrow('enough');
    const { stdout } = spawnSync('fincore', ['--bytes', '--noheadings', '--output', 'RES', name], { encoding: 'utf8' });
    expect(Number(stdout)).toBeLessThan(MIB);
  });
});

test('the addon has every algorithm; one that nobody has is refused', () => {
  expect(Object.keys(algorithms).filter((name) => digestSize(name) === 0)).toEqual([]);
  expect(() => bulkOpen({ work: BulkWork.sum, algorithm: 'sha3', threads: 1, depth: 1 }, () => {})).toThrow(code('EOPNOTSUPP'));
  expect(() => native().uring.digestNew('sha3')).toThrow(code('EOPNOTSUPP'));
});

// RFC 3720, the BLAKE3 and xxHash teams' vectors, FIPS 180-4.
test.each([
  ['crc32c', '123456789', 'e3069283'],
  ['blake3', '', 'af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262'],
  ['blake3', 'abc', '6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85'],
  ['sha256', 'abc', 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'],
  ['xxh32', '', '02cc5d05'],
  ['xxh32', 'abc', '32d153ff'],
  ['xxh64', '', 'ef46db3751d8e999'],
  ['xxh64', 'abc', '44bc2cf5ad770999'],
  ['xxh3', '', '2d06800538d394c2'],
  ['xxh3', 'abc', '78af5f94892f3950'],
  ['xxh128', '', '99aa06d3014798d86001c324468d497f'],
  ['xxh128', 'abc', '06b05ab6733a618578af5f94892f3950'],
])('published vector: %s of %j; a second stream begins afresh', (algorithm, text, digest) => {
  const hasher = newHasher(algorithm);
  for (let i = 0; i < 2; i++) {
    for (const byte of Buffer.from(text)) hasher.update(Buffer.of(byte));
    expect(hasher.digest()).toBe(digest);
  }
});

test('without rings, what may wait for ever is left to JavaScript: nothing of it is opened', async () => {
  const fifo = work.path('fifo');
  spawnSync('mkfifo', [fifo]);
  const results = await all(list([fifo, files[1]!, '/dev/null', work.dir, work.path('none')]), { plain: true, ordered: true });
  expect(results.map(({ error, size }) => [error, size])).toEqual([
    ['ELSEWHERE', 0],
    [undefined, 1],
    ['ELSEWHERE', 0],
    ['EISDIR', 0],
    ['ENOENT', 0],
  ]);
});

test('small files do not wait for large ones, with rings and without', async () => {
  const large = Array.from({ length: 4 }, (_, i) => work.path(`large-${i}`));
  for (const name of large) {
    fs.writeFileSync(name, '');
    fs.truncateSync(name, 256 << 20);
  }
  const small = Array.from({ length: 200 }, (_, i) => work.path(`small-${i}`));
  for (const name of small) fs.writeFileSync(name, name);
  for (const plain of [false, true]) {
    const order = (await all(list([...large, ...small]), { plain, threads: 2, algorithm: 'sha256' })).map(({ name }) => name);
    const first = Math.min(...large.map((name) => order.indexOf(name)));
    expect([plain, order.length, first >= 150]).toEqual([plain, 204, true]);
  }
});

test('many more files than places, over several threads: each once, in order where asked', async () => {
  const names = Array.from({ length: 3000 }, (_, i) => work.path(`many-${i % 100}`));
  for (const name of names.slice(0, 100)) fs.writeFileSync(name, name);
  for (const ordered of [true, false]) {
    const results = await all(list(names.slice(0, 1), names.slice(1, 2000), [], names.slice(2000)), { ordered, threads: 3 });
    const wanted = names.map((name) => `${name} ${createHash('sha256').update(name).digest('hex')}`);
    const got = results.map(({ name, digest }) => `${name} ${digest}`);
    expect(ordered ? got : got.sort()).toEqual(ordered ? wanted : wanted.sort());
  }
});

test('what fails is a result like any other, with the error that began it', async () => {
  fs.symlinkSync('loop', work.path('loop'));
  const wanted: [string, string | undefined][] = [
    [work.path('none'), 'ENOENT'],
    [files[1]!, undefined],
    [work.dir, 'EISDIR'],
    [work.path('loop'), 'ELOOP'],
    ['', 'ENOENT'],
    ['a\0b', 'EINVAL'],
    ['x'.repeat(4096), 'ENAMETOOLONG'],
    ['/proc/self/mem', 'EIO'],
    [files[2]!, undefined],
  ];
  const results = await all(list(wanted.map(([name]) => name)), { ordered: true });
  expect(results.map(({ name, error }) => [name, error])).toEqual(wanted);
  expect(results.map(({ digest }) => digest === undefined)).toEqual(wanted.map(([, error]) => error !== undefined));
});

test('a file that shrinks while it is read is TRUNCATED, and the next one goes on', async () => {
  const huge = work.path('huge');
  const size = 8 * 2 ** 30;
  fs.writeFileSync(huge, '');
  fs.truncateSync(huge, size); // holes: nothing is on the disk, and summing takes seconds
  /** Processor time of the threads, in ticks of 10 ms: what has summed that long is behind its first buffer. */
  const ticks = (): number => {
    const stats = fs.readdirSync('/proc/self/task').map((tid) => fs.readFileSync(`/proc/self/task/${tid}/stat`, 'utf8'));
    const own = stats.filter((stat) => stat.includes('(uring-bulk)')).map((stat) => stat.slice(stat.lastIndexOf(')')).split(' '));
    return own.reduce((sum, words) => sum + Number(words[12]) + Number(words[13]), 0); // utime, stime
  };
  const results = all(list([huge, files[1]!]), { ordered: true });
  while (ticks() < 5) await new Promise((resolve) => setTimeout(resolve, 5));
  fs.truncateSync(huge, 1 << 20);
  const [first, second] = await results;
  expect([first!.error, first!.digest, first!.size < size, second!.error]).toEqual(['TRUNCATED', undefined, true, undefined]);
  expect(first!.size).toBeGreaterThan(65536);
});

test.each([false, true])(
  'sync (plain: %s): fsync or fdatasync of each; what cannot be synced is reported (/proc: EINVAL)',
  async (plain) => {
    for (const kind of ['sync', 'dataSync'] as const) {
      const names = [files[1]!, work.path('none'), '/proc/version', work.dir];
      const results = await all(list(names), { work: kind, ordered: true, plain });
      expect(results.map(({ error, digest, size }) => [error, digest, size])).toEqual([
        [undefined, undefined, 0],
        ['ENOENT', undefined, 0],
        ['EINVAL', undefined, 0],
        [undefined, undefined, 0],
      ]);
    }
  },
);

test('sync without a ring: many files over many threads, each once; a list that pauses; the end leaves no thread', async () => {
  const options = { work: 'sync', plain: true, threads: 16, depth: 16, backlog: 64, ordered: true } as const;
  const threads = (): number =>
    fs.readdirSync('/proc/self/task').filter((tid) => fs.readFileSync(`/proc/self/task/${tid}/comm`, 'utf8') === 'plain-bulk\n').length;
  const before = ringCount();
  const names = Array.from({ length: 3000 }, (_, i) => (i % 7 === 0 ? work.path(`none-${i}`) : files[i % 3]!));
  const pausing = async function* (): AsyncGenerator<string[]> {
    yield names.slice(0, 10);
    await new Promise((resolve) => setTimeout(resolve, 50)); // every thread sleeps
    expect([ringCount(), threads()]).toEqual([before, 16]);
    yield names.slice(10);
  };
  const results = await all(pausing(), options);
  expect(results.map(({ name, error }) => [name, error])).toEqual(names.map((name, i) => [name, i % 7 === 0 ? 'ENOENT' : undefined]));
  for await (const batch of overPool(list(names), options)) {
    expect(batch.length).toBeGreaterThan(0);
    break;
  }
  expect(threads()).toBe(0);
});

test('a file that never ends holds up no other; closing cancels it and leaves no ring and no thread', async () => {
  const fifo = work.path('endless');
  spawnSync('mkfifo', [fifo]);
  const writer = work.open(fifo, fs.constants.O_RDWR);
  fs.writeSync(writer, 'begun');
  const blocked = work.path('blocked'); // nobody opens it for writing: the open itself waits
  spawnSync('mkfifo', [blocked]);
  const threads = (): number =>
    fs.readdirSync('/proc/self/task').filter((tid) => fs.readFileSync(`/proc/self/task/${tid}/comm`, 'utf8') === 'uring-bulk\n').length;
  const before = ringCount();
  const controller = new AbortController();
  const names = Array.from({ length: 500 }, (_, i) => (i === 3 ? fifo : i === 4 ? blocked : files[i % 3]!));
  let count = 0;
  const run = async (): Promise<void> => {
    for await (const batch of overPool(list(names), { ...sum, depth: 4, signal: controller.signal })) {
      count += batch.length;
      if (count === 498) {
        expect([ringCount(), threads()]).toEqual([before + 2, 2]);
        setTimeout(() => controller.abort(new Error('enough')), 20);
      }
    }
  };
  const start = performance.now();
  await expect(run()).rejects.toThrow('enough');
  expect(count).toBe(498);
  expect([ringCount(), threads()]).toEqual([before, 0]);
  expect(performance.now() - start).toBeLessThan(30_000);
});

test('a consumer that stops early ends the threads; a source that fails ends the work with its error', async () => {
  for await (const batch of overPool(list(files, files), sum)) {
    expect(batch.length).toBeGreaterThan(0);
    break;
  }
  const broken = async function* (): AsyncGenerator<string[]> {
    yield files;
    throw new Error('the list broke');
  };
  await expect(all(broken())).rejects.toThrow('the list broke');
});

test('a block without its last NUL, a closed handle, a table above the limit of open files', () => {
  const handle = bulkOpen({ work: BulkWork.sync, threads: 1, depth: 1 }, () => {});
  expect(() => bulkPush(handle, Buffer.from('name'), 0)).toThrow(code('EINVAL'));
  expect(() => bulkPush(handle, Buffer.alloc(0), 0)).toThrow(code('EINVAL'));
  expect(bulkTake(handle, Buffer.alloc(80))).toBe(0);
  bulkClose(handle);
  bulkClose(handle);
  expect(() => bulkPush(handle, Buffer.from('name\0'), 0)).toThrow(code('EINVAL'));
  expect(() => bulkTake(handle, Buffer.alloc(80))).toThrow(code('EINVAL'));
  const limit = Number(/Max open files\s+(\d+)/.exec(fs.readFileSync('/proc/self/limits', 'utf8'))![1]);
  if (limit < 1 << 20) expect(() => overPool(list(), { ...sum, threads: 1, depth: limit + 1 })).toThrow(code('EMFILE'));
});
