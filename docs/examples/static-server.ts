/**
 * An HTTP/1.1 server for the files below a folder: `static-server FOLDER [PORT]`.
 *
 * One multishot request accepts all connections; one pool of buffers receives for all of them, so that an idle connection holds no memory.
 * openat2(2) with RESOLVE_BENEATH keeps every path inside the folder, symbolic links included.
 */
import { setMaxListeners } from 'node:events';
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { addressOf, BufferRing, errnoError, Operations, type Request, Ring, requestOps } from 'vioctl/uring';

const OPENAT2 = requestOps.find(({ name }) => name === 'openat2')!.value;
const RESOLVE_NO_MAGICLINKS = 0x02n;
const RESOLVE_BENEATH = 0x08n;
const MSG_DONTWAIT = 0x40;
/** Bytes of a request up to its empty line. */
const MAX_HEAD = 8192;
/** A file goes out in pieces of this size. */
const PIECE = 256 * 1024;
/** Milliseconds that a peer may take to receive a piece. */
const SEND_TIME = 30_000;
const SMALL = 16 * 1024;

const types: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.json': 'application/json',
  '.svg': 'image/svg+xml',
  '.png': 'image/png',
  '.txt': 'text/plain; charset=utf-8',
};
const reasons: Readonly<Record<number, string>> = { 400: 'Bad Request', 404: 'Not Found', 405: 'Method Not Allowed', 431: 'Too Large' };

/** What a server needs from the outside: a listening socket, and a folder. */
export class StaticServer {
  readonly #ring = new Ring({ entries: 256, cqEntries: 4096 });
  readonly #io = new Operations(this.#ring);
  readonly #buffers = new BufferRing(this.#ring, { count: 256, size: 2048 });
  readonly #folder: number;
  readonly #stop = new AbortController();
  readonly #connections = new Set<Promise<void>>();
  /** Memory for pieces of files. */
  readonly #pieces: Buffer[] = [];

  constructor(folder: string) {
    setMaxListeners(0, this.#stop.signal); // one for each connection
    this.#folder = fs.openSync(folder, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY);
  }

  /** Serves the connections of a listening socket until close(). */
  async serve(listener: number): Promise<void> {
    try {
      for await (const socket of this.#io.connections(listener, { signal: this.#stop.signal })) {
        const connection = this.#connection(socket).catch(() => {}); // a peer that is gone ends only its own connection
        this.#connections.add(connection);
        connection.finally(() => this.#connections.delete(connection));
      }
    } catch (err) {
      if (!this.#stop.signal.aborted) throw err;
    }
  }

  /** Ends every connection, and lets go of everything. */
  async close(): Promise<void> {
    this.#stop.abort();
    await Promise.all(this.#connections);
    this.#ring.close();
    fs.closeSync(this.#folder);
  }

  async #connection(socket: number): Promise<void> {
    let head = '';
    try {
      for await (const bytes of this.#io.receive(socket, this.#buffers, { signal: this.#stop.signal })) {
        head += bytes.toString('latin1');
        for (let end = head.indexOf('\r\n\r\n'); end >= 0; end = head.indexOf('\r\n\r\n')) {
          const keep = await this.#answer(socket, head.slice(0, end));
          head = head.slice(end + 4);
          if (!keep) return;
        }
        if (head.length > MAX_HEAD) return await this.#refuse(socket, 431, false);
      }
    } finally {
      await this.#io.close(socket);
    }
  }

  /** @returns whether the connection stays */
  async #answer(socket: number, head: string): Promise<boolean> {
    const [method = '', target = '', version] = head.slice(0, head.indexOf('\r\n') >>> 0).split(' ');
    const keep = version === 'HTTP/1.1' && !/^connection:\s*close\s*$/im.test(head);
    // The body of a request would be taken for the next one.
    const body = /^(content-length:\s*[^0\s]|transfer-encoding:)/im.test(head);
    if (!version?.startsWith('HTTP/1.') || !target.startsWith('/') || body) {
      await this.#refuse(socket, 400, false);
      return false;
    }
    if (method !== 'GET' && method !== 'HEAD') {
      await this.#refuse(socket, 405, keep);
      return keep;
    }
    let file: number | undefined;
    try {
      const name = decodeURIComponent(target.split('?')[0]!)
        .replace(/^\/+/, '')
        .replace(/(^|\/)$/, '$1index.html');
      file = await this.#open(name);
      // The inode of an open file is in memory. A ring's statx(2) always takes the way through a thread of the kernel.
      const status = fs.fstatSync(file);
      if (!status.isFile()) await this.#refuse(socket, 404, keep);
      else await this.#send(socket, file, name, status.size, keep, method === 'HEAD');
    } catch (err) {
      // Once a part of the answer is out, only the end of the connection tells that something failed.
      if (file !== undefined) throw err;
      await this.#refuse(socket, err instanceof URIError ? 400 : 404, keep);
    } finally {
      if (file !== undefined) await this.#io.close(file);
    }
    return keep;
  }

  /** openat2(2): struct open_how {flags, mode, resolve}. */
  #open(name: string): Promise<number> {
    const how = BigUint64Array.of(
      BigInt(fs.constants.O_RDONLY | fs.constants.O_NONBLOCK | 0o2000000),
      0n,
      RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS,
    );
    const request: Request = {
      opcode: OPENAT2,
      fd: this.#folder,
      buffer: Buffer.from(`${name}\0`),
      offset: addressOf(how),
      length: how.byteLength,
      keep: how,
    };
    if (name.includes('\0')) throw errnoError(-22, 'openat2');
    return this.#ring.request(request, 'openat2');
  }

  async #send(socket: number, file: number, name: string, size: number, keep: boolean, headOnly: boolean): Promise<void> {
    const type = types[path.extname(name)] ?? 'application/octet-stream';
    const head = `HTTP/1.1 200 OK\r\nContent-Type: ${type}\r\nContent-Length: ${size}\r\nConnection: ${keep ? 'keep-alive' : 'close'}\r\n\r\n`;
    if (headOnly) return this.#sendAll(socket, Buffer.from(head, 'latin1'));
    const piece = this.#pieces.pop() ?? Buffer.allocUnsafeSlow(PIECE);
    try {
      let filled = piece.write(head, 0, 'latin1');
      for (let left = size, at = 0; ; ) {
        const wanted = Math.min(left, piece.length - filled);
        const n = wanted === 0 ? 0 : await this.#io.read(file, piece.subarray(filled, filled + wanted), at);
        if (n === 0 && left > 0) throw new Error(`${name} became shorter`); // the length was promised
        [filled, left, at] = [filled + n, left - n, at + n];
        if (left > 0 && filled < SMALL) continue;
        await this.#sendAll(socket, piece.subarray(0, filled));
        if (left === 0) return;
        filled = 0;
      }
    } finally {
      this.#pieces.push(piece);
    }
  }

  #refuse(socket: number, status: number, keep: boolean): Promise<void> {
    const text = `${reasons[status]}\n`;
    const head = `HTTP/1.1 ${status} ${reasons[status]}\r\nContent-Type: text/plain\r\nContent-Length: ${text.length}\r\n`;
    return this.#sendAll(socket, Buffer.from(`${head}Connection: ${keep ? 'keep-alive' : 'close'}\r\n\r\n${text}`, 'latin1'));
  }

  async #sendAll(socket: number, bytes: Buffer): Promise<void> {
    // What a socket takes at once needs no time limit: that would be a second request.
    let at = await this.#io.send(socket, bytes, MSG_DONTWAIT).catch((err) => {
      if (err.code === 'EAGAIN') return 0;
      throw err;
    });
    while (at < bytes.length) at += await this.#io.send(socket, bytes.subarray(at), 0, { timeout: SEND_TIME });
  }
}

/** A listening TCP socket of Node, whose connections the ring accepts. */
export async function listen(port: number): Promise<{ fd: number; port: number; close: () => Promise<void> }> {
  const server = net.createServer();
  await new Promise<void>((resolve, reject) => server.on('error', reject).listen(port, '127.0.0.1', resolve));
  const { fd } = (server as unknown as { _handle: { fd: number } })._handle;
  // Node watches the socket and would accept as well: a descriptor of our own, and Node's closed.
  const own = await duplicate(fd);
  const address = server.address() as net.AddressInfo;
  await new Promise<void>((resolve) => server.close(() => resolve()));
  return { fd: own, port: address.port, close: async () => fs.closeSync(own) };
}

/** dup(2), by way of a slot of a ring: Node has no call for it. */
async function duplicate(fd: number): Promise<number> {
  const { FileTable } = await import('vioctl/uring');
  const ring = new Ring({ entries: 2 });
  try {
    const table = new FileTable(ring);
    table.register([fd]);
    return await table.install(table.slot(0));
  } finally {
    ring.close();
  }
}

async function main([folder, port = '8080']: string[]): Promise<void> {
  if (folder === undefined) throw new Error('usage: static-server FOLDER [PORT]');
  const server = new StaticServer(folder);
  const listener = await listen(Number(port));
  console.log(`http://127.0.0.1:${listener.port}/`);
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.once(signal, async () => {
      await server.close();
      await listener.close();
    });
  await server.serve(listener.fd);
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(fs.realpathSync(process.argv[1])).href) {
  main(process.argv.slice(2)).catch((err) => {
    console.error(`static-server: ${err.message}`);
    process.exitCode = 1;
  });
}
