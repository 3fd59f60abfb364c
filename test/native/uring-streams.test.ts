import fs from 'node:fs';
import { pipeline } from 'node:stream/promises';
import zlib from 'node:zlib';
import { FileTable, Operations, Ring } from '../../src/uring/index.js';
import { ringForEach, Workspace } from '../support/uring.js';

// createReadStream and createWriteStream beside those of node:fs.
const work = new Workspace();
afterAll(() => work.end());

let ring: Ring;
let io: Operations;
ringForEach(16, (...fresh) => {
  [ring, io] = fresh;
});
const code = (expected: string) => expect.objectContaining({ code: expected });
const linkOf = (fd: string): string => {
  try {
    return fs.readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    return ''; // readdir's own, closed again
  }
};
const collect = async (stream: AsyncIterable<Buffer | string>): Promise<string> => {
  let text = '';
  for await (const chunk of stream) text += chunk;
  return text;
};

test('the same bytes as fs.createReadStream: whole, parts, small chunks, text', async () => {
  const name = work.path('source');
  fs.writeFileSync(name, Array.from({ length: 30_000 }, (_, i) => `${i}\n`).join(''));
  for (const options of [
    {},
    { start: 5, end: 5 },
    { start: 100 },
    { end: 99_999 },
    { start: 65_536, end: 70_000, highWaterMark: 100 },
    { start: 1_000_000 },
    { encoding: 'utf8' as const },
  ])
    expect(await collect(io.createReadStream(name, options))).toBe(await collect(fs.createReadStream(name, options)));
  expect(await collect(io.createReadStream(name, { start: 10n, end: 19n }))).toBe(fs.readFileSync(name, 'latin1').slice(10, 20));
  const stream = io.createReadStream(Buffer.from(name));
  await collect(stream);
  expect(stream.bytesRead).toBe(fs.statSync(name).size);
  expect(fs.readdirSync('/proc/self/fd').filter((fd) => linkOf(fd) === name)).toEqual([]);
  await expect(collect(io.createReadStream(work.path('none')))).rejects.toThrow(code('ENOENT'));
  for (const bad of [{ start: -1 }, { end: -1 }, { start: 5, end: 3 }, { start: 1.5 }, { highWaterMark: 0 }])
    expect(() => io.createReadStream(name, bad)).toThrow(code('EINVAL'));
});

test('open files: a descriptor, a FileHandle, a slot; autoClose', async () => {
  const name = work.path('open');
  fs.writeFileSync(name, 'open file');
  const handle = await fs.promises.open(name);
  expect(await collect(io.createReadStream(handle, { autoClose: false, start: 5 }))).toBe('file');
  expect(await collect(io.createReadStream(handle))).toBe('open file');
  expect(handle.fd).toBe(-1);
  const fd = fs.openSync(name, 'r');
  expect(await collect(io.createReadStream(fd))).toBe('open file');
  expect(() => fs.fstatSync(fd)).toThrow(code('EBADF'));
  const table = new FileTable(ring);
  table.registerSparse(1);
  const slot = await table.open(name, 0);
  expect(await collect(io.createReadStream(slot))).toBe('open file');
  await expect(table.close(slot)).rejects.toThrow(code('EBADF'));
});

test('through a pipeline, compressed, into a write stream that is durable at its end', async () => {
  const [from, to] = [work.path('plain'), work.path('plain.gz')];
  const data = Buffer.alloc(3_000_000, 'some text that repeats ');
  fs.writeFileSync(from, data);
  const writer = io.createWriteStream(to, { flush: true, mode: 0o600 });
  await pipeline(io.createReadStream(from), zlib.createGzip(), writer);
  expect(zlib.gunzipSync(fs.readFileSync(to)).equals(data)).toBe(true);
  expect([writer.bytesWritten, fs.statSync(to).mode & 0o777]).toEqual([fs.statSync(to).size, 0o600]);
});

test('writes: text, many at once, in the middle of a file, appended', async () => {
  const name = work.path('written');
  const write = async (parts: (string | Buffer)[], options: object) => {
    const stream = io.createWriteStream(name, options);
    for (const part of parts) stream.write(part);
    stream.end();
    await new Promise<void>((resolve, reject) => stream.on('close', resolve).on('error', reject));
  };
  await write(['a', '', Buffer.from('b'), 'ü', ...Array.from({ length: 3000 }, () => '.')], {});
  expect(fs.readFileSync(name, 'utf8')).toBe(`abü${'.'.repeat(3000)}`);
  await write(['XY'], { start: 1 });
  await write(['end'], { flags: 'a' });
  const expected = Buffer.concat([Buffer.from('aXY'), Buffer.from('ü').subarray(1), Buffer.alloc(3000, '.'), Buffer.from('end')]);
  expect(fs.readFileSync(name).equals(expected)).toBe(true);
  await expect(write(['x'], { flags: 'wx' })).rejects.toThrow(code('EEXIST'));
  await expect(pipeline([Buffer.alloc(100_000)], io.createWriteStream('/dev/full'))).rejects.toThrow(code('ENOSPC'));
});

test('a stream that is destroyed cancels its request, then closes its file', async () => {
  const [reader, writer] = work.pipe();
  const stop = new AbortController();
  const stream = io.createReadStream(reader, { autoClose: false, signal: stop.signal });
  const reading = collect(stream);
  setTimeout(() => stop.abort(), 20);
  await expect(reading).rejects.toThrow(expect.objectContaining({ name: 'AbortError' }));
  await new Promise<void>((resolve) => (stream.closed ? resolve() : stream.on('close', resolve)));
  expect(ring.inFlight).toBe(0);
  fs.writeSync(writer, 'kept');
  expect(await io.read(reader, Buffer.alloc(8))).toBe(4);
  const zeros = (): number => fs.readdirSync('/proc/self/fd').filter((fd) => linkOf(fd) === '/dev/zero').length;
  const left = io.createReadStream('/dev/zero');
  for await (const chunk of left) {
    expect([chunk.length > 0, zeros()]).toEqual([true, 1]);
    break;
  }
  await new Promise<void>((resolve) => (left.closed ? resolve() : left.on('close', resolve)));
  expect(zeros()).toBe(0);
});
