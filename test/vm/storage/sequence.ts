// What the writer of the power-loss test does: the same in the guest that writes and in the test that checks.
import { SECTOR, STAMP, stampAt } from '../../support/storage-model.js';

/** Bytes of each served disk. */
export const DISK = 4 << 20;
export const LANES = 2;
const LANE_SECTORS = DISK / SECTOR / LANES;
/** Sectors of a write at most: 32 KiB. */
const LARGEST = 64;

export interface Step {
  /** First sector. */
  at: number;
  count: number;
  /** How the writer makes it durable before the next one: not at all, by FUA, or by a flush. */
  durable: 'no' | 'fua' | 'flush';
}

/** The write number `sequence` of a lane; numbers begin with 1. */
export function step(lane: number, sequence: number): Step {
  let x = Math.imul(sequence * LANES + lane + 1, 2654435761) >>> 0;
  const random = (n: number): number => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return (x >>> 0) % n;
  };
  random(1);
  const count = 1 + random(LARGEST);
  const at = lane * LANE_SECTORS + random(LANE_SECTORS - count);
  return { at, count, durable: (['no', 'no', 'fua', 'flush'] as const)[random(4)]! };
}

/** The servers, by the number of their disk. */
export const SERVERS = ['nvmf, engine uring', 'nvmf, engine sync', 'vhost-user, engine uring', 'vhost-user, engine sync'] as const;

/** Whether a writer neither flushes nor has a write cache: each of its writes is durable when it is answered. */
export const writesThrough = (server: number, lane: number): boolean =>
  SERVERS[server]!.startsWith('nvmf') ? lane === 1 : SERVERS[server]!.endsWith('sync');

/** The last write before `sequence` that the writer has waited for as durable; all earlier ones are durable with it. */
export function durableBefore(server: number, lane: number, sequence: number): number {
  if (SERVERS[server] !== undefined && writesThrough(server, lane)) return Math.max(0, sequence - 1);
  for (let s = sequence - 1; s > 0; s--) if (step(lane, s).durable !== 'no') return s;
  return 0;
}

/** Numbers of the newest write of each sector of a lane among the first `sequence`. */
export class Expected {
  readonly #lane: number;
  readonly #newest = new Map<number, number>();
  #sequence = 0;
  constructor(lane: number) {
    this.#lane = lane;
  }
  /** What a disk lacks on which the first `sequence` writes are durable. Later ones may be there. @param sequence not less than before */
  missing(disk: Buffer, sequence: number): string | undefined {
    while (this.#sequence < sequence) {
      const { at, count } = step(this.#lane, ++this.#sequence);
      for (let s = at; s < at + count; s++) this.#newest.set(s, this.#sequence);
    }
    for (const [sector, wanted] of this.#newest)
      for (const part of [sector * SECTOR, (sector + 1) * SECTOR - STAMP]) {
        const found = stampAt(disk, part, sector);
        if (found < wanted)
          return `lane ${this.#lane}: write ${sequence} was acknowledged, sector ${sector} has ${found} instead of ${wanted}`;
      }
    return undefined;
  }
}
