/** Registers of CPUs other than x86 as notes of an ELF core, in the layout of Linux's elf_prstatus, as dump-guest-memory writes them. */
import type { Fields } from '../devices/fields.js';
import type { Arch } from '../memory/arch.js';
import type { Value } from '../stream/model.js';

/** What an ELF core says about the machine. */
export interface CoreFormat {
  /** e_machine */
  machine: number;
  bits: 32 | 64;
  big: boolean;
}

export const big = (v: Value | undefined): bigint => {
  if (typeof v === 'bigint') return BigInt.asUintN(64, v);
  if (typeof v === 'number') return BigInt.asUintN(64, BigInt(Math.trunc(v)));
  // Fields of a type that nothing decodes are bytes in the order of the stream.
  return v instanceof Uint8Array && v.length <= 8 ? BigInt(`0x0${Buffer.from(v).toString('hex')}`) : 0n;
};

/** Element `i` of an array, or of one of which only the elements other than zero were kept. */
function at(v: Value | undefined, i: number): bigint {
  if (Array.isArray(v)) return big(v[i]);
  const sparse = (v as { nonzero?: { [index: string]: Value } } | undefined)?.nonzero;
  return sparse ? big(sparse[String(i)]) : 0n;
}

const list = (v: Value | undefined, count: number): bigint[] => Array.from({ length: count }, (_, i) => at(v, i));

/** An element of a register set: a value and its bytes. */
type Word = readonly [value: bigint, bytes: 4 | 8];
const words = (values: readonly bigint[], bytes: 4 | 8): Word[] => values.map((v) => [v, bytes] as const);

/** Registers of one architecture: which there are in the note, and the bytes behind them. */
interface Layout {
  bits: 32 | 64;
  registers: (f: Fields) => Word[];
  behind: number;
}

const LPCR = 0x13e;
/** Interrupts are taken little-endian: the guest's kernel is. */
const LPCR_ILE = 0x0200_0000n;
const XER = 1;
const LR = 8;
const CTR = 9;
const DSISR = 18;
const DAR = 19;
const crf = (f: Fields): bigint => list(f['env.crf'], 8).reduce((n, field) => (n << 4n) | (field & 15n), 0n);

const layouts: Partial<Record<Arch, Layout>> = {
  aarch64: {
    bits: 64,
    // x0-x30, sp, pc, pstate; then whether there are floating-point registers
    registers: (f) => words([...list(f['env.xregs'], 32), big(f['env.pc']), big(f.cpsr)], 8),
    behind: 8,
  },
  arm: { bits: 32, registers: (f) => words([...list(f['env.regs'], 16), big(f.cpsr)], 4), behind: 8 },
  riscv: { bits: 64, registers: (f) => words([big(f['env.pc']), ...list(f['env.gpr'], 32).slice(1)], 8), behind: 8 },
  loongarch: {
    bits: 64,
    registers: (f) => words([...list(f['env.gpr'], 32), 0n, big(f['env.pc']), big(f['env.CSR_BADV']), ...list(undefined, 10)], 8),
    behind: 8,
  },
  s390x: {
    bits: 64,
    registers: (f) => [
      ...words([big(f['env.psw.mask']), big(f['env.psw.addr']), ...list(f['env.regs'], 16)], 8),
      ...words(list(f['env.aregs'], 16), 4),
      [0n, 8],
    ],
    behind: 8,
  },
  ppc: {
    bits: 64,
    registers: (f) => {
      const spr = (n: number) => at(f['env.spr'], n);
      const special = [big(f['env.nip']), big(f['env.msr']), 0n, spr(CTR), spr(LR), spr(XER), crf(f), 0n, 0n, spr(DAR), spr(DSISR), 0n];
      return words([...list(f['env.gpr'], 32), ...special], 8);
    },
    behind: 40,
  },
};

/** Whether the fields of a `cpu` section are those of a guest that runs 32-bit code on a machine for both. */
const narrow: Partial<Record<Arch, (f: Fields) => boolean>> = {
  riscv: (f) => big(f['env.misa_mxl']) === 1n,
};

/** What a core of this guest is: its class and byte order come from the CPUs, since one machine has several. */
export function coreFormat(arch: Arch, machine: number, cpu: Fields | undefined): CoreFormat {
  const little = arch !== 's390x' && arch !== 'm68k' && arch !== 'openrisc' && arch !== 'sparc';
  const ppcLittle = cpu !== undefined && (at(cpu['env.spr'], LPCR) & LPCR_ILE) !== 0n;
  const bits = arch === 'm68k' || arch === 'openrisc' || arch === 'avr' || (cpu && narrow[arch]?.(cpu)) ? 32 : (layouts[arch]?.bits ?? 64);
  return { machine, bits, big: arch === 'ppc' ? !ppcLittle : !little };
}

/** NT_PRSTATUS of a CPU, or undefined where its registers cannot be written. @param index from 0 on */
export function prstatusOf(arch: Arch, format: CoreFormat, cpu: Fields, index: number): Buffer | undefined {
  const layout = layouts[arch];
  if (!layout) return undefined;
  const wide = format.bits === 64;
  const [pid, from] = wide ? [32, 112] : [24, 72];
  const words = layout.registers(cpu).map(([v, bytes]): Word => [v, wide ? bytes : 4]);
  const size = from + words.reduce((n, [, bytes]) => n + bytes, 0) + layout.behind;
  const out = Buffer.alloc(size);
  const put = (value: bigint, bytes: number, at: number) => {
    const text = BigInt.asUintN(bytes * 8, value)
      .toString(16)
      .padStart(bytes * 2, '0');
    const raw = Buffer.from(text, 'hex');
    (format.big ? raw : raw.reverse()).copy(out, at);
  };
  put(BigInt(index + 1), 4, pid);
  let next = from;
  for (const [value, bytes] of words) {
    put(value, bytes, next);
    next += bytes;
  }
  return out;
}
