/** What of the guest's memory goes where in the output. */
import fs from 'node:fs';
import { usage } from '../../common/errors.js';
import { trimZeros } from '../devices/cursor.js';
import { blockIndex, clip, type Facts, type Layout, type LayoutOptions, type PhysicalRange, physicalLayout } from '../memory/layout.js';
import type { Placement } from '../memory/options.js';
import type { RamBlock } from '../stream/model.js';
import type { Plan } from './core.js';
import { memoryStart } from './elf.js';

export type Format = 'raw' | 'sparse' | 'elf' | 'lime';

export interface ExtractOptions extends LayoutOptions {
  as: Format;
  /** one block, by name; otherwise guest-physical memory */
  block?: string;
  /** machine type, in place of the one that the stream names */
  machine?: string;
  /** first byte (address or offset in the block) and number of bytes */
  at?: bigint;
  length?: bigint;
  force?: boolean;
}

/** Bytes of the header of a LiME range. */
export const limeBytes = 32;

/** Where each range goes in a file of this format. @param at first address of an image */
export function plan(as: Format, ranges: PhysicalRange[], at: bigint): Plan {
  if (as === 'elf') {
    let next = memoryStart(ranges.length);
    const offsets = ranges.map((r) => {
      const offset = next;
      next += (r.length + 4095n) & ~4095n;
      return offset;
    });
    return { ranges, offsets, size: next };
  }
  if (as === 'lime') {
    let next = 0n;
    const offsets = ranges.map((r) => {
      const offset = next + BigInt(limeBytes);
      next = offset + r.length;
      return offset;
    });
    return { ranges, offsets, size: next };
  }
  const offsets = ranges.map((r) => r.gpa - at);
  return { ranges, offsets, size: ranges.reduce((n, r) => (r.gpa + r.length - at > n ? r.gpa + r.length - at : n), 0n) };
}

/** The same as places of blocks. */
export const placementsOf = ({ ranges, offsets }: Plan): Placement[] =>
  ranges.map((r, i) => ({ block: r.block, from: r.from, to: r.from + r.length, out: offsets[i]! }));

/** Copies a part of a file; what is zero becomes a hole of a file that has nothing there yet. */
export function copySparse(from: number, at: bigint, to: number, out: bigint, length: bigint): void {
  const bytes = Buffer.alloc(1 << 20);
  for (let done = 0n; done < length; ) {
    const size = Number(length - done < BigInt(bytes.length) ? length - done : BigInt(bytes.length));
    const got = fs.readSync(from, bytes, 0, size, Number(at + done));
    if (got === 0) return;
    const pages = Array.from({ length: Math.ceil(got / page) }, (_, i) =>
      trimZeros(bytes.subarray(i * page, Math.min(got, (i + 1) * page))),
    );
    for (let first = 0; first < pages.length; first++) {
      if (pages[first]!.length === 0) continue;
      let end = first + 1;
      while (end < pages.length && pages[end]!.length > 0) end++;
      const stop = Math.min(got, end * page);
      for (let put = first * page; put < stop; ) put += fs.writeSync(to, bytes, put, stop - put, Number(out + done) + put);
      first = end;
    }
    done += BigInt(got);
  }
}

/** What is compared with zeros at once; the block of most file systems. */
export const page = 4096;

/** Header of a LiME range (version 1): magic, version, first and last address. */
export function limeHeader(range: PhysicalRange): Buffer {
  const out = Buffer.alloc(limeBytes);
  out.writeUInt32LE(0x4c694d45, 0);
  out.writeUInt32LE(1, 4);
  out.writeBigUInt64LE(range.gpa, 8);
  out.writeBigUInt64LE(range.gpa + range.length - 1n, 16);
  return out;
}

/** Ranges that the options ask for, and blocks of the guest's memory that are in none. @throws VioError */
export function wanted(facts: Facts, blocks: readonly RamBlock[], options: ExtractOptions): Layout {
  const { block, at = 0n, length } = options;
  const layout =
    block === undefined
      ? physicalLayout(facts, blocks, options)
      : {
          ranges: [{ gpa: 0n, length: blocks[blockIndex(blocks, block)]!.length, block: blockIndex(blocks, block), from: 0n }],
          unplaced: [],
        };
  const ranges = clip(layout.ranges, at, length);
  if (ranges.length === 0) throw usage('no memory in the range that was asked for');
  // Nothing is left out of a window that is full.
  const full = length !== undefined && ranges.reduce((n, r) => n + r.length, 0n) === length;
  return { ranges, unplaced: full ? [] : layout.unplaced };
}
