import fs from 'node:fs';
import net from 'node:net';
import { BufferRing, Op, Operations, Ring } from '../../src/uring/index.js';
import { skip } from '../support/skip.js';
import { offers, ringForEach, Workspace } from '../support/uring.js';

// Requests that complete again and again, as async iterators, against peers of Node's own.
const work = new Workspace();
afterAll(() => work.end());

let ring: Ring;
let io: Operations;
ringForEach(32, (...fresh) => {
  [ring, io] = fresh;
});
const code = (expected: string) => expect.objectContaining({ code: expected });

/** A connection: our descriptor, and Node's socket at the other end. */
async function connection(): Promise<{ fd: number; peer: net.Socket; end: () => Promise<void> }> {
  const server = net.createServer();
  const name = work.path(`s${connections++}`);
  await new Promise<void>((resolve) => server.listen(name, resolve));
  const accepted = new Promise<net.Socket>((resolve) => server.once('connection', resolve));
  const fd = await io.socket('unix', 1);
  await io.connect(fd, { path: name });
  const peer = await accepted;
  const end = async (): Promise<void> => {
    peer.destroy();
    await io.close(fd);
    await new Promise((resolve) => server.close(resolve));
  };
  return { fd, peer, end };
}
let connections = 0;

test('receive() yields what comes until the peer ends, and more than its buffers hold', async () => {
  const { fd, peer, end } = await connection();
  const buffers = new BufferRing(ring, { count: 4, size: 1000 });
  const data = Buffer.alloc(100_000, 'a line of data\n');
  peer.end(data);
  const pieces: Buffer[] = [];
  for await (const piece of io.receive(fd, buffers)) {
    expect(piece.length).toBeLessThanOrEqual(1000);
    pieces.push(Buffer.from(piece));
  }
  expect(Buffer.concat(pieces).equals(data)).toBe(true);
  expect(buffers.free).toBe(4);
  await end();
});

test('two sockets share buffers; a reader that is slow holds only its own, one that leaves gives all back', async () => {
  const [a, b] = [await connection(), await connection()];
  const buffers = new BufferRing(ring, { count: 2, size: 64 });
  const slow = io.receive(a.fd, buffers);
  a.peer.write('first');
  const first = await slow.next();
  expect(String(first.value)).toBe('first');
  expect(buffers.free).toBe(1);
  b.peer.end(Buffer.alloc(5000, 'b'));
  let size = 0;
  for await (const piece of io.receive(b.fd, buffers)) size += piece.length;
  expect(size).toBe(5000);
  expect(String(first.value)).toBe('first');
  a.peer.write('never taken');
  await new Promise((resolve) => setTimeout(resolve, 20));
  await slow.return();
  expect(buffers.free).toBe(2);
  await a.end();
  await b.end();
});

test('a signal ends it with its reason; what is no socket is ENOTSOCK; unknown options', async () => {
  const { fd, peer, end } = await connection();
  const buffers = new BufferRing(ring, { count: 2, size: 64 });
  const stop = new AbortController();
  peer.write('x');
  const reader = (async () => {
    for await (const piece of io.receive(fd, buffers, { signal: stop.signal })) expect(String(piece)).toBe('x');
  })();
  setTimeout(() => stop.abort(new Error('enough')), 20);
  await expect(reader).rejects.toThrow('enough');
  await expect(io.receive(fd, buffers, { signal: stop.signal }).next()).rejects.toThrow('enough');
  await expect(io.receive(work.file(), buffers).next()).rejects.toThrow(code('ENOTSOCK'));
  await expect(io.receive(fd, buffers, { signals: 1 } as never).next()).rejects.toThrow(code('EINVAL'));
  expect(buffers.free).toBe(2);
  await end();
});

test('buffers that were unregistered end a reader', async () => {
  const { fd, peer, end } = await connection();
  const buffers = new BufferRing(ring, { count: 2, size: 64 });
  buffers.unregister();
  peer.write('x');
  await expect(
    (async () => {
      for await (const _ of io.receive(fd, buffers)) throw new Error('a buffer of nobody');
    })(),
  ).rejects.toThrow(code('ENOBUFS'));
  await end();
});

test('datagrams(): data, sender, one that is cut, one that is empty', async () => {
  if (!offers(ring, Op.bind)) return skip('BIND', 'this kernel has none (6.11)');
  const [a, b] = [await io.socket('unix', 2), await io.socket('unix', 2)];
  await io.bind(a, { path: work.path('a') });
  await io.bind(b, { path: work.path('b') });
  const buffers = new BufferRing(ring, { count: 2, size: 144 + 8 });
  const coming = io.datagrams(b, buffers);
  const sent = ['short', '', 'far too long for it', 'last'];
  for (const text of sent) await io.sendmsg(a, [Buffer.from(text)], { path: work.path('b') });
  const got: unknown[] = [];
  for await (const { data, from, flags } of coming) {
    got.push([String(data), from, flags & 0x20]);
    if (got.length === sent.length) break;
  }
  const from = { path: work.path('a') };
  expect(got).toEqual([['short', from, 0], ['', from, 0], ['far too ', from, 0x20], ['last', from, 0]]); // biome-ignore format: a table
  expect(buffers.free).toBe(2);
  await expect(io.datagrams(b, new BufferRing(ring, { count: 1, size: 144 })).next()).rejects.toThrow(code('EINVAL'));
  for (const fd of [a, b]) await io.close(fd);
});

test('chunks() of a pipe', async () => {
  if (!offers(ring, Op.readMultishot)) return skip('READ_MULTISHOT', 'this kernel has none (6.7)');
  const buffers = new BufferRing(ring, { count: 2, size: 16 });
  const [reader, writer] = work.pipe(fs.constants.O_NONBLOCK);
  fs.writeSync(writer, 'a pipe whose content is longer than two buffers');
  work.close(writer);
  let text = '';
  for await (const piece of io.chunks(reader, buffers)) text += piece;
  expect(text).toBe('a pipe whose content is longer than two buffers');
});
