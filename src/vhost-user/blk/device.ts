import { wrap } from '../../common/errors.js';
import { printable } from '../../common/escape.js';
import { native } from '../../native/index.js';
import { OwnedFd } from '../../native/owned-fd.js';
import type { BlkStats, NativeBlkQueue, NativeMemory, ReadWatch, RingLayout } from '../../native/vhost-user.js';
import { claimSource, type Source } from '../../storage/open.js';
import type { DeviceModel, RingStart, RunningRing } from '../backend/model.js';
import { deviceByName, featureBit, virtioBlk } from '../wire/devices.js';
import { protocolMask, VirtioF } from '../wire/features.js';

/** What a block device is served from. */
export interface BlkSource extends Source {
  queues: number;
  /** Answer to GET_ID, at most 20 bytes. */
  serial: string;
  ioUring: boolean;
  /** Busy-poll time of a queue before it sleeps, in µs. */
  spinMicroseconds: number;
}

const bit = (name: string): bigint => featureBit('blk', name);
/** Feature bits of virtio-blk (virtio 1.3, 5.2.3). */
const BlkF = {
  segMax: bit('SEG_MAX'),
  ro: bit('RO'),
  blkSize: bit('BLK_SIZE'),
  flush: bit('FLUSH'),
  topology: bit('TOPOLOGY'),
  configWce: bit('CONFIG_WCE'),
  mq: bit('MQ'),
  discard: bit('DISCARD'),
  writeZeroes: bit('WRITE_ZEROES'),
} as const;
const segMax = 126;
const maxSectors = 1 << 22; // 2 GiB: one discard or write of zeroes
const maxRanges = 1;

/** A ring whose requests are served by a native thread. */
class BlkRing implements RunningRing {
  readonly #queue: NativeBlkQueue;
  readonly #kick: OwnedFd;
  readonly #watch: ReadWatch;
  readonly #stats: (stats: BlkStats) => void;
  readonly #ended: Promise<void>;

  constructor(start: RingStart, source: BlkSource, writeback: boolean, stats: (stats: BlkStats) => void) {
    const { vhostUser } = native();
    // The thread has descriptors of its own: the session may replace or close its ones at any time.
    this.#kick = new OwnedFd(vhostUser.dup(start.kick.fd));
    const call = start.call();
    this.#stats = stats;
    try {
      this.#queue = vhostUser.blkQueue(source.store, start.memory, start.layout, {
        kick: this.#kick.fd,
        call: call ? vhostUser.dup(call.fd) : -1,
        serial: source.serial,
        ioUring: source.ioUring,
        spinUs: source.spinMicroseconds,
        segMax: segMax,
        maxSectors: maxSectors,
        maxRanges: maxRanges,
        queues: source.queues,
        writeback,
      });
    } catch (err) {
      this.#kick.close();
      throw err;
    }
    let stopped: () => void = () => {};
    this.#ended = new Promise((resolve) => {
      stopped = resolve;
    });
    this.#watch = vhostUser.watchReadable(this.#queue.endedFd(), () => {
      this.#watch.close();
      const error = this.#queue.error();
      if (error !== '') start.onBroken(new Error(error));
      stopped();
    });
  }

  remap(memory: NativeMemory, layout: RingLayout): void {
    this.#queue.remap(memory, layout);
  }

  callChanged(call: OwnedFd | undefined): void {
    this.#queue.setCall(call ? native().vhostUser.dup(call.fd) : -1);
  }

  setWriteback(on: boolean): void {
    this.#queue.setWriteback(on);
  }

  /** What it has done so far. */
  stats(): BlkStats {
    return this.#queue.stats();
  }

  async stop(): Promise<number> {
    this.#queue.stop();
    await this.#ended;
    this.#stats(this.#queue.stats());
    const base = this.#queue.close();
    this.#kick.close();
    return base;
  }
}

/** Adds what a ring or a device has done. */
export const add = (to: BlkStats, more: BlkStats): void => {
  for (const key of Object.keys(to) as (keyof BlkStats)[]) to[key] += more[key];
};

/** Nothing done. */
export const noStats = (): BlkStats => ({ reads: 0, writes: 0, flushes: 0, others: 0, errors: 0, bytesRead: 0, bytesWritten: 0 });

/** How long a refusal stands, in milliseconds: every ring of a device asks, and a try takes time. */
const refusalTime = 1000;

/** Who may use the source: this back-end while a ring runs, and until another one has asked for it. */
function ownership(source: Source, log: (text: string) => void): Pick<Required<DeviceModel>, 'claim' | 'release'> {
  const { storage } = native();
  let used = false;
  let refused: { error: Error; until: number } | undefined;
  return {
    claim: async () => {
      if (refused && performance.now() < refused.until) return refused.error;
      refused = undefined;
      try {
        await claimSource(source);
        used = true;
        return undefined;
      } catch (err) {
        refused = { error: err as Error, until: performance.now() + refusalTime };
        return refused.error;
      }
    },
    release: async () => {
      used = false;
      // One that fails is latched, and told by whoever watches the source.
      await storage.flush(source.store).catch(() => {});
      if (used) return;
      try {
        await storage.release(source.store);
      } catch (err) {
        log(`${printable(source.name)} stays locked: ${(err as Error).message}`);
      }
    },
  };
}

/** Sectors of one discard or write of zeroes, within what the source does at once; a source that does not say splits them. */
const sectorsOf = (bytes: number | undefined): number =>
  bytes === undefined || bytes < virtioBlk.sector ? maxSectors : Math.min(maxSectors, Math.floor(bytes / virtioBlk.sector));

/** Where the configuration space has the writeback field (virtio 1.3, 5.2.4). */
const writebackAt = 32;

/**
 * The write cache, which a guest switches with the writeback field of the configuration space (VIRTIO_BLK_F_CONFIG_WCE). Its state
 * belongs to the device: it outlives rings and connections, because front-ends keep a copy and do not write it again.
 */
function writeCache(
  source: Source,
  rings: ReadonlySet<BlkRing>,
  log: (text: string) => void,
): { readonly on: boolean; set: Required<DeviceModel>['setConfig'] } {
  let on = true;
  return {
    get on() {
      return on;
    },
    set: async (offset, data) => {
      if (offset !== writebackAt || data.length !== 1 || data[0]! > 1) return 'EINVAL'; // nothing else can be written
      if (on === (data[0] === 1)) return undefined;
      on = !on;
      for (const ring of rings) ring.setWriteback(on);
      log(`${printable(source.name)}: the guest has switched its write cache ${on ? 'on' : 'off'}`);
      if (on) return undefined;
      // what it holds must not stay volatile after the guest has stopped to flush
      return native()
        .storage.flush(source.store)
        .then(
          () => undefined,
          () => 'EIO' as const, // the failure is latched, and told by whoever watches the source
        );
    },
  };
}

/** A virtio-blk device, and what it has done over its life. */
export interface BlkDevice extends DeviceModel {
  stats(): BlkStats;
}

/** A virtio-blk device over a store. @param totals takes what a ring has done when it ends */
export function blkDevice(source: BlkSource, totals: BlkStats, log: (text: string) => void = () => {}): BlkDevice {
  const { store, readonly, queues, blockSize, geometry, limits } = source;
  /** Blocks, as many as a field of the configuration holds. */
  const blocks = (bytes: number, most: number): number => Math.min(Math.floor(bytes / blockSize), most);
  // A device that cannot discard is not asked to; zeroes can always be written.
  const discards = limits === undefined || limits.discardMax > 0;
  const config = deviceByName('blk')!.config!;
  const writes = (discards ? BlkF.discard : 0n) | BlkF.writeZeroes;
  const own = BlkF.segMax | BlkF.blkSize | BlkF.topology | BlkF.flush | BlkF.mq | (readonly ? BlkF.ro : writes | BlkF.configWce);
  const rings = new Set<BlkRing>();
  const cache = writeCache(source, rings, log);
  return {
    name: 'blk',
    features: VirtioF.version1 | VirtioF.indirect | VirtioF.eventIdx | VirtioF.packed | VirtioF.logAll | own,
    protocol: protocolMask(
      ...['MQ', 'REPLY_ACK', 'BACKEND_REQ', 'CONFIG', 'RESET_DEVICE', 'CONFIGURE_MEM_SLOTS'],
      ...['LOG_SHMFD', 'INFLIGHT_SHMFD', 'GET_VRING_BASE_INFLIGHT'],
    ),
    queues,
    regions: new Map(),
    config: () => {
      const zero = Object.fromEntries(
        Object.entries(config.fields).flatMap(([key, field]) => ('pad' in field ? [] : [[key, field.type === 'u64' ? 0n : 0]])),
      );
      return config.encode({
        ...zero,
        capacity: BigInt(Math.floor(native().storage.size(store) / blockSize) * (blockSize / virtioBlk.sector)),
        seg_max: segMax,
        blk_size: blockSize,
        physical_block_exp: Math.max(0, Math.floor(Math.log2(geometry.physical / blockSize))),
        alignment_offset: blocks(geometry.alignmentOffset, 255),
        min_io_size: blocks(geometry.minimumIo, 65535),
        opt_io_size: blocks(geometry.optimalIo, 2 ** 32 - 1),
        wce: cache.on ? 1 : 0,
        num_queues: queues,
        max_discard_sectors: sectorsOf(limits?.discardMax),
        max_discard_seg: maxRanges,
        discard_sector_alignment: Math.max(blockSize, limits?.discardGranularity ?? geometry.physical) / virtioBlk.sector,
        max_write_zeroes_sectors: sectorsOf(limits?.zeroesMax),
        max_write_zeroes_seg: maxRanges,
        write_zeroes_may_unmap: 1,
      } as never);
    },
    ...(!readonly && { setConfig: cache.set }),
    ...ownership(source, log),
    startRing: (start) => {
      const ring = new BlkRing(start, source, cache.on, (stats) => {
        rings.delete(ring);
        add(totals, stats);
      });
      rings.add(ring);
      return ring;
    },
    stats: () => {
      const sum = { ...totals };
      for (const ring of rings) add(sum, ring.stats());
      return sum;
    },
    settle: async () => {
      try {
        await native().storage.flush(store);
      } catch (err) {
        throw wrap(`flush ${source.name}`, err);
      }
    },
  };
}
