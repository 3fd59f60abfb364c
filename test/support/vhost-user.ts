import fs from 'node:fs';
import v8 from 'node:v8';
import vm from 'node:vm';
import { native } from '../../src/native/index.js';
import { OwnedFd } from '../../src/native/owned-fd.js';
import { Seal } from '../../src/native/vhost-user.js';
import type { Window, WindowRing } from '../../src/vhost-user/frontend/window.js';
import { Channel } from '../../src/vhost-user/wire/channel.js';
import { Exchange } from '../../src/vhost-user/wire/exchange.js';
import { type ChannelName, encodeMessage, messageByName } from '../../src/vhost-user/wire/messages.js';

/** Two ends of a stream socket. */
export function pair(): [OwnedFd, OwnedFd] {
  const [a, b] = native().vhostUser.socketPair();
  return [new OwnedFd(a), new OwnedFd(b)];
}

/** A sealed memfd, filled with a text from its start. */
export function memfd(size: number, text = '', seals: number = Seal.shrink | Seal.grow): OwnedFd {
  const fd = new OwnedFd(native().vhostUser.memfd('test', size, 0));
  if (text) fs.writeSync(fd.fd, text, 0);
  if (seals) native().vhostUser.addSeals(fd.fd, seals);
  return fd;
}

export const duplicate = (fd: OwnedFd): OwnedFd => new OwnedFd(native().vhostUser.dup(fd.fd));

/** Descriptors that this process has open. */
export const openFds = (): number => fs.readdirSync('/proc/self/fd').length;

v8.setFlagsFromString('--expose-gc');
const gc = vm.runInNewContext('gc') as () => void;

/** Resident set in bytes, after a collection of garbage. */
export const resident = (): number => {
  gc();
  return Number(fs.readFileSync('/proc/self/statm', 'utf8').split(' ')[1]) * 4096;
};

/** One end that sends any bytes and sees every answer. */
export class Raw {
  readonly exchange: Exchange;
  constructor(fd: OwnedFd) {
    this.exchange = new Exchange(new Channel(fd, { peer: 'peer', maxPayload: 65536 }));
  }
  send(id: number, flags: number, payload: Uint8Array, fds: OwnedFd[] = []): void {
    this.exchange.channel.send(encodeMessage(id, flags, payload), fds);
  }
  request(channel: ChannelName, name: string, values: Record<string, unknown>, fds: OwnedFd[] = [], flags = 0x9): void {
    const def = messageByName(channel, name);
    this.send(def.id, flags, def.request!.encode(values as never), fds);
  }
  bytes(data: Uint8Array, fds: OwnedFd[] = []): void {
    this.exchange.channel.send(Buffer.from(data), fds);
  }
  /** `ok`, the 64-bit status, `closed`, or `silence`. */
  async reaction(timeout = 30_000): Promise<bigint | 'closed' | 'silence' | Buffer> {
    const answer = await this.exchange.next(timeout);
    if (answer.kind !== 'message') return answer.kind;
    for (const fd of answer.message.fds) fd.close();
    return answer.message.payload.length === 8 ? answer.message.payload.readBigUInt64LE() : answer.message.payload;
  }
  /** `count` answers, however late, and what comes within `quiet` ms behind them: nothing, where there are no more. */
  async answers(count: number, quiet = 150): Promise<(bigint | 'closed' | 'silence' | Buffer)[]> {
    const out: (bigint | 'closed' | 'silence' | Buffer)[] = [];
    while (out.length < count) out.push(await this.reaction());
    for (let more = await this.reaction(quiet); more !== 'silence'; more = await this.reaction(quiet)) {
      out.push(more);
      if (more === 'closed') break;
    }
    return out;
  }
  close(): void {
    this.exchange.close();
  }
}

/** Header of a request of virtio-blk (virtio 1.3, 5.2.6). @param sector of 512 bytes */
export function blkHeader(type: number, sector = 0n): Buffer {
  const bytes = Buffer.alloc(16);
  bytes.writeUInt32LE(type);
  bytes.writeBigUInt64LE(sector, 8);
  return bytes;
}

/** A range of a discard or a write of zeroes. @param flags bit 0: unmap */
export function blkRange(sector: bigint, sectors: number, flags = 0): Buffer {
  const bytes = Buffer.alloc(16);
  bytes.writeBigUInt64LE(sector);
  bytes.writeUInt32LE(sectors, 8);
  bytes.writeUInt32LE(flags, 12);
  return bytes;
}

/** The driver of a window's ring: one request at a time. */
export class Driver {
  readonly #window: Window;
  readonly #ring: WindowRing;
  #avail = 0;
  #used = 0;
  constructor(window: Window, index = 0) {
    this.#window = window;
    this.#ring = window.rings[index]!;
  }
  write(offset: number, data: Uint8Array): void {
    fs.writeSync(this.#window.memory!.fd.fd, data, 0, data.length, offset);
  }
  read(offset: number, size: number): Buffer {
    const data = Buffer.alloc(size);
    fs.readSync(this.#window.memory!.fd.fd, data, 0, size, offset);
    return data;
  }
  get gpa(): bigint {
    return this.#window.memory!.gpa;
  }
  /** Fills a descriptor. */
  desc(index: number, address: bigint, size: number, flags: number, next: number): void {
    const bytes = Buffer.alloc(16);
    bytes.writeBigUInt64LE(address, 0);
    bytes.writeUInt32LE(size, 8);
    bytes.writeUInt16LE(flags, 12);
    bytes.writeUInt16LE(next, 14);
    this.write(this.#ring.desc + 16 * index, bytes);
  }
  /** Makes a head available and kicks. */
  offer(head: number): void {
    const entry = Buffer.alloc(2);
    entry.writeUInt16LE(head);
    this.write(this.#ring.avail + 4 + 2 * (this.#avail % this.#ring.num), entry);
    const index = Buffer.alloc(2);
    index.writeUInt16LE(++this.#avail & 0xffff);
    this.write(this.#ring.avail + 2, index);
    native().common.signalEventfd(this.#ring.kick.fd, 1);
  }
  /** Bytes written into the next used chain, or undefined after `timeout` ms. */
  async used(timeout = 30_000): Promise<{ head: number; written: number } | undefined> {
    for (const end = performance.now() + timeout; performance.now() < end; ) {
      if (this.read(this.#ring.used + 2, 2).readUInt16LE() !== (this.#used & 0xffff)) {
        const element = this.read(this.#ring.used + 4 + 8 * (this.#used++ % this.#ring.num), 8);
        return { head: element.readUInt32LE(0), written: element.readUInt32LE(4) };
      }
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    return undefined;
  }
  /** Heads in the used ring, in its order. At most as many as the ring has. */
  usedHeads(): number[] {
    const count = this.read(this.#ring.used + 2, 2).readUInt16LE();
    return Array.from({ length: count }, (_, i) => this.read(this.#ring.used + 4 + 8 * i, 4).readUInt32LE());
  }
  /** One request: readable parts, room for the answer. */
  async request(out: Uint8Array[], inSize: number, timeout?: number): Promise<Buffer> {
    const data = this.#ring.buffers;
    let at = data;
    const parts = [...out.map((bytes) => ({ bytes, size: bytes.length, flags: 0 })), { bytes: undefined, size: inSize, flags: 2 }];
    parts.forEach(({ bytes, size, flags }, i) => {
      if (bytes) this.write(at, bytes);
      const last = i === parts.length - 1;
      this.desc(i, this.gpa + BigInt(at), size, flags | (last ? 0 : 1), last ? 0 : i + 1);
      at += size;
    });
    this.offer(0);
    const used = await this.used(timeout);
    if (!used) throw new Error('the request was not answered');
    return this.read(at - inSize, used.written);
  }
}
