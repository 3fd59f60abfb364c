import { native } from '../../native/index.js';
import { OwnedFd } from '../../native/owned-fd.js';
import { keepSize, ShmemRegions } from '../shmem/regions.js';
import { protocolMask, VirtioF } from '../wire/features.js';
import { type BackEvent, BackService } from './back-service.js';
import { FrontEnd, type FrontEndOptions } from './frontend.js';

/** Where the rings and buffers of a started device lie: one sealed memfd. */
export interface WindowMemory {
  fd: OwnedFd;
  size: number;
  gpa: bigint;
  uva: bigint;
}

/** Offsets of a ring in the memory, and its eventfds. */
export interface WindowRing {
  index: number;
  num: number;
  desc: number;
  avail: number;
  used: number;
  /** First byte for buffers, and how many. */
  buffers: number;
  bufferSize: number;
  kick: OwnedFd;
  call: OwnedFd;
  err: OwnedFd;
}

export interface WindowOptions extends FrontEndOptions {
  /** Protocol features to acknowledge, if offered. */
  want?: bigint;
  /** Virtio features to acknowledge of those offered. */
  features?: bigint;
  /** Rings to start, at most as many as the back-end has. */
  queues?: number;
  onEvent?: (event: BackEvent) => void;
  onLog?: (text: string) => void;
}

const ringSize = 64;
const perRing = 1 << 20;
const memoryGpa = 0x100000n;
const memoryUva = 0x7f0000000000n;
const wantedFeatures = protocolMask('MQ', 'REPLY_ACK', 'BACKEND_REQ', 'BACKEND_SEND_FD', 'CONFIG', 'RESET_DEVICE', 'SHMEM');

/**
 * A front-end that starts a device and holds its shared memory regions, as a VMM does, without a VM: for back-ends under
 * test, and for programs that want what a back-end maps.
 */
export class Window {
  readonly front: FrontEnd;
  readonly regions: ShmemRegions;
  readonly queues: number;
  memory: WindowMemory | undefined;
  rings: WindowRing[] = [];
  back: BackService | undefined;
  #started = false;

  private constructor(front: FrontEnd, regions: ShmemRegions, queues: number) {
    this.front = front;
    this.regions = regions;
    this.queues = queues;
  }

  /** Connects and negotiates; the device is not started yet. @throws VioError */
  static async open(fd: OwnedFd, options: WindowOptions = {}): Promise<Window> {
    const front = new FrontEnd(fd, options);
    try {
      await front.negotiate(options.want ?? wantedFeatures);
      await front.request('SET_OWNER');
      const offered = front.has('MQ') ? Number(await front.number('GET_QUEUE_NUM')) : 1;
      const regions = new ShmemRegions(front.has('SHMEM') ? await front.shmemConfig() : new Map());
      const window = new Window(front, regions, Math.min(options.queues ?? 1, offered));
      if (front.has('BACKEND_REQ')) {
        const [ours, theirs] = native().vhostUser.socketPair();
        window.back = new BackService(new OwnedFd(ours), {
          regions,
          protocol: front.ackedProtocol,
          started: () => window.#started,
          ...(options.onEvent && { onEvent: options.onEvent }),
          ...(options.onLog && { onLog: options.onLog }),
        });
        await front.request('SET_BACKEND_REQ_FD', {}, [new OwnedFd(theirs)]);
      }
      const acked = options.features ?? front.features & (VirtioF.version1 | VirtioF.protocolFeatures | 0xff_ffffn);
      await front.request('SET_FEATURES', { value: acked });
      return window;
    } catch (err) {
      front.close();
      throw err;
    }
  }

  get started(): boolean {
    return this.#started;
  }

  /** Starts the rings over memory of this process. @throws VioError */
  async start(): Promise<void> {
    const { vhostUser, common } = native();
    const size = perRing * this.queues;
    this.memory ??= { fd: new OwnedFd(vhostUser.memfd('vioctl-window', size, keepSize)), size, gpa: memoryGpa, uva: memoryUva };
    const dup = (fd: OwnedFd): OwnedFd => new OwnedFd(vhostUser.dup(fd.fd));
    const region = { gpa: memoryGpa, size: BigInt(size), uva: memoryUva, offset: 0n };
    await this.front.request('SET_MEM_TABLE', { count: 1, regions: [region] }, [dup(this.memory.fd)]);
    this.#started = true; // a back-end may map as soon as a ring is enabled
    for (let index = 0; index < this.queues; index++) {
      const at = index * perRing;
      const ring: WindowRing = {
        index,
        num: ringSize,
        desc: at,
        avail: at + 16 * ringSize,
        used: at + 4096,
        buffers: at + 8192,
        bufferSize: perRing - 8192,
        kick: new OwnedFd(common.eventfd()),
        call: new OwnedFd(common.eventfd()),
        err: new OwnedFd(common.eventfd()),
      };
      this.rings.push(ring);
      const value = BigInt(index);
      await this.front.request('SET_VRING_CALL', { value }, [dup(ring.call)]);
      await this.front.request('SET_VRING_ERR', { value }, [dup(ring.err)]);
      await this.front.request('SET_VRING_NUM', { index, num: ringSize });
      await this.front.request('SET_VRING_BASE', { index, num: 0 });
      const address = (offset: number): bigint => memoryUva + BigInt(offset);
      const { desc, avail, used } = ring;
      await this.front.request('SET_VRING_ADDR', {
        index,
        flags: 0,
        desc: address(desc),
        used: address(used),
        avail: address(avail),
        log: 0n,
      });
      await this.front.request('SET_VRING_KICK', { value }, [dup(ring.kick)]);
    }
    for (let index = 0; index < this.queues; index++) await this.front.request('SET_VRING_ENABLE', { index, num: 1 });
  }

  /** Stops the rings. @param reset a device reset: the mappings go too @returns bases of the rings */
  async stop(reset: boolean): Promise<number[]> {
    const bases: number[] = [];
    for (const { index } of this.rings) await this.front.request('SET_VRING_ENABLE', { index, num: 0 });
    for (const { index } of this.rings) {
      const reply = await this.front.request('GET_VRING_BASE', { index, num: 0 });
      bases.push(reply!.payload.readUInt32LE(4));
    }
    this.#started = false;
    if (reset) this.regions.clear();
    this.#closeRings();
    return bases;
  }

  close(): void {
    this.front.close();
    this.back?.close();
    this.regions.clear();
    this.#closeRings();
    this.memory?.fd.close();
  }

  #closeRings(): void {
    for (const ring of this.rings) for (const fd of [ring.kick, ring.call, ring.err]) fd.close();
    this.rings = [];
  }
}
