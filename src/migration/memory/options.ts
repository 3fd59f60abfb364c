/** How a walk treats RAM pages. */
import type { RamBlock } from '../stream/model.js';
import type { ByteOrder } from './bitmap-order.js';

/** A run of guest-physical memory and the block bytes that are there. */
export interface PhysicalRange {
  gpa: bigint;
  length: bigint;
  /** index of the block */
  block: number;
  /** first byte in the block */
  from: bigint;
}

/** Where extracted pages go: byte ranges of blocks, by index, at offsets of a file. */
export interface Placement {
  block: number;
  from: bigint;
  to: bigint;
  out: bigint;
}

export interface RamOptions {
  pageSize: number;
  /** from the configuration */
  capabilities: readonly string[];
  /** inflate compressed pages to check them */
  check?: boolean;
  /** hash every page */
  hash?: boolean;
  seed?: bigint;
  /** byte order of the words of mapped-ram bitmaps, where the file shall not tell */
  bitmapOrder?: ByteOrder | undefined;
  /** bytes for the notes of which page came, in place of the usual 24 MiB (tests) */
  pageMaps?: number;
  /** Called when the block list is known; what it returns is where pages go. */
  onBlocks?: (blocks: readonly RamBlock[]) => { fd: number; placements: Placement[] } | undefined;
}
