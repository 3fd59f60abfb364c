/** A disk behind one of the two servers, used the same way whichever it is: NVMe over TCP, or a vhost-user ring. */
import { Controller } from '../../src/nvme/host/controller.js';
import { dsmCmd, dsmRange, NvmOpcode, rwCmd, sqe } from '../../src/nvme/wire/index.js';
import { connect } from '../../src/vhost-user/wire/channel.js';
import { hostid, hostnqn } from './nvme-raw.js';
import { Guest, type GuestOptions } from './vhost-user-guest.js';

/** What became of a request: `ok`, the server's error, or that the server did not answer any more. */
export type Outcome = 'ok' | 'gone' | `error ${string}`;

/** Offsets and sizes are bytes, multiples of 512. Requests of several callers run at the same time. */
export interface ServedDisk {
  /** @param durable on stable storage before the answer; a ring's guest writes and flushes */
  write(at: number, data: Buffer, durable?: boolean): Promise<Outcome>;
  read(at: number, into: Buffer): Promise<Outcome>;
  flush(): Promise<Outcome>;
  /** @param deallocate the space may be given back */
  zero(at: number, size: number, deallocate?: boolean): Promise<Outcome>;
  discard(at: number, size: number): Promise<Outcome>;
  close(): void;
}

const SECTOR = 512;

/** A namespace of a controller. */
export class NvmeDisk implements ServedDisk {
  readonly controller: Controller;
  readonly nsid: number;
  readonly blockSize: number;

  private constructor(controller: Controller, nsid: number, blockSize: number) {
    this.controller = controller;
    this.nsid = nsid;
    this.blockSize = blockSize;
  }

  static async open(port: number, subnqn: string, options: { nsid?: number; queues?: number; timeout?: number } = {}): Promise<NvmeDisk> {
    const { nsid = 1, queues = 2, timeout = 60_000 } = options;
    const controller = await Controller.connect({
      ...{ address: '127.0.0.1', port, timeout, subnqn, hostnqn, hostid },
      ...{ ioQueues: queues, queueSize: 64 },
    });
    return new NvmeDisk(controller, nsid, (await controller.namespace(nsid)).blockSize);
  }

  async #send(command: Buffer, transfer?: { out: Buffer } | { into: Buffer }): Promise<Outcome> {
    const { queues } = this.controller;
    const queue = queues.reduce((best, one) => (one.load < best.load ? one : best));
    try {
      const { sct, sc } = (await queue.send(command, transfer)).status;
      return sct === 0 && sc === 0 ? 'ok' : `error ${sct}/${sc.toString(16).padStart(2, '0')}h`;
    } catch {
      return 'gone';
    }
  }

  #blocks(opcode: number, at: number, size: number, fields: { fua?: number; deac?: number } = {}): Buffer {
    const command = sqe.encode({ opcode, nsid: this.nsid });
    return rwCmd.encode({ slba: BigInt(at / this.blockSize), nlb: size / this.blockSize - 1, ...fields }, command);
  }

  write(at: number, data: Buffer, durable = false): Promise<Outcome> {
    return this.#send(this.#blocks(NvmOpcode.write, at, data.length, { fua: durable ? 1 : 0 }), { out: data });
  }
  read(at: number, into: Buffer): Promise<Outcome> {
    return this.#send(this.#blocks(NvmOpcode.read, at, into.length), { into });
  }
  flush(): Promise<Outcome> {
    return this.#send(sqe.encode({ opcode: NvmOpcode.flush, nsid: this.nsid }));
  }
  zero(at: number, size: number, deallocate = true): Promise<Outcome> {
    return this.#send(this.#blocks(NvmOpcode.writeZeroes, at, size, { deac: deallocate ? 1 : 0 }));
  }
  discard(at: number, size: number): Promise<Outcome> {
    const command = dsmCmd.encode({ nr: 0, ad: 1 }, sqe.encode({ opcode: NvmOpcode.datasetManagement, nsid: this.nsid }));
    return this.#send(command, { out: dsmRange.encode({ slba: BigInt(at / this.blockSize), nlb: size / this.blockSize }) });
  }
  close(): void {
    this.controller.close();
  }
}

/** Types of requests (virtio 1.3, 5.2.6). */
const [IN, OUT, FLUSH, DISCARD, WRITE_ZEROES] = [0, 1, 4, 11, 13];
/** Features that the driver takes: discard and write zeroes. */
const FEATURES = (1n << 13n) | (1n << 14n);
/** Largest request. */
const MOST = 256 << 10;
/** Guest memory of a request: header and status, a page behind them, then the data. */
const PLACE = 0x1000 + MOST;
/** Requests at a time. */
const PLACES = 16;

/** A disk on vhost-user rings: the front-end and the guest's driver. */
export class RingDisk implements ServedDisk {
  readonly guest: Guest;
  readonly #free: number[];
  readonly #waiting: (() => void)[] = [];
  readonly #owners: Map<number, () => void>[];
  readonly #poll: NodeJS.Timeout;
  readonly #pending = new Set<(outcome: Outcome) => void>();
  #turn = 0;
  /** Why the ring cannot be trusted any more: an answer that was not expected. */
  failure: Error | undefined;

  private constructor(guest: Guest) {
    this.guest = guest;
    this.#free = Array.from({ length: PLACES }, (_, i) => guest.buffers + i * PLACE);
    this.#owners = guest.rings.map(() => new Map());
    this.#poll = setInterval(() => this.#collect(), 1);
  }

  static async open(socket: string, options: GuestOptions = {}): Promise<RingDisk> {
    const rings = options.rings ?? 2;
    const guest = new Guest({ ...options, rings, extra: FEATURES | (options.extra ?? 0n) }, rings * 0x10000 + PLACES * PLACE);
    try {
      await guest.start(await connect(socket));
    } catch (err) {
      guest.close();
      throw err;
    }
    return new RingDisk(guest);
  }

  #collect(): void {
    try {
      for (const [i, ring] of this.guest.rings.entries())
        for (const name of ring.completed()) {
          this.#owners[i]!.get(name)!();
          this.#owners[i]!.delete(name);
        }
    } catch (err) {
      this.failure ??= err as Error;
    }
  }

  async #request(type: number, sector: number, size: number, out: Buffer | undefined, into?: Buffer): Promise<Outcome> {
    while (this.#free.length === 0) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    const place = this.#free.pop()!;
    const { guest } = this;
    const index = this.#turn++ % guest.rings.length;
    const parts = guest.request(type, sector, place, 0);
    // the data lies behind the header's page, so that it is aligned as a guest's pages are
    if (size > 0) parts.splice(1, 0, { at: place + 0x1000, size, write: type === IN });
    if (out) guest.memory.write(place + 0x1000, out);
    const outcome = await new Promise<Outcome>((resolve) => {
      this.#pending.add(resolve);
      const name = guest.rings[index]!.add(parts)!;
      this.#owners[index]!.set(name, () => {
        this.#pending.delete(resolve);
        const status = guest.status(place);
        resolve(status === 0 ? 'ok' : `error ${['', 'IOERR', 'UNSUPP'][status] ?? status}`);
      });
      guest.kick(index);
    });
    if (outcome === 'ok' && into) guest.memory.read(place + 0x1000, into.length).copy(into);
    if (outcome !== 'gone') this.#free.push(place);
    this.#waiting.shift()?.();
    return outcome;
  }

  async write(at: number, data: Buffer, durable = false): Promise<Outcome> {
    const written = await this.#request(OUT, at / SECTOR, data.length, data);
    return written === 'ok' && durable ? this.flush() : written;
  }
  read(at: number, into: Buffer): Promise<Outcome> {
    return this.#request(IN, at / SECTOR, into.length, undefined, into);
  }
  flush(): Promise<Outcome> {
    return this.#request(FLUSH, 0, 0, undefined);
  }
  #range(type: number, at: number, size: number, flags: number): Promise<Outcome> {
    const segment = Buffer.alloc(16);
    segment.writeBigUInt64LE(BigInt(at / SECTOR));
    segment.writeUInt32LE(size / SECTOR, 8);
    segment.writeUInt32LE(flags, 12);
    return this.#request(type, 0, segment.length, segment);
  }
  zero(at: number, size: number, deallocate = true): Promise<Outcome> {
    return this.#range(WRITE_ZEROES, at, size, deallocate ? 1 : 0);
  }
  discard(at: number, size: number): Promise<Outcome> {
    return this.#range(DISCARD, at, size, 0);
  }

  /** The back-end is gone: whatever was not answered never will be. */
  lose(): void {
    this.#collect();
    for (const resolve of [...this.#pending]) resolve('gone');
    this.#pending.clear();
  }
  close(): void {
    clearInterval(this.#poll);
    this.lose();
    this.guest.close();
  }
}
