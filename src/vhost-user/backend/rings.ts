import { assert } from '../../common/errors.js';
import type { ValuesOf } from '../../common/struct.js';
import { native } from '../../native/index.js';
import { type OwnedFd } from '../../native/owned-fd.js';
import type { NativeDirtyLog, NativeInflight, RingLayout } from '../../native/vhost-user.js';
import { describeFd } from '../wire/fds.js';
import { maxRingSize, VirtioF } from '../wire/features.js';
import type { vringAddr } from '../wire/messages.js';
import { VringFd } from '../wire/messages.js';
import type { Errno } from '../wire/status.js';
import { errnoOf } from '../wire/status.js';
import type { MemoryTable } from './memory-table.js';
import type { DeviceModel, RunningRing } from './model.js';

/** What the parts of a split and of a packed ring are called (virtio 1.3, 2.7 and 2.8). */
const partNames = [
  ['descriptor table', 'available ring', 'used ring'],
  ['descriptor ring', 'driver event suppression', 'device event suppression'],
] as const;
/** Flag of SET_VRING_ADDR: writes of the used ring are logged. */
const VRING_F_LOG = 1;

type Addresses = ValuesOf<typeof vringAddr>;
type FdKind = 'kick' | 'call' | 'err';

interface Ring {
  num: number;
  base: number;
  addresses: Addresses | undefined;
  fds: Partial<Record<FdKind, OwnedFd>>;
  /** SET_VRING_KICK came: the ring is started, GET_VRING_BASE stops it. */
  started: boolean;
  enabled: boolean;
  running: RunningRing | undefined;
  /** The ring's end, while what it has taken is being finished. */
  halting: Promise<void> | undefined;
}

export interface RingsOptions {
  device: DeviceModel;
  memory: MemoryTable;
  onBroken: (index: number, error: Error) => void;
}

/** The rings of a back-end: what SET_VRING_* sets up, and their running (specification, "Ring states"). */
export class Rings {
  readonly #options: RingsOptions;
  readonly #rings: Ring[];
  #features = 0n;
  #inflight: NativeInflight | undefined;
  #log: NativeDirtyLog | undefined;
  /** Ring addresses are guest-physical (GPA_ADDRESSES). */
  physical = false;
  /** Without VHOST_USER_F_PROTOCOL_FEATURES rings are enabled from the start. */
  alwaysEnabled = true;
  /** Why the device could not be claimed for the ring that was to start last. */
  refusal: Error | undefined;
  /** Why the last request was refused, in words. */
  detail: string | undefined;
  /** No ring starts any more. */
  #draining = false;
  /** The start that asks for the device now. */
  #starting: Promise<unknown> | undefined;

  constructor(options: RingsOptions) {
    this.#options = options;
    this.#rings = Array.from({ length: options.device.queues }, () => ({
      num: 0,
      base: 0,
      addresses: undefined,
      fds: {},
      started: false,
      enabled: false,
      running: undefined,
      halting: undefined,
    }));
  }

  has(index: number): boolean {
    return index < this.#rings.length;
  }

  /** Whether the device runs: a ring does, and no ring that was started is disabled. The time when MAP may be sent. */
  get running(): boolean {
    return this.#rings.some((r) => r.running) && this.#rings.every((r) => !r.started || r.running);
  }

  get #packed(): boolean {
    return (this.#features & VirtioF.packed) !== 0n;
  }

  /** Negotiated virtio features. Running rings take over the bit that switches the dirty log. */
  setFeatures(features: bigint): Errno | undefined {
    const changed = this.#features ^ features;
    this.#features = features;
    return (changed & VirtioF.logAll) === 0n ? undefined : this.remap();
  }

  /** Where rings keep what is in flight, from their next start on. The descriptor stays the caller's. */
  setInflight(fd: OwnedFd, at: { size: bigint; offset: bigint; queues: number; queueSize: number }): Errno | undefined {
    if (at.queues > this.#rings.length || at.queueSize > maxRingSize) return 'EINVAL';
    if (describeFd(fd.fd).size === undefined) return 'EINVAL';
    try {
      const region = native().vhostUser.inflightRegion(fd.fd, at.size, at.offset, at.queues, at.queueSize);
      this.#inflight?.close();
      this.#inflight = region;
    } catch (err) {
      return errnoOf(err);
    }
    return undefined;
  }

  /** The dirty log of a migration, for running rings too. The descriptor stays the caller's. */
  setLog(fd: OwnedFd, size: bigint, offset: bigint): Errno | undefined {
    if (describeFd(fd.fd).size === undefined) return 'EINVAL';
    try {
      const log = native().vhostUser.dirtyLog(fd.fd, size, offset);
      this.#log?.close();
      this.#log = log;
    } catch (err) {
      return errnoOf(err);
    }
    return this.remap();
  }

  num(index: number, num: number): Errno | undefined {
    const ring = this.#rings[index];
    if (!ring || ring.running || num < 1 || num > maxRingSize) return 'EINVAL';
    if (!this.#packed && (num & (num - 1)) !== 0) return 'EINVAL'; // virtio 1.3, 2.7
    ring.num = num;
    return undefined;
  }

  /** A packed ring's base also has its wrap counters, and the used entry. */
  base(index: number, base: number): Errno | undefined {
    const ring = this.#rings[index];
    if (!ring || ring.running || (!this.#packed && base > 0xffff)) return 'EINVAL';
    ring.base = base;
    return undefined;
  }

  addresses(addresses: Addresses): Errno | undefined {
    const ring = this.#rings[addresses.index];
    if (!ring || ring.num === 0 || (addresses.flags & ~VRING_F_LOG) !== 0) return 'EINVAL';
    const memory = this.#options.memory.mapped;
    const size = BigInt(ring.num);
    // A packed ring has two words for suppressed events in place of the available and used rings (virtio 1.3, 2.8).
    const [avail, used] = this.#packed ? [4n, 4n] : [6n + 2n * size, 6n + 8n * size];
    const parts: [bigint, bigint, bigint][] = [
      [addresses.desc, 16n * size, 16n],
      [addresses.avail, avail, this.#packed ? 4n : 2n],
      [addresses.used, used, 4n],
    ];
    for (const [i, [at, bytes, align]] of parts.entries()) {
      const part = `ring ${addresses.index}: ${partNames[this.#packed ? 1 : 0][i]} at 0x${at.toString(16)}`;
      if (at % align !== 0n) {
        this.detail = `${part} is not aligned to ${align} bytes`;
        return 'EINVAL';
      }
      if (!memory?.contains(at, bytes, this.physical)) {
        this.detail = `${part} (${bytes} bytes) lies in no region; ${this.#options.memory.describe(this.physical)}`;
        return 'EFAULT';
      }
    }
    ring.addresses = addresses;
    if (ring.running) return this.remap();
    return undefined;
  }

  /** SET_VRING_KICK, CALL, ERR. Takes the descriptor in any case. */
  async fd(kind: FdKind, word: bigint, fd: OwnedFd | undefined): Promise<Errno | undefined> {
    const ring = this.#rings[Number(word & VringFd.indexMask)];
    const noFd = (word & VringFd.noFd) !== 0n;
    const errno = ((): Errno | undefined => {
      if (!ring || (word & ~(VringFd.indexMask | VringFd.noFd)) !== 0n) return 'EINVAL';
      if (noFd !== (fd === undefined)) return 'EBADF';
      if (kind === 'kick' && noFd) return 'ENOTSUP'; // would have to be polled
      if (fd && describeFd(fd.fd).kind !== 'eventfd') return 'EINVAL';
      if (kind === 'kick' && ring.running) return 'EINVAL';
      return undefined;
    })();
    if (errno || !ring) {
      fd?.close();
      return errno;
    }
    ring.fds[kind]?.close();
    if (fd) ring.fds[kind] = fd;
    else delete ring.fds[kind];
    if (kind === 'call') ring.running?.callChanged?.(ring.fds.call);
    if (kind !== 'kick') return undefined;
    ring.started = true;
    const failure = await this.#start(ring);
    if (failure) {
      ring.started = false;
      ring.fds.kick?.close();
      delete ring.fds.kick;
    }
    return failure;
  }

  async enable(index: number, on: number): Promise<Errno | undefined> {
    const ring = this.#rings[index];
    if (!ring || on > 1) return 'EINVAL';
    ring.enabled = on === 1;
    if (!ring.enabled) {
      await this.#halt(ring);
      return undefined;
    }
    const failure = await this.#start(ring);
    if (failure) ring.enabled = false;
    return failure;
  }

  /** GET_VRING_BASE: stops the ring. */
  async stop(index: number): Promise<number> {
    const ring = this.#rings[index]!;
    await this.#halt(ring);
    ring.started = false;
    ring.fds.kick?.close();
    delete ring.fds.kick;
    return ring.base;
  }

  /** The memory table has changed: running rings move, or the errno says why one cannot. */
  remap(): Errno | undefined {
    const memory = this.#options.memory.mapped;
    for (const ring of this.#rings) {
      if (!ring.running) continue;
      try {
        if (!memory) return 'EFAULT';
        ring.running.remap(memory, this.#layout(ring));
      } catch (err) {
        return errnoOf(err);
      }
    }
    return undefined;
  }

  /** The back-end is about to end: all rings finish what they have taken, and none starts any more. */
  async drain(): Promise<void> {
    this.#draining = true;
    await this.#haltAll();
  }

  /** RESET_DEVICE: all rings stop, and nothing of them is known any more. */
  async reset(): Promise<void> {
    await this.#haltAll();
    for (const ring of this.#rings) {
      for (const fd of Object.values(ring.fds)) fd.close();
      Object.assign(ring, { num: 0, base: 0, addresses: undefined, fds: {}, started: false, enabled: false });
    }
    this.#inflight?.close();
    this.#inflight = undefined;
  }

  /** The end of the session. */
  async close(): Promise<void> {
    this.#draining = true;
    await this.#starting;
    await this.reset();
    this.#log?.close();
    this.#log = undefined;
  }

  #layout(ring: Ring): RingLayout {
    const { desc, avail, used, log, flags } = ring.addresses!;
    return {
      num: ring.num,
      desc,
      avail,
      used,
      base: ring.base,
      features: this.#features,
      physical: this.physical,
      index: this.#rings.indexOf(ring),
      inflight: this.#inflight,
      log: this.#log,
      logUsed: (flags & VRING_F_LOG) !== 0,
      logAddress: log,
    };
  }

  /** Ends a ring, or waits for the end that somebody else has asked for. */
  #halt(ring: Ring): Promise<void> {
    const { running } = ring;
    if (!running) return ring.halting ?? Promise.resolve();
    ring.running = undefined;
    ring.halting = running.stop().then(async (base) => {
      ring.base = base;
      // While one ring still runs or ends, the device is not anybody else's.
      if (!this.#rings.some((other) => other !== ring && (other.running || other.halting))) await this.#options.device.release?.();
      ring.halting = undefined;
    });
    return ring.halting;
  }

  /** All at once: none takes requests while another one is finishing. */
  async #haltAll(): Promise<void> {
    await Promise.all(this.#rings.map((ring) => this.#halt(ring)));
  }

  /** Nothing but drain() and close() happens meanwhile: the session waits for it before it takes the next message. */
  async #start(ring: Ring): Promise<Errno | undefined> {
    const { memory, device, onBroken } = this.#options;
    if (this.#draining || ring.running || !ring.started || !(ring.enabled || this.alwaysEnabled)) return undefined;
    if (!memory.mapped || !ring.addresses || ring.num === 0) return 'EINVAL';
    const index = this.#rings.indexOf(ring);
    assert(ring.halting === undefined && ring.fds.kick !== undefined, 'a ring starts with a kick, and after its end');
    const first = !this.#rings.some((other) => other.running || other.halting);
    try {
      const claim = first ? device.claim?.() : undefined;
      this.#starting = claim;
      this.refusal = await claim;
      if (this.refusal) {
        if (ring.fds.err) native().vhostUser.signal(ring.fds.err.fd);
        return 'EBUSY';
      }
      if (this.#draining) {
        if (first) await device.release?.();
        return undefined;
      }
      ring.running = device.startRing({
        index,
        memory: memory.mapped,
        layout: this.#layout(ring),
        kick: ring.fds.kick,
        call: () => ring.fds.call,
        onBroken: (error) => {
          if (ring.fds.err) native().vhostUser.signal(ring.fds.err.fd);
          onBroken(index, error);
        },
      });
    } catch (err) {
      if (first) await device.release?.();
      return errnoOf(err);
    }
    return undefined;
  }
}
