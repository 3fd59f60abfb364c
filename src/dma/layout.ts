import fs from 'node:fs';
import { errnoName } from '../common/errno.js';
import { Exit, VioError, wrap } from '../common/errors.js';
import { counted, exact, formatSize, hex64 } from '../common/units.js';
import { type Aperture, describeAddress } from './aperture.js';
import { type Hole, pack } from './packing.js';
import { type Extent, IovaSpace } from './space.js';
import { type MapSpec, refused } from './spec.js';

/** Where a mapping goes. */
export interface Placement {
  name: string;
  iova: bigint;
  size: bigint;
  /** The largest page of the IOMMU that address and size allow. */
  pageSize: number;
}

/** The document of `dma plan`. */
export interface Plan {
  /** ranges that mappings may use */
  ranges: Extent[];
  /** one entry for each mapping, with its address */
  maps: Placement[];
  /** DMA mappings that the kernel will count. */
  entries: number;
  /** Bytes that count against RLIMIT_MEMLOCK: each mapping in full, also where two map the same memory. */
  memlock: number | bigint;
}

/** Bytes of a mapping, files rounded up to whole pages. @throws VioError */
export function sizeOf(spec: MapSpec, page: bigint): bigint {
  const unit = spec.huge !== undefined && spec.huge > page ? spec.huge : page;
  if (spec.size !== undefined) {
    if (spec.size % unit !== 0n)
      throw new VioError(`mapping ${spec.name}: ${spec.size} is not a multiple of ${formatSize(unit)}`, {
        code: 'USAGE',
        exit: Exit.usage,
        hint: `the IOMMU maps whole pages: ${spec.name}=${((spec.size + unit - 1n) / unit) * unit}`,
      });
    return spec.size;
  }
  let stat: fs.BigIntStats;
  try {
    stat = fs.statSync(spec.file!, { bigint: true });
  } catch (err) {
    throw wrap(`mapping ${spec.name}: ${spec.file}`, err, { hint: `for new memory give a size: ${spec.name}=64M` });
  }
  if (!stat.isFile() || stat.size === 0n)
    throw new VioError(`mapping ${spec.name}: ${spec.file} is ${stat.isFile() ? 'empty' : 'no regular file'}`, { code: 'EINVAL' });
  return ((stat.size + unit - 1n) / unit) * unit;
}

/** Places mappings in an IOMMU's addresses by name. `dma plan` and `dma map` place through this, so they agree. */
export class Layout {
  readonly aperture: Aperture;
  readonly space: IovaSpace;
  readonly #names = new Map<bigint, string>();

  constructor(aperture: Aperture) {
    this.aperture = aperture;
    this.space = new IovaSpace(aperture.ranges, aperture.pages);
  }

  /**
   * Gives mappings their addresses, all or none. The result does not depend on the order of the list.
   * @returns the placements in the order of the list
   * @throws VioError (3) that names what is in the way, and whether no layout exists or none was found
   */
  placeAll(specs: readonly MapSpec[]): Placement[] {
    const page = this.aperture.pages[0]!;
    const wanted = specs.map((spec) => ({ spec, size: sizeOf(spec, page) }));
    const placed = new Map<string, Placement>();
    const undo = () => {
      for (const { iova } of placed.values()) this.release(iova);
      placed.clear();
    };
    try {
      for (const { spec, size } of placingOrder(wanted, this.aperture.pages)) {
        const place = this.#place(spec, size);
        if (place instanceof VioError) {
          const failed = place;
          undo();
          for (const found of this.#pack(wanted, failed)) placed.set(found.name, found);
          break;
        }
        placed.set(spec.name, place);
      }
    } catch (err) {
      undo();
      throw err;
    }
    return specs.map(({ name }) => placed.get(name)!);
  }

  /** Free runs of pages between the mappings. */
  #holes(): Hole[] {
    const page = this.aperture.pages[0]!;
    const taken = this.space.mappings.sort((a, b) => (a.iova < b.iova ? -1 : 1));
    const holes: Hole[] = [];
    let next = 0;
    for (const { start, end } of this.space.ranges) {
      let from = start;
      for (; next < taken.length && taken[next]!.iova <= end; next++) {
        const { iova, size } = taken[next]!;
        if (iova > from) holes.push({ start: Number(from / page), end: Number(iova / page) });
        from = iova + size;
      }
      if (from <= end) holes.push({ start: Number(from / page), end: Number((end + 1n) / page) });
    }
    return holes;
  }

  /**
   * Searches a layout where placing one after another failed. What may lie anywhere gets fixed places then, also temporary
   * mappings. @param failed thrown, with what is known, if there is none
   */
  #pack(wanted: readonly Wanted[], failed: VioError): Placement[] {
    const page = this.aperture.pages[0]!;
    const done: Placement[] = [];
    try {
      for (const { spec, size } of wanted.filter(({ spec }) => spec.iova !== undefined)) done.push(this.#fix(spec.name, spec.iova!, size));
      const free = placingOrder(wanted, this.aperture.pages).filter(({ spec }) => spec.iova === undefined);
      const items = free.map(({ spec, size }) => ({
        size: Number(size / page),
        align: Number((alignOf(spec) ?? page) / page) || 1,
        limit: spec.below4G ? Number((1n << 32n) / page) : Number.POSITIVE_INFINITY,
      }));
      const wishes = free.map(({ size }) => Number(largestPage(this.aperture.pages, size) / page));
      const packing = pack(this.#holes(), items, wishes);
      if (packing.places === undefined) throw noLayout(failed, packing.proven, packing.steps);
      for (const [i, { spec, size }] of free.entries()) done.push(this.#fix(spec.name, BigInt(packing.places[i]!) * page, size));
      return done;
    } catch (err) {
      for (const { iova } of done) this.release(iova);
      throw err;
    }
  }

  /** Takes an address that is free. */
  #fix(name: string, iova: bigint, size: bigint): Placement {
    const { error, at } = this.space.map({ size, iova });
    if (error !== 0) throw new Error(`${name}: ${hex64(iova)} of the layout is not free (${error} at ${hex64(at)})`);
    this.#names.set(iova, name);
    return { name, iova, size, pageSize: this.#pageOf(iova, size) };
  }

  /** Gives one mapping its address. @returns the refusal if there is no room where it may lie @throws VioError (3) for other obstacles */
  #place(spec: MapSpec, size: bigint): Placement | VioError {
    const { name } = spec;
    if (this.#names.size >= this.aperture.limit)
      throw refused(
        name,
        `a container holds at most ${counted(Number(this.aperture.limit), 'mapping')}`,
        'ENOSPC',
        { limit: this.aperture.limit },
        limitHint,
      );
    const wish = { size, align: alignOf(spec), iova: spec.iova, below4G: spec.below4G, temporary: spec.temporary };
    const outcome = this.space.map(wish);
    if (outcome.error === 0) {
      this.#names.set(outcome.at, name);
      return { name, iova: outcome.at, size, pageSize: this.#pageOf(outcome.at, size) };
    }
    const failure = this.#failure(spec, size, outcome.error, outcome.at);
    if (errnoName(outcome.error) !== 'ENOSPC') throw failure;
    return failure;
  }

  /** Takes back what place() gave. */
  release(iova: bigint): void {
    this.space.unmap(iova);
    this.#names.delete(iova);
  }

  /** Name of the mapping that starts at the address. */
  nameAt(iova: bigint): string | undefined {
    return this.#names.get(iova);
  }

  #pageOf(iova: bigint, size: bigint): number {
    return Number(this.aperture.pages.findLast((page) => page <= size && iova % page === 0n) ?? this.aperture.pages[0]);
  }

  #failure({ name, iova, below4G }: MapSpec, size: bigint, error: number, at: bigint): VioError {
    const wish = iova === undefined ? '' : `${hex64(iova)}-${hex64(iova + size - 1n)}`;
    switch (errnoName(error)) {
      case 'EEXIST':
        return refused(name, `${wish} overlaps mapping ${this.#names.get(at) ?? hex64(at)}`, 'EEXIST', {
          overlaps: this.#names.get(at),
          at: hex64(at),
        });
      case 'EADDRNOTAVAIL':
        return refused(
          name,
          `${wish} runs into ${below4G && at === 1n << 32n ? 'the 4 GiB limit' : describeAddress(this.aperture, at)}`,
          'EADDRNOTAVAIL',
          {
            at: hex64(at),
          },
        );
      case 'EOVERFLOW':
        return refused(name, 'the addresses wrap around 2^64', 'EOVERFLOW');
      case 'EINVAL':
        return new VioError(
          `mapping ${name}: ${hex64(iova ?? 0n)} is not aligned to a page of ${formatSize(this.aperture.pages[0]!)} or to align=`,
          {
            code: 'USAGE',
            exit: Exit.usage,
          },
        );
      default: {
        const { free, largest } = this.#room(below4G);
        const where = below4G ? 'below 4 GiB' : "in the IOMMU's addresses";
        const why = `${formatSize(size)} do not fit ${where}: ${formatSize(free)} are free, ${formatSize(largest)} in one piece`;
        return refused(name, why, 'ENOSPC', { size: exact(size), free: exact(free), largest: exact(largest) });
      }
    }
  }

  /** Free bytes, and the longest run of them, where a mapping may lie. */
  #room(below4G: boolean): { free: bigint; largest: bigint } {
    if (!below4G) return this.space.measure();
    const page = this.aperture.pages[0]!;
    const end = Number((1n << 32n) / page);
    const runs = this.#holes().map((hole) => Math.max(0, Math.min(hole.end, end) - hole.start));
    return { free: BigInt(runs.reduce((sum, run) => sum + run, 0)) * page, largest: BigInt(Math.max(0, ...runs)) * page };
  }
}

const limitHint = 'fewer and larger mappings, or the parameter dma_entry_limit of vfio_iommu_type1';

/** A mapping and its size in bytes. */
interface Wanted {
  spec: MapSpec;
  size: bigint;
}

/** The alignment that a mapping must have; undefined for none but the page's. */
const alignOf = ({ align, huge }: MapSpec): bigint | undefined => (align === undefined || (huge ?? 0n) > align ? huge : align);

/** The largest page that a mapping fills. */
const largestPage = (pages: readonly bigint[], size: bigint): bigint => pages.findLast((page) => page <= size) ?? pages[0]!;

/**
 * The most constrained first, in an order that the list does not decide: fixed addresses, below 4 GiB, anywhere, temporary
 * ones; in each class by alignment, size and name.
 */
function placingOrder(wanted: readonly Wanted[], pages: readonly bigint[]): Wanted[] {
  const classOf = ({ iova, below4G, temporary }: MapSpec) => (iova !== undefined ? 0 : below4G ? 1 : temporary ? 3 : 2);
  const keyed = wanted.map((one) => ({ one, cls: classOf(one.spec), align: alignOf(one.spec) ?? largestPage(pages, one.size) }));
  const down = (a: bigint, b: bigint) => (a > b ? -1 : a < b ? 1 : 0);
  keyed.sort(
    (a, b) =>
      a.cls - b.cls ||
      (a.cls === 0 ? down(b.one.spec.iova!, a.one.spec.iova!) : 0) ||
      down(a.align, b.align) ||
      down(a.one.size, b.one.size) ||
      (a.one.spec.name < b.one.spec.name ? -1 : 1),
  );
  return keyed.map(({ one }) => one);
}

/** What is known about a set of mappings that found no places. */
function noLayout(failed: VioError, proven: boolean, steps: number): VioError {
  const known = proven ? 'no layout exists' : `no layout was found in ${steps} steps`;
  return new VioError(`${failed.message}; ${known}`, {
    code: failed.code,
    exit: failed.exit,
    hint: failed.hint,
    details: { ...failed.details, proven },
    cause: failed,
  });
}

/** The layout that `dma map` would choose. @throws VioError: 3 where it does not fit */
export function plan(aperture: Aperture, specs: readonly MapSpec[]): Plan {
  const layout = new Layout(aperture);
  const maps = layout.placeAll(specs);
  return {
    ranges: layout.space.ranges,
    maps,
    entries: maps.length,
    memlock: exact(maps.reduce((sum, map) => sum + map.size, 0n)),
  };
}
