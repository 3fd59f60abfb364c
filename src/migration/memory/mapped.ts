/** mapped-ram: blocks whose pages lie at fixed places of the file, with a bitmap of those that have content. */
import { hex64 } from '../../common/units.js';
import { native } from '../../native/index.js';
import type { NativeRam } from '../../native/migration.js';
import { type Issue, report } from '../stream/issues.js';
import type { RamBlock, WalkEvent } from '../stream/model.js';
import { endText, type StreamReader } from '../stream/reader.js';
import { BitmapOrder } from './bitmap-order.js';
import type { RamOptions } from './options.js';

const truncated = (offset: number | bigint, message: string, more: Partial<Issue> = {}): WalkEvent =>
  report('error', 'truncated-ram', offset, 'ram', message, more);

/** Reads the blocks of a mapped-ram section for the section that lists them. */
export class MappedRam {
  readonly #ram: NativeRam;
  readonly #options: RamOptions;
  readonly #section: { issues(): Generator<WalkEvent>; extract(): void };
  readonly #order: BitmapOrder;

  /** @param section what the section does: yields what the addon has noted, says where pages go */
  constructor(ram: NativeRam, options: RamOptions, section: { issues(): Generator<WalkEvent>; extract(): void }) {
    this.#ram = ram;
    this.#options = options;
    this.#section = section;
    this.#order = new BitmapOrder(options.bitmapOrder, options.pageSize);
  }

  /**
   * Header, bitmap and pages of a mapped-ram block; the position is then behind its pages.
   * @param left bytes of the blocks that follow
   * @returns why the next block cannot be reached, if it cannot
   */
  *block(reader: StreamReader, block: RamBlock, index: number, left: bigint): Generator<WalkEvent, 'bad' | 'end' | undefined> {
    const at = reader.position;
    const path = `ram/${block.name}`;
    const wrong = (message: string, expected: string, found: string, more: Partial<Issue> = {}): WalkEvent =>
      report('error', 'mapped-ram', at, path, message, { expected, found, ...more });
    const version = reader.be32('mapped-ram version');
    const pageSize = reader.be64('mapped-ram page size');
    const bitmapOffset = reader.be64('mapped-ram bitmap offset');
    const pagesOffset = reader.be64('mapped-ram pages offset');
    if (version === 1 && bitmapOffset === 0n && pagesOffset === 0n) {
      block.shared = true;
      return undefined;
    }
    const page = BigInt(this.#options.pageSize);
    const behind = BigInt(reader.position);
    const bitmapEnd = bitmapOffset + (((block.length + page - 1n) / page + 63n) / 64n) * 8n;
    const end = reader.seekable ? BigInt(reader.size) : 1n << 62n;
    if (version !== 1 || pageSize !== page) {
      // Only this block cannot be read if the next one is where this one says.
      const passed = pagesOffset % page === 0n && pagesOffset >= behind && this.#entryAt(reader, pagesOffset + block.length, left);
      const more = passed ? { recovered: 'block left out' } : {};
      if (version !== 1) yield wrong('mapped-ram header version', '1', String(version), more);
      else yield wrong('mapped-ram page size', hex64(page), hex64(pageSize), more);
      return passed ? undefined : 'bad';
    }
    if (bitmapOffset < behind || pagesOffset < bitmapEnd || pagesOffset % page !== 0n) {
      yield wrong(
        'mapped-ram regions overlap or are not aligned',
        `bitmap behind ${hex64(behind)}, pages behind the bitmap, page aligned`,
        `bitmap ${hex64(bitmapOffset)}..${hex64(bitmapEnd)}, pages ${hex64(pagesOffset)}`,
      );
      return 'bad';
    }
    // QEMU puts the bitmap behind the header and aligns the pages to 1 MiB: what lies further off is no cut file.
    if ((bitmapEnd > end || pagesOffset > end) && (bitmapOffset > behind || pagesOffset - bitmapEnd >= 1n << 20n)) {
      yield wrong('mapped-ram regions lie behind the end of the file', `at most ${hex64(end)}`, `pages at ${hex64(pagesOffset)}`);
      return 'bad';
    }
    block.bitmapOffset = bitmapOffset;
    block.pagesOffset = pagesOffset;
    reader.skip(bitmapOffset - behind, 'gap before the bitmap');
    // The pages of a pipe tell only as they go by: both readings are followed until then.
    const either = !this.#order.order && !reader.seekable && (this.#options.hash || this.#options.onBlocks !== undefined);
    if (!either) yield* this.#order.tell(reader, block);
    if (!native().migration.readBitmap(this.#ram, reader.source, index, either ? 'either' : (this.#order.order ?? 'little'))) {
      native().migration.cutMapped(this.#ram, index, 0);
      yield truncated(reader.position, `bitmap of ${block.name}: ${endText(reader.ended())}`, {
        expected: `${bitmapEnd - bitmapOffset} bytes`,
        found: String(BigInt(reader.position) - bitmapOffset),
      });
      return 'end';
    }
    yield* this.#section.issues();
    if (!reader.seekable) {
      // A pipe passes by once: its pages are taken now, each block knowing where it goes.
      this.#section.extract();
      yield* this.pages(reader, block, index, false);
    }
    if (either) {
      const order = native().migration.settleBitmap(this.#ram, index);
      if (order !== 'either') this.#order.order = order;
      if (order === 'big') yield this.#order.note(block);
      yield* this.#section.issues();
    }
    const next = pagesOffset + block.length;
    let there = next;
    if (reader.seekable && next > end) there = end;
    else if (reader.seekable) reader.seek(Number(next));
    else if (reader.position < Number(next)) there = BigInt(reader.position + reader.skipUpTo(Number(next) - reader.position));
    if (there === next) return undefined;
    native().migration.cutMapped(this.#ram, index, Math.max(0, Number(there - pagesOffset)));
    yield truncated(there, `pages of ${block.name}: ${endText(reader.ended())}`, {
      expected: `${block.length} bytes`,
      found: `${there > pagesOffset ? there - pagesOffset : 0n}`,
    });
    if (reader.seekable) reader.seek(Number(end));
    return 'end';
  }

  /** Goes to where a block's entry, or behind the last one the EOS word, is; stays where there is none. */
  #entryAt(reader: StreamReader, at: bigint, left: bigint): boolean {
    if (!reader.seekable || at >= BigInt(reader.size)) return false;
    const back = reader.position;
    reader.seek(Number(at));
    const next = reader.peek(1 + 255 + 8);
    const name = next[0] ?? 0;
    const fits =
      left === 0n
        ? next.length >= 8 && next.readBigUInt64BE() === 0x10n
        : name > 0 && next.length >= 9 + name && next.readBigUInt64BE(1 + name) <= left;
    if (!fits) reader.seek(back);
    return fits;
  }

  /** Extracts and hashes the pages of a block. @param tell report where the pages end too early */
  *pages(reader: StreamReader, block: RamBlock, index: number, tell: boolean): Generator<WalkEvent> {
    if (block.pagesOffset === undefined) return;
    if (!this.#options.hash && !this.#options.onBlocks) return;
    let from = 0;
    const pages = Number(block.length) / this.#options.pageSize;
    while (from < pages) {
      const step = native().migration.mappedPages(
        this.#ram,
        reader.source,
        index,
        Number(block.pagesOffset),
        from,
        reader.budget,
        reader.fileFd,
      );
      if (step.ended) {
        if (tell) yield truncated(step.record, `pages of ${block.name} are cut off at page ${hex64(from * this.#options.pageSize)}`);
        return;
      }
      from = step.next;
      yield { type: 'progress', position: Number(block.pagesOffset) + Math.min(from, pages) * this.#options.pageSize };
    }
  }
}
