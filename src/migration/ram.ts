/** The `ram` section: block list, page records (natively), mapped-ram regions. */
import { native } from '../native/index.js';
import { type NativeRam, type RamFault, type RamIssue, ramFaults } from '../native/migration.js';
import { limits, ramFlagNames } from './format.js';
import { type Issue, report } from './issues.js';
import type { Detail, RamBlock, WalkEvent } from './model.js';
import { endCode, endText, StreamEnd, type StreamReader } from './reader.js';

/** Where extracted pages go: byte ranges of blocks, by index, at offsets of a file. */
export interface Placement {
  block: number;
  from: bigint;
  to: bigint;
  out: bigint;
}

/** Byte order of the host that wrote a mapped-ram file: nothing in the file says it. */
export type ByteOrder = 'little' | 'big';

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

/** Bytes walked between two progress events: of a file, which is fast, and of a pipe, which may be a slow network. */
const BUDGET = 128 << 20;
const PIPE_BUDGET = 8 << 20;

const addr = (value: bigint | number): string => `0x${value.toString(16)}`;

/** Message of each fault, with what was expected and found. */
const faultTexts: Record<RamFault, (i: RamIssue) => Pick<Issue, 'message'> & Partial<Issue>> = {
  flags: (i) => ({
    message: `impossible flags in a page record`,
    expected: 'one of ZERO, PAGE, XBZRLE, COMPRESS_PAGE, EOS, MEM_SIZE, MULTIFD_FLUSH',
    found: `${ramFlagNames(Number(i.value & 0xfffn))} (${addr(i.value)})`,
  }),
  'no-block': () => ({ message: 'CONTINUE before any block name', expected: 'a block name', found: 'CONTINUE' }),
  'unknown-block': (i) => ({ message: `page ${addr(i.page)} of a block that the list does not have`, recovered: 'page dropped' }),
  outside: (i) => ({ message: `page ${addr(i.value)} lies behind the end of its block`, recovered: 'page dropped' }),
  fill: (i) => ({ severity: 'warning', message: `page ${addr(i.page)} is filled with ${addr(i.value)}, not 0 (very old QEMU)` }),
  'xbzrle-header': (i) => ({
    message: `page ${addr(i.page)}: XBZRLE header`,
    expected: 'encoding 1 and a length up to the page size',
    found: `encoding ${Number(i.value >> 16n)}, length ${Number(i.value & 0xffffn)}`,
  }),
  xbzrle: (i) => ({ message: `page ${addr(i.page)}: XBZRLE runs do not fit the page`, recovered: 'page undecodable, others kept' }),
  'xbzrle-base': (i) => ({
    message: `page ${addr(i.page)}: XBZRLE delta to a page that was never sent`,
    recovered: 'page undecodable, others kept',
  }),
  'spare-bits': (i) => ({
    message: 'the bitmap has bits behind the last page: another byte order (--bitmap-endian), or damage',
    expected: 'none',
    found: `${i.value}`,
    recovered: 'bits dropped',
  }),
  untracked: () => ({
    message: 'more of its pages are scattered than this program can follow',
    recovered: 'pages left out',
  }),
  order: () => ({
    message: 'the bitmap is of a big-endian host, which showed behind more pages than can be kept: give --bitmap-endian big',
    recovered: 'read so as far as there is room',
  }),
  'zlib-length': (i) => ({ message: `page ${addr(i.page)}: compressed length ${i.value}`, expected: 'at most the bound of one page' }),
  zlib: (i) => ({
    message: `page ${addr(i.page)}: zlib data does not make one page`,
    found: `${i.value} bytes`,
    recovered: 'page undecodable, others kept',
  }),
};

/** What ended a part of the section other than its EOS. */
export type RamEnd = 'eos' | 'bad' | 'end';

/** State of the `ram` section over all its parts. */
export class RamSection {
  readonly blocks: RamBlock[] = [];
  readonly options: RamOptions;
  readonly ram: NativeRam;
  /** total of MEM_SIZE */
  total: bigint | undefined;
  /** true if the pages lie in mapped-ram regions */
  readonly mapped: boolean;
  #order: ByteOrder | undefined;
  /** the order was given, and pages have been looked at that speak for or against it */
  #compared = false;
  #lost = 0;

  constructor(options: RamOptions) {
    this.options = options;
    this.mapped = options.capabilities.includes('mapped-ram');
    this.#order = options.bitmapOrder;
    this.ram = native().migration.newRam({
      pageSize: options.pageSize,
      check: options.check ?? false,
      hash: options.hash ?? false,
      ...(options.seed !== undefined && { seed: options.seed }),
      ...(options.pageMaps !== undefined && { pageMaps: options.pageMaps }),
    });
  }

  /** Brings the blocks' counters up to date. */
  update(): RamBlock[] {
    native()
      .migration.blockStates(this.ram)
      .forEach((state, i) => {
        this.blocks[i]!.state = state;
      });
    return this.blocks;
  }

  /** Hash of each page's last content: 0 zeros, 2 not known (XBZRLE). */
  hashes(block: number): BigUint64Array {
    return native().migration.pageHashes(this.ram, block);
  }

  /** The counters summed over all blocks. */
  totals(): Detail {
    const blocks = this.update();
    const sum = (of: (b: RamBlock) => number) => blocks.reduce((n, b) => n + of(b), 0);
    return {
      zero: sum((b) => b.state.zero),
      normal: sum((b) => b.state.normal),
      xbzrle: sum((b) => b.state.xbzrle),
      compressed: sum((b) => b.state.compressed),
      resent: sum((b) => b.state.resent),
    };
  }

  /** Walks one part. Returns how it ended. @throws StreamEnd inside the block list */
  *part(reader: StreamReader, postcopySizes: bigint): Generator<WalkEvent, RamEnd> {
    const budget = reader.seekable ? BUDGET : PIPE_BUDGET;
    for (;;) {
      const step = native().migration.stepRam(this.ram, reader.source, budget);
      yield* this.#issues();
      switch (step.stop) {
        case 'eos':
          return 'eos';
        case 'budget':
          yield { type: 'progress', position: step.position };
          break;
        case 'memSize': {
          const end = yield* this.#blockList(reader, step.value, step.record, postcopySizes);
          if (end) return end;
          break;
        }
        case 'bad':
          return 'bad';
        case 'end': {
          const name = this.blocks[step.block]?.name ?? '?';
          const short = step.page > 0n || step.position > step.record + 8;
          const ended = reader.ended();
          const end = endText(ended);
          yield this.#issue(
            endCode(ended, 'truncated-ram'),
            step.record,
            short
              ? `${name} page ${addr(step.page)}: the record has ${this.#had(reader, step.record)} bytes, then ${end}`
              : `in the RAM section ${end}`,
            { expected: short ? `a record with a page of ${this.options.pageSize} bytes` : 'a page record or EOS' },
          );
          return 'end';
        }
      }
    }
  }

  #had(reader: StreamReader, record: number): number {
    const rest = reader.peek(128 << 10).length;
    return reader.position + rest - record;
  }

  *#issues(): Generator<WalkEvent> {
    const { issues, lost } = native().migration.ramIssues(this.ram);
    for (const issue of issues) {
      const fault = ramFaults[issue.fault]!;
      const path = `ram/${this.blocks[issue.block]?.name ?? '?'}`;
      yield {
        type: 'issue',
        issue: { severity: 'error', code: `ram-${fault}`, offset: BigInt(issue.offset), path, ...faultTexts[fault](issue) },
      };
    }
    if (lost > this.#lost) {
      yield this.#issue('ram-more', issues.at(-1)?.offset ?? 0, `${lost - this.#lost} more page records with errors`);
      this.#lost = lost;
    }
  }

  #issue(code: string, offset: number | bigint, message: string, more: Partial<Issue> = {}): WalkEvent {
    return report('error', code, offset, 'ram', message, more);
  }

  /** The list behind MEM_SIZE. Returns how it ended the part, if it did: the blocks before are extracted all the same. */
  *#blockList(reader: StreamReader, total: bigint, at: number, postcopySizes: bigint): Generator<WalkEvent, 'bad' | 'end' | undefined> {
    if (this.total !== undefined) {
      yield this.#issue('ram-second-list', at, 'a second block list');
      return 'bad';
    }
    this.total = total;
    let end: 'bad' | 'end' | undefined;
    let cut: StreamEnd | undefined;
    try {
      end = yield* this.#listed(reader, total, postcopySizes);
    } catch (err) {
      if (!(err instanceof StreamEnd)) throw err;
      cut = err;
    }
    // Through a pipe the pages of mapped-ram came with the list.
    if (this.blocks.length > 0 && (!this.mapped || reader.seekable)) this.#extract();
    if (this.mapped && reader.seekable) {
      const after = reader.position;
      for (const [index, block] of this.blocks.entries()) yield* this.#mappedPages(reader, block, index, true);
      reader.seek(after);
    }
    if (cut) throw cut;
    return end;
  }

  *#listed(reader: StreamReader, total: bigint, postcopySizes: bigint): Generator<WalkEvent, 'bad' | 'end' | undefined> {
    const shared = this.options.capabilities.includes('x-ignore-shared');
    const names = new Set<string>();
    let sum = 0n;
    while (sum < total) {
      const offset = reader.position;
      const name = reader.string8('block name');
      const length = reader.be64(`length of block ${name}`);
      if (this.blocks.length >= limits.blocks || length > total - sum) {
        yield this.#issue('ram-block-length', offset, `block ${name} is longer than what is left of the total`, {
          expected: `at most ${addr(total - sum)}`,
          found: addr(length),
        });
        return 'bad';
      }
      if (name === '' || length === 0n) yield this.#issue('ram-block-empty', offset, `block "${name}" of length ${addr(length)}`);
      if (names.has(name)) yield this.#issue('ram-block-twice', offset, `block ${name} is listed twice`);
      names.add(name);
      if (length === 0n) return 'bad';
      sum += length;
      const block: RamBlock = { name, length, state: undefined as never };
      // The page size of the backing is there only with postcopy and pages other than the usual; nothing says so but
      // the sizes that POSTCOPY_ADVISE announced.
      if (postcopySizes > 0n) {
        const next = reader.peek(8);
        const size = next.length === 8 ? next.readBigUInt64BE() : 0n;
        const usual = BigInt(Math.max(4096, this.options.pageSize));
        if (size > usual && size <= 1n << 34n && (size & (size - 1n)) === 0n && (size & postcopySizes) !== 0n) {
          block.pageSize = reader.be64('page size');
        }
      }
      if (shared) block.gpa = reader.be64(`address of block ${name}`);
      native().migration.addBlock(this.ram, name, length);
      this.blocks.push(block);
      if (!this.mapped) continue;
      const end = yield* this.#mappedBlock(reader, block, this.blocks.length - 1, total - sum);
      if (end) return end;
    }
    return undefined;
  }

  #extract(): void {
    const target = this.options.onBlocks?.(this.update());
    if (!target) return;
    const flat = target.placements.flatMap((p) => [BigInt(p.block), p.from, p.to, p.out]);
    native().migration.extractTo(this.ram, target.fd, BigInt64Array.from(flat));
  }

  /**
   * Header, bitmap and pages of a mapped-ram block; the position is then behind its pages.
   * @param left bytes of the blocks that follow
   * @returns why the next block cannot be reached, if it cannot
   */
  *#mappedBlock(reader: StreamReader, block: RamBlock, index: number, left: bigint): Generator<WalkEvent, 'bad' | 'end' | undefined> {
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
    const page = BigInt(this.options.pageSize);
    const behind = BigInt(reader.position);
    const bitmapEnd = bitmapOffset + (((block.length + page - 1n) / page + 63n) / 64n) * 8n;
    const end = reader.seekable ? BigInt(reader.size) : 1n << 62n;
    if (version !== 1 || pageSize !== page) {
      // Only this block cannot be read if the next one is where this one says.
      const passed = pagesOffset % page === 0n && pagesOffset >= behind && this.#entryAt(reader, pagesOffset + block.length, left);
      const more = passed ? { recovered: 'block left out' } : {};
      if (version !== 1) yield wrong('mapped-ram header version', '1', String(version), more);
      else yield wrong('mapped-ram page size', addr(page), addr(pageSize), more);
      return passed ? undefined : 'bad';
    }
    if (bitmapOffset < behind || pagesOffset < bitmapEnd || pagesOffset % page !== 0n) {
      yield wrong(
        'mapped-ram regions overlap or are not aligned',
        `bitmap behind ${addr(behind)}, pages behind the bitmap, page aligned`,
        `bitmap ${addr(bitmapOffset)}..${addr(bitmapEnd)}, pages ${addr(pagesOffset)}`,
      );
      return 'bad';
    }
    // QEMU puts the bitmap behind the header and aligns the pages to 1 MiB: what lies further off is no cut file.
    if ((bitmapEnd > end || pagesOffset > end) && (bitmapOffset > behind || pagesOffset - bitmapEnd >= 1n << 20n)) {
      yield wrong('mapped-ram regions lie behind the end of the file', `at most ${addr(end)}`, `pages at ${addr(pagesOffset)}`);
      return 'bad';
    }
    block.bitmapOffset = bitmapOffset;
    block.pagesOffset = pagesOffset;
    reader.skip(bitmapOffset - behind, 'gap before the bitmap');
    // The pages of a pipe tell only as they go by: both readings are followed until then.
    const either = !this.#order && !reader.seekable && (this.options.hash || this.options.onBlocks !== undefined);
    if (!either) yield* this.#tellOrder(reader, block);
    if (!native().migration.readBitmap(this.ram, reader.source, index, either ? 'either' : (this.#order ?? 'little'))) {
      native().migration.cutMapped(this.ram, index, 0);
      yield this.#issue('truncated-ram', reader.position, `bitmap of ${block.name}: ${endText(reader.ended())}`, {
        expected: `${bitmapEnd - bitmapOffset} bytes`,
        found: String(BigInt(reader.position) - bitmapOffset),
      });
      return 'end';
    }
    yield* this.#issues();
    if (!reader.seekable) {
      // A pipe passes by once: its pages are taken now, each block knowing where it goes.
      this.#extract();
      yield* this.#mappedPages(reader, block, index, false);
    }
    if (either) {
      const order = native().migration.settleBitmap(this.ram, index);
      if (order !== 'either') this.#order = order;
      if (order === 'big') yield this.#orderNote(block);
      yield* this.#issues();
    }
    const next = pagesOffset + block.length;
    let there = next;
    if (reader.seekable && next > end) there = end;
    else if (reader.seekable) reader.seek(Number(next));
    else if (reader.position < Number(next)) there = BigInt(reader.position + reader.skipUpTo(Number(next) - reader.position));
    if (there === next) return undefined;
    native().migration.cutMapped(this.ram, index, Math.max(0, Number(there - pagesOffset)));
    yield this.#issue('truncated-ram', there, `pages of ${block.name}: ${endText(reader.ended())}`, {
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

  /**
   * Finds out in which byte order the bitmap at the present position is written, unless that is known: by bits behind the
   * last page, or by the pages on which the two readings differ, since those with content are the ones whose bits are set.
   * Where nothing differs, the order does not matter. An order that was given stays, with a warning if the pages of a file
   * contradict it.
   */
  *#tellOrder(reader: StreamReader, block: RamBlock): Generator<WalkEvent> {
    const given = this.options.bitmapOrder;
    if (this.#order && (!given || this.#compared || !reader.seekable)) return;
    const at = reader.position;
    const { pageSize } = this.options;
    const pages = Math.ceil(Number(block.length) / pageSize);
    const bitmap = reader.peek(Math.min(128 << 10, Math.ceil(pages / 64) * 8));
    const filled = (page: number): boolean => {
      reader.seek(Number(block.pagesOffset) + page * pageSize);
      return reader.take(pageSize).bytes.some((b) => b !== 0);
    };
    // Pages that only one order has, of which there are as many in the other: with content, and behind the end.
    const little = { filled: 0, spare: 0, looked: 0 };
    const big = { filled: 0, spare: 0, looked: 0 };
    for (let i = 0; i < bitmap.length; i++) {
      // By whole words, in which both orders have as many.
      if (i % 8 === 0 && little.looked + big.looked >= 64) break;
      const mirror = bitmap[(i & ~7) + 7 - (i & 7)] ?? 0;
      for (let bit = 0; bitmap[i] !== mirror && bit < 8; bit++) {
        const own = (bitmap[i]! >> bit) & 1;
        if (own === ((mirror >> bit) & 1)) continue;
        const order = own ? little : big;
        const page = i * 8 + bit;
        if (page >= pages) order.spare += 1;
        else if (reader.seekable) {
          order.looked += 1;
          if (filled(page)) order.filled += 1;
        }
      }
    }
    if (reader.seekable) reader.seek(at);
    if (given) {
      if (little.filled === big.filled) return;
      this.#compared = true;
      const other = little.filled > big.filled ? 'little' : 'big';
      if (other === given) return;
      const text = `mapped-ram bitmaps read as of a ${given}-endian host: their content speaks for ${other}`;
      yield report('warning', 'bitmap-order', at, `ram/${block.name}`, text, { recovered: 'read as told' });
      return;
    }
    if (little.filled !== big.filled) this.#order = little.filled > big.filled ? 'little' : 'big';
    else if (little.spare !== big.spare) this.#order = little.spare < big.spare ? 'little' : 'big';
    if (this.#order === 'big') yield this.#orderNote(block);
  }

  #orderNote(block: RamBlock): WalkEvent {
    const how = { recovered: 'read so; --bitmap-endian little reads them the other way' };
    const text = 'mapped-ram bitmaps of a big-endian host, by their content';
    return report('note', 'bitmap-order', block.bitmapOffset ?? 0n, `ram/${block.name}`, text, how);
  }

  /** @param tell report where the pages end too early */
  *#mappedPages(reader: StreamReader, block: RamBlock, index: number, tell: boolean): Generator<WalkEvent> {
    if (block.pagesOffset === undefined) return;
    if (!this.options.hash && !this.options.onBlocks) return;
    const budget = reader.seekable ? BUDGET : PIPE_BUDGET;
    let from = 0;
    const pages = Number(block.length) / this.options.pageSize;
    while (from < pages) {
      const step = native().migration.mappedPages(this.ram, reader.source, index, Number(block.pagesOffset), from, budget, reader.fileFd);
      if (step.ended) {
        if (tell)
          yield this.#issue(
            'truncated-ram',
            step.record,
            `pages of ${block.name} are cut off at page ${addr(from * this.options.pageSize)}`,
          );
        return;
      }
      from = step.next;
      yield { type: 'progress', position: Number(block.pagesOffset) + Math.min(from, pages) * this.options.pageSize };
    }
  }
}
