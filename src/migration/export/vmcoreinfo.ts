/** The note VMCOREINFO of a Linux guest: where its device says it is, or found in its memory (Linux kernel/vmcore_info.c). */
import fs from 'node:fs';
import type { Fields } from '../devices/fields.js';
import { pad } from './elf.js';
import { big } from './registers.js';

/** A guest's own note in its memory. */
export interface NotePlace {
  address: bigint;
  size: number;
}

const header = 12;
const name = 'VMCOREINFO\0';
/** Notes of this size and more are none: Linux has a page for the text. */
const most = 1 << 20;

/** Where the guest says its note is, in the fields of the device `vmcoreinfo` (QEMU docs/specs/vmcoreinfo.rst). */
export function guestNotePlace(fields: Fields): NotePlace | undefined {
  const size = Number(big(fields['vmcoreinfo.size']));
  const elf = fields.has_vmcoreinfo === true && big(fields['vmcoreinfo.guest_format']) === 1n;
  return elf && size >= header && size < most ? { address: big(fields['vmcoreinfo.paddr']), size } : undefined;
}

/** The note VMCOREINFO that these bytes begin with, which may be fewer; undefined if they are something else. */
export function vmcoreinfo(bytes: Buffer, bigEndian: boolean): Buffer | undefined {
  if (bytes.length < header + name.length) return undefined;
  const u32 = (at: number) => (bigEndian ? bytes.readUInt32BE(at) : bytes.readUInt32LE(at));
  if (u32(0) !== name.length || bytes.toString('latin1', header, header + name.length) !== name) return undefined;
  const size = header + pad(name.length) + pad(u32(4));
  return size <= bytes.length ? bytes.subarray(0, size) : undefined;
}

/** A run of a file that has memory. */
export interface Run {
  at: number;
  length: number;
}

const chunk = 1 << 20;
/** A page of text is the most that Linux writes; room for what may come. */
const largest = 64 << 10;
/** Copies that are looked at: a guest's files and older kernels may have some. */
const copies = 256;

function* places(fd: number, runs: Iterable<Run>): Generator<number> {
  const bytes = Buffer.alloc(chunk + name.length - 1);
  for (const { at, length } of runs) {
    for (let done = 0; done < length; done += chunk) {
      // The name may lie across two chunks.
      const got = fs.readSync(fd, bytes, 0, Math.min(bytes.length, length - done), at + done);
      for (let i = bytes.indexOf(name, 0, 'latin1'); i >= 0 && i + name.length <= got; i = bytes.indexOf(name, i + 1, 'latin1'))
        yield at + done + i - header;
    }
  }
}

/** A whole note with the text of a Linux kernel at `at`. */
function noteAt(fd: number, at: number, bigEndian: boolean): Buffer | undefined {
  if (at < 0) return undefined;
  const bytes = Buffer.alloc(largest);
  const note = vmcoreinfo(bytes.subarray(0, fs.readSync(fd, bytes, 0, largest, at)), bigEndian);
  if (!note) return undefined;
  const text = note.toString('latin1', header + pad(name.length));
  const type = bigEndian ? note.readUInt32BE(8) : note.readUInt32LE(8);
  return type === 0 && text.startsWith('OSRELEASE=') && text.includes('\nPAGESIZE=') ? note : undefined;
}

/** Bytes at a guest-physical address. */
type Read = (address: bigint, size: number) => Buffer | undefined;

const page = 4096n;
/** Start of the kernel's text mapping on x86-64 (Linux arch/x86/include/asm/page_64_types.h). */
const START_KERNEL_MAP = 0xffffffff80000000n;
/** The most that a kernel's image takes. */
const imageMost = 1n << 30n;
/** Bytes from init_uts_ns on in which the release is: a reference count, then names of 65 bytes. */
const uts = 512;

/** How a kernel maps its own image. */
interface Mapping {
  /** no symbol of the image is below it */
  start: bigint;
  /** an address in the image less its physical one */
  offset: bigint;
}

/** The mapping that a note tells (Linux Documentation/admin-guide/kdump/vmcoreinfo.rst): x86-64 and arm64 have a number for it. */
function mappingOf(text: string): Mapping | undefined {
  const [, base] = /\nNUMBER\(phys_base\)=(-?\d{1,19})\n/.exec(text) ?? [];
  if (base !== undefined) return { start: START_KERNEL_MAP, offset: START_KERNEL_MAP - BigInt(base) };
  const [, offset] = /\nNUMBER\(kimage_voffset\)=0x([0-9a-f]{1,16})\n/.exec(text) ?? [];
  const start = symbol(text, '_stext');
  return offset === undefined || start === undefined ? undefined : { start, offset: BigInt(`0x${offset}`) };
}

function symbol(text: string, of: string): bigint | undefined {
  const [, at] = new RegExp(`\\nSYMBOL\\(${of}\\)=([0-9a-f]{1,16})\\n`).exec(text) ?? [];
  return at === undefined ? undefined : BigInt(`0x${at}`);
}

/**
 * Whether the memory has the kernel that a note describes, and has it where the note says: a kernel before a warm reboot leaves its
 * note behind. @param read bytes at a guest-physical address
 */
function describesMemory(text: string, mapping: Mapping | undefined, read: Read): boolean {
  const [, release] = /OSRELEASE=([^\n]+)/.exec(text) ?? [];
  const names = symbol(text, 'init_uts_ns');
  if (!release || names === undefined || !mapping) return false;
  return read(names - mapping.offset, uts)?.includes(`\0${release}\0`, 0, 'latin1') ?? false;
}

/** The kernel's image in its own mapping. */
export interface KernelImage {
  virtual: bigint;
  physical: bigint;
  length: bigint;
}

/**
 * The image of a kernel as far as its note tells it: from the start of its text to its last known symbol. A core with
 * these addresses lets a debugger read the page tables, which lie there, by their virtual address (as a kdump does).
 * @returns undefined where the note does not tell, or the memory has not the kernel that it describes
 */
export function kernelImage(note: Buffer, read: Read): KernelImage | undefined {
  const text = note.toString('latin1');
  const mapping = mappingOf(text);
  if (!mapping || !describesMemory(text, mapping, read)) return undefined;
  const { start, offset } = mapping;
  const symbols = [...text.matchAll(/\nSYMBOL\(\w+\)=([0-9a-f]{1,16})(?=\n)/g)].map((m) => BigInt(`0x${m[1]}`));
  const own = symbols.filter((s) => s >= start && s < start + imageMost);
  if (own.length === 0) return undefined;
  const [first, last] = own.reduce(([a, b], s) => [s < a ? s : a, s > b ? s : b], [own[0]!, own[0]!]);
  const from = first & ~(page - 1n);
  return { virtual: from, physical: from - offset, length: (last + 2n * page - from) & ~(page - 1n) };
}

/**
 * Searches memory for the note, which every Linux kernel that can be dumped keeps there.
 * @param runs where the file has memory
 * @param read bytes at a guest-physical address
 * @returns the note, or how many there are of which none can be told to be the right one
 */
export function findVmcoreinfo(fd: number, runs: Iterable<Run>, bigEndian: boolean, read: Read): Buffer | number {
  const found = new Map<string, Buffer>();
  let looked = 0;
  for (const at of places(fd, runs)) {
    if (++looked > copies) break;
    const note = noteAt(fd, at, bigEndian);
    if (note) found.set(note.toString('latin1'), note);
  }
  const notes = [...found.values()];
  if (notes.length === 1) return notes[0]!;
  const right = notes.filter((note) => {
    const text = note.toString('latin1');
    return describesMemory(text, mappingOf(text), read);
  });
  return right.length === 1 ? right[0]! : notes.length;
}
