/** Where a machine's RAM blocks lie in guest-physical memory. */

import { Exit, VioError } from '../common/errors.js';
import { printable } from '../common/escape.js';
import type { RamBlock } from './model.js';

/** A run of guest-physical memory and the block bytes that are there. */
export interface PhysicalRange {
  gpa: bigint;
  length: bigint;
  /** index of the block */
  block: number;
  /** first byte in the block */
  from: bigint;
}

const G = 1n << 30n;
const FOUR_G = 4n * G;

interface Family {
  machine: RegExp;
  /** ELF e_machine */
  elf: number;
  /** where RAM begins */
  base: bigint;
  /** RAM below 4 GiB of a machine with so much RAM; the rest lies at 4 GiB (seen with QEMU's `info mtree`) */
  low?: (size: bigint) => bigint;
}

const families: Record<string, Family> = {
  pc: { machine: /^(pc(-i440fx)?(-|$)|isapc|xenfv|pc$)/, elf: 62, base: 0n, low: (size) => (size >= 0xe0000000n ? 0xc0000000n : size) },
  q35: { machine: /^(pc-)?q35(-|$)/, elf: 62, base: 0n, low: (size) => (size >= 0xb0000000n ? 0x80000000n : size) },
  microvm: { machine: /^microvm/, elf: 62, base: 0n, low: (size) => (size > 0xc0000000n ? 0xc0000000n : size) },
  arm: { machine: /^virt(-|$)/, elf: 183, base: G },
  pseries: { machine: /^pseries/, elf: 21, base: 0n },
  s390: { machine: /^s390-ccw-virtio/, elf: 22, base: 0n },
};

/** The family of a machine type; `virt` counts as Arm only if its RAM is called so. */
function familyOf(machine: string, blocks: readonly RamBlock[]): Family | undefined {
  const order = ['q35', 'microvm', 'arm', 'pseries', 's390', 'pc'];
  const name = order.find((n) => families[n]!.machine.test(machine));
  if (name === 'arm' && blocks.some((b) => b.name.startsWith('riscv_'))) return undefined;
  return name === undefined ? undefined : families[name];
}

/** ELF machine number of a machine type: x86-64 unless it is known to be another. */
export const elfMachine = (machine: string, blocks: readonly RamBlock[]): number => familyOf(machine, blocks)?.elf ?? 62;

/** Blocks that belong to devices or firmware, by their names in QEMU. */
const notRam =
  /^\/rom@|^[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]\/|(^|[./])(rom|bios|vram|flash\d*|vgamem|isa-bios)$|^system\.flash|^(virt|pflash)\.flash|vga/;
const mainRam = /^(pc|microvm|mach-virt|ppc_spapr|s390|riscv_virt_board|loongarch)\.ram$/;

/**
 * The blocks that make up the machine's RAM, in the order of their addresses: the machine's own block, or one per NUMA
 * node (by number), or the one memory backend.
 * @throws VioError (7) when they cannot be told
 */
export function ramBlocks(blocks: readonly RamBlock[], wanted: readonly string[] = []): number[] {
  const names = blocks.map((b) => b.name);
  if (wanted.length > 0) {
    return wanted.map((name) => {
      const index = names.indexOf(name);
      if (index < 0)
        throw new VioError(`no block "${printable(name)}"`, { code: 'BLOCK', hint: `there are: ${names.map(printable).join(', ')}` });
      return index;
    });
  }
  const main = names.findIndex((n) => mainRam.test(n));
  if (main >= 0) return [main];
  const nodes = names.flatMap((n, i) => (/(^|\/)ram-node\d+$/.test(n) ? [i] : []));
  const number = (i: number) => Number(/\d+$/.exec(names[i]!)![0]);
  if (nodes.length > 0) return nodes.sort((a, b) => number(a) - number(b));
  const rest = names.flatMap((n, i) => (notRam.test(n) ? [] : [i]));
  if (rest.length === 1) return rest;
  throw new VioError('it is not clear which blocks are the RAM of the machine', {
    code: 'LAYOUT',
    exit: Exit.unsupported,
    hint: `name them in the order of their addresses: --ram-block ${rest.map((i) => printable(names[i]!)).join(' --ram-block ') || 'NAME'}`,
  });
}

/**
 * Guest-physical layout: RAM from the machine's base on, with the hole below 4 GiB of PC machines.
 * @param low RAM below 4 GiB where the guest was not started with the machine's default (max-ram-below-4g)
 * @throws VioError (7) for a machine whose layout is not known
 */
export function physicalLayout(
  machine: string,
  blocks: readonly RamBlock[],
  wanted: readonly string[] = [],
  low?: bigint,
): PhysicalRange[] {
  const family = familyOf(machine, blocks);
  if (!family) {
    throw new VioError(`the physical memory layout of machine "${printable(machine)}" is not known`, {
      code: 'LAYOUT',
      exit: Exit.unsupported,
      hint: `--block NAME; there are: ${blocks.map((b) => printable(b.name)).join(', ')}`,
    });
  }
  const parts = ramBlocks(blocks, wanted);
  const size = parts.reduce((n, i) => n + blocks[i]!.length, 0n);
  const below = low !== undefined && family.low ? (low < size ? low : size) : (family.low?.(size) ?? size);
  const ranges: PhysicalRange[] = [];
  let at = 0n;
  for (const block of parts) {
    const { length } = blocks[block]!;
    const first = at < below ? (below - at < length ? below - at : length) : 0n;
    if (first > 0n) ranges.push({ gpa: family.base + at, length: first, block, from: 0n });
    if (first < length) ranges.push({ gpa: FOUR_G + (at + first - below), length: length - first, block, from: first });
    at += length;
  }
  return ranges;
}

/** The part of the ranges within [at, at + length). */
export function clip(ranges: readonly PhysicalRange[], at: bigint, length: bigint | undefined): PhysicalRange[] {
  const end = length === undefined ? 1n << 64n : at + length;
  return ranges.flatMap((r) => {
    const from = r.gpa > at ? r.gpa : at;
    const to = r.gpa + r.length < end ? r.gpa + r.length : end;
    return from < to ? [{ gpa: from, length: to - from, block: r.block, from: r.from + (from - r.gpa) }] : [];
  });
}
