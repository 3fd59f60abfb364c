/** The `ram` section: block list, page records (natively), mapped-ram regions. */
import { native } from '../native/index.js';
import { type NativeRam, type RamFault, type RamIssue, ramFaults } from '../native/migration.js';
import { limits, ramFlagNames } from './format.js';
import type { Issue } from './issues.js';
import type { Detail, RamBlock, WalkEvent } from './model.js';
import { endText, type StreamReader } from './reader.js';

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
  /** mapped-ram bitmaps were written by a big-endian host */
  bigEndianBitmap?: boolean;
  /** Called when the block list is known; what it returns is where pages go. */
  onBlocks?: (blocks: readonly RamBlock[]) => { fd: number; placements: Placement[] } | undefined;
}

/** Bytes walked between two progress events. */
const BUDGET = 128 << 20;

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
  #lost = 0;

  constructor(options: RamOptions) {
    this.options = options;
    this.mapped = options.capabilities.includes('mapped-ram');
    this.ram = native().migration.newRam({
      pageSize: options.pageSize,
      check: options.check ?? false,
      hash: options.hash ?? false,
      ...(options.seed !== undefined && { seed: options.seed }),
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
    const sum = (of: (b: RamBlock) => number) => this.update().reduce((n, b) => n + of(b), 0);
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
    for (;;) {
      const step = native().migration.stepRam(this.ram, reader.source, BUDGET);
      yield* this.#issues();
      switch (step.stop) {
        case 'eos':
          return 'eos';
        case 'budget':
          yield { type: 'progress', position: step.position };
          break;
        case 'memSize':
          if (!(yield* this.#blockList(reader, step.value, step.record, postcopySizes))) return 'bad';
          break;
        case 'bad':
          return 'bad';
        case 'end': {
          const name = this.blocks[step.block]?.name ?? '?';
          const short = step.page > 0n || step.position > step.record + 8;
          const end = endText(reader.ended());
          yield this.#issue(
            'truncated-ram',
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
    return { type: 'issue', issue: { severity: 'error', code, offset: BigInt(offset), path: 'ram', message, ...more } };
  }

  /** The list behind MEM_SIZE. False when it cannot be passed. */
  *#blockList(reader: StreamReader, total: bigint, at: number, postcopySizes: bigint): Generator<WalkEvent, boolean> {
    if (this.total !== undefined) {
      yield this.#issue('ram-second-list', at, 'a second block list');
      return false;
    }
    this.total = total;
    const shared = this.options.capabilities.includes('x-ignore-shared');
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
        return false;
      }
      if (name === '' || length === 0n) yield this.#issue('ram-block-empty', offset, `block "${name}" of length ${addr(length)}`);
      if (this.blocks.some((b) => b.name === name)) yield this.#issue('ram-block-twice', offset, `block ${name} is listed twice`);
      if (length === 0n) return false;
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
      this.update();
      if (this.mapped && !(yield* this.#mappedHeader(reader, block, this.blocks.length - 1))) return false;
    }
    this.#extract();
    if (this.mapped && reader.seekable) {
      const after = reader.position;
      for (const [index, block] of this.blocks.entries()) yield* this.#mappedPages(reader, block, index);
      reader.seek(after);
    }
    return true;
  }

  #extract(): void {
    const target = this.options.onBlocks?.(this.update());
    if (!target) return;
    const flat = target.placements.flatMap((p) => [BigInt(p.block), p.from, p.to, p.out]);
    native().migration.extractTo(this.ram, target.fd, BigInt64Array.from(flat));
  }

  /** mapped-ram header and bitmap of one block. False when the next block cannot be found. */
  *#mappedHeader(reader: StreamReader, block: RamBlock, index: number): Generator<WalkEvent, boolean> {
    const at = reader.position;
    const version = reader.be32('mapped-ram version');
    const pageSize = reader.be64('mapped-ram page size');
    const bitmapOffset = reader.be64('mapped-ram bitmap offset');
    const pagesOffset = reader.be64('mapped-ram pages offset');
    const path = `ram/${block.name}`;
    const bad = (message: string, expected: string, found: string): WalkEvent => ({
      type: 'issue',
      issue: { severity: 'error', code: 'mapped-ram', offset: BigInt(at), path, message, expected, found },
    });
    if (version !== 1) {
      yield bad('mapped-ram header version', '1', String(version));
      return false;
    }
    if (bitmapOffset === 0n && pagesOffset === 0n) {
      block.shared = true;
      return true;
    }
    const page = BigInt(this.options.pageSize);
    const pages = (block.length + page - 1n) / page;
    const bitmapEnd = bitmapOffset + ((pages + 63n) / 64n) * 8n;
    const end = reader.seekable ? BigInt(reader.size) : 1n << 62n;
    if (pageSize !== page) {
      yield bad('mapped-ram page size', addr(page), addr(pageSize));
      return false;
    }
    if (bitmapOffset < BigInt(reader.position) || pagesOffset < bitmapEnd || pagesOffset % page !== 0n) {
      yield bad(
        'mapped-ram regions overlap or are not aligned',
        `bitmap behind ${addr(reader.position)}, pages behind the bitmap, page aligned`,
        `bitmap ${addr(bitmapOffset)}..${addr(bitmapEnd)}, pages ${addr(pagesOffset)}`,
      );
      return false;
    }
    if (bitmapEnd > end || pagesOffset > end) {
      yield bad('mapped-ram regions lie behind the end of the file', `at most ${addr(end)}`, `pages at ${addr(pagesOffset)}`);
      return false;
    }
    block.bitmapOffset = bitmapOffset;
    block.pagesOffset = pagesOffset;
    reader.skip(bitmapOffset - BigInt(reader.position), 'gap before the bitmap');
    if (!native().migration.readBitmap(this.ram, reader.source, index, this.options.bigEndianBitmap ?? false)) {
      yield bad('mapped-ram bitmap', `${bitmapEnd - bitmapOffset} bytes`, 'the end of the file');
      return false;
    }
    if (!reader.seekable) {
      // A pipe passes by once: its pages are taken now, each block knowing where it goes.
      this.#extract();
      yield* this.#mappedPages(reader, block, index);
    }
    const next = Number(pagesOffset + block.length);
    if (reader.seekable) {
      if (next > reader.size) {
        const last = this.#lastPage(index);
        const needed = pagesOffset + BigInt(last) * page;
        // The last block may end in a hole that the file does not have.
        if (needed > end) yield bad('mapped-ram pages are cut off', `file of ${addr(needed)} bytes`, addr(end));
        if (needed > end || next > reader.size) return false;
      }
      reader.seek(next);
    } else {
      reader.skip(next - reader.position, `pages of ${block.name}`);
    }
    return true;
  }

  /** One past the last page that has content. */
  #lastPage(index: number): number {
    let from = 0;
    let last = 0;
    for (;;) {
      const runs = native().migration.pageRuns(this.ram, index, 'content', from, 4096);
      last = runs.at(-1)?.[1] ?? last;
      if (runs.length < 4096) return last;
      from = last;
    }
  }

  *#mappedPages(reader: StreamReader, block: RamBlock, index: number): Generator<WalkEvent> {
    if (block.pagesOffset === undefined) return;
    if (!this.options.hash && !this.options.onBlocks) return;
    let from = 0;
    const pages = Number(block.length) / this.options.pageSize;
    while (from < pages) {
      const step = native().migration.mappedPages(this.ram, reader.source, index, Number(block.pagesOffset), from, BUDGET, reader.fileFd);
      if (step.ended) {
        yield this.#issue('truncated-ram', step.record, `pages of ${block.name} are cut off at page ${addr(from * this.options.pageSize)}`);
        return;
      }
      from = step.next;
      yield { type: 'progress', position: Number(block.pagesOffset) + Math.min(from, pages) * this.options.pageSize };
    }
  }
}
