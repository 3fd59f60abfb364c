/** ELF core files of a guest: program headers for its memory, notes for its CPUs (System V ABI; Linux elfcore.h; QEMU's own note). */
import type { Fields } from '../devices/fields.js';
import type { Arch } from '../memory/arch.js';
import type { Value } from '../stream/model.js';
import { type CoreFormat, NT_PRSTATUS, notesOf } from './cpus.js';
import { big } from './registers.js';

export interface Segment {
  /** virtual; of memory, the guest-physical address is used, so that a debugger finds memory by it */
  address: bigint;
  /** guest-physical, where it is another one */
  physical?: bigint;
  length: bigint;
  /** offset in the file */
  offset: bigint;
}

const EHDR = 64;
const PHDR = 56;
const PT_LOAD = 1;
const PT_NOTE = 4;

const room = 1 << 20;

const headerSize = (segments: number): number => EHDR + PHDR * (segments + 1);

/**
 * Where the memory begins. The room in front of it is for the notes of some 1,200 CPUs: crash (netdump.c) reads notes only
 * up to the first segment, and in a stream the CPUs come after the memory.
 */
export const memoryStart = (segments: number): bigint => BigInt(Math.ceil(headerSize(segments) / room) * room);

/** Where notes of this size go: behind the headers, or at `end`, behind the memory, if there is no room for them. */
export function notesAt(segments: number, size: number, end: bigint): bigint {
  const at = BigInt(headerSize(segments));
  return at + BigInt(size) <= memoryStart(segments) ? at : end;
}

/** ELF header and program headers: the note, then the segments (System V ABI, for both classes). */
export function elfHeaders(format: CoreFormat, segments: readonly Segment[], notes: { offset: bigint; size: number }): Buffer {
  const { bits, big, machine } = format;
  const wide = bits === 64;
  const [ehdr, phdr] = wide ? [EHDR, PHDR] : [52, 32];
  const out = Buffer.alloc(headerSize(segments.length));
  const u16 = (v: number, at: number) => (big ? out.writeUInt16BE(v, at) : out.writeUInt16LE(v, at));
  const u32 = (v: number, at: number) => (big ? out.writeUInt32BE(v, at) : out.writeUInt32LE(v, at));
  const u64 = (v: bigint, at: number) => (big ? out.writeBigUInt64BE(v, at) : out.writeBigUInt64LE(v, at));
  const word = (v: bigint, at: number) => (wide ? u64(v, at) : u32(Number(v), at));
  out.set([0x7f, 0x45, 0x4c, 0x46, wide ? 2 : 1, big ? 2 : 1, 1], 0);
  u16(4, 16); // ET_CORE
  u16(machine, 18);
  u32(1, 20);
  word(BigInt(ehdr), wide ? 32 : 28);
  u16(ehdr, ehdr - 12);
  u16(phdr, ehdr - 10);
  u16(segments.length + 1, ehdr - 8);
  const header = (i: number, type: number, offset: bigint, address: bigint, size: bigint, physical = address) => {
    const at = ehdr + phdr * i;
    u32(type, at);
    // No flags and no alignment, and a size in memory of the notes too, as dump-guest-memory has it.
    for (const [n, v] of [offset, address, physical, size, size].entries()) {
      if (wide) u64(v, at + 8 + 8 * n);
      else u32(Number(v), at + 4 + 4 * n);
    }
  };
  header(0, PT_NOTE, notes.offset, 0n, BigInt(notes.size));
  for (const [i, s] of segments.entries()) header(i + 1, PT_LOAD, s.offset, s.address, s.length, s.physical);
  return out;
}

/** Up to a multiple of four; not by bits, which end at 2 GiB. */
export const pad = (n: number): number => Math.ceil(n / 4) * 4;

function note(name: string, type: number, desc: Buffer, big = false): Buffer {
  const out = Buffer.alloc(12 + pad(name.length + 1) + pad(desc.length));
  for (const [i, word] of [name.length + 1, desc.length, type].entries()) {
    if (big) out.writeUInt32BE(word, 4 * i);
    else out.writeUInt32LE(word, 4 * i);
  }
  out.write(name, 12, 'latin1');
  desc.copy(out, 12 + pad(name.length + 1));
  return out;
}

/** Registers of an x86 CPU section. */
interface X86 {
  regs: bigint[];
  rip: bigint;
  rflags: bigint;
  segs: { selector: number; base: bigint; limit: number; flags: number }[];
  ldt: X86['segs'][0];
  tr: X86['segs'][0];
  gdt: X86['segs'][0];
  idt: X86['segs'][0];
  cr: bigint[];
  kernelGsBase: bigint;
}

const segment = (v: Value | undefined): X86['segs'][0] => {
  const s = (v ?? {}) as { [name: string]: Value };
  return { selector: Number(big(s.selector)), base: big(s.base), limit: Number(big(s.limit)), flags: Number(big(s.flags)) };
};

/** The registers in the fields of a `cpu` section of an x86 machine; undefined if they are not there. */
export function x86Registers(fields: { [name: string]: Value }): X86 | undefined {
  const regs = fields['env.regs'];
  const segs = fields['env.segs'];
  if (!Array.isArray(regs) || regs.length < 8 || !Array.isArray(segs) || segs.length < 6) return undefined;
  return {
    regs: Array.from({ length: 16 }, (_, i) => big(regs[i])),
    rip: big(fields['env.eip']),
    rflags: big(fields['env.eflags']),
    segs: segs.map(segment),
    ldt: segment(fields['env.ldt']),
    tr: segment(fields['env.tr']),
    gdt: segment(fields['env.gdt']),
    idt: segment(fields['env.idt']),
    cr: Array.from({ length: 5 }, (_, i) => big(fields[`env.cr[${i}]`])),
    kernelGsBase: big(fields['env.kernelgsbase']),
  };
}

/** NT_PRSTATUS of x86-64: struct elf_prstatus with user_regs_struct at 112. */
function prstatus(cpu: X86, index: number): Buffer {
  const out = Buffer.alloc(336);
  out.writeUInt32LE(index + 1, 32); // pr_pid
  const [es, cs, ss, ds, fs, gs] = cpu.segs.map((s) => BigInt(s.selector)) as [bigint, bigint, bigint, bigint, bigint, bigint];
  // user_regs_struct: r15-r12, rbp, rbx, r11-r8, rax, rcx, rdx, rsi, rdi by their numbers, then orig_rax
  const general = [15, 14, 13, 12, 5, 3, 11, 10, 9, 8, 0, 1, 2, 6, 7].map((n) => cpu.regs[n]!);
  const order = [...general, 0n, cpu.rip, cs, cpu.rflags, cpu.regs[4]!, ss, cpu.segs[4]!.base, cpu.segs[5]!.base, ds, es, fs, gs];
  order.forEach((v, i) => {
    out.writeBigUInt64LE(v, 112 + 8 * i);
  });
  return out;
}

/** The "QEMU" note that dump-guest-memory writes for crash: all registers with the system ones. */
function qemuNote(cpu: X86): Buffer {
  const out = Buffer.alloc(440);
  let at = 0;
  const u32 = (v: number) => {
    out.writeUInt32LE(v >>> 0, at);
    at += 4;
  };
  const u64 = (v: bigint) => {
    out.writeBigUInt64LE(v, at);
    at += 8;
  };
  u32(1);
  u32(out.length);
  const r = cpu.regs;
  for (const v of [r[0]!, r[3]!, r[1]!, r[2]!, r[6]!, r[7]!, r[4]!, r[5]!, ...r.slice(8), cpu.rip, cpu.rflags]) u64(v);
  const [es, cs, ss, ds, fs, gs] = cpu.segs;
  for (const s of [cs!, ds!, es!, fs!, gs!, ss!, cpu.ldt, cpu.tr, cpu.gdt, cpu.idt]) {
    u32(s.selector);
    u32(s.limit);
    u32(s.flags);
    u32(0);
    u64(s.base);
  }
  for (const v of cpu.cr) u64(v);
  u64(cpu.kernelGsBase);
  return out;
}

/** NT_PRSTATUS of i386: struct elf_prstatus with user_regs_struct at 72. */
function prstatus32(cpu: X86, index: number): Buffer {
  const out = Buffer.alloc(144);
  out.writeUInt32LE(index + 1, 24); // pr_pid
  const [ax, cx, dx, bx, sp, bp, si, di] = cpu.regs as [bigint, bigint, bigint, bigint, bigint, bigint, bigint, bigint];
  const [es, cs, ss, ds, fs, gs] = cpu.segs.map((s) => BigInt(s.selector)) as [bigint, bigint, bigint, bigint, bigint, bigint];
  const order = [bx, cx, dx, si, di, bp, ax, ds, es, fs, gs, 0n, cpu.rip, cs, cpu.rflags, sp, ss];
  for (const [i, v] of order.entries()) out.writeUInt32LE(Number(v & 0xffffffffn), 72 + 4 * i);
  return out;
}

/** EFER.LMA: the CPU runs in long mode. */
const lma = 0x400n;

/**
 * What a core of an x86 guest is: 64 bits if its first CPU runs in long mode, or if memory reaches the end of the first 4 GiB, as
 * QEMU decides it. @param top the end of the memory, that of the firmware included
 */
export function x86Format(cpu: Fields | undefined, top: bigint): CoreFormat {
  // Without registers nothing is known of the mode. qemu-system-i386 saves registers and no EFER.
  const long = cpu?.['env.regs'] === undefined || (big(cpu['env.efer']) & lma) !== 0n;
  return { machine: long ? 62 : 3, bits: long || top >= 1n << 32n ? 64 : 32, big: false };
}

/** Notes of all CPUs and how many have one: every NT_PRSTATUS, then every QEMU note. */
export function cpuNotes(arch: Arch, format: CoreFormat, cpus: readonly Fields[]): { notes: Buffer; count: number } {
  if (arch !== 'x86') {
    const all = cpus.map((c, i) => notesOf(arch, format, c, i)).filter((notes) => notes.length > 0);
    const notes = all.flat().map(({ name, type, desc }) => note(name, type, desc, format.big));
    return { notes: Buffer.concat(notes), count: all.length };
  }
  const known = cpus.flatMap((c) => x86Registers(c) ?? []);
  const status = format.machine === 62 ? prstatus : prstatus32;
  const notes = Buffer.concat([
    ...known.map((c, i) => note('CORE', NT_PRSTATUS, status(c, i))),
    ...known.map((c) => note('QEMU', 0, qemuNote(c))),
  ]);
  return { notes, count: known.length };
}

export type { X86 };
