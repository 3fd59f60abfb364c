declare const spaceBrand: unique symbol;
/** An address space of native/iova; freed with its last reference. */
export interface NativeSpace {
  readonly [spaceBrand]: true;
}

// The numbers of this file are generated for C++: native/iova/shared.h.

/** Words of one request: operation, va, size, iova, align, flags. */
export const requestWords = 6;
/** Words of one outcome: errno (0 = done), address, alignment (map) or size (unmap). */
export const outcomeWords = 3;

/** What a request asks for. Unmap and findIova read `iova`, findVa reads `va`, both finds read `size`. */
export const Operation = { map: 0n, unmap: 1n, findVa: 2n, findIova: 3n, reset: 4n } as const;

/**
 * Flags of a map request. fixed: at request.iova or not at all. temporary: from the top, freed together by reset. below4G: for
 * devices with 32-bit DMA addresses. hasVa: request.va is an address to be found by findVa; it decides the huge-page phase.
 */
export const MapFlag = { fixed: 1n, temporary: 2n, below4G: 4n, hasVa: 8n } as const;

/** native/iova */
export interface IovaNative {
  /**
   * A new address space.
   * @param ranges pairs of first and last address that the IOMMU allows
   * @param pages page sizes, ascending powers of two, at most four
   * @param floor lowest automatic address
   * @param chunk unit in which temporary mappings take address space
   */
  create(ranges: BigUint64Array, pages: BigUint64Array, floor: bigint, chunk: bigint): NativeSpace;
  /** Does a batch of requests in order; errors are in the outcomes. @returns how many there were */
  run(space: NativeSpace, requests: BigUint64Array, outcomes: BigUint64Array): number;
  /** The allowed ranges as cut to whole pages: pairs of first and last address. */
  ranges(space: NativeSpace): BigUint64Array;
  /** All mappings: iova, size, va, flags each. */
  mappings(space: NativeSpace): BigUint64Array;
  /** Mappings, their bytes, temporary ones, free bytes, longest free run. */
  measure(space: NativeSpace): BigUint64Array;
}

export const iovaExports = ['create', 'run', 'ranges', 'mappings', 'measure'] as const satisfies (keyof IovaNative)[];
