import { native } from '../native/index.js';
import { MapFlag, type NativeSpace, Operation, outcomeWords, requestWords } from '../native/iova.js';

/** A run of addresses, both ends included. */
export interface Extent {
  start: bigint;
  end: bigint;
}

/** One wish for device addresses. */
export interface MapRequest {
  size: bigint;
  /** Exactly here. */
  iova?: bigint | undefined;
  /** Power of two; by size unless given: the largest page that the request fills, smaller ones if need be. */
  align?: bigint | undefined;
  /** The processor's address: indexed for findVa, and the device address keeps its huge-page phase. */
  va?: bigint | undefined;
  /** From the top, to be freed with all its like by reset(). */
  temporary?: boolean | undefined;
  /** For devices with 32-bit DMA addresses. */
  below4G?: boolean | undefined;
}

/** `error` is a positive errno, 0 for success; `at` is the address, or the start of what was in the way. */
export interface Outcome {
  error: number;
  at: bigint;
  /** map: the alignment that was kept (0 for a fixed address); unmap: bytes freed. */
  extra: bigint;
}

/** Automatic addresses stay above the first 64 KiB: a device address of 0 reads as "none" in many drivers. */
export const lowestAddress = 0x10000n;
/** Unit in which temporary mappings take address space. */
const temporaryChunk = 64n << 20n;

/** Requests for one crossing into the addon. */
export class Batch {
  #words: BigUint64Array;
  count = 0;

  constructor(capacity = 16) {
    this.#words = new BigUint64Array(capacity * requestWords);
  }

  map(request: MapRequest): this {
    const flags =
      (request.iova === undefined ? 0n : MapFlag.fixed) |
      (request.temporary ? MapFlag.temporary : 0n) |
      (request.below4G ? MapFlag.below4G : 0n) |
      (request.va === undefined ? 0n : MapFlag.hasVa);
    return this.#add(Operation.map, request.va ?? 0n, request.size, request.iova ?? 0n, request.align ?? 0n, flags);
  }
  unmap(iova: bigint): this {
    return this.#add(Operation.unmap, 0n, 0n, iova);
  }
  findVa(va: bigint, size: bigint): this {
    return this.#add(Operation.findVa, va, size);
  }
  findIova(iova: bigint, size: bigint): this {
    return this.#add(Operation.findIova, 0n, size, iova);
  }
  reset(): this {
    return this.#add(Operation.reset);
  }

  words(): BigUint64Array {
    return this.#words.subarray(0, this.count * requestWords);
  }

  #add(...words: bigint[]): this {
    const at = this.count++ * requestWords;
    if (at === this.#words.length) {
      const grown = new BigUint64Array(at * 2);
      grown.set(this.#words);
      this.#words = grown;
    }
    for (let i = 0; i < requestWords; i++) this.#words[at + i] = words[i] ?? 0n;
    return this;
  }
}

/** The device addresses of one IOMMU domain: what is free, and which mapping has what. Deterministic: same requests, same addresses. */
export class IovaSpace {
  readonly #space: NativeSpace;

  /**
   * @param ranges what the IOMMU allows
   * @param pages page sizes, ascending
   * @throws the addon's EINVAL for page sizes that are none
   */
  constructor(ranges: readonly Extent[], pages: readonly bigint[], options: { floor?: bigint; chunk?: bigint } = {}) {
    const words = BigUint64Array.from(ranges.flatMap(({ start, end }) => [start, end]));
    this.#space = native().iova.create(words, BigUint64Array.from(pages), options.floor ?? lowestAddress, options.chunk ?? temporaryChunk);
  }

  /** Does a batch in one crossing; outcomes in the order of the requests. */
  run(batch: Batch): Outcome[] {
    const outcomes = new BigUint64Array(batch.count * outcomeWords);
    native().iova.run(this.#space, batch.words(), outcomes);
    return Array.from({ length: batch.count }, (_, i) => ({
      error: Number(outcomes[i * outcomeWords]),
      at: outcomes[i * outcomeWords + 1]!,
      extra: outcomes[i * outcomeWords + 2]!,
    }));
  }

  map(request: MapRequest): Outcome {
    return this.run(new Batch(1).map(request))[0]!;
  }
  unmap(iova: bigint): Outcome {
    return this.run(new Batch(1).unmap(iova))[0]!;
  }

  /** The allowed ranges, cut to whole pages, sorted and joined. */
  get ranges(): Extent[] {
    const words = native().iova.ranges(this.#space);
    return Array.from({ length: words.length / 2 }, (_, i) => ({ start: words[2 * i]!, end: words[2 * i + 1]! }));
  }

  /** Every mapping, the persistent ones first, each class by address. */
  get mappings(): { iova: bigint; size: bigint; va: bigint | undefined; temporary: boolean }[] {
    const words = native().iova.mappings(this.#space);
    return Array.from({ length: words.length / 4 }, (_, i) => ({
      iova: words[4 * i]!,
      size: words[4 * i + 1]!,
      va: words[4 * i + 3]! & MapFlag.hasVa ? words[4 * i + 2]! : undefined,
      temporary: (words[4 * i + 3]! & MapFlag.temporary) !== 0n,
    }));
  }

  /** Counts and bytes: mappings, of these temporary, free space, longest free run. */
  measure(): { mappings: number; temporary: number; bytes: bigint; free: bigint; largest: bigint } {
    const [mappings, bytes, temporary, free, largest] = native().iova.measure(this.#space);
    return { mappings: Number(mappings), temporary: Number(temporary), bytes: bytes!, free: free!, largest: largest! };
  }
}
