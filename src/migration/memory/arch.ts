/** The architecture of a guest: by the names of its RAM blocks, or by the registers that its CPUs are described with. */

import type { Description } from '../devices/vmdesc.js';
import type { RamBlock } from '../stream/model.js';
import { type Arch, boardOf } from './boards.js';

export type { Arch };

/** Machines name their own RAM; a memory backend has the name that the user gave it. */
const blockNames: [RegExp, Arch][] = [
  [/^(pc|microvm)\.ram$/, 'x86'],
  [/^mach-virt\.ram$/, 'aarch64'],
  [/^riscv_/, 'riscv'],
  [/^loongarch\./, 'loongarch'],
  [/^m68k_/, 'm68k'],
  [/^openrisc\./, 'openrisc'],
  [/^s390\.ram$/, 's390x'],
  [/^ppc_spapr\.ram$/, 'ppc'],
];

/** A field that only this architecture's CPU section has. */
const registers: [string, Arch][] = [
  ['env.segs', 'x86'],
  ['env.xregs', 'aarch64'],
  ['env.mstatus', 'riscv'],
  ['env.CSR_CRMD', 'loongarch'],
  ['env.dregs', 'm68k'],
  ['env.psw.mask', 's390x'],
  ['env.nip', 'ppc'],
  ['env.nwindows', 'sparc'],
  ['env.active_tc', 'mips'],
  ['env.pc_w', 'avr'],
];

/** Machine types that exist for one architecture only. */
const machineNames: [RegExp, Arch][] = [
  [/^(pc(-|$)|(pc-)?q35(-|$)|isapc|microvm|xenfv)/, 'x86'],
  [/^(pseries|powernv)/, 'ppc'],
  [/^s390-ccw-virtio/, 's390x'],
];

/** undefined where nothing tells it. @param machine type, '' for none */
export function archOf(blocks: readonly Pick<RamBlock, 'name'>[], description?: Description, machine = ''): Arch | undefined {
  const named = blockNames.find(([name]) => blocks.some((b) => name.test(b.name)));
  if (named) return named[1];
  const cpu = description?.devices.find((d) => d.name === 'cpu');
  const fields = new Set(cpu?.fields.map((f) => f.name));
  const arch = registers.find(([name]) => fields.has(name))?.[1];
  if (arch) return arch;
  if (description?.devices.some((d) => d.name.startsWith('or1k'))) return 'openrisc';
  return machineNames.find(([name]) => name.test(machine))?.[1] ?? boardOf(machine)?.arch;
}

/** ELF e_machine (System V ABI); of 64 bits where there are two. */
const elfMachines: Record<Arch, number> = {
  x86: 62,
  aarch64: 183,
  arm: 40,
  riscv: 243,
  loongarch: 258,
  m68k: 4,
  openrisc: 92,
  s390x: 22,
  ppc: 21,
  sparc: 43,
  mips: 8,
  avr: 83,
};
const narrowMachines: Partial<Record<Arch, number>> = { ppc: 20, sparc: 2 };
export const elfMachine = (arch: Arch, bits: 32 | 64): number => (bits === 32 ? narrowMachines[arch] : undefined) ?? elfMachines[arch];
