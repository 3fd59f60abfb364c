/** ROM in front of a PC's RAM between 768 KiB and 1 MiB, which the chipset opens part by part (Intel 82441FX, 3.2.18: PAM). */
import type { Evidence } from '../devices/evidence.js';
import type { RamBlock } from '../stream/model.js';
import type { PhysicalRange } from './options.js';

const begin = 0xc0000n;
/** Option ROMs end here, and the BIOS begins. */
const bios = 0xe0000n;
const end = 0x100000n;
/** What one field of the registers is for; the last 64 KiB have one field. */
const step = 0x4000n;
/** Reads and writes go to the RAM; QEMU has RAM for reads too where writes alone are opened (hw/pci-host/pam.c). */
const open = 3;

/** Whether reads of the part at `address` come from the RAM. @param pam the seven registers */
function fromRam(pam: Uint8Array, address: bigint): boolean {
  const part = address >= 0xf0000n ? 1 : 2 + Number((address - begin) / step);
  return ((pam[part >> 1]! >> (part % 2 === 1 ? 4 : 0)) & open) !== 0;
}

/** The ROM of `blocks` at an address: the one for the options, or the end of the BIOS. */
function romAt(blocks: readonly RamBlock[], address: bigint): { block: number; start: bigint; from: bigint } | undefined {
  const index = (name: string) => blocks.findIndex((b) => b.name === name);
  if (address < bios) {
    const block = index('pc.rom');
    return block < 0 || address - begin >= blocks[block]!.length ? undefined : { block, start: begin, from: 0n };
  }
  const block = [index('isa-bios'), index('pc.bios'), index('system.flash0')].find((i) => i >= 0);
  if (block === undefined) return undefined;
  const { length } = blocks[block]!;
  const size = length < end - bios ? length : end - bios;
  return address < end - size ? undefined : { block, start: end - size, from: length - size };
}

/** The parts that are ROM for a guest. Where a part is closed and has no ROM, QEMU shows the RAM. */
function hidden(machine: string, evidence: Evidence | undefined, blocks: readonly RamBlock[]): PhysicalRange[] {
  const { pam } = evidence ?? {};
  // These two have no registers: their BIOS always lies over the RAM, and on isapc the option ROMs too.
  const always = machine === 'isapc' ? begin : /^microvm/.test(machine) ? bios : undefined;
  if (!pam && always === undefined) return [];
  const parts: PhysicalRange[] = [];
  for (let at = begin; at < end; at += step) {
    if (always === undefined ? fromRam(pam!, at) : at < always) continue;
    const rom = romAt(blocks, at);
    if (rom) parts.push({ gpa: at, length: step, block: rom.block, from: rom.from + (at - rom.start) });
  }
  return parts;
}

/** Ranges without [from, to). */
function without(ranges: readonly PhysicalRange[], from: bigint, to: bigint): PhysicalRange[] {
  return ranges.flatMap((r) => {
    const stop = r.gpa + r.length;
    if (stop <= from || r.gpa >= to) return [r];
    return [
      ...(r.gpa < from ? [{ ...r, length: from - r.gpa }] : []),
      ...(stop > to ? [{ ...r, gpa: to, length: stop - to, from: r.from + (to - r.gpa) }] : []),
    ];
  });
}

/** Whether a range goes on where another ends, in the address space and in the block. */
const follows = (a: PhysicalRange | undefined, b: PhysicalRange): a is PhysicalRange =>
  a !== undefined && a.block === b.block && a.gpa + a.length === b.gpa && a.from + a.length === b.from;

/**
 * The RAM of a PC as its guest reads it: with ROM over it where the chipset does not let reads through. Where the stream has no
 * registers, the RAM is taken to be open, as it is once a BIOS has started.
 */
export function withRom(
  ram: readonly PhysicalRange[],
  machine: string,
  evidence: Evidence | undefined,
  blocks: readonly RamBlock[],
): PhysicalRange[] {
  const roms: PhysicalRange[] = [];
  let left = [...ram];
  for (const rom of hidden(machine, evidence, blocks)) {
    left = without(left, rom.gpa, rom.gpa + step);
    const last = roms.at(-1);
    if (follows(last, rom)) last.length += rom.length;
    else roms.push({ ...rom });
  }
  return [...left, ...roms];
}
