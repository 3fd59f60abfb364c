/** Guest memory out of a stream: raw, sparse, ELF core, LiME. */
import fs from 'node:fs';
import { usage, VioError, wrap } from '../common/errors.js';
import { printable } from '../common/escape.js';
import { native } from '../native/index.js';
import {
  cpuNotes,
  elfHeaders,
  guestNotePlace,
  memoryStart,
  type NotePlace,
  notesAt,
  type Segment,
  vmcoreinfo,
  type X86,
  x86Registers,
} from './elf.js';
import type { Input } from './input.js';
import { type Issue, Issues, issueText } from './issues.js';
import { clip, elfMachine, type PhysicalRange, physicalLayout } from './layout.js';
import { pagesOf, type RamBlock, type WalkEvent } from './model.js';
import type { Placement } from './ram.js';
import { temporaryFile } from './spool.js';
import { Walker } from './walk.js';

export type Format = 'raw' | 'sparse' | 'elf' | 'lime';

export interface ExtractOptions {
  as: Format;
  /** one block, by name; otherwise guest-physical memory */
  block?: string;
  /** blocks that make up the RAM, in order */
  ramBlocks?: readonly string[];
  /** RAM below 4 GiB, where it is not the machine's default */
  below4g?: bigint;
  /** first byte (address or offset in the block) and number of bytes */
  at?: bigint;
  length?: bigint;
  force?: boolean;
}

/** What was written. */
export interface Extracted {
  as: Format;
  machine?: string;
  /** bytes of the output, holes included */
  size: number;
  ranges: { address: bigint; length: bigint; block: string; offset: bigint }[];
  /** `tracked: false`: more pages may be present than could be noted */
  blocks: { name: string; pages: number; present: number; undecodable: number; tracked?: boolean }[];
  cpus: number;
  /** the stream was whole and every page could be made */
  complete: boolean;
  issues: Issue[];
}

/** Where each range goes in the output, and how large that is. */
interface Plan {
  ranges: PhysicalRange[];
  offsets: bigint[];
  size: bigint;
}

const { O_CREAT, O_RDWR } = fs.constants;
const LIME = 32;

function plan(as: Format, ranges: PhysicalRange[], at: bigint): Plan {
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
      const offset = next + BigInt(LIME);
      next = offset + r.length;
      return offset;
    });
    return { ranges, offsets, size: next };
  }
  const offsets = ranges.map((r) => r.gpa - at);
  return { ranges, offsets, size: ranges.reduce((n, r) => (r.gpa + r.length - at > n ? r.gpa + r.length - at : n), 0n) };
}

/** Header of a LiME range (version 1): magic, version, first and last address. */
function limeHeader(range: PhysicalRange): Buffer {
  const out = Buffer.alloc(LIME);
  out.writeUInt32LE(0x4c694d45, 0);
  out.writeUInt32LE(1, 4);
  out.writeBigUInt64LE(range.gpa, 8);
  out.writeBigUInt64LE(range.gpa + range.length - 1n, 16);
  return out;
}

/** Ranges that the options ask for. @throws VioError */
function wanted(machine: string, blocks: readonly RamBlock[], options: ExtractOptions): PhysicalRange[] {
  let ranges: PhysicalRange[];
  if (options.block !== undefined) {
    // Also as it is printed: a name may have bytes that nobody can type.
    const block =
      [(n: string) => n, printable].map((as) => blocks.findIndex((b) => as(b.name) === options.block)).find((i) => i >= 0) ?? -1;
    if (block < 0) {
      throw new VioError(`no block "${printable(options.block)}"`, {
        code: 'BLOCK',
        hint: `there are: ${blocks.map((b) => printable(b.name)).join(', ')}`,
      });
    }
    ranges = [{ gpa: 0n, length: blocks[block]!.length, block, from: 0n }];
  } else {
    ranges = physicalLayout(machine, blocks, options.ramBlocks, options.below4g);
  }
  const clipped = clip(ranges, options.at ?? 0n, options.length);
  if (clipped.length === 0) throw usage('no memory in the range that was asked for');
  return clipped;
}

/** One extraction into a file that can be written anywhere. */
class Extraction {
  readonly #fd: number;
  readonly #options: ExtractOptions;
  plan: Plan | undefined;
  readonly cpus: X86[] = [];
  guestNote: NotePlace | undefined;

  constructor(fd: number, options: ExtractOptions) {
    this.#fd = fd;
    this.#options = options;
  }

  /** The placements of the blocks known so far; the file gets its size. */
  begin(machine: string, blocks: readonly RamBlock[]): { fd: number; placements: Placement[] } {
    const made = plan(this.#options.as, wanted(machine, blocks, this.#options), this.#options.at ?? 0n);
    // What was in the file before goes now, when there is something to write. An empty file is left alone: ext4 would
    // write out all of it at its end, as it does for files that are replaced in this way.
    if (!this.plan && fs.fstatSync(this.#fd).size > 0) fs.ftruncateSync(this.#fd, 0);
    this.plan = made;
    fs.ftruncateSync(this.#fd, Number(made.size));
    if (this.#options.as === 'raw') native().migration.allocate(this.#fd, Number(made.size));
    const placements = made.ranges.map((r, i) => ({ block: r.block, from: r.from, to: r.from + r.length, out: made.offsets[i]! }));
    return { fd: this.#fd, placements };
  }

  /** Headers and notes. */
  finish(machine: string, blocks: readonly RamBlock[]): void {
    if (!this.plan) return;
    const { ranges, offsets, size } = this.plan;
    if (this.#options.as === 'lime') for (const [i, r] of ranges.entries()) this.#write(limeHeader(r), offsets[i]! - BigInt(LIME));
    if (this.#options.as !== 'elf') return;
    const machineNumber = elfMachine(machine, blocks);
    const notes = Buffer.concat([cpuNotes(this.cpus), this.#vmcoreinfo(this.plan, machineNumber)]);
    const segments: Segment[] = ranges.map((r, i) => ({ address: r.gpa, length: r.length, offset: offsets[i]! }));
    const offset = notesAt(segments.length, notes.length, size);
    this.#write(elfHeaders(machineNumber, segments, { offset, size: notes.length }), 0n);
    this.#write(notes, offset);
    if (offset === size) this.plan.size += BigInt(notes.length);
  }

  /** The note that the guest keeps in its memory, which is written by now; empty if there is none. */
  #vmcoreinfo({ ranges, offsets }: Plan, machine: number): Buffer {
    const none = Buffer.alloc(0);
    if (!this.guestNote) return none;
    const { address, size } = this.guestNote;
    const i = ranges.findIndex((r) => address >= r.gpa && address + BigInt(size) <= r.gpa + r.length);
    if (i < 0) return none;
    const bytes = Buffer.alloc(size);
    fs.readSync(this.#fd, bytes, 0, size, Number(offsets[i]! + address - ranges[i]!.gpa));
    return vmcoreinfo(bytes, machine) ?? none;
  }

  #write(bytes: Buffer, at: bigint): void {
    for (let done = 0; done < bytes.length; ) done += fs.writeSync(this.#fd, bytes, done, bytes.length - done, Number(at) + done);
  }
}

/**
 * Writes guest memory into `fd`, a regular file. Damage ends nothing that can go on: what there is is written.
 * @throws VioError when the stream has no RAM, the layout is not known, or writing fails
 */
export async function extract(input: Input, fd: number, options: ExtractOptions, tick: (position: number) => void): Promise<Extracted> {
  const extraction = new Extraction(fd, options);
  const issues = new Issues();
  const walker: Walker = new Walker(input.reader, {
    issues: input.issues,
    fields: (name) => options.as === 'elf' && (name === 'cpu' || name === 'vmcoreinfo'),
    force: options.force ?? false,
    ram: {
      bitmapOrder: input.bitmapOrder,
      onBlocks: (blocks) => extraction.begin(walker.configuration?.machine ?? '', blocks),
    },
  });
  const take = (event: WalkEvent) => {
    if (event.type === 'progress') tick(event.position);
    if (event.type === 'issue') issues.add(event.issue);
    if (event.type === 'section' && event.fields && options.as === 'elf') {
      const cpu = x86Registers(event.fields);
      if (cpu) extraction.cpus.push(cpu);
      extraction.guestNote ??= guestNotePlace(event.fields);
    }
  };
  try {
    for (const event of walker.walk()) take(event);
  } catch (err) {
    throw wrap('write guest memory', err);
  }
  for (const issue of await input.close()) issues.add(issue);
  const { ram } = walker;
  if (!ram || !extraction.plan) {
    const first = issues.list.find((i) => i.severity === 'error');
    throw new VioError(`the stream has no guest memory${first ? `: ${issueText(first)}` : ''}`, {
      code: 'NO_RAM',
      exit: first ? 5 : 1,
      details: { issues: issues.list.slice(0, 20) },
    });
  }
  const machine = walker.configuration?.machine ?? '';
  const blocks = ram.update();
  extraction.finish(machine, blocks);
  const { ranges, offsets, size } = extraction.plan;
  const used = [...new Set(ranges.map((r) => r.block))];
  return {
    as: options.as,
    ...(machine && { machine }),
    size: Number(size),
    ranges: ranges.map((r, i) => ({ address: r.gpa, length: r.length, block: blocks[r.block]!.name, offset: offsets[i]! })),
    blocks: used.map((i) => {
      const b = blocks[i]!;
      const pages = pagesOf(b, ram.options.pageSize);
      const { seen: present, undecodable, tracked } = b.state;
      return { name: b.name, pages, present, undecodable, ...(!tracked && { tracked }) };
    }),
    cpus: extraction.cpus.length,
    complete: walker.sawEof && issues.errors === 0,
    issues: issues.list,
  };
}

/** The output of an extraction: a regular file in place, or a temporary file that is copied out after. */
export class Target {
  readonly fd: number;
  /** true if the bytes must be copied to where they belong when all is written */
  readonly spooled: boolean;
  readonly #out: number;
  /** Name of a file that was made here. */
  readonly #made: string | undefined;

  /** @param out path, or - for stdout */
  constructor(out: string, input: string) {
    let fd = 1;
    if (out !== '-') {
      const same = fs.statSync(out, { throwIfNoEntry: false });
      const source = input === '-' ? fs.fstatSync(0) : fs.statSync(input, { throwIfNoEntry: false });
      if (same && source && same.isFile() && same.ino === source.ino && same.dev === source.dev)
        throw usage('output and input are the same file');
      try {
        fd = fs.openSync(out, same && !same.isFile() ? 'w' : O_RDWR | O_CREAT, 0o600);
      } catch (err) {
        throw wrap(`open ${out}`, err);
      }
      if (!same) this.#made = out;
    }
    this.#out = fd;
    this.spooled = out === '-' || !fs.fstatSync(fd).isFile();
    this.fd = this.spooled ? temporaryFile() : fd;
  }

  /** What was spooled, in pieces, for stdout. */
  *pieces(size: number): Generator<Buffer> {
    for (let at = 0; at < size; ) {
      const bytes = Buffer.alloc(Math.min(1 << 20, size - at));
      const got = fs.readSync(this.fd, bytes, 0, bytes.length, at);
      if (got === 0) return;
      at += got;
      yield bytes.subarray(0, got);
    }
  }

  /** The descriptor that spooled bytes belong to. */
  get out(): number {
    return this.#out;
  }

  /** Ends it; a file that was made for nothing goes. */
  close(): void {
    if (this.#made !== undefined && fs.fstatSync(this.fd).size === 0) fs.rmSync(this.#made, { force: true });
    fs.closeSync(this.fd);
    if (this.spooled && this.#out > 2) fs.closeSync(this.#out);
  }
}
