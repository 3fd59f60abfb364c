/**
 * What a disk may hold after writes of which some failed, were never answered, or were lost by a power cut. Each sector has
 * the stamps that a read may find now, and those that may be found after everything volatile is lost.
 */

export const SECTOR = 512;
/** Bytes of a stamp, which fills a sector: a transfer that ended early leaves whole ones. */
export const STAMP = 16;
/** Stamp of a sector of zeroes. */
export const ZERO = 0;

/** A part of the disk with one user, who has one request at a time. */
export class Region {
  /** First sector. */
  readonly first: number;
  readonly sectors: number;
  readonly #now: number[][];
  readonly #durable: number[][];
  /** Sectors with something that no flush has covered. */
  readonly #dirty = new Set<number>();

  constructor(first: number, sectors: number) {
    this.first = first;
    this.sectors = sectors;
    this.#now = Array.from({ length: sectors }, () => [ZERO]);
    this.#durable = Array.from({ length: sectors }, () => [ZERO]);
  }

  /** A write of `stamp` begins: from now on a part of it may be there. */
  begin(at: number, count: number, stamp: number): void {
    for (let s = at; s < at + count; s++) {
      this.#now[s] = union(this.#now[s]!, [stamp]);
      this.#durable[s] = union(this.#durable[s]!, [stamp]);
      this.#dirty.add(s);
    }
  }

  /** It has succeeded. @param durable and is on stable storage @param lost a sync failed meanwhile and may have lost it */
  done(at: number, count: number, stamp: number, durable: boolean, lost: boolean): void {
    for (let s = at; s < at + count; s++) {
      this.#now[s] = lost ? union(this.#durable[s]!, [stamp]) : [stamp];
      if (!durable) continue;
      this.#durable[s] = [stamp];
      this.#dirty.delete(s);
    }
  }

  /** A flush has succeeded that began after all writes of this region had ended. */
  flushed(): void {
    for (const s of this.#dirty) this.#durable[s] = this.#now[s]!;
    this.#dirty.clear();
  }

  /** A sync has failed: what no flush has covered may be lost, or not. */
  syncFailed(): void {
    for (const s of this.#dirty) this.#now[s] = union(this.#now[s]!, this.#durable[s]!);
  }

  /** A power cut: as a failed sync, and what is there now stays. */
  powerCut(): void {
    this.syncFailed();
    for (const s of this.#dirty) this.#durable[s] = this.#now[s]!;
    this.#dirty.clear();
  }

  /** The first sector of `data` that is not what it may be; undefined if all are right. `volatile`: only a lost write explains it. */
  wrong(at: number, data: Buffer): { sector: number; found: number; allowed: number[]; volatile: boolean } | undefined {
    let lost: ReturnType<Region['wrong']>;
    for (let i = 0; i < data.length / SECTOR; i++) {
      const sector = at + i;
      const allowed = this.#now[sector]!;
      for (let part = i * SECTOR; part < (i + 1) * SECTOR; part += STAMP) {
        const found = stampAt(data, part, this.first + sector);
        if (allowed.includes(found)) continue;
        const volatile = this.#dirty.has(sector) && this.#durable[sector]!.includes(found);
        const wrong = { sector: this.first + sector, found, allowed, volatile };
        if (!volatile) return wrong;
        lost ??= wrong;
      }
    }
    return lost;
  }
}

const union = (a: number[], b: number[]): number[] => [...new Set([...a, ...b])];

/** Data of a write: every sector names its stamp and its place. */
export function stamped(sector: number, count: number, stamp: number): Buffer {
  const data = Buffer.alloc(count * SECTOR);
  if (stamp === ZERO) return data;
  const one = Buffer.alloc(STAMP);
  for (let i = 0; i < count; i++) {
    one.writeBigUInt64LE(BigInt(stamp), 0);
    one.writeBigUInt64LE(BigInt(sector + i), 8);
    data.fill(one, i * SECTOR, (i + 1) * SECTOR);
  }
  return data;
}

/** The stamp in 16 bytes of a sector; -1 for bytes that nobody wrote there. */
export function stampAt(data: Buffer, at: number, sector: number): number {
  const [stamp, place] = [data.readBigUInt64LE(at), data.readBigUInt64LE(at + 8)];
  if (stamp === 0n && place === 0n) return ZERO;
  return place === BigInt(sector) && stamp < 1n << 52n ? Number(stamp) : -1;
}
