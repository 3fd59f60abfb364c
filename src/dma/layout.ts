import fs from 'node:fs';
import { VioError, wrap } from '../common/errors.js';
import { formatSize, hex64 } from '../common/units.js';
import { type Aperture, describeAddress } from './aperture.js';
import { Errno, type Extent, IovaSpace } from './space.js';
import { type MapSpec, refused } from './spec.js';

/** Where a mapping goes. */
export interface Placement {
  name: string;
  iova: bigint;
  size: number;
  /** The largest page of the IOMMU that address and size allow. */
  pageSize: number;
}

/** The document of `dma plan`. */
export interface Plan {
  ranges: Extent[];
  maps: Placement[];
  /** DMA mappings that the kernel will count. */
  entries: number;
  /** Bytes that count against RLIMIT_MEMLOCK: each mapping in full, also where two map the same memory. */
  memlock: number;
}

/** Bytes of a mapping, files rounded up to whole pages. @throws VioError */
export function sizeOf(spec: MapSpec, page: bigint): bigint {
  const unit = spec.huge !== undefined && spec.huge > page ? spec.huge : page;
  if (spec.size !== undefined) {
    if (spec.size % unit !== 0n)
      throw new VioError(`mapping ${spec.name}: ${spec.size} is not a multiple of ${formatSize(unit)}`, {
        code: 'USAGE',
        exit: 2,
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

  /** Gives a mapping its address. @param size from sizeOf() @throws VioError (3) that names what is in the way */
  place(spec: MapSpec, size: bigint): Placement {
    const { name } = spec;
    const align = [spec.align, spec.huge].reduce((a, b) => (a === undefined || (b !== undefined && b > a) ? b : a), undefined);
    if (this.#names.size >= this.aperture.limit)
      throw refused(
        name,
        `${this.aperture.limit} mappings are the limit of a container`,
        'ENOSPC',
        { limit: this.aperture.limit },
        limitHint,
      );
    const outcome = this.space.map({ size, align, iova: spec.iova, below4G: spec.below4G, temporary: spec.temporary });
    if (outcome.error === 0) {
      this.#names.set(outcome.at, name);
      return { name, iova: outcome.at, size: Number(size), pageSize: this.#pageOf(outcome.at, size) };
    }
    throw this.#failure(spec, size, outcome.error, outcome.at);
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
    switch (error) {
      case Errno.EEXIST:
        return refused(name, `${wish} overlaps mapping ${this.#names.get(at) ?? hex64(at)}`, 'EEXIST', {
          overlaps: this.#names.get(at),
          at: hex64(at),
        });
      case Errno.EADDRNOTAVAIL:
        return refused(
          name,
          `${wish} runs into ${below4G && at === 1n << 32n ? 'the 4 GiB limit' : describeAddress(this.aperture, at)}`,
          'EADDRNOTAVAIL',
          {
            at: hex64(at),
          },
        );
      case Errno.EOVERFLOW:
        return refused(name, 'the addresses wrap around 2^64', 'EOVERFLOW');
      case Errno.EINVAL:
        return new VioError(
          `mapping ${name}: ${hex64(iova ?? 0n)} is not aligned to a page of ${formatSize(this.aperture.pages[0]!)} or to align=`,
          {
            code: 'USAGE',
            exit: 2,
          },
        );
      default: {
        const { free, largest } = this.space.measure();
        const where = below4G ? 'below 4 GiB' : "in the IOMMU's addresses";
        const why = `${formatSize(size)} do not fit ${where}: ${formatSize(free)} are free, ${formatSize(largest)} in one piece`;
        return refused(name, why, 'ENOSPC', { size: Number(size), free: Number(free), largest: Number(largest) });
      }
    }
  }
}

const limitHint = 'fewer and larger mappings, or the parameter dma_entry_limit of vfio_iommu_type1';

/** Fixed addresses first, then the rest in the given order: an automatic address never takes a fixed one's place. */
export function placingOrder(specs: readonly MapSpec[]): MapSpec[] {
  return [...specs.filter((s) => s.iova !== undefined), ...specs.filter((s) => s.iova === undefined)];
}

/** The layout that `dma map` would choose. @throws VioError: 3 where it does not fit */
export function plan(aperture: Aperture, specs: readonly MapSpec[]): Plan {
  const layout = new Layout(aperture);
  const placed = new Map(placingOrder(specs).map((spec) => [spec.name, layout.place(spec, sizeOf(spec, aperture.pages[0]!))]));
  const maps = specs.map((spec) => placed.get(spec.name)!);
  return {
    ranges: layout.space.ranges,
    maps,
    entries: maps.length,
    memlock: maps.reduce((sum, map) => sum + map.size, 0),
  };
}
