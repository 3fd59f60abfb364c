/** Guest memory out of a stream: raw, sparse, ELF core, LiME. */
import fs from 'node:fs';
import { Exit, VioError, wrap } from '../../common/errors.js';
import { native } from '../../native/index.js';
import type { Input } from '../containers/input.js';
import { temporaryFile } from '../containers/tempfile.js';
import type { Fields } from '../devices/fields.js';
import { damaged, elsewhere, memoryElsewhere } from '../inspect/dump.js';
import { acpiMost } from '../memory/acpi.js';
import type { Arch } from '../memory/arch.js';
import type { Facts, PhysicalRange, Unplaced } from '../memory/layout.js';
import type { Missing } from '../memory/missing.js';
import type { Placement } from '../memory/options.js';
import type { RamSection } from '../memory/ram.js';
import { type Issue, Issues, issueText } from '../stream/issues.js';
import { pagesOf, type RamBlock, type WalkEvent } from '../stream/model.js';
import { Walker } from '../walk.js';
import { type Plan, unknownArch, writeAt, writeCore } from './core.js';
import { lostVectorBytes } from './cpus.js';
import { archOfWalk, evidenceOf, factsOf, staged } from './facts.js';
import { copySparse, type ExtractOptions, type Format, limeBytes, limeHeader, placementsOf, plan, wanted } from './plan.js';
import { guestNotePlace, type NotePlace } from './vmcoreinfo.js';

/** What was written. */
export interface Extracted {
  /** format of the output */
  as: Format;
  /** machine type */
  machine?: string;
  /** bytes of the output, holes included */
  size: number;
  /** ranges of guest memory, and their offsets in the output */
  ranges: { address: bigint; length: bigint; block: string; offset: bigint }[];
  /** RAM blocks with their pages; `tracked: false`: more pages may be present than were counted */
  blocks: { name: string; pages: number; present: number; undecodable: number; tracked?: boolean }[];
  /** pages of these blocks that the stream does not give, and why */
  missing?: Missing[];
  /** blocks that are not in the output, because their addresses are unknown */
  unplaced?: Unplaced[];
  /** CPUs whose registers are in the core file */
  cpus: number;
  /** source of the VMCOREINFO note in an elf core: the device vmcoreinfo, or a search of the memory */
  vmcoreinfo?: 'device' | 'memory';
  /** the stream was complete, every page could be decoded, and every block has an address */
  complete: boolean;
  /** what is wrong with the stream */
  issues: Issue[];
}

/** Where blocks of a pipe were put while their layout was a guess. */
interface Stage {
  plan: Plan;
  placements: Placement[];
}

const mib = 1n << 20n;

/** One extraction into a file that can be written anywhere. */
class Extraction {
  readonly #fd: number;
  readonly #options: ExtractOptions;
  #cleared = false;
  plan: Plan | undefined;
  unplaced: Unplaced[] = [];
  #stage: Stage | undefined;
  readonly cpus: Fields[] = [];
  /** CPUs whose registers were written */
  registers = 0;
  guestNote: NotePlace | undefined;
  /** where VMCOREINFO came from */
  vmcoreinfo: Extracted['vmcoreinfo'];
  /** notes in memory of which none could be chosen */
  notes = 0;

  constructor(fd: number, options: ExtractOptions) {
    this.#fd = fd;
    this.#options = options;
  }

  /** The placements of the blocks by a layout that is certain; the file gets its size. */
  begin(facts: Facts, blocks: readonly RamBlock[]): { fd: number; placements: Placement[] } {
    const { ranges, unplaced } = wanted(facts, blocks, this.#options);
    this.unplaced = unplaced;
    this.plan = plan(this.#options.as, ranges, this.#options.at ?? 0n);
    this.#size(this.plan.size);
    return { fd: this.#fd, placements: placementsOf(this.plan) };
  }

  /**
   * The placements of the blocks of a pipe, whose devices say only later where memory lies: main memory by the rules of the
   * machine, the other blocks behind it. Blocks that are not all known yet are put one behind the other.
   */
  guess(facts: Facts, blocks: readonly RamBlock[], all: boolean): { fd: number; placements: Placement[] } {
    let made: Plan = { ranges: [], offsets: [], size: 0n };
    if (all) {
      const { ranges } = wanted(facts, blocks, this.#options);
      made = plan(this.#options.as, ranges, this.#options.at ?? 0n);
    }
    let end = (made.size + mib - 1n) & ~(mib - 1n);
    const placements = placementsOf(made);
    const used = new Set(made.ranges.map((r) => r.block));
    const windowed = this.#options.at !== undefined || this.#options.length !== undefined;
    for (const [block, { length }] of blocks.entries()) {
      if (used.has(block) || (all && windowed)) continue;
      placements.push({ block, from: 0n, to: length, out: end });
      end += (length + mib - 1n) & ~(mib - 1n);
    }
    this.#size(end);
    this.#stage = { plan: made, placements };
    return { fd: this.#fd, placements };
  }

  /** What a guess put somewhere comes to where it belongs. @throws VioError for a window that the guess did not get */
  settle(walker: Walker, blocks: readonly RamBlock[]): void {
    const stage = this.#stage;
    if (!stage) return;
    const facts = factsOf(walker, this.#options, staged(this.#fd, blocks, stage.placements));
    const { ranges, unplaced } = wanted(facts, blocks, this.#options);
    this.unplaced = unplaced;
    const made = plan(this.#options.as, ranges, this.#options.at ?? 0n);
    this.plan = made;
    const same = (a: PhysicalRange, b?: PhysicalRange) =>
      b !== undefined && a.gpa === b.gpa && a.length === b.length && a.block === b.block && a.from === b.from;
    if (made.ranges.length !== stage.plan.ranges.length || !made.ranges.every((r, i) => same(r, stage.plan.ranges[i]))) {
      const has = (r: PhysicalRange) => stage.placements.some((p) => p.block === r.block && p.from <= r.from && p.to >= r.from + r.length);
      if (!made.ranges.every(has)) {
        throw new VioError("the devices say that this window of memory is not where the machine's default has it", {
          code: 'LAYOUT',
          exit: Exit.unsupported,
          hint: 'give the file by name, not through a pipe',
        });
      }
      this.#move(stage, made);
    }
    this.#size(made.size);
  }

  /** Copies the staged bytes to their places by way of a temporary file. */
  #move(stage: Stage, made: Plan): void {
    const temporary = temporaryFile();
    try {
      for (const p of stage.placements) copySparse(this.#fd, p.out, temporary, p.out, p.to - p.from);
      fs.ftruncateSync(this.#fd, 0);
      for (const [i, r] of made.ranges.entries()) {
        for (const p of stage.placements) {
          if (p.block !== r.block) continue;
          const from = p.from > r.from ? p.from : r.from;
          const to = p.to < r.from + r.length ? p.to : r.from + r.length;
          if (from < to) copySparse(temporary, p.out + from - p.from, this.#fd, made.offsets[i]! + from - r.from, to - from);
        }
      }
    } finally {
      fs.closeSync(temporary);
    }
  }

  #size(size: bigint): void {
    // What was in the file before goes now, when there is something to write. An empty file is left alone: ext4 would
    // write out all of it at its end, as it does for files that are replaced in this way.
    if (!this.#cleared && fs.fstatSync(this.#fd).size > 0) fs.ftruncateSync(this.#fd, 0);
    this.#cleared = true;
    fs.ftruncateSync(this.#fd, Number(size));
    if (this.#options.as === 'raw') native().migration.allocate(this.#fd, Number(size));
  }

  /** Nothing of value was found: the file is as good as never made. */
  discard(): void {
    fs.ftruncateSync(this.#fd, 0);
  }

  /** Headers and notes. @throws VioError for memory that a core of 32 bits cannot have */
  finish(arch: Arch | undefined, ram: RamSection): void {
    if (!this.plan) return;
    const { ranges, offsets } = this.plan;
    if (this.#options.as === 'lime')
      for (const [i, r] of ranges.entries()) writeAt(this.#fd, limeHeader(r), offsets[i]! - BigInt(limeBytes));
    if (this.#options.as !== 'elf') return;
    const { cpus, guestNote } = this;
    const core = writeCore(this.#fd, this.plan, { arch, cpus, guestNote, ram });
    ({ registers: this.registers, vmcoreinfo: this.vmcoreinfo, notes: this.notes } = core);
    this.plan.size = core.size;
  }
}

/** How often an extraction reads its input: a file once more, for the layout. */
export const passes = (input: Input, { block }: { block?: string | undefined }): 1 | 2 =>
  input.reader.seekable && block === undefined ? 2 : 1;

/** Facts of a stream in a file, before its memory is written; undefined where the walk to them would be the only one. */
function survey(input: Input, options: ExtractOptions, tick: (position: number) => void): { walker: Walker; facts: Facts } | undefined {
  if (passes(input, options) === 1) return undefined;
  const start = input.reader.position;
  const fd = temporaryFile();
  let placements: Placement[] = [];
  const onBlocks = (blocks: readonly RamBlock[]) => {
    placements = blocks.flatMap((b, block) => {
      const to = evidenceOf(b);
      return to === undefined ? [] : [{ block, from: 0n, to, out: BigInt(block) * BigInt(acpiMost) }];
    });
    return { fd, placements };
  };
  try {
    const walker: Walker = new Walker(input.reader, { force: options.force ?? false, ram: { bitmapOrder: input.bitmapOrder, onBlocks } });
    for (const event of walker.walk()) if (event.type === 'progress') tick(event.position);
    input.reader.seek(start);
    return { walker, facts: factsOf(walker, options, staged(fd, walker.ram?.blocks ?? [], placements)) };
  } finally {
    fs.closeSync(fd);
  }
}

/** Blocks of the plan of which the stream has not one page, though it should: nothing is written for them alone. */
function nothingOf(ranges: readonly PhysicalRange[], blocks: readonly RamBlock[], missing: readonly Missing[], pageSize: number): boolean {
  const gone = (i: number) => missing.some((m) => m.lost && m.block === blocks[i]!.name && m.pages === pagesOf(blocks[i]!, pageSize));
  return ranges.length > 0 && ranges.every((r) => gone(r.block));
}

/** The end of an extraction that has nothing to write. */
function nothing(file: string, walker: Walker, issues: readonly Issue[]): VioError {
  return issues.some((i) => i.severity === 'error') ? damaged(file, issues) : memoryElsewhere(file, walker.missing);
}

/**
 * Writes guest memory into `fd`, a regular file. Damage ends nothing that can go on: what there is is written.
 * @param tick gets positions of each pass behind those of the pass before
 * @throws VioError when the stream has no RAM, the layout is not known, or writing fails
 */
export async function extract(input: Input, fd: number, options: ExtractOptions, tick: (position: number) => void): Promise<Extracted> {
  const extraction = new Extraction(fd, options);
  const issues = new Issues();
  const before = survey(input, options, tick);
  const surveyed = before ? input.size : 0;
  const certain = before !== undefined || options.block !== undefined;
  // Before gigabytes are written for nothing.
  if (before?.walker.ram && options.as === 'elf' && !archOfWalk(before.walker, options)) throw unknownArch('architecture');
  const walker: Walker = new Walker(input.reader, {
    issues: input.issues,
    fields: (name) => options.as === 'elf' && (name === 'cpu' || name === 'vmcoreinfo'),
    force: options.force ?? false,
    ram: {
      bitmapOrder: input.bitmapOrder,
      onBlocks: (blocks) => {
        if (!certain) return extraction.guess(factsOf(walker, options), blocks, !walker.ram!.mapped);
        const { ram, missing } = before?.walker ?? {};
        if (before && ram && missing && nothingOf(wanted(before.facts, blocks, options).ranges, blocks, missing, ram.options.pageSize))
          return undefined;
        return extraction.begin(before?.facts ?? factsOf(walker, options), blocks);
      },
    },
  });
  const take = (event: WalkEvent) => {
    if (event.type === 'progress') tick(surveyed + event.position);
    if (event.type === 'issue') issues.add(event.issue);
    if (event.type === 'section' && event.fields && options.as === 'elf') {
      if (event.name === 'cpu') extraction.cpus.push(event.fields);
      extraction.guestNote ??= guestNotePlace(event.fields);
    }
  };
  try {
    for (const event of walker.walk()) take(event);
    if (walker.ram?.blocks.length) extraction.settle(walker, walker.ram.update());
  } catch (err) {
    throw wrap('write guest memory', err);
  }
  for (const issue of await input.close()) issues.add(issue);
  const { ram } = walker;
  if (!ram || (!extraction.plan && ram.blocks.length === 0)) {
    const first = issues.list.find((i) => i.severity === 'error');
    throw new VioError(`the stream has no guest memory${first ? `: ${issueText(first)}` : ''}`, {
      code: 'NO_RAM',
      exit: first ? Exit.damaged : Exit.failed,
      details: { issues: issues.list.slice(0, 20) },
    });
  }
  const blocks = ram.update();
  if (!extraction.plan || nothingOf(extraction.plan.ranges, blocks, walker.missing, ram.options.pageSize)) {
    if (extraction.plan) extraction.discard();
    throw nothing(input.name, walker, issues.list);
  }
  extraction.finish(archOfWalk(walker, options), ram);
  if (options.as === 'elf' && extraction.registers === 0) issues.add(withoutRegisters(extraction.cpus.length > 0));
  const lost = options.as === 'elf' ? Math.max(0, ...extraction.cpus.map(lostVectorBytes)) : 0;
  if (lost > 0) issues.add(shortVectors(lost));
  if (extraction.notes > 0) issues.add(severalNotes(extraction.notes));
  return result(walker, extraction, extraction.plan, options, issues);
}

/** @param described whether the stream has the fields of CPUs */
const withoutRegisters = (described: boolean): Issue => ({
  severity: 'note',
  code: 'no-registers',
  offset: 0n,
  path: 'cpu',
  message: described
    ? 'the core has no registers: the CPUs are of an architecture without a layout for notes'
    : 'the core has no registers: the stream does not describe its CPUs. Class and byte order are those that machines of this architecture have by default',
});

const shortVectors = (bytes: number): Issue => ({
  severity: 'warning',
  code: 'short-vectors',
  offset: 0n,
  path: 'cpu',
  message: `QEMU did not save the last ${bytes} bytes of each SVE register: they are zeros in the core`,
});

const severalNotes = (count: number): Issue => ({
  severity: 'note',
  code: 'vmcoreinfo',
  offset: 0n,
  path: 'ram',
  message: `the memory has ${count} different notes VMCOREINFO, and none that is certainly of the running kernel: the core has none`,
});

/** The document of a finished extraction. */
function result(
  walker: Walker,
  extraction: Extraction,
  { ranges, offsets, size }: Plan,
  options: ExtractOptions,
  issues: Issues,
): Extracted {
  const machine = options.machine ?? walker.configuration?.machine;
  const { blocks, options: ramOptions } = walker.ram!;
  const used = [...new Set(ranges.map((r) => r.block))];
  const names = new Set(used.map((i) => blocks[i]!.name));
  const missing = walker.missing.filter((m) => names.has(m.block));
  return {
    as: options.as,
    ...(machine && { machine }),
    size: Number(size),
    ranges: ranges.map((r, i) => ({ address: r.gpa, length: r.length, block: blocks[r.block]!.name, offset: offsets[i]! })),
    blocks: used.map((i) => {
      const b = blocks[i]!;
      const pages = pagesOf(b, ramOptions.pageSize);
      const { seen: present, undecodable, tracked } = b.state;
      return { name: b.name, pages, present, undecodable, ...(!tracked && { tracked }) };
    }),
    ...(missing.length > 0 && { missing }),
    ...(extraction.unplaced.length > 0 && { unplaced: extraction.unplaced }),
    cpus: extraction.registers,
    ...(extraction.vmcoreinfo && { vmcoreinfo: extraction.vmcoreinfo }),
    complete: walker.sawEof && issues.errors === 0 && !elsewhere(missing) && extraction.unplaced.length === 0,
    issues: issues.list,
  };
}
