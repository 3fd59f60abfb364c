import fs from 'node:fs';
import { native } from '../../native/index.js';
import { OwnedFd } from '../../native/owned-fd.js';
import { type CheckSession, memorySize, memoryUva, reactionText } from './session.js';

/** Parts of the ring, from the start of the memory; its requests lie behind. */
const parts = { desc: 0x0, avail: 0x1000, used: 0x2000, requests: 0x10000 } as const;
/** Room of a request: its header, its data and its status have a page each. */
const perRequest = 0x3000;
const page = 0x1000;
/** Descriptors of a request. */
const chain = 3;
const [next, write] = [1, 2];
const sector = 512;

export const ringSize = 64;
/** Requests that fit into the memory and the descriptor table. */
export const maxRequests = Math.min(Math.floor(ringSize / chain), Math.floor((memorySize - parts.requests) / perRequest));

/** The driver's end of ring 0 of a block device: a split ring in the memory of a session, which may outlive the connection. */
export class CheckRing {
  readonly #memory: OwnedFd;
  kick = new OwnedFd(native().common.eventfd());
  call = new OwnedFd(native().common.eventfd());
  #submitted = 0;

  /** @param memory stays the caller's */
  constructor(memory: OwnedFd) {
    this.#memory = memory;
  }

  close(): void {
    this.kick.close();
    this.call.close();
  }

  /** Used index, as the back-end has written it. */
  get used(): number {
    return this.#u16(parts.used + 2);
  }

  /** Whether the back-end has signalled the call eventfd. */
  called(): boolean {
    try {
      return fs.readSync(this.call.fd, Buffer.alloc(8)) === 8;
    } catch {
      return false; // EAGAIN
    }
  }

  /** Heads in the order in which they were used. */
  heads(): number[] {
    return Array.from({ length: this.used }, (_, i) => this.#u16(parts.used + 4 + 8 * (i % ringSize)));
  }

  /** Guest-physical pages that a request's data and status lie in, and that of the used ring. */
  pages(request: number): { data: number; status: number; used: number } {
    const at = parts.requests + request * perRequest;
    return { data: (at + page) / page, status: (at + 2 * page) / page, used: parts.used / page };
  }

  /** Status of a request: 0 is success, 255 is none yet. */
  status(request: number): number {
    return this.#read(parts.requests + request * perRequest + 2 * page, 1)[0]!;
  }

  /** Puts a read of the first sector into the ring. @returns its number @param kick whether the back-end is told */
  submit(kick = true): number {
    const request = this.#submitted++;
    if (request >= maxRequests) throw new Error(`broken invariant: a case has at most ${maxRequests} requests`);
    const at = parts.requests + request * perRequest;
    this.#write(at, Buffer.alloc(16)); // VIRTIO_BLK_T_IN, sector 0
    this.#write(at + 2 * page, Buffer.from([255]));
    const head = request * chain;
    this.#descriptor(head, at, 16, next, head + 1);
    this.#descriptor(head + 1, at + page, sector, next | write, head + 2);
    this.#descriptor(head + 2, at + 2 * page, 1, write, 0);
    this.#setU16(parts.avail + 4 + 2 * (request % ringSize), head);
    this.#setU16(parts.avail + 2, request + 1);
    if (kick) this.signal();
    return request;
  }

  /** Answers a request in place of the back-end. */
  answer(request: number): void {
    const { used } = this;
    this.#write(parts.requests + request * perRequest + 2 * page, Buffer.from([0]));
    const entry = Buffer.alloc(8);
    entry.writeUInt32LE(request * chain);
    entry.writeUInt32LE(sector + 1, 4);
    this.#write(parts.used + 4 + 8 * (used % ringSize), entry);
    this.#setU16(parts.used + 2, used + 1);
  }

  signal(): void {
    native().common.signalEventfd(this.kick.fd, 1);
  }

  /** Waits until so many requests are used. @param timeout milliseconds @returns whether they were in time */
  async done(count: number, timeout: number): Promise<boolean> {
    for (const end = performance.now() + timeout; this.used < count; ) {
      if (performance.now() > end) return false;
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    return this.used === count;
  }

  /** Sets the ring up; it starts when it is kicked, and runs when it is enabled. @throws Error for a step that is refused */
  async setUp(session: CheckSession, base = 0, log = false): Promise<void> {
    const fd = (of: OwnedFd): OwnedFd => new OwnedFd(native().vhostUser.dup(of.fd));
    const at = (offset: number): bigint => memoryUva + BigInt(offset);
    const addresses = { index: 0, flags: log ? 1 : 0, desc: at(parts.desc), avail: at(parts.avail), used: at(parts.used) };
    const steps: [string, Record<string, unknown>, OwnedFd[]][] = [
      ['SET_VRING_NUM', { index: 0, num: ringSize }, []],
      ['SET_VRING_BASE', { index: 0, num: base }, []],
      ['SET_VRING_ADDR', { ...addresses, log: BigInt(parts.used) }, []],
      ['SET_VRING_CALL', { value: 0n }, [fd(this.call)]],
      ['SET_VRING_KICK', { value: 0n }, [fd(this.kick)]],
    ];
    for (const [name, values, fds] of steps) await must(session, name, values, fds);
  }

  enable = (session: CheckSession): Promise<void> => must(session, 'SET_VRING_ENABLE', { index: 0, num: 1 });

  #descriptor(index: number, at: number, size: number, flags: number, link: number): void {
    const bytes = Buffer.alloc(16);
    bytes.writeBigUInt64LE(BigInt(at)); // the region begins at guest-physical address 0
    bytes.writeUInt32LE(size, 8);
    bytes.writeUInt16LE(flags, 12);
    bytes.writeUInt16LE(link, 14);
    this.#write(parts.desc + 16 * index, bytes);
  }
  #write(at: number, data: Uint8Array): void {
    fs.writeSync(this.#memory.fd, data, 0, data.length, at);
  }
  #read(at: number, size: number): Buffer {
    const data = Buffer.alloc(size);
    fs.readSync(this.#memory.fd, data, 0, size, at);
    return data;
  }
  #u16(at: number): number {
    return this.#read(at, 2).readUInt16LE();
  }
  #setU16(at: number, value: number): void {
    const data = Buffer.alloc(2);
    data.writeUInt16LE(value);
    this.#write(at, data);
  }
}

/** A request that has to succeed for a case to go on. @throws Error */
export async function must(session: CheckSession, name: string, values: Record<string, unknown>, fds: OwnedFd[] = []): Promise<void> {
  const r = await session.request(name, values, fds);
  if (r.kind === 'closed' || (r.kind === 'status' && r.status !== 0n)) throw new Error(`${name}: ${reactionText(r)}`);
}

/** GET_VRING_BASE of ring 0. @throws Error where the back-end does not tell */
export async function baseOf(session: CheckSession): Promise<number> {
  const r = await session.request('GET_VRING_BASE', { index: 0, num: 0 });
  if (r.kind !== 'reply' || r.payload.length !== 8) throw new Error(`GET_VRING_BASE: ${reactionText(r)}`);
  return r.payload.readUInt32LE(4);
}
