/** Where do the bytes of a stream go? */

import type { Input } from '../containers/input.js';
import type { Missing } from '../memory/missing.js';
import type { Issue } from '../stream/issues.js';
import { pagesOf, type RamBlock } from '../stream/model.js';
import { Walker } from '../walk.js';
import { collect } from './dump.js';

/** Bytes of one section over all its parts. */
export interface SectionBytes {
  name: string;
  instance: number;
  bytes: number;
  parts: number;
  /** of the whole stream, in percent */
  share: number;
}

export interface BlockPages {
  name: string;
  length: bigint;
  pages: number;
  zero: number;
  normal: number;
  xbzrle: number;
  compressed: number;
  resent: number;
  /** pages with content that no other page of the walk has; only with duplicates asked for */
  distinct?: number;
}

export interface Statistics {
  /** machine type */
  machine?: string;
  /** bytes of the stream */
  size: number;
  /** bytes of each section */
  sections: SectionBytes[];
  /** pages of each RAM block, by kind */
  blocks: BlockPages[];
  /** bytes of the description and of other records */
  other: number;
  /** the stream has everything that QEMU needs */
  complete: boolean;
  /** pages that the stream does not give, and why */
  missing?: Missing[];
  /** what is wrong with the stream */
  issues: Issue[];
}

/** Distinct pages of each block, by the hashes of their contents: the first block that has a content counts it. */
function distinct(walker: Walker, blocks: readonly RamBlock[]): number[] {
  const seen = new Set<bigint>();
  return blocks.map((_, i) => {
    const before = seen.size;
    for (const hash of walker.ram!.hashes(i)) if (hash !== 0n) seen.add(hash);
    return seen.size - before;
  });
}

/** Counts a stream. @param duplicates hash every page: reads all of it, and 64 MB of memory hold 4 M pages */
export async function statistics(input: Input, duplicates: boolean, tick: (position: number) => void): Promise<Statistics> {
  const walker = new Walker(input.reader, { issues: input.issues, ram: { hash: duplicates, bitmapOrder: input.bitmapOrder } });
  const start = input.reader.position;
  const dump = await collect(input, walker, () => true, false, tick);
  const size = dump.records.reduce((n, r) => Math.max(n, Number(r.offset) + ('size' in r ? r.size : 1)), start) - start;
  const sections = new Map<string, SectionBytes>();
  for (const r of dump.records) {
    if (r.type !== 'section') continue;
    const key = `${r.instance} ${r.name}`;
    const before = sections.get(key) ?? { name: r.name, instance: r.instance, bytes: 0, parts: 0, share: 0 };
    sections.set(key, { ...before, bytes: before.bytes + r.size, parts: before.parts + 1 });
  }
  const list = [...sections.values()].sort((a, b) => b.bytes - a.bytes);
  const blocks = dump.ram?.blocks ?? [];
  const own = duplicates && walker.ram ? distinct(walker, blocks) : undefined;
  return {
    ...(dump.configuration && { machine: dump.configuration.machine }),
    size,
    sections: list.map((s) => ({ ...s, share: Math.round((s.bytes / size) * 10000) / 100 })),
    blocks: blocks.map((b, i) => {
      const { zero, normal, xbzrle, compressed, resent } = b.state;
      const pages = pagesOf(b, dump.ram!.pageSize);
      return { name: b.name, length: b.length, pages, zero, normal, xbzrle, compressed, resent, ...(own && { distinct: own[i]! }) };
    }),
    other: size - list.reduce((n, s) => n + s.bytes, 0),
    complete: dump.complete,
    ...(dump.missing && { missing: dump.missing }),
    issues: dump.issues,
  };
}
