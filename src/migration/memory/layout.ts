/** Where a machine's RAM blocks lie in guest-physical memory. */

import { Exit, VioError } from '../../common/errors.js';
import { printable, printableNames, shellWord } from '../../common/escape.js';
import type { Evidence } from '../devices/evidence.js';
import type { Description } from '../devices/vmdesc.js';
import type { RamBlock } from '../stream/model.js';
import { hasWindowAt, type MemoryRange, nfitRanges, sratMemory } from './acpi.js';
import { type Arch, archOf } from './arch.js';
import { boardOf, type Family } from './boards.js';
import { dynamicMemory, memoryNodes } from './fdt.js';
import { mainRam, virtioMemOf } from './missing.js';
import type { PhysicalRange } from './options.js';
import { withRom } from './shadow.js';

export type { PhysicalRange } from './options.js';

/** A block of the guest's memory whose address nothing tells. */
export interface Unplaced {
  block: string;
  length: bigint;
}

export interface Layout {
  ranges: PhysicalRange[];
  unplaced: Unplaced[];
}

/** What is known about a machine. */
export interface Facts {
  machine: string;
  evidence?: Evidence | undefined;
  description?: Description | undefined;
  /** the ACPI tables that QEMU made for the guest */
  acpi?: Buffer | undefined;
  /** the start of the RAM, where machines for other architectures than x86 put a device tree for the firmware */
  ramStart?: Buffer | undefined;
}

export interface LayoutOptions {
  /** blocks that make up the machine's RAM, in the order of their addresses */
  ramBlocks?: readonly string[] | undefined;
  /** RAM below 4 GiB */
  below4g?: bigint | undefined;
  /** firmware in flash and ROM too, where its address is fixed */
  rom?: boolean | undefined;
  /** blocks at given addresses */
  placed?: readonly { address: bigint; block: string }[] | undefined;
}

const mebi = 1n << 20n;
const gibi = 1n << 30n;
const fourGibi = 4n * gibi;

/** Layouts by machine type, as QEMU's `info mtree` has them. */
const machines: { name: RegExp; family: Family }[] = [
  { name: /^(pc-)?q35(-|$)/, family: { base: 0n, low: (size) => (size >= 0xb0000000n ? 0x80000000n : size), high: fourGibi } },
  { name: /^microvm/, family: { base: 0n, low: (size) => (size > 0xc0000000n ? 0xc0000000n : size), high: fourGibi } },
  {
    name: /^(pc(-i440fx)?(-|$)|isapc|xenfv)/,
    family: { base: 0n, low: (size) => (size >= 0xe0000000n ? 0xc0000000n : size), high: fourGibi },
  },
  { name: /^pseries/, family: { base: 0n } },
  { name: /^s390-ccw-virtio/, family: { base: 0n } },
];

/** Where AMD's address space has a hole, below 1 TiB: QEMU 7.1 and newer moves RAM above 4 GiB behind it (hw/i386/pc.c). */
const amdHole = 0xfd00000000n;
const amdAbove = 1n << 40n;
/** The most that the 64-bit PCI window takes behind the RAM unless it is configured (q35). */
const pciWindow = 32n * gibi;

/** The machine type `virt`, which exists for many architectures. */
const virt: Partial<Record<Arch, Family>> = {
  aarch64: { base: gibi },
  riscv: { base: 2n * gibi },
  m68k: { base: 0n },
  openrisc: { base: 0n },
  loongarch: { base: 0n, low: (size) => (size > 256n * mebi ? 256n * mebi : size), high: 2n * gibi },
};

/** Whether a stream without a name of its machine is one of a PC: machine types before 2.4. */
const unnamedPc = (machine: string, blocks: readonly RamBlock[]): boolean => machine === '' && blocks.some((b) => b.name === 'pc.ram');

function familyOf({ machine, description }: Facts, blocks: readonly RamBlock[]): Family | undefined {
  if (/^virt(-|$)/.test(machine)) {
    const arch = archOf(blocks, description, machine);
    return arch && virt[arch];
  }
  const name = unnamedPc(machine, blocks) ? 'pc' : machine;
  return machines.find((m) => m.name.test(name))?.family ?? boardOf(machine)?.family;
}

/**
 * RAM below 4 GiB by a PC's CMOS, which has it in units of 64 KiB, as it has the RAM above.
 * @throws VioError where it contradicts the blocks: a guest may write there
 */
function cmosSplit(cmos: Uint8Array, total: bigint): bigint {
  const word = (at: number) => BigInt(cmos[at]! | (cmos[at + 1]! << 8));
  const unit = 64n << 10n;
  const above = (word(0x5b) | (BigInt(cmos[0x5d]!) << 16n)) * unit;
  const below = word(0x34) > 0n ? 16n * mebi + word(0x34) * unit : mebi + (word(0x17) << 10n);
  // The three bytes for the RAM above count up to 1 TiB.
  if (above === 0n && total < fourGibi && (total <= mebi || total - below < unit)) return total;
  if (total > below && (total - below) % (1n << 40n) === above) return below;
  throw new VioError('the CMOS of the guest does not fit its RAM: it is not clear how much of it lies below 4 GiB', {
    code: 'LAYOUT',
    exit: Exit.unsupported,
    hint: '--below-4g SIZE',
  });
}

/** Blocks that belong to devices or firmware, by their names in QEMU. */
const notRam =
  /^\/rom@|^[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]\/|(^|[./])([imp]?rom\d*|secure_rom|caam|eNVM|bios|vram|p?flash\d*|vgamem|isa-bios)$|^system\.flash|^(virt|pflash)\.flash|vga/;

/** The block of this name, also as it is printed: a name may have bytes that nobody can type. @throws VioError */
export function blockIndex(blocks: readonly Pick<RamBlock, 'name'>[], name: string): number {
  const index = [(n: string) => n, printable].map((as) => blocks.findIndex((b) => as(b.name) === name)).find((i) => i >= 0);
  if (index !== undefined) return index;
  const hint = `there are: ${printableNames(blocks.map((b) => b.name))}`;
  throw new VioError(`no block "${printable(name)}"`, { code: 'BLOCK', hint });
}

/**
 * The blocks that make up the machine's RAM, in the order of their addresses: the machine's own block, or one per NUMA
 * node (by number), or the one memory backend.
 * @param taken blocks whose place is known otherwise
 * @throws VioError (7) when they cannot be told
 */
export function ramBlocks(blocks: readonly RamBlock[], wanted: readonly string[] = [], taken: ReadonlySet<number> = new Set()): number[] {
  const names = blocks.map((b) => b.name);
  if (wanted.length > 0) return wanted.map((name) => blockIndex(blocks, name));
  const main = names.findIndex((n) => mainRam.test(n));
  if (main >= 0) return [main];
  const nodes = names.flatMap((n, i) => (/(^|\/)ram-node\d+$/.test(n) ? [i] : []));
  const number = (i: number) => Number(/\d+$/.exec(names[i]!)![0]);
  if (nodes.length > 0) return nodes.sort((a, b) => number(a) - number(b));
  const rest = names.flatMap((n, i) => (notRam.test(n) || taken.has(i) ? [] : [i]));
  if (rest.length === 1) return rest;
  throw new VioError('it is not clear which blocks are the RAM of the machine', {
    code: 'LAYOUT',
    exit: Exit.unsupported,
    hint: `name them in the order of their addresses: --ram-block ${rest.map((i) => shellWord(printable(names[i]!))).join(' --ram-block ') || 'NAME'}`,
  });
}

/**
 * Where the RAM above 4 GiB begins on a PC: by the SRAT, else by the 64-bit PCI window behind it, else 4 GiB unless AMD's
 * hole may have moved it.
 * @throws VioError where nothing tells
 */
function aboveStart({ machine, acpi }: Facts, above: bigint): bigint {
  const srat = acpi ? sratMemory(acpi).filter((m) => !m.hotpluggable && !m.nonVolatile && m.address >= fourGibi && m.length > 0n) : [];
  if (srat.length > 0) return srat.reduce((n, m) => (m.address < n ? m.address : n), srat[0]!.address);
  const up = (n: bigint) => (n + gibi - 1n) & ~(gibi - 1n);
  const windowAt = (start: bigint) => acpi !== undefined && hasWindowAt(acpi, up(start));
  if (windowAt(amdAbove + above)) return amdAbove;
  const version = /(\d+)\.(\d+)$/.exec(machine);
  const before = version !== null && (Number(version[1]) < 7 || (version[1] === '7' && version[2] === '0'));
  if (before || fourGibi + above + pciWindow <= amdHole || windowAt(fourGibi + above)) return fourGibi;
  throw new VioError('it is not clear whether the RAM above 4 GiB lies there or, as for an AMD CPU, above 1 TiB', {
    code: 'LAYOUT',
    exit: Exit.unsupported,
    hint: '--block NAME gives it whole',
  });
}

/** Ranges that are looked at, far more than machines have slots for memory: what a guest writes may have any number. */
const rangesMost = 1024;

/** Ranges that each are one block, by a length that no other block or range has; `spare` is how much longer the block may be. */
function byLength(all: readonly MemoryRange[], blocks: readonly RamBlock[], open: readonly number[], spare = 0n): PhysicalRange[] {
  const ranges = all.slice(0, rangesMost);
  const fits = (r: MemoryRange, i: number) => blocks[i]!.length >= r.length && blocks[i]!.length - r.length <= spare;
  return ranges.flatMap((r) => {
    const mine = open.filter((i) => fits(r, i));
    if (mine.length !== 1 || ranges.filter((other) => fits(other, mine[0]!)).length !== 1) return [];
    return [{ gpa: r.address, length: r.length, block: mine[0]!, from: 0n }];
  });
}

/** The label area at the end of an NVDIMM is no memory of the guest; QEMU's least is 128 KiB. */
const labelMost = 2n * mebi;

/** Blocks whose place a device or the user gives. */
function placedBlocks(facts: Facts, blocks: readonly RamBlock[], options: LayoutOptions): PhysicalRange[] {
  const given = (options.placed ?? []).map(({ address, block }) => ({ gpa: address, block: blockIndex(blocks, block) }));
  const known = new Set(given.map((p) => p.block));
  const devices = facts.evidence?.virtioMem ?? [];
  const plugged = blocks.flatMap((b, block) => {
    const device = known.has(block) ? undefined : virtioMemOf(b, blocks, devices);
    return device ? [{ gpa: device.address, block }] : [];
  });
  for (const { block } of plugged) known.add(block);
  const open = blocks.flatMap((b, i) => (known.has(i) || notRam.test(b.name) || mainRam.test(b.name) ? [] : [i]));
  const tree = facts.evidence?.deviceTree;
  return [
    ...[...given, ...plugged].map(({ gpa, block }) => ({ gpa, block, length: blocks[block]!.length, from: 0n })),
    ...(facts.acpi ? byLength(nfitRanges(facts.acpi), blocks, open, labelMost) : []),
    ...(tree ? byLength(dynamicMemory(tree), blocks, open) : []),
  ];
}

/** The RAM of a board by its own name for it; none where a memory backend has another. */
function boardRam(machine: string, blocks: readonly RamBlock[]): string[] {
  const ram = boardOf(machine)?.ram;
  return ram !== undefined && blocks.some((b) => b.name === ram) ? [ram] : [];
}

/** Memory that a board has beside its RAM. */
function boardRanges(machine: string, blocks: readonly RamBlock[], taken: ReadonlySet<number>): PhysicalRange[] {
  const more = boardOf(machine)?.more ?? {};
  return blocks.flatMap((b, block) => {
    const gpa = taken.has(block) || !Object.hasOwn(more, b.name) ? undefined : more[b.name];
    return gpa === undefined ? [] : [{ gpa, length: b.length, block, from: 0n }];
  });
}

/** Where guests see memory of a board once more. */
function mirrorRanges(machine: string, blocks: readonly RamBlock[], parts: readonly number[]): PhysicalRange[] {
  const [ram] = parts;
  if (ram === undefined || parts.length > 1) return [];
  const mirrors = boardOf(machine)?.mirrors?.(blocks[ram]!.length, blocks[ram]!.name) ?? [];
  return mirrors.flatMap(({ block: name, address, from, length }) => {
    const block = blocks.findIndex((b) => b.name === name && from + length <= b.length);
    return block < 0 ? [] : [{ gpa: address, length, block, from }];
  });
}

/** Firmware by the names of its blocks: where it begins, by how much of the space below 4 GiB it ends (QEMU hw/i386/x86.c, pc_sysfw.c, hw/arm/virt.c, hw/riscv/virt.c). */
const belowFourG = (b: RamBlock): bigint => fourGibi - b.length;
const firmware: Partial<Record<Arch, Record<string, (block: RamBlock, blocks: readonly RamBlock[]) => bigint>>> = {
  x86: {
    'pc.bios': belowFourG,
    'system.flash0': belowFourG,
    'system.flash1': (b, blocks) => belowFourG(b) - (blocks.find(({ name }) => name === 'system.flash0')?.length ?? 0n),
  },
  aarch64: { 'virt.flash0': () => 0n, 'virt.flash1': () => 64n * mebi },
  riscv: { 'riscv_virt_board.mrom': () => 0x1000n, 'virt.flash0': () => 512n * mebi, 'virt.flash1': () => 544n * mebi },
};

/** Ranges of the firmware whose address the machine fixes. */
function firmwareRanges({ machine, description }: Facts, blocks: readonly RamBlock[], taken: ReadonlySet<number>): PhysicalRange[] {
  const known = firmware[archOf(blocks, description, machine) ?? 'avr'] ?? {};
  return blocks.flatMap((b, block) => {
    const address = taken.has(block) ? undefined : known[b.name]?.(b, blocks);
    return address === undefined ? [] : [{ gpa: address, length: b.length, block, from: 0n }];
  });
}

/** Where the part above the hole begins. */
function highStart(family: Family, facts: Facts, size: bigint, below: bigint): bigint {
  if (family.high === fourGibi) return aboveStart(facts, size - below);
  // A device tree for the firmware has all memory; older versions of the machine have another address.
  const nodes = facts.ramStart ? memoryNodes(facts.ramStart) : [];
  const second = nodes.find((n) => n.address > 0n);
  if (nodes.length === 2 && second && nodes.reduce((n, m) => n + m.length, 0n) === size) return second.address;
  return family.high!;
}

/** The machine's own RAM: from its base on, with a hole where it has one. */
function ownRam(family: Family, facts: Facts, blocks: readonly RamBlock[], parts: readonly number[], given?: bigint): PhysicalRange[] {
  const size = parts.reduce((n, i) => n + blocks[i]!.length, 0n);
  const cmos = family.high === fourGibi && given === undefined ? facts.evidence?.cmos : undefined;
  const low = given !== undefined && family.low ? given : cmos ? cmosSplit(cmos, size) : (family.low?.(size) ?? size);
  const below = low < size ? low : size;
  const high = family.high === undefined || below === size ? 0n : highStart(family, facts, size, below);
  const ranges: PhysicalRange[] = [];
  let at = 0n;
  for (const block of parts) {
    const { length } = blocks[block]!;
    const first = at < below ? (below - at < length ? below - at : length) : 0n;
    if (first > 0n) ranges.push({ gpa: family.base + at, length: first, block, from: 0n });
    if (first < length) ranges.push({ gpa: high + (at + first - below), length: length - first, block, from: first });
    at += length;
  }
  return ranges;
}

/** Two ranges that share an address: an address that was given, or a device, contradicts the machine. */
function noOverlap(ranges: readonly PhysicalRange[], blocks: readonly RamBlock[]): void {
  for (const [i, r] of ranges.entries()) {
    const before = ranges[i - 1];
    if (!before || before.gpa + before.length <= r.gpa) continue;
    const names = [before, r].map((x) => printable(blocks[x.block]!.name));
    throw new VioError(`blocks ${names.join(' and ')} would lie at the same addresses`, {
      code: 'LAYOUT',
      exit: Exit.unsupported,
      hint: '--layout ADDRESS=BLOCK',
    });
  }
}

/**
 * Guest-physical layout, sorted by address: the machine's RAM from its base on, with its holes, and the memory of devices
 * that say where it is. Blocks of memory that are none of these are named, and never placed by a guess.
 * @throws VioError (7) for a machine whose layout is not known
 */
export function physicalLayout(facts: Facts, blocks: readonly RamBlock[], options: LayoutOptions = {}): Layout {
  const devices = placedBlocks(facts, blocks, options);
  const taken = new Set(devices.map((d) => d.block));
  const family = familyOf(facts, blocks);
  if (!family && !options.placed?.length) {
    const what =
      facts.machine === ''
        ? 'the stream does not name its machine'
        : `the physical memory layout of machine "${printable(facts.machine)}" is not known`;
    throw new VioError(what, {
      code: 'LAYOUT',
      exit: Exit.unsupported,
      hint: `--machine TYPE, --block NAME or --layout ADDRESS=NAME; there are: ${printableNames(blocks.map((b) => b.name))}`,
    });
  }
  const parts = family ? ramBlocks(blocks, options.ramBlocks ?? boardRam(facts.machine, blocks), taken).filter((i) => !taken.has(i)) : [];
  const ram = family ? ownRam(family, facts, blocks, parts, options.below4g) : [];
  const own = family?.high === fourGibi ? withRom(ram, facts.machine, facts.evidence, blocks) : ram;
  for (const i of parts) taken.add(i);
  const others = boardRanges(facts.machine, blocks, taken);
  for (const { block } of others) taken.add(block);
  const roms = options.rom ? firmwareRanges(facts, blocks, taken) : [];
  const mirrors = mirrorRanges(facts.machine, blocks, parts);
  const ranges = [...own, ...others, ...mirrors, ...devices, ...roms].sort((a, b) => (a.gpa < b.gpa ? -1 : a.gpa > b.gpa ? 1 : 0));
  noOverlap(ranges, blocks);
  const unplaced = options.ramBlocks?.length ? [] : blocks.filter((b, i) => !taken.has(i) && !notRam.test(b.name));
  return { ranges, unplaced: unplaced.map((b) => ({ block: b.name, length: b.length })) };
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
