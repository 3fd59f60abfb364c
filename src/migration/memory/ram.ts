/** The `ram` section: block list, page records (natively), mapped-ram regions. */
import { hex64 } from '../../common/units.js';
import { native } from '../../native/index.js';
import { maxPeek, type NativeRam, type RamFault, type RamIssue, ramFaults } from '../../native/migration.js';
import { limits, ramFlagNames } from '../stream/format.js';
import { type Issue, report } from '../stream/issues.js';
import type { Detail, RamBlock, WalkEvent } from '../stream/model.js';
import { endCode, endText, StreamEnd, type StreamReader } from '../stream/reader.js';
import { MappedRam } from './mapped.js';
import type { RamOptions } from './options.js';

/** Message of each fault, with what was expected and found. */
const faultTexts: Record<RamFault, (i: RamIssue) => Pick<Issue, 'message'> & Partial<Issue>> = {
  flags: (i) => ({
    message: `impossible flags in a page record`,
    expected: 'one of ZERO, PAGE, XBZRLE, COMPRESS_PAGE, EOS, MEM_SIZE, MULTIFD_FLUSH',
    found: `${ramFlagNames(Number(i.value & 0xfffn))} (${hex64(i.value)})`,
  }),
  'no-block': () => ({ message: 'CONTINUE before any block name', expected: 'a block name', found: 'CONTINUE' }),
  'unknown-block': (i) => ({ message: `page ${hex64(i.page)} of a block that the list does not have`, recovered: 'page dropped' }),
  outside: (i) => ({ message: `page ${hex64(i.value)} lies behind the end of its block`, recovered: 'page dropped' }),
  fill: (i) => ({ severity: 'warning', message: `page ${hex64(i.page)} is filled with ${hex64(i.value)}, not 0 (very old QEMU)` }),
  'xbzrle-header': (i) => ({
    message: `page ${hex64(i.page)}: XBZRLE header`,
    expected: 'encoding 1 and a length up to the page size',
    found: `encoding ${Number(i.value >> 16n)}, length ${Number(i.value & 0xffffn)}`,
  }),
  xbzrle: (i) => ({ message: `page ${hex64(i.page)}: XBZRLE runs do not fit the page`, recovered: 'page undecodable, others kept' }),
  'xbzrle-base': (i) => ({
    message: `page ${hex64(i.page)}: XBZRLE delta to a page that was never sent`,
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
  'zlib-length': (i) => ({ message: `page ${hex64(i.page)}: compressed length ${i.value}`, expected: 'at most the bound of one page' }),
  zlib: (i) => ({
    message: `page ${hex64(i.page)}: zlib data does not make one page`,
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
  /** true if the stream says that pages went over other connections */
  multifd = false;
  /** true if the pages lie in mapped-ram regions */
  readonly mapped: boolean;
  readonly #mappedRam: MappedRam;
  #lost = 0;

  constructor(options: RamOptions) {
    this.options = options;
    this.mapped = options.capabilities.includes('mapped-ram');
    this.ram = native().migration.newRam({
      pageSize: options.pageSize,
      check: options.check ?? false,
      hash: options.hash ?? false,
      ...(options.seed !== undefined && { seed: options.seed }),
      ...(options.pageMaps !== undefined && { pageMaps: options.pageMaps }),
    });
    this.#mappedRam = new MappedRam(this.ram, options, { issues: () => this.#issues(), extract: () => this.#extract() });
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

  /** Runs [first, end) of pages of a block, in order. */
  *runs(block: number, kind: 'seen' | 'missing' | 'content'): Generator<[first: number, end: number]> {
    const most = 4096;
    for (let from = 0; ; ) {
      const runs = native().migration.pageRuns(this.ram, block, kind, from, most);
      yield* runs;
      if (runs.length < most) return;
      from = runs.at(-1)![1];
    }
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
    for (;;) {
      const step = native().migration.stepRam(this.ram, reader.source, reader.budget);
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
              ? `${name} page ${hex64(step.page)}: the record has ${this.#had(reader, step.record)} bytes, then ${end}`
              : `in the RAM section ${end}`,
            { expected: short ? `a record with a page of ${this.options.pageSize} bytes` : 'a page record or EOS' },
          );
          return 'end';
        }
      }
    }
  }

  #had(reader: StreamReader, record: number): number {
    const rest = reader.peek(maxPeek).length;
    return reader.position + rest - record;
  }

  *#issues(): Generator<WalkEvent> {
    const { issues, lost, flushes } = native().migration.ramIssues(this.ram);
    this.multifd ||= flushes > 0;
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
      for (const [index, block] of this.blocks.entries()) yield* this.#mappedRam.pages(reader, block, index, true);
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
          expected: `at most ${hex64(total - sum)}`,
          found: hex64(length),
        });
        return 'bad';
      }
      if (name === '' || length === 0n) yield this.#issue('ram-block-empty', offset, `block "${name}" of length ${hex64(length)}`);
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
      const end = yield* this.#mappedRam.block(reader, block, this.blocks.length - 1, total - sum);
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
}
