/** Headers and notes of an ELF core around memory that is written. */
import fs from 'node:fs';
import { Exit, VioError } from '../../common/errors.js';
import type { Fields } from '../devices/fields.js';
import type { Arch } from '../memory/arch.js';
import type { PhysicalRange } from '../memory/layout.js';
import type { RamSection } from '../memory/ram.js';
import { archOfCpu, type CoreFormat, coreFormat } from './cpus.js';
import { cpuNotes, elfHeaders, notesAt, type Segment, x86Format } from './elf.js';
import { findVmcoreinfo, kernelImage, type NotePlace, type Run, vmcoreinfo } from './vmcoreinfo.js';

/** Where each range goes in the output, and how large that is. */
export interface Plan {
  ranges: PhysicalRange[];
  offsets: bigint[];
  size: bigint;
}

/** What a core is made of beside its memory. */
export interface CoreParts {
  /** undefined if nothing tells it */
  arch: Arch | undefined;
  /** fields of the CPUs' sections, in order */
  cpus: readonly Fields[];
  guestNote: NotePlace | undefined;
  ram: RamSection;
}

export interface Core {
  /** bytes of the file */
  size: bigint;
  /** CPUs whose registers were written */
  registers: number;
  /** where VMCOREINFO came from */
  vmcoreinfo: 'device' | 'memory' | undefined;
  /** notes in memory of which none could be chosen */
  notes: number;
}

/** What the notes of a core may take behind its memory. */
const notesMost = 64n << 20n;
const fourGibi = 1n << 32n;
/** Firmware of PCs, which ends at 4 GiB. */
const belowFourG = /^(pc\.bios|system\.flash0)$/;

/** Writes all of `bytes`. */
export function writeAt(fd: number, bytes: Buffer, at: bigint): void {
  for (let done = 0; done < bytes.length; ) done += fs.writeSync(fd, bytes, done, bytes.length - done, Number(at) + done);
}

/** Runs of the output that have content, in the order of the ranges. */
function* contentRuns({ ranges, offsets }: Plan, ram: RamSection): Generator<Run> {
  const page = BigInt(ram.options.pageSize);
  for (const [i, r] of ranges.entries()) {
    const all: Iterable<[number, number]> = ram.blocks[r.block]!.state.tracked
      ? ram.runs(r.block, 'content')
      : [[Number(r.from / page), Number((r.from + r.length + page - 1n) / page)]];
    for (const [first, end] of all) {
      const from = BigInt(first) * page > r.from ? BigInt(first) * page : r.from;
      const to = BigInt(end) * page < r.from + r.length ? BigInt(end) * page : r.from + r.length;
      if (from < to) yield { at: Number(offsets[i]! + from - r.from), length: Number(to - from) };
    }
  }
}

/** Bytes of guest-physical memory that is written. */
function memory(fd: number, { ranges, offsets }: Plan, address: bigint, size: number): Buffer | undefined {
  const i = ranges.findIndex((r) => address >= r.gpa && address + BigInt(size) <= r.gpa + r.length);
  if (i < 0) return undefined;
  const bytes = Buffer.alloc(size);
  fs.readSync(fd, bytes, 0, size, Number(offsets[i]! + address - ranges[i]!.gpa));
  return bytes;
}

/** The note that the guest keeps in its memory: by its device, else by a search. */
function guestNoteOf(fd: number, plan: Plan, { guestNote, ram }: CoreParts, bigEndian: boolean) {
  const read = (address: bigint, size: number) => memory(fd, plan, address, size);
  const told = guestNote && read(guestNote.address, guestNote.size);
  const note = told && vmcoreinfo(told, bigEndian);
  if (note) return { note, vmcoreinfo: 'device' as const, notes: 0 };
  const found = findVmcoreinfo(fd, contentRuns(plan, ram), bigEndian, read);
  if (typeof found === 'number') return { note: Buffer.alloc(0), vmcoreinfo: undefined, notes: found };
  return { note: found, vmcoreinfo: 'memory' as const, notes: 0 };
}

/** The image of the guest's kernel at its virtual address, if that is known and all of it is in one range. */
function imageSegment(fd: number, plan: Plan, note: Buffer): Segment[] {
  const image = kernelImage(note, (address, size) => memory(fd, plan, address, size));
  const i = image ? plan.ranges.findIndex((r) => image.physical >= r.gpa && image.physical + image.length <= r.gpa + r.length) : -1;
  if (!image || i < 0 || plan.ranges.length >= maxRanges) return [];
  const { virtual: address, physical, length } = image;
  return [{ address, physical, length, offset: plan.offsets[i]! + physical - plan.ranges[i]!.gpa }];
}

/** With more ranges the headers have no room for one more. */
const maxRanges = 10_000;

/** Class and byte order by the CPUs. @throws VioError where several are usual and there is no CPU */
function formatOf(arch: Arch, cpu: Fields | undefined): CoreFormat {
  const format = coreFormat(arch, cpu);
  if (!format) throw unknownArch('byte order');
  return format;
}

/** A core names the machine, and no machine is the usual one. @param what is not told */
export const unknownArch = (what: string): VioError =>
  new VioError(`the stream does not tell the ${what} of the guest, which an ELF core needs`, {
    code: 'ARCH',
    exit: Exit.unsupported,
    hint: '--as raw or --as sparse; or --machine, if it is one of the types pc, q35, microvm, isapc, pseries, powernv, s390-ccw-virtio or a board with a known layout',
  });

/** Writes headers and notes. @throws VioError for a guest of unknown architecture, or memory that a core of 32 bits cannot have */
export function writeCore(fd: number, plan: Plan, parts: CoreParts): Core {
  const { ranges, offsets, size } = plan;
  const [cpu] = parts.cpus;
  const top = ranges.reduce((n, r) => (r.gpa + r.length > n ? r.gpa + r.length : n), 0n);
  if (!parts.arch) throw unknownArch('architecture');
  const arch = archOfCpu(parts.arch, cpu);
  const firmware = parts.ram.blocks.some((b) => belowFourG.test(b.name));
  const format = arch === 'x86' ? x86Format(cpu, firmware && top < fourGibi ? fourGibi : top) : formatOf(arch, cpu);
  if (format.bits === 32 && (top > fourGibi || size > fourGibi - notesMost)) {
    throw new VioError('the memory reaches above what a core of 32 bits can hold', {
      code: 'ELF32',
      exit: Exit.unsupported,
      hint: '--as sparse, or --at and --len for a part',
    });
  }
  const cpusNotes = cpuNotes(arch, format, parts.cpus);
  const { note, ...where } = guestNoteOf(fd, plan, parts, format.big);
  const notes = Buffer.concat([cpusNotes.notes, note]);
  const segments: Segment[] = ranges.map((r, i) => ({ address: r.gpa, length: r.length, offset: offsets[i]! }));
  if (format.bits === 64 && note.length > 0) segments.push(...imageSegment(fd, plan, note));
  const offset = notesAt(segments.length, notes.length, size);
  writeAt(fd, elfHeaders(format, segments, { offset, size: notes.length }), 0n);
  writeAt(fd, notes, offset);
  return { size: offset === size ? size + BigInt(notes.length) : size, registers: cpusNotes.count, ...where };
}
