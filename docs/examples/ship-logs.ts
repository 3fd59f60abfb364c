/**
 * Sends what is appended to log files to a socket, one frame a line: `ship-logs SOCKET LOG…`, with `--once` only what is there now.
 *
 * The files are direct descriptors: thousands of them take no descriptor of the process. Each turn reads all files in one crossing, into memory that was
 * registered once. A file that is replaced under its name (log rotation) is read to its end and opened again; one that is cut begins anew.
 */
import fs from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { type Address, FileTable, Operations, Ring, type Slot } from 'vioctl/uring';

/** Bytes read of one file in one turn: a file that grows fast leaves turns to the others. */
const BITE = 16 * 1024;
/** Milliseconds between turns in which nothing came, and between looks at names. */
const PAUSE = 200;
/** A line longer than this leaves in pieces. */
const MAX_LINE = 64 * 1024;

class Log {
  readonly name: string;
  readonly buffer: Buffer;
  readonly index: number;
  slot: Slot | undefined;
  inode = 0n;
  offset = 0;
  /** The begin of a line that has not ended. */
  rest = '';

  constructor(name: string, index: number, buffer: Buffer) {
    this.name = name;
    this.index = index;
    this.buffer = buffer;
  }
}

/** Follows log files; `send` gets frames `NAME<TAB>LINE<LF>`. */
export class Shipper {
  readonly #ring: Ring;
  readonly #io: Operations;
  readonly #table: FileTable;
  readonly #logs: Log[];
  readonly #send: (frames: Buffer) => Promise<void>;
  /** Bytes of logs that were sent. */
  shipped = 0;

  constructor(names: readonly string[], send: (frames: Buffer) => Promise<void>) {
    this.#ring = new Ring({ entries: Math.min(4096, Math.max(8, 2 * names.length)) });
    this.#io = new Operations(this.#ring);
    this.#table = new FileTable(this.#ring);
    this.#table.registerSparse(names.length);
    const memory = Buffer.alloc(names.length * BITE);
    this.#ring.registerBuffers([memory]);
    this.#logs = names.map((name, i) => new Log(name, i, memory.subarray(i * BITE, (i + 1) * BITE)));
    this.#send = send;
  }

  /** Reads on in every file, and sends the lines that are complete. @returns bytes read */
  async turn(): Promise<number> {
    const sizes = await Promise.all(this.#logs.map((log) => this.#read(log)));
    let frames = '';
    this.#logs.forEach((log, i) => {
      const size = sizes[i]!;
      if (size === 0) return;
      log.offset += size;
      const lines = (log.rest + log.buffer.toString('latin1', 0, size)).split('\n');
      log.rest = lines.pop()!;
      if (log.rest.length > MAX_LINE) lines.push(...this.#cut(log));
      const label = `${Buffer.from(path.basename(log.name)).toString('latin1')}\t`;
      for (const line of lines) frames += `${label}${line}\n`;
    });
    if (frames !== '') await this.#send(Buffer.from(frames, 'latin1'));
    const bytes = sizes.reduce((sum, size) => sum + size, 0);
    this.shipped += bytes;
    return bytes;
  }

  #cut(log: Log): string[] {
    const line = log.rest;
    log.rest = '';
    return [line];
  }

  async #read(log: Log): Promise<number> {
    if (log.slot === undefined) return 0;
    return this.#io.readFixed(log.slot, log.buffer, 0, log.offset);
  }

  /** Opens files that have appeared or were replaced; notices those that were cut. Call it now and then. */
  async look(): Promise<void> {
    await Promise.all(
      this.#logs.map(async (log) => {
        const status = await this.#io.stat(log.name).catch((err) => {
          if (err.code === 'ENOENT') return undefined; // between two files of a rotation
          throw err;
        });
        if (status === undefined) return;
        if (log.slot !== undefined && status.inode === log.inode) {
          if (status.size < BigInt(log.offset)) Object.assign(log, { offset: 0, rest: '' }); // cut: what is there now is new
          return;
        }
        // An occupied slot is replaced; what the old file still had was read by the turns before.
        log.slot = await this.#table.open(log.name, fs.constants.O_RDONLY, log.index);
        Object.assign(log, { inode: status.inode, offset: 0, rest: '' });
      }),
    );
  }

  close(): void {
    this.#ring.close();
  }
}

/** Connects to a UNIX socket, or to HOST:PORT with an IP address. */
export async function connect(to: string): Promise<{ send: (frames: Buffer) => Promise<void>; close: () => Promise<void> }> {
  const ring = new Ring({ entries: 8 });
  const io = new Operations(ring);
  const tcp = /^(.+):(\d+)$/.exec(to);
  const address: Address = tcp ? { address: tcp[1]!.replace(/^\[|\]$/g, ''), port: Number(tcp[2]) } : { path: to };
  const family = tcp ? (tcp[1]!.includes(':') ? 'ipv6' : 'ipv4') : 'unix';
  const socket = await io.socket(family, 1);
  await io.connect(socket, address, { timeout: 5000 });
  return {
    async send(frames) {
      for (let at = 0; at < frames.length; ) at += await io.send(socket, frames.subarray(at));
    },
    async close() {
      await io.close(socket);
      ring.close();
    },
  };
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({ allowPositionals: true, options: { once: { type: 'boolean', default: false } } });
  const [to, ...names] = positionals;
  if (to === undefined || names.length === 0) throw new Error('usage: ship-logs [--once] SOCKET LOG...');
  const { send, close } = await connect(to);
  const shipper = new Shipper(names, send);
  let ended = false;
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.once(signal, () => {
      ended = true;
    });
  try {
    while (!ended) {
      await shipper.look();
      while (!ended && (await shipper.turn()) > 0);
      if (values.once) break;
      await new Promise((resolve) => setTimeout(resolve, PAUSE));
    }
  } finally {
    shipper.close();
    await close();
  }
  console.error(`${shipper.shipped} bytes`);
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(fs.realpathSync(process.argv[1])).href) {
  main().catch((err) => {
    console.error(`ship-logs: ${err.message}`);
    process.exitCode = 1;
  });
}
