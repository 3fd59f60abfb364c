/** Registers of Arm CPUs as notes of an ELF core: AArch64, in AArch32 state too, and 32-bit ones. */
import type { Fields } from '../devices/fields.js';
import type { Arch } from '../memory/arch.js';
import type { Value } from '../stream/model.js';
import { at, big, type CpuNote, type Layout, list, NT_PRFPREG, sub, wide, words, zeros } from './registers.js';

/** Types of notes (Linux include/uapi/linux/elf.h). */
const NT_ARM_VFP = 0x400;
const NT_ARM_SVE = 0x405;

/** Bits of FPSCR that AArch64 has in FPSR and in FPCR (Arm ARM, C5.2.8 and C5.2.10). */
const FPSR_BITS = 0xf800009fn;
const FPCR_BITS = 0x07f79f00n;

/** The 32 vector registers of 128 bits. */
const neon = (vfp: Fields): bigint[] => {
  const pair = (i: number) => list(vfp[`env.vfp.zregs[${i}].d`], 2) as [bigint, bigint];
  return Array.from({ length: 32 }, (_, i) => wide(pair(i)[1], pair(i)[0]));
};

/** FPSR and FPCR. A CPU with more control bits than FPSCR has saves the two registers apart. */
function control(f: Fields, vfp: Fields): bigint[] {
  const apart = sub(vfp, 'cpu/vfp/fpcr_fpsr') ?? sub(f, 'cpu/vfp/fpcr_fpsr');
  const fpscr = big(vfp.fpscr);
  return apart ? [big(apart.fpsr), big(apart.fpcr)] : [fpscr & FPSR_BITS, fpscr & FPCR_BITS];
}

/** NT_PRFPREG of AArch64: struct user_fpsimd_state. */
function fpsimd(f: Fields): CpuNote[] {
  const vfp = sub(f, 'cpu/vfp');
  if (!vfp) return [];
  return [{ name: 'CORE', type: NT_PRFPREG, words: [...words(neon(vfp), 16), ...words(control(f, vfp), 4), zeros(8)] }];
}

/** NT_ARM_VFP: struct user_vfp, 32 registers of 64 bits and FPSCR. */
function vfp32(f: Fields): CpuNote[] {
  const vfp = sub(f, 'cpu/vfp');
  if (!vfp) return [];
  const half = Array.from({ length: 32 }, (_, i) => at(vfp[`env.vfp.zregs[${i >> 1}].d`], i & 1));
  return [{ name: 'LINUX', type: NT_ARM_VFP, words: [...words(half, 8), [big(vfp.fpscr), 4]] }];
}

/** An id of an AArch64 system register as KVM has them (Linux arch/arm64/include/uapi/asm/kvm.h). */
const systemRegisters = 0x603000000013n;
const sysreg = (op0: number, op1: number, crn: number, crm: number, op2: number): bigint =>
  (systemRegisters << 16n) | BigInt((op0 << 14) | (op1 << 11) | (crn << 7) | (crm << 3) | op2);
const SCTLR_EL1 = sysreg(3, 0, 1, 0, 0);
/** SCTLR of a 32-bit CPU, for the non-secure state first (arch/arm/include/uapi/asm/kvm.h). */
const SCTLR = [0x40200000200f0800n, 0x40200000000f0800n];
/** The byte order of EL1, also in the 32-bit register. */
const SCTLR_EE = 1n << 25n;
const HCR_EL2 = sysreg(3, 4, 1, 1, 0);
const SCR_EL3 = sysreg(3, 6, 1, 1, 0);
const SCR_NS = 1n;
const SCR_EEL2 = 1n << 18n;
const SVCR = sysreg(3, 3, 4, 2, 2);
/** op1 of the registers of EL1, EL2 and EL3 that have the vector length: ZCR, and SMCR for streaming mode. */
const levels = [0, 4, 6];
const zcr = (op1: number): bigint => sysreg(3, op1, 1, 2, 0);
const smcr = (op1: number): bigint => sysreg(3, op1, 1, 2, 6);
const MIDR = sysreg(3, 0, 0, 0, 0);
const ID_AA64PFR0 = sysreg(3, 0, 0, 4, 0);
const ID_AA64ISAR0 = sysreg(3, 0, 0, 6, 0);
const ID_AA64ZFR0 = sysreg(3, 0, 0, 4, 4);
const ID_AA64SMFR0 = sysreg(3, 0, 0, 4, 5);

const armIds = (cpu: Fields): Value[] => (Array.isArray(cpu.cpreg_vmstate_indexes) ? cpu.cpreg_vmstate_indexes : []);

/** A system register by its id; undefined if the CPU has none of these. */
function systemRegister(cpu: Fields, ...ids: readonly bigint[]): bigint | undefined {
  const all = armIds(cpu);
  for (const id of ids) {
    const index = all.findIndex((one) => big(one) === id);
    if (index >= 0) return at(cpu.cpreg_vmstate_values, index);
  }
  return undefined;
}

/** Whether a kernel at EL1 takes its exceptions big-endian. */
export const armBig = (cpu: Fields): boolean => ((systemRegister(cpu, SCTLR_EL1, ...SCTLR) ?? 0n) & SCTLR_EE) !== 0n;

/** PSTATE.nRW: the CPU is in AArch32 state. */
const NRW = 0x10n;
const aarch32 = (cpu: Fields): boolean => (big(cpu.cpsr) & NRW) !== 0n;

/**
 * The architecture of a CPU where a machine has CPUs of two. ID_AA64PFR0_EL1 cannot tell: QEMU saves it for some interrupt controllers
 * alone. Debug registers have an id of AArch64 on CPUs without it too.
 */
export function archOfCpu(arch: Arch, cpu: Fields | undefined): Arch {
  if (arch === 'aarch64' && cpu?.['cpu/m'] !== undefined) return 'arm'; // M profile, which has no system registers
  if (arch !== 'aarch64' || !cpu || armIds(cpu).length === 0) return arch;
  return !aarch32(cpu) || systemRegister(cpu, ID_AA64ISAR0, ID_AA64PFR0) !== undefined ? 'aarch64' : 'arm';
}

/** Modes of AArch32 (Arm ARM G1.9.1). */
const USR = 0x10;
const FIQ = 0x11;
const IRQ = 0x12;
const SVC = 0x13;
const ABT = 0x17;
const HYP = 0x1a;
const UND = 0x1b;
const SYS = 0x1f;
/** Where QEMU keeps the banked r13 and r14 of a mode. */
const banks: Record<number, number> = { [USR]: 0, [SVC]: 1, [ABT]: 2, [UND]: 3, [IRQ]: 4, [FIQ]: 5, [HYP]: 6 };

/** x0 to x30 of a CPU in AArch32 state, which are the registers of all its modes (Arm ARM D1.20.1). */
function fromAarch32(f: Fields): bigint[] {
  const mode = Number(big(f.cpsr) & 0x1fn);
  const regs = list(f['env.regs'], 16);
  const now = (of: number) => mode === of || (of === USR && mode === SYS);
  const r13 = (of: number) => (now(of) ? regs[13]! : at(f['env.banked_r13'], banks[of]!));
  // Hyp mode has the r14 of User mode.
  const r14 = (of: number) => (now(of) || (of === USR && mode === HYP) ? regs[14]! : at(f['env.banked_r14'], banks[of]!));
  const high = regs.slice(8, 13);
  const user = mode === FIQ ? list(f['env.usr_regs'], 5) : high;
  const fast = mode === FIQ ? high : list(f['env.fiq_regs'], 5);
  const pairs = [IRQ, SVC, ABT, UND].flatMap((of) => [r14(of), r13(of)]);
  return [...regs.slice(0, 8), ...user, r13(USR), r14(USR), r13(HYP), ...pairs, ...fast, r13(FIQ), r14(FIQ)];
}

/** x0 to x30, sp, pc. */
function general(f: Fields): bigint[] {
  const x = list(f['env.xregs'], 32);
  return aarch32(f) ? [...fromAarch32(f), x[31]!, at(f['env.regs'], 15)] : [...x, big(f['env.pc'])];
}

/** Vector lengths are counted in quadwords of 16 bytes. */
const quad = 16;
const most = 16;

/**
 * The longest vectors of a CPU, which no field of a stream tells, so it is taken from what the CPU identifies as. KVM saves MIDR_EL1.
 * For QEMU's own models, the features tell A64FX, Neoverse V1, and CPUs with SVE2 (Neoverse N2) from `max`.
 */
function longest(f: Fields): number {
  const midr = systemRegister(f, MIDR);
  const part = midr === undefined ? undefined : Number(midr >> 4n) & 0xfff;
  const implementer = midr === undefined ? undefined : Number(midr >> 24n) & 0xff;
  if (implementer === 0x46 && part === 0x001) return 4;
  if (implementer === 0x41 && part !== undefined) return part === 0xd40 ? 2 : 1;
  const features = systemRegister(f, ID_AA64ZFR0) ?? 0n;
  // F64MM needs vectors of 32 bytes and more.
  if ((systemRegister(f, ID_AA64SMFR0) ?? 0n) !== 0n || ((features >> 56n) & 15n) !== 0n) return most;
  if ((features & 15n) !== 0n) return 1;
  return features === 0n ? 4 : 2;
}

/** Lengths that a CPU with these longest vectors has: powers of two in streaming mode and on A64FX and Neoverse V1, all on `max`. */
const supported = (quads: number, longest: number, streaming: boolean): number =>
  streaming || longest < most ? 2 ** Math.floor(Math.log2(quads)) : quads;

/** The vector length now, by the registers of the exception levels that limit it (Arm ARM, ZCR_EL1.LEN). */
function currentQuads(f: Fields, longest: number): number {
  const streaming = ((systemRegister(f, SVCR) ?? 0n) & 1n) !== 0n;
  const limit = streaming ? smcr : zcr;
  const mode = Number(big(f.cpsr) & 0x1fn);
  const level = aarch32(f) ? (mode === USR ? 0 : mode === HYP ? 2 : 1) : Number((big(f.cpsr) >> 2n) & 3n);
  const [hcr, scr] = [systemRegister(f, HCR_EL2), systemRegister(f, SCR_EL3)];
  const secure = scr !== undefined && (scr & SCR_NS) === 0n;
  // A CPU with EL3 and without EL2 has an HCR_EL2 that is zero. A host at EL2 with E2H and TGE has no EL1.
  const el2 = hcr !== undefined && (scr === undefined || hcr !== 0n) && (!secure || ((scr ?? 0n) & SCR_EEL2) !== 0n);
  const hosted = el2 && ((hcr ?? 0n) & ((1n << 34n) | (1n << 27n))) === ((1n << 34n) | (1n << 27n));
  const limits = [level <= 1 && !(hosted && level === 0), el2 && level <= 2, scr !== undefined];
  const quads = levels.reduce(
    (n, op1, i) => (limits[i] ? Math.min(n, Number((systemRegister(f, limit(op1)) ?? 0n) & 15n) + 1) : n),
    longest,
  );
  return supported(quads, longest, streaming);
}

/** Quadwords of each vector that a stream has: QEMU 7.2 to 11 save 8 of the 16 that a CPU may have. */
function savedQuads(more: Fields): number {
  const vectors = more['env.vfp.zregs'];
  const first = Array.isArray(vectors) ? (vectors[0] as Fields | undefined)?.d : undefined;
  return 1 + (Array.isArray(first) ? first.length : Number(big((first as { count?: Value } | undefined)?.count))) / 2;
}

/** Bytes that the vectors of a CPU have and its stream has not. */
export function lostVectorBytes(f: Fields): number {
  const more = sub(f, 'cpu/sve');
  return more ? quad * Math.max(0, currentQuads(f, longest(f)) - savedQuads(more)) : 0;
}

/** NT_ARM_SVE: struct user_sve_header, Z0 to Z31, P0 to P15, FFR, FPSR, FPCR (Linux arch/arm64/include/uapi/asm/ptrace.h). */
function sve(f: Fields): CpuNote[] {
  const [vfp, more] = [sub(f, 'cpu/vfp'), sub(f, 'cpu/sve')];
  if (!vfp || !more) return [];
  const rows = (v: Value | undefined, name: string, count: number, row: number) =>
    Array.from({ length: count }, (_, i) => list(Array.isArray(v) ? (v[i] as Fields | undefined)?.[name] : undefined, row));
  const low = neon(vfp);
  const high = rows(more['env.vfp.zregs'], 'd', 32, 2 * most - 2);
  const predicates = rows(more['env.vfp.pregs'], 'p', 17, 4);
  const max = longest(f);
  const quads = currentQuads(f, max);
  const z = (i: number) => [low[i]!, ...Array.from({ length: quads - 1 }, (_, q) => wide(high[i]![2 * q + 1]!, high[i]![2 * q]!))];
  const p = (i: number) => predicates[i]!.reduceRight((n, word) => (n << 64n) | word, 0n);
  const gap = (n: number) => (quad - ((34 * n) % quad)) % quad;
  const size = (n: number) => quad * (1 + 32 * n) + 34 * n + gap(n) + quad;
  return [
    {
      name: 'LINUX',
      type: NT_ARM_SVE,
      words: [
        ...words([BigInt(size(quads)), BigInt(size(max))], 4),
        ...words([BigInt(quad * quads), BigInt(quad * max), 1n, 0n], 2),
        ...Array.from({ length: 32 }, (_, i) => words(z(i), quad)).flat(),
        ...Array.from({ length: 17 }, (_, i): [bigint, number] => [p(i), 2 * quads]),
        zeros(gap(quads)),
        ...words(control(f, vfp), 4),
        zeros(8),
      ],
    },
  ];
}

export const aarch64: Layout = {
  bits: 64,
  // x0-x30, sp, pc, pstate; then whether there are floating-point registers
  registers: (f) => [...words([...general(f), big(f.cpsr)], 8), [1n, 4], zeros(4)],
  more: (f) => [...fpsimd(f), ...sve(f)],
};

export const arm: Layout = {
  bits: 32,
  // r0-r15, cpsr, orig_r0
  registers: (f) => [...words([...list(f['env.regs'], 16), big(f.cpsr), 0n], 4), [sub(f, 'cpu/vfp') ? 1n : 0n, 4]],
  more: vfp32,
};
