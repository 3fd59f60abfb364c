/** Registers of CPUs other than x86 as notes of an ELF core, in the layout of Linux's elf_prstatus, as dump-guest-memory writes them. */
import type { Fields } from '../devices/fields.js';
import { type Arch, elfMachine } from '../memory/arch.js';
import type { Value } from '../stream/model.js';
import { aarch64, arm, armBig } from './arm.js';
import { at, big, type CpuNote, type Layout, list, NT_PRFPREG, sub, type Word, wide, words, zeros } from './registers.js';

export { archOfCpu, lostVectorBytes } from './arm.js';

/** What an ELF core says about the machine. */
export interface CoreFormat {
  /** e_machine */
  machine: number;
  bits: 32 | 64;
  big: boolean;
}

/** Types of notes (Linux include/uapi/linux/elf.h). */
export const NT_PRSTATUS = 1;
const NT_PPC_VMX = 0x100;
const NT_PPC_SPE = 0x101;
const NT_PPC_VSX = 0x102;
const NT_S390_TIMER = 0x301;
const NT_S390_TODCMP = 0x302;
const NT_S390_TODPREG = 0x303;
const NT_S390_CTRS = 0x304;
const NT_S390_PREFIX = 0x305;
const NT_S390_VXRS_LOW = 0x309;
const NT_S390_VXRS_HIGH = 0x30a;
const NT_S390_GS_CB = 0x30b;

const LPCR = 0x13e;
/** Interrupts are taken little-endian: the guest's kernel is. */
const LPCR_ILE = 0x0200_0000n;
const XER = 1;
const LR = 8;
const CTR = 9;
const SPEFSCR = 512;
const crf = (f: Fields): bigint => list(f['env.crf'], 8).reduce((n, field) => (n << 4n) | (field & 15n), 0n);

/** A vector register as the stream has it: the halves in the order of the host that saved, taken as little-endian. */
const vector = (v: Value | undefined): bigint => {
  if (!(v instanceof Uint8Array) || v.length !== 16) return 0n;
  return wide(big(v.subarray(8)), big(v.subarray(0, 8)));
};

/** Floating-point, AltiVec, VSX and SPE registers of PowerPC. */
function ppcNotes(f: Fields): CpuNote[] {
  const [fpu, altivec, vsx] = ['cpu/fpu', 'cpu/altivec', 'cpu/vsx'].map((name) => sub(f, name) ?? {}) as [Fields, Fields, Fields];
  const vectors = altivec['env.vsr'];
  const avr = Array.from({ length: 32 }, (_, i) => (Array.isArray(vectors) ? vector(vectors[i]) : 0n));
  return [
    { name: 'CORE', type: NT_PRFPREG, words: words([...list(fpu['env.vsr'], 32), big(fpu['env.fpscr'])], 8) },
    { name: 'CORE', type: NT_PPC_VMX, words: [...words(avr, 16), zeros(12), [big(altivec.vscr), 4], zeros(16)] },
    { name: 'CORE', type: NT_PPC_VSX, words: words(list(vsx['env.vsr'], 32), 8) },
    { name: 'CORE', type: NT_PPC_SPE, words: [zeros(128), zeros(8), [at(f['env.spr'], SPEFSCR), 4]] },
  ];
}

/** Floating-point registers, and the notes that Linux has for s390x. */
function s390Notes(f: Fields): CpuNote[] {
  const [fpu, vector, gscb] = ['cpu/fpu', 'cpu/vregs', 'cpu/gscb'].map((name) => sub(f, name) ?? {}) as [Fields, Fields, Fields];
  const half = (i: number, j: number) => big(fpu[`env.vregs[${i}][${j}]`] ?? vector[`env.vregs[${i}][${j}]`]);
  const each = <T>(from: number, make: (i: number) => T): T[] => Array.from({ length: 16 }, (_, i) => make(from + i));
  const linux = (type: number, ...all: Word[]): CpuNote => ({ name: 'LINUX', type, words: all });
  return [
    {
      name: 'CORE',
      type: NT_PRFPREG,
      words: [
        [big(fpu['env.fpc']), 4],
        zeros(4),
        ...words(
          each(0, (i) => half(i, 0)),
          8,
        ),
      ],
    },
    linux(NT_S390_PREFIX, [big(f['env.psa']), 4]),
    linux(NT_S390_CTRS, ...words(list(f['env.cregs'], 16), 8)),
    linux(NT_S390_TIMER, [big(f['env.cputm']), 8]),
    linux(NT_S390_TODCMP, [big(f['env.ckc']), 8]),
    linux(NT_S390_TODPREG, [big(f['env.todpr']), 4]),
    linux(
      NT_S390_VXRS_LOW,
      ...words(
        each(0, (i) => half(i, 1)),
        8,
      ),
    ),
    linux(
      NT_S390_VXRS_HIGH,
      ...words(
        each(16, (i) => wide(half(i, 0), half(i, 1))),
        16,
      ),
    ),
    linux(NT_S390_GS_CB, ...words(list(gscb['env.gscb'], 4), 8)),
  ];
}

const layouts: Partial<Record<Arch, Layout>> = {
  aarch64,
  arm,
  riscv: { bits: 64, registers: (f) => [...words([big(f['env.pc']), ...list(f['env.gpr'], 32).slice(1)], 8), zeros(8)] },
  loongarch: {
    bits: 64,
    registers: (f) => words([...list(f['env.gpr'], 32), 0n, big(f['env.pc']), big(f['env.CSR_BADV']), ...list(undefined, 11)], 8),
  },
  s390x: {
    bits: 64,
    registers: (f) => [
      ...words([big(f['env.psw.mask']), big(f['env.psw.addr']), ...list(f['env.regs'], 16)], 8),
      ...words(list(f['env.aregs'], 16), 4),
      zeros(16),
    ],
    more: s390Notes,
  },
  ppc: {
    bits: 64,
    // r0-r31, nip, msr, orig_r3, ctr, link, xer, ccr; softe, trap, dar, dsisr and result belong to an exception of Linux
    registers: (f) => {
      const spr = (n: number) => at(f['env.spr'], n);
      const special = [big(f['env.nip']), big(f['env.msr']), 0n, spr(CTR), spr(LR), spr(XER), crf(f), ...list(undefined, 5)];
      return words([...list(f['env.gpr'], 32), ...special, ...list(undefined, 5)], 8);
    },
    more: ppcNotes,
  },
};

/** Whether the fields of a `cpu` section are those of a guest that runs 32-bit code on a machine for both. */
const narrow: Partial<Record<Arch, (f: Fields) => boolean>> = {
  riscv: (f) => big(f['env.misa_mxl']) === 1n,
  // the upper halves of registers, which only a target of 32 bits has apart
  ppc: (f) => f['env.gprh'] !== undefined,
  // the window mask of SPARC V8
  sparc: (f) => f['env.wim'] !== undefined,
  mips: (f) => (big(f['env.CP0_Config0']) & CONFIG_AT) === 0n,
};

/** Config.AT and Config.BE of MIPS: the architecture, 0 for MIPS32, and the byte order. */
const CONFIG_AT = 0x6000n;
const CONFIG_BE = 0x8000n;
/** MSTATUS.UBE of RISC-V. */
const UBE = 0x40n;

/** Whether a guest's kernel is big-endian, on architectures that have both. */
const bigEndian: Partial<Record<Arch, (cpu: Fields) => boolean>> = {
  ppc: (cpu) => (at(cpu['env.spr'], LPCR) & LPCR_ILE) === 0n,
  aarch64: armBig,
  arm: armBig,
  riscv: (cpu) => (big(cpu['env.mstatus']) & UBE) !== 0n,
  mips: (cpu) => (big(cpu['env.CP0_Config0']) & CONFIG_BE) !== 0n,
};

/** Architectures that are big-endian unless a CPU says otherwise. */
const alwaysBig: ReadonlySet<Arch> = new Set(['s390x', 'm68k', 'openrisc', 'sparc', 'ppc']);

/** Machines of these have any class and byte order. */
const severalUsual: ReadonlySet<Arch> = new Set(['mips', 'sparc']);

/** What a core of this guest is: its class and byte order come from the CPUs, since one machine has several; undefined where only they tell. */
export function coreFormat(arch: Arch, cpu: Fields | undefined): CoreFormat | undefined {
  if (severalUsual.has(arch) && !cpu) return undefined;
  const bits = arch === 'm68k' || arch === 'openrisc' || arch === 'avr' || (cpu && narrow[arch]?.(cpu)) ? 32 : (layouts[arch]?.bits ?? 64);
  return { machine: elfMachine(arch, bits), bits, big: (cpu && bigEndian[arch]?.(cpu)) ?? alwaysBig.has(arch) };
}

/** Numbers one behind the other, in the byte order of the core. */
function packed(all: readonly Word[], from: number, big: boolean): Buffer {
  const out = Buffer.alloc(from + all.reduce((n, [, bytes]) => n + bytes, 0));
  let next = from;
  for (const [value, bytes] of all) {
    const text = BigInt.asUintN(bytes * 8, value).toString(16);
    const raw = Buffer.from(text.padStart(bytes * 2, '0'), 'hex');
    (big ? raw : raw.reverse()).copy(out, next);
    next += bytes;
  }
  return out;
}

/** A note as its parts. */
export interface Note {
  name: string;
  type: number;
  desc: Buffer;
}

/** The notes of a CPU, NT_PRSTATUS first; none where its registers cannot be written. @param index from 0 on */
export function notesOf(arch: Arch, { bits, big }: CoreFormat, cpu: Fields, index: number): Note[] {
  const layout = layouts[arch];
  if (!layout) return [];
  const [pid, from] = bits === 64 ? [32, 112] : [24, 72];
  const registers = layout.registers(cpu).map(([v, bytes]): Word => [v, bits === 64 ? bytes : Math.min(4, bytes)]);
  const status = packed(registers, from, big);
  packed([[BigInt(index + 1), 4]], 0, big).copy(status, pid);
  const more = (layout.more?.(cpu) ?? []).map(({ words: all, ...note }) => ({ ...note, desc: packed(all, 0, big) }));
  return [{ name: 'CORE', type: NT_PRSTATUS, desc: status }, ...more];
}
