import { Exit, usage, VioError } from '../common/errors.js';
import { printable } from '../common/escape.js';
import type { Sysroot } from '../common/sysroot.js';
import { hex64, parseSizeBig } from '../common/units.js';
import type { Extent } from './space.js';

/** A range that the IOMMU keeps from mappings. */
export interface Reserved extends Extent {
  /** As the kernel names it: direct, direct-relaxable, reserved, msi; `avoid` for the user's own. */
  type: string;
}

/** What may be mapped, and why the rest may not. */
export interface Aperture {
  ranges: Extent[];
  reserved: Reserved[];
  /** Page sizes of the IOMMU, ascending. */
  pages: bigint[];
  /** DMA mappings that a container may have. */
  limit: number;
}

/** dma_entry_limit of vfio_iommu_type1 unless the administrator set another (drivers/vfio/vfio_iommu_type1.c). */
export const entryLimit = 65535;

/**
 * Parses the lines of an IOMMU group's `reserved_regions` (Documentation/ABI/testing/sysfs-kernel-iommu_groups):
 * `0x00000000fee00000 0x00000000feefffff msi`.
 * @throws VioError (exit 5) with the line's number
 */
export function parseReservedRegions(text: string): Reserved[] {
  return text.split('\n').flatMap((line, i) => {
    if (line.trim() === '') return [];
    const match = /^\s*0x([0-9a-f]{1,16})\s+0x([0-9a-f]{1,16})\s+(\S+)\s*$/i.exec(line);
    const [start, end] = match ? [BigInt(`0x${match[1]}`), BigInt(`0x${match[2]}`)] : [1n, 0n];
    if (!match || end < start)
      throw new VioError(`reserved regions, line ${i + 1}: not "0xSTART 0xEND TYPE": "${printable(line.slice(0, 80))}"`, {
        code: 'BAD_RESERVED',
        exit: Exit.damaged,
        hint: 'the lines of /sys/kernel/iommu_groups/N/reserved_regions are meant',
      });
    return [{ start, end, type: match[3]! }];
  });
}

/** `START-END` of --avoid, both included. @throws VioError (usage) */
export function parseAvoid(text: string): Reserved {
  const match = /^(0x[0-9a-f]{1,16})-(0x[0-9a-f]{1,16})$/i.exec(text);
  if (!match || BigInt(match[2]!) < BigInt(match[1]!))
    throw usage(`not an address range: "${printable(text)}"`, 'ranges are 0xSTART-0xEND, both included');
  return { start: BigInt(match[1]!), end: BigInt(match[2]!), type: 'avoid' };
}

/** `4K,2M,1G`, ascending. @throws VioError (usage) */
export function parsePages(text: string): bigint[] {
  const pages = text.split(',').map(parseSizeBig);
  for (const page of pages)
    if (page < 4096n || (page & (page - 1n)) !== 0n) throw usage(`not a page size: ${page}`, 'powers of two from 4K on, such as 4K,2M,1G');
  const sorted = [...new Set(pages)].sort((a, b) => (a < b ? -1 : 1));
  if (sorted.length > 4) throw usage('more than four page sizes');
  return sorted;
}

/** The page sizes of a bitmap that are worth aligning to: the smallest, and up to three that processors have hugepages of. */
export function pagesOf(bitmap: bigint): bigint[] {
  const smallest = bitmap & -bitmap;
  const huge = [2n << 20n, 1n << 30n, 512n << 20n, 32n << 20n, 64n << 10n].filter((page) => page > smallest && (bitmap & page) !== 0n);
  return [smallest, ...huge.slice(0, 3)].sort((a, b) => (a < b ? -1 : 1));
}

/**
 * Whole ranges less reserved ones. VFIO leaves `direct-relaxable` regions to the user (vfio_iommu_resv_exclude() in
 * drivers/vfio/vfio_iommu_type1.c).
 */
export function allowed(whole: readonly Extent[], reserved: readonly Reserved[]): Extent[] {
  const holes = reserved.filter((r) => r.type !== 'direct-relaxable').sort((a, b) => (a.start < b.start ? -1 : 1));
  return whole.flatMap(({ start, end }) => {
    const parts: Extent[] = [];
    let from = start;
    for (const hole of holes) {
      if (hole.end < from || hole.start > end) continue;
      if (hole.start > from) parts.push({ start: from, end: hole.start - 1n });
      from = hole.end + 1n;
    }
    if (from <= end) parts.push({ start: from, end });
    return parts;
  });
}

/** [0, 2^bits - 1]. @throws VioError (usage) for a width that no IOMMU has */
export function widthRange(bits: number): Extent {
  if (!Number.isInteger(bits) || bits < 16 || bits > 64) throw usage(`not an address width: ${bits}`, 'IOMMUs have 39, 48 or 57 bits');
  return { start: 0n, end: (1n << BigInt(bits)) - 1n };
}

/**
 * Address width of the IOMMU in front of a device as its unit's sysfs folder tells it, undefined where it does not.
 * VT-d: the smaller of MGAW and the deepest page table of SAGAW (capability register, VT-d specification 11.4.2).
 */
export function addressWidth(root: Sysroot, bdf: string): number | undefined {
  const text = root.attr(`/sys/bus/pci/devices/${bdf}/iommu/intel-iommu/cap`);
  if (text === undefined || !/^[0-9a-f]{1,16}$/i.test(text)) return undefined;
  const cap = BigInt(`0x${text}`);
  const sagaw = Number((cap >> 8n) & 0x1fn);
  const deepest = [57, 48, 39].find((_, i) => sagaw & (8 >> i));
  return deepest === undefined ? undefined : Math.min(deepest, Number((cap >> 16n) & 0x3fn) + 1);
}

/** How a reserved or foreign address is to be named in an error. */
export function describeAddress(aperture: Aperture, address: bigint): string {
  const hit = aperture.reserved.find((r) => r.start <= address && address <= r.end && r.type !== 'direct-relaxable');
  if (hit) return `the ${hit.type === 'avoid' ? 'avoided' : `reserved region (${hit.type})`} ${hex64(hit.start)}-${hex64(hit.end)}`;
  const last = aperture.ranges.at(-1);
  if (last && address > last.end) return `what lies beyond the IOMMU's last address ${hex64(last.end)}`;
  return 'an address that the IOMMU does not map';
}

/** What the IOMMU keeps from mappings of a device's group, as sysfs tells it. @throws VioError (5) for damaged lines */
export const readReserved = (root: Sysroot, bdf: string): Reserved[] =>
  parseReservedRegions(root.attr(`/sys/bus/pci/devices/${bdf}/iommu_group/reserved_regions`) ?? '');

/**
 * What may be mapped for a device, from sysfs alone: no privilege, no open device.
 * @param width overrides the IOMMU's own address width
 */
export function readAperture(root: Sysroot, bdf: string, pages: bigint[], width?: number): Aperture {
  const dir = `/sys/bus/pci/devices/${bdf}`;
  if (!root.exists(dir)) throw new VioError(`${bdf}: no such PCI device`, { code: 'ENODEV', hint: 'vioctl vfio list' });
  if (!root.exists(`${dir}/iommu_group`))
    throw new VioError(`${bdf}: no IOMMU is in front of this device`, {
      code: 'NO_IOMMU',
      exit: Exit.unsupported,
      hint: 'vioctl vfio doctor',
    });
  const bits = width ?? addressWidth(root, bdf);
  if (bits === undefined)
    throw new VioError(`${bdf}: this IOMMU does not show its address width in sysfs`, {
      code: 'NO_WIDTH',
      exit: Exit.unsupported,
      hint: 'give it with --aw 48 (39 and 57 are common too)',
    });
  const reserved = readReserved(root, bdf);
  const limit = Number(root.attr('/sys/module/vfio_iommu_type1/parameters/dma_entry_limit') ?? entryLimit);
  return { ranges: allowed([widthRange(bits)], reserved), reserved, pages, limit };
}
