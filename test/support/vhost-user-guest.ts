import fs from 'node:fs';
import { native } from '../../src/native/index.js';
import { OwnedFd } from '../../src/native/owned-fd.js';
import { FrontEnd } from '../../src/vhost-user/frontend/frontend.js';
import { protocolMask, VirtioF } from '../../src/vhost-user/wire/features.js';
import { duplicate } from './vhost-user.js';

/** A part of a request: guest-physical place is chosen by the guest; `write` is for the device. */
export interface Part {
  at: number;
  size: number;
  write?: boolean;
}

/** The driver's side of a ring, over a memfd. Everything that outlives a back-end lies there or in here. */
export interface TestRing {
  readonly num: number;
  readonly parts: { desc: number; avail: number; used: number };
  /** What a front-end that has lost its back-end gives for SET_VRING_BASE: the used index. */
  base(): number;
  /** Makes a chain available. @returns its name: the same as in completed(); undefined where the ring is full */
  add(parts: Part[], indirectAt?: number): number | undefined;
  /** Names of chains that have been used since the last call, in their order. */
  completed(): number[];
}

export const GPA = 0x100000;
const UVA = 0x7f0000000000n;
const [NEXT, WRITE, INDIRECT, AVAIL, USED] = [1, 2, 4, 1 << 7, 1 << 15];

/** Guest memory of one region. */
export class GuestMemory {
  readonly fd: OwnedFd;
  readonly size: number;
  constructor(size: number) {
    this.size = size;
    this.fd = new OwnedFd(native().vhostUser.memfd('guest', size, 0));
  }
  write(at: number, data: Uint8Array): void {
    fs.writeSync(this.fd.fd, data, 0, data.length, at);
  }
  read(at: number, size: number): Buffer {
    const data = Buffer.alloc(size);
    fs.readSync(this.fd.fd, data, 0, size, at);
    return data;
  }
  u16(at: number): number {
    return this.read(at, 2).readUInt16LE();
  }
  setU16(at: number, value: number): void {
    const data = Buffer.alloc(2);
    data.writeUInt16LE(value & 0xffff);
    this.write(at, data);
  }
}

/** @param last split: index of the next one; packed: the buffer id */
function descriptor(address: number, size: number, last: number, flags: number, packed: boolean): Buffer {
  const bytes = Buffer.alloc(16);
  bytes.writeBigUInt64LE(BigInt(GPA + address));
  bytes.writeUInt32LE(size, 8);
  bytes.writeUInt16LE(packed ? last : flags, 12);
  bytes.writeUInt16LE(packed ? flags : last, 14);
  return bytes;
}

export class SplitRing implements TestRing {
  readonly parts: TestRing['parts'];
  #free: number[];
  readonly #chains = new Map<number, number[]>();
  #avail = 0;
  #used = 0;
  readonly memory: GuestMemory;
  readonly num: number;
  constructor(memory: GuestMemory, num: number, at: number) {
    this.memory = memory;
    this.num = num;
    this.parts = { desc: at, avail: at + 16 * num, used: (at + 16 * num + 6 + 2 * num + 4095) & ~4095 };
    this.#free = Array.from({ length: num }, (_, i) => i);
  }
  base(): number {
    return this.memory.u16(this.parts.used + 2);
  }
  add(parts: Part[], indirectAt?: number): number | undefined {
    const { desc, avail } = this.parts;
    const entries = this.#free.splice(0, indirectAt === undefined ? parts.length : 1);
    const head = entries[0]!;
    if (indirectAt === undefined && entries.length < parts.length) {
      this.#free.unshift(...entries);
      return undefined;
    }
    const bytes = parts.map((part, i) => {
      const last = i === parts.length - 1;
      const next = last ? 0 : indirectAt === undefined ? entries[i + 1]! : i + 1;
      return descriptor(part.at, part.size, next, (last ? 0 : NEXT) | (part.write ? WRITE : 0), false);
    });
    if (indirectAt === undefined) for (const [i, b] of bytes.entries()) this.memory.write(desc + 16 * entries[i]!, b);
    else {
      this.memory.write(indirectAt, Buffer.concat(bytes));
      this.memory.write(desc + 16 * head, descriptor(indirectAt, 16 * parts.length, 0, INDIRECT, false));
    }
    this.#chains.set(head, entries);
    this.memory.setU16(avail + 4 + 2 * (this.#avail % this.num), head);
    this.memory.setU16(avail + 2, ++this.#avail);
    return head;
  }
  completed(): number[] {
    const heads: number[] = [];
    while ((this.#used & 0xffff) !== this.base()) {
      const head = this.memory.read(this.parts.used + 4 + 8 * (this.#used++ % this.num), 4).readUInt32LE();
      const entries = this.#chains.get(head);
      if (!entries) throw new Error(`head ${head} is answered twice`);
      this.#chains.delete(head);
      this.#free.push(...entries);
      heads.push(head);
    }
    return heads;
  }
}

export class PackedRing implements TestRing {
  readonly parts: TestRing['parts'];
  readonly #chains = new Map<number, number>();
  readonly #ids: number[];
  #next = { index: 0, wrap: true };
  #used = { index: 0, wrap: true };
  #free: number;
  readonly memory: GuestMemory;
  readonly num: number;
  constructor(memory: GuestMemory, num: number, at: number) {
    this.memory = memory;
    this.num = num;
    this.parts = { desc: at, avail: at + 16 * num, used: at + 16 * num + 4 };
    this.#ids = Array.from({ length: num }, (_, i) => num - 1 - i);
    this.#free = num;
  }
  base(): number {
    const word = this.#used.index | (this.#used.wrap ? 0x8000 : 0);
    return (word | (word << 16)) >>> 0;
  }
  add(parts: Part[], indirectAt?: number): number | undefined {
    const count = indirectAt === undefined ? parts.length : 1;
    if (this.#free < count) return undefined;
    const id = this.#ids.pop()!;
    const first = { ...this.#next };
    const list =
      indirectAt === undefined
        ? parts.map((part, i) => [part.at, part.size, (i < parts.length - 1 ? NEXT : 0) | (part.write ? WRITE : 0)] as const)
        : [[indirectAt, 16 * parts.length, INDIRECT] as const];
    if (indirectAt !== undefined)
      this.memory.write(indirectAt, Buffer.concat(parts.map((p) => descriptor(p.at, p.size, 0, p.write ? WRITE : 0, true))));
    let headFlags = 0;
    list.forEach(([at, size, extra], i) => {
      const flags = extra | (this.#next.wrap ? AVAIL : USED);
      if (i === 0) headFlags = flags;
      const bytes = descriptor(at, size, id, i === 0 ? 0 : flags, true);
      this.memory.write(this.parts.desc + 16 * this.#next.index, i === 0 ? bytes.subarray(0, 14) : bytes);
      this.#advance(this.#next, 1);
    });
    this.memory.setU16(this.parts.desc + 16 * first.index + 14, headFlags); // the first one last
    this.#chains.set(id, count);
    this.#free -= count;
    return id;
  }
  completed(): number[] {
    const ids: number[] = [];
    for (;;) {
      const at = this.parts.desc + 16 * this.#used.index;
      const flags = this.memory.u16(at + 14);
      if (((flags & AVAIL) !== 0) !== this.#used.wrap || ((flags & USED) !== 0) !== this.#used.wrap) return ids;
      const id = this.memory.u16(at + 12);
      const count = this.#chains.get(id);
      if (count === undefined) throw new Error(`buffer ${id} is answered twice`);
      this.#chains.delete(id);
      this.#ids.push(id);
      this.#free += count;
      this.#advance(this.#used, count);
      ids.push(id);
    }
  }
  #advance(place: { index: number; wrap: boolean }, count: number): void {
    place.index += count;
    if (place.index < this.num) return;
    place.index -= this.num;
    place.wrap = !place.wrap;
  }
}

export interface GuestOptions {
  packed?: boolean;
  eventIdx?: boolean;
  inflight?: boolean;
  rings?: number;
  num?: number;
  extra?: bigint;
  /** More protocol features. */
  protocols?: string[];
  /** Without VIRTIO_BLK_F_FLUSH, the device writes through. */
  flush?: boolean;
}
const PER_RING = 0x10000;

/** A front-end with its guest, whose memory and rings outlive back-ends. */
export class Guest {
  readonly memory: GuestMemory;
  readonly rings: TestRing[];
  readonly options: Required<GuestOptions>;
  front!: FrontEnd;
  region: { fd: OwnedFd; payload: Record<string, unknown> } | undefined;
  readonly kicks: OwnedFd[];
  readonly calls: OwnedFd[];

  constructor(options: GuestOptions = {}, size = 4 << 20) {
    this.options = {
      packed: false,
      eventIdx: false,
      inflight: false,
      rings: 1,
      num: 64,
      extra: 0n,
      protocols: [],
      flush: true,
      ...options,
    };
    this.memory = new GuestMemory(size);
    const Ring = this.options.packed ? PackedRing : SplitRing;
    this.rings = Array.from({ length: this.options.rings }, (_, i) => new Ring(this.memory, this.options.num, i * PER_RING));
    this.kicks = this.rings.map(() => new OwnedFd(native().common.eventfd()));
    this.calls = this.rings.map(() => new OwnedFd(native().common.eventfd()));
  }

  /** Where buffers may lie. */
  get buffers(): number {
    return this.options.rings * PER_RING;
  }

  /** Takes a connection, starts all rings, with the in-flight region of the last one. */
  async start(fd: OwnedFd): Promise<void> {
    const { packed, eventIdx, inflight, num, extra, protocols, flush } = this.options;
    const front = new FrontEnd(fd, { timeout: 60_000 });
    this.front = front;
    await front.negotiate(protocolMask('MQ', 'REPLY_ACK', 'CONFIG', 'LOG_SHMFD', ...(inflight ? ['INFLIGHT_SHMFD'] : []), ...protocols));
    await front.request('SET_OWNER');
    const features =
      VirtioF.version1 | VirtioF.protocolFeatures | VirtioF.indirect | (packed ? VirtioF.packed : 0n) | (flush ? 1n << 9n : 0n) | extra;
    await front.request('SET_FEATURES', { value: features | (eventIdx ? VirtioF.eventIdx : 0n) });
    if (inflight) {
      if (!this.region) {
        const reply = await front.request('GET_INFLIGHT_FD', { size: 0n, offset: 0n, queues: this.rings.length, queueSize: num });
        const { payload, fds } = reply!;
        this.region = {
          fd: fds[0]!,
          payload: { size: payload.readBigUInt64LE(0), offset: payload.readBigUInt64LE(8), queues: this.rings.length, queueSize: num },
        };
      }
      await front.request('SET_INFLIGHT_FD', this.region.payload, [duplicate(this.region.fd)]);
    }
    const region = { gpa: BigInt(GPA), size: BigInt(this.memory.size), uva: UVA, offset: 0n };
    await front.request('SET_MEM_TABLE', { count: 1, regions: [region] }, [duplicate(this.memory.fd)]);
    for (const [index, ring] of this.rings.entries()) await this.startRing(index, ring.base());
  }

  async startRing(index: number, base: number): Promise<void> {
    const { front, rings } = this;
    const { desc, avail, used } = rings[index]!.parts;
    const at = (offset: number): bigint => UVA + BigInt(offset);
    await front.request('SET_VRING_NUM', { index, num: rings[index]!.num });
    await front.request('SET_VRING_BASE', { index, num: base });
    await front.request('SET_VRING_ADDR', { index, flags: 0, desc: at(desc), used: at(used), avail: at(avail), log: BigInt(GPA + used) });
    await front.request('SET_VRING_CALL', { value: BigInt(index) }, [duplicate(this.calls[index]!)]);
    await front.request('SET_VRING_KICK', { value: BigInt(index) }, [duplicate(this.kicks[index]!)]);
    await front.request('SET_VRING_ENABLE', { index, num: 1 });
  }

  async stopRing(index: number): Promise<number> {
    const reply = await this.front.request('GET_VRING_BASE', { index, num: 0 });
    return reply!.payload.readUInt32LE(4);
  }

  kick(index = 0): void {
    native().common.signalEventfd(this.kicks[index]!.fd, 1);
  }

  /** Waits until `count` chains of a ring are used. @returns their names */
  async used(count: number, index = 0, timeout = 60_000): Promise<number[]> {
    const names: number[] = [];
    for (const end = performance.now() + timeout; names.length < count; ) {
      names.push(...this.rings[index]!.completed());
      if (names.length >= count) break;
      if (performance.now() > end) throw new Error(`${names.length} of ${count} requests were answered`);
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    return names;
  }

  /** A read or write in buffers at `at`: header, status and the data behind them. */
  request(type: number, sector: number, at: number, size: number, segments = 1): Part[] {
    const header = Buffer.alloc(17);
    header.writeUInt32LE(type, 0);
    header.writeBigUInt64LE(BigInt(sector), 8);
    header[16] = 0xee;
    this.memory.write(at, header);
    const each = size / segments;
    const data = Array.from({ length: size === 0 ? 0 : segments }, (_, i) => ({ at: at + 512 + i * each, size: each, write: type === 0 }));
    return [{ at, size: 16 }, ...data, { at: at + 16, size: 1, write: true }];
  }
  status(at: number): number {
    return this.memory.read(at + 16, 1)[0]!;
  }

  close(): void {
    this.front?.close();
    this.memory.fd.close();
    this.region?.fd.close();
    for (const fd of [...this.kicks, ...this.calls]) fd.close();
  }
}
