import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { Op, Operations, Ring } from '../../src/uring/index.js';
import { offers, ringForEach, Workspace } from '../support/uring.js';

// Every operation beside what node:fs says of the same file, and as a real peer sees it.
const work = new Workspace();
afterAll(() => work.end());

let ring: Ring;
let io: Operations;
ringForEach(16, (...fresh) => {
  [ring, io] = fresh;
});
const code = (expected: string) => expect.objectContaining({ code: expected });
const fdCount = () => fs.readdirSync('/proc/self/fd').length;

test('files: open, write, read, their vectors, fsync, truncate, allocate, stat, close', async () => {
  const name = work.path('a');
  const fd = await io.open(name, 'wx+', 0o640);
  expect(fs.readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8')).toMatch(/flags:\s*02\d+2$/m); // O_CLOEXEC, O_RDWR
  expect(await io.write(fd, Buffer.from('hello world'))).toBe(11);
  expect(await io.writev(fd, [Buffer.from('HE'), Buffer.alloc(0), new Uint8Array([76, 76])], 0n)).toBe(4);
  await io.fsync(fd);
  await io.fsync(fd, { data: true });
  const parts = [Buffer.alloc(4), Buffer.alloc(100)];
  expect(await io.readv(fd, parts, 0)).toBe(11);
  expect(Buffer.concat(parts).toString('latin1', 0, 11)).toBe('HELLo world');
  await io.fallocate(fd, 0, 8192);
  expect(fs.fstatSync(fd).size).toBe(8192);
  if (offers(ring, Op.ftruncate)) await io.ftruncate(fd, 11n);
  else fs.ftruncateSync(fd, 11);
  const [ours, theirs] = [await io.stat(name), fs.statSync(name, { bigint: true })];
  expect(ours).toMatchObject({
    size: theirs.size,
    mode: Number(theirs.mode),
    inode: theirs.ino,
    modified: theirs.mtimeNs,
    changed: theirs.ctimeNs,
    accessed: theirs.atimeNs,
    links: 1,
    uid: Number(theirs.uid),
  });
  expect(await io.stat(fd)).toEqual(ours);
  expect(ours.mode & 0o777).toBe(0o640);
  const handle = await fs.promises.open(name);
  expect(await io.read(handle, Buffer.alloc(20), 6)).toBe(5);
  await handle.close();
  await expect(io.read(handle, Buffer.alloc(20), 0)).rejects.toThrow(code('EBADF'));
  await io.close(fd);
  await expect(io.close(fd)).rejects.toThrow(code('EBADF'));
  await expect(io.open(name, 'wx')).rejects.toThrow(code('EEXIST'));
  await expect(io.open(work.path('none'))).rejects.toThrow(code('ENOENT'));
});

test('names: mkdir, rename, link, symlink, unlink', async () => {
  const [a, b, c, folder] = ['x', 'y', 'z', 'folder'].map((name) => work.path(name)) as [string, string, string, string];
  fs.writeFileSync(a, 'x');
  await io.mkdir(folder, 0o700);
  expect(fs.statSync(folder).mode & 0o7777).toBe(0o700);
  await io.rename(a, b);
  await io.link(b, c);
  expect([fs.existsSync(a), fs.statSync(c).nlink]).toEqual([false, 2]);
  await io.symlink('y', a);
  expect(fs.readlinkSync(a)).toBe('y');
  expect((await io.stat(a, { follow: false })).mode & 0o170000).toBe(0o120000);
  await expect(io.unlink(folder)).rejects.toThrow(code('EISDIR'));
  await io.unlink(folder, { folder: true });
  for (const name of [a, b, c]) await io.unlink(name);
  expect([a, b, c, folder].filter((name) => fs.existsSync(name))).toEqual([]);
  await io.mkdir(work.path('with 0'));
  await io.unlink(Buffer.from(work.path('with 0')), { folder: true });
  for (const bad of ['a\0b', Buffer.from([97, 0]), new Uint8Array([97, 0]), 5, undefined, ''])
    await expect((async () => io.unlink(bad as never))()).rejects.toThrow(code(bad === '' ? 'ENOENT' : 'EINVAL'));
});

test('sockets: a connection both ways, its end, datagrams with addresses', async () => {
  if (!offers(ring, Op.connect)) return;
  const server = await io.socket('ipv4', 1);
  const net = { address: '127.0.0.1', port: 0 };
  const bound = offers(ring, 56);
  if (!bound) return io.close(server);
  await io.bind(server, net);
  await io.listen(server);
  // the port that the kernel chose, as getsockname(2) would say it
  const inode = /\[(\d+)\]/.exec(fs.readlinkSync(`/proc/self/fd/${server}`))![1];
  const line = fs
    .readFileSync('/proc/net/tcp', 'utf8')
    .split('\n')
    .find((l) => l.trim().split(/\s+/)[9] === inode)!;
  const port = Number.parseInt(line.trim().split(/\s+/)[1]!.split(':')[1]!, 16);
  const client = await io.socket('ipv4', 1);
  const accepted = io.accept(server);
  await io.connect(client, { address: '127.0.0.1', port });
  const peer = await accepted;
  expect(await io.send(client, Buffer.from('ping'))).toBe(4);
  const got = Buffer.alloc(10);
  expect(await io.recv(peer, got)).toBe(4);
  expect(await io.sendmsg(peer, [Buffer.from('po'), Buffer.from('ng')])).toBe(4);
  expect(await io.recvmsg(client, [got.subarray(0, 1), got.subarray(1)])).toMatchObject({ size: 4 });
  expect(got.toString('latin1', 0, 4)).toBe('pong');
  expect(await io.poll(client, 4)).toBe(4);
  await io.shutdown(client, 'write');
  expect(await io.recv(peer, got)).toBe(0);
  for (const fd of [client, peer, server]) await io.close(fd);
  await expect(io.connect(await io.socket('ipv4', 1), { address: '127.0.0.1', port })).rejects.toThrow(code('ECONNREFUSED'));

  const [a, b] = [await io.socket('unix', 2), await io.socket('unix', 2)];
  await io.bind(a, { path: work.path('sock-a') });
  await io.bind(b, { path: work.path('sock-b') });
  await io.sendmsg(a, [Buffer.from('datagram')], { path: work.path('sock-b') });
  expect(await io.recvmsg(b, [Buffer.alloc(4)])).toEqual({ size: 4, flags: 0x20, from: { path: work.path('sock-a') } });
  for (const fd of [a, b]) await io.close(fd);
});

test('connections() yields until it is left; what nobody took is closed', async () => {
  if (!offers(ring, 56)) return;
  const listener = await io.socket('unix', 1);
  const path = work.path('listener');
  await io.bind(listener, { path });
  await io.listen(listener);
  const before = fdCount();
  const clients: number[] = [];
  const connect = async () => {
    const fd = await io.socket('unix', 1);
    await io.connect(fd, { path });
    clients.push(fd);
  };
  for (let i = 0; i < 3; i++) await connect();
  let taken = 0;
  for await (const fd of io.connections(listener)) {
    await io.close(fd);
    await connect();
    if (++taken === 3) break;
  }
  const ended = new AbortController();
  const rest = (async () => {
    for await (const fd of io.connections(listener, { signal: ended.signal })) await io.close(fd);
  })();
  setTimeout(() => ended.abort(new Error('enough')), 20);
  await expect(rest).rejects.toThrow('enough');
  for (const fd of clients) await io.close(fd);
  expect(fdCount()).toBeLessThanOrEqual(before);
  await io.close(listener);
});

test('pipes: splice and tee', async () => {
  const [[r, w], [r2, w2]] = [work.pipe(), work.pipe()];
  const fd = work.file('0123456789');
  expect(await io.splice(fd, 2, w, -1, 5)).toBe(5);
  expect(await io.tee(r, w2, 100)).toBe(5);
  for (const end of [r, r2]) {
    const bytes = Buffer.alloc(10);
    expect(await io.read(end, bytes)).toBe(5);
    expect(bytes.toString('latin1', 0, 5)).toBe('23456');
  }
});

test('time-outs and signals end what would wait; the memory is let go first', async () => {
  const [reader, writer] = work.pipe();
  const buffer = Buffer.alloc(8, 'z');
  await expect(io.read(reader, buffer, -1, { timeout: 20 })).rejects.toThrow(code('ETIME'));
  const reason = new Error('mine');
  const stop = new AbortController();
  const reading = io.read(reader, buffer, -1, { signal: stop.signal });
  setTimeout(() => stop.abort(reason), 10);
  await expect(reading).rejects.toBe(reason);
  await expect(io.read(reader, buffer, -1, { signal: stop.signal })).rejects.toBe(reason);
  await expect(io.read(reader, buffer, -1, { signal: AbortSignal.timeout(10), timeout: 100_000 })).rejects.toMatchObject({
    name: 'TimeoutError',
  });
  fs.writeSync(writer, 'data');
  expect(buffer.equals(Buffer.alloc(8, 'z'))).toBe(true);
  expect(await io.read(reader, buffer, -1, { timeout: 100_000, signal: new AbortController().signal })).toBe(4);
  const before = performance.now();
  await io.timeout(15);
  expect(performance.now() - before).toBeGreaterThan(10);
  await expect(io.timeout(60_000, { signal: AbortSignal.timeout(10) })).rejects.toMatchObject({ name: 'TimeoutError' });
  for (const ms of [-1, Number.NaN, Number.POSITIVE_INFINITY, 'x'])
    await expect(io.read(reader, buffer, -1, { timeout: ms as never })).rejects.toThrow(code('EINVAL'));
});

test('more operations at once than the ring has entries, each with a time-out', async () => {
  const fd = work.file('0123456789');
  const all = Array.from({ length: 200 }, (_, i) => io.read(fd, Buffer.alloc(4), i % 8, { timeout: 100_000 }));
  expect(await Promise.all(all)).toEqual(all.map((_, i) => Math.min(4, 10 - (i % 8))));
});

test('a program that disposes of its ring', () => {
  const script = `const { Ring, Operations } = require(${JSON.stringify(path.resolve('dist/uring.cjs'))});
    (async () => { const ring = new Ring(); const io = new Operations(ring); const fd = await io.open(process.execPath);
    const late = io.read(fd, Buffer.alloc(8), 0); await ring[Symbol.asyncDispose](); console.log(await late.catch((err) => err.code), ring.closed); })();`;
  const { stdout } = spawnSync(process.execPath, ['-e', `Symbol.asyncDispose ??= Symbol('asyncDispose'); ${script}`], { encoding: 'utf8' });
  expect(stdout).toMatch(/^(8|ECANCELED) true\n$/); // what the kernel has not done yet is cancelled
});
