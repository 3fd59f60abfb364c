/** What a walk, and the memory itself, tell about the machine. */
import fs from 'node:fs';
import { acpiBlock, acpiMost } from '../memory/acpi.js';
import { type Arch, archOf } from '../memory/arch.js';
import type { Facts } from '../memory/layout.js';
import type { Placement } from '../memory/options.js';
import type { RamBlock } from '../stream/model.js';
import type { Walker } from '../walk.js';
import { type ExtractOptions, page } from './plan.js';

/** What is looked at of blocks before the layout is known: the ACPI tables, and the start of a RAM that may hold a device tree. */
const ramStart = 4 << 20;
export const evidenceOf = (b: RamBlock): bigint | undefined => {
  if (b.name === acpiBlock) return b.length < BigInt(acpiMost) ? b.length : BigInt(acpiMost);
  return b.name === 'loongarch.ram' ? BigInt(ramStart) : undefined;
};
/** A device tree lies on a page boundary. */
const tree = Buffer.from('d00dfeed', 'hex');
function deviceTreeIn(bytes: Buffer | undefined): Buffer | undefined {
  for (let at = 0; bytes && at < bytes.length; at += page) if (bytes.subarray(at, at + 4).equals(tree)) return bytes.subarray(at);
  return undefined;
}

/** What a walk has found out about the machine. @param bytesOf what was looked at of a block */
export const factsOf = (
  walker: Walker,
  { machine }: ExtractOptions,
  bytesOf: (name: string) => Buffer | undefined = () => undefined,
): Facts => ({
  machine: machine ?? walker.configuration?.machine ?? '',
  evidence: walker.evidence,
  description: walker.description,
  acpi: bytesOf(acpiBlock),
  ramStart: deviceTreeIn(bytesOf('loongarch.ram')),
});

/** The architecture of the guest, if anything tells it. */
export const archOfWalk = ({ ram, description, configuration }: Walker, { machine }: ExtractOptions): Arch | undefined =>
  archOf(ram?.blocks ?? [], description, machine ?? configuration?.machine);

/** The bytes of a block that lie at these placements of a file. */
export const staged =
  (fd: number, blocks: readonly RamBlock[], placements: readonly Placement[]) =>
  (name: string): Buffer | undefined => {
    const block = blocks.findIndex((b) => b.name === name);
    const place = placements.find((p) => p.block === block && p.from === 0n);
    const size = block < 0 || !place ? 0n : (evidenceOf(blocks[block]!) ?? 0n);
    const bytes = Buffer.alloc(Number(size < (place?.to ?? 0n) ? size : (place?.to ?? 0n)));
    return bytes.length > 0 ? bytes.subarray(0, fs.readSync(fd, bytes, 0, bytes.length, Number(place!.out))) : undefined;
  };
