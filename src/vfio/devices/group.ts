import type { Sysroot } from '../../common/sysroot.js';
import type { Modules } from './modules.js';
import { idOf, type PciDevice, readDevices } from './pci.js';

/** A member of an IOMMU group and whether it keeps VFIO from using the group. */
export interface GroupMember {
  bdf: string;
  id: string;
  driver: string | undefined;
  bridge: boolean;
  vfio: boolean;
  /** A host driver uses it for DMA: the group is not viable. */
  blocks: boolean;
  /** The command that takes the obstacle away. */
  fix: string | undefined;
}

/** An IOVA range of `reserved_regions`; end is inclusive. */
export interface ReservedRegion {
  start: bigint;
  end: bigint;
  type: string;
}

export interface IommuGroup {
  id: number;
  /** Default domain: `DMA`, `DMA-FQ`, `identity`, … */
  type: string | undefined;
  members: GroupMember[];
  /** No member is on a host driver. */
  viable: boolean;
  reserved: ReservedRegion[];
  /** `/dev/vfio/7`, when it exists. */
  node: string | undefined;
}

/**
 * Drivers of endpoints that share their group without using it for DMA (`driver_managed_dma` in the kernel's pci_driver:
 * pci-stub). Bridges are ignored by the kernel whatever drives them.
 */
const harmless = new Set(['pci-stub']);

/** Whether a member keeps its group from being used by VFIO. */
export function blocksGroup(member: Pick<PciDevice, 'bridge' | 'driver'>, modules: Modules): boolean {
  return !member.bridge && member.driver !== undefined && !harmless.has(member.driver) && !modules.isVfio(member.driver);
}

/** Lines of an IOMMU group's `reserved_regions`: `0xfee00000 0xfeefffff msi`. Lines of another shape are left out. */
export function parseReserved(text: string): ReservedRegion[] {
  return text.split('\n').flatMap((line) => {
    const match = /^(0x[0-9a-f]{1,16}) (0x[0-9a-f]{1,16}) (\S+)$/.exec(line.trim());
    return match ? [{ start: BigInt(match[1]!), end: BigInt(match[2]!), type: match[3]! }] : [];
  });
}

/** Path of the character device of a group, whether it exists or not. */
export const groupNode = (id: number): string => `/dev/vfio/${id}`;

/** Reads a group with its members. A group that went away has no members. */
export function readGroup(root: Sysroot, modules: Modules, id: number): IommuGroup {
  const dir = `/sys/kernel/iommu_groups/${id}`;
  const members = readDevices(root, root.list(`${dir}/devices`)).map((device): GroupMember => {
    const blocks = blocksGroup(device, modules);
    return {
      bdf: device.bdf,
      id: idOf(device),
      driver: device.driver,
      bridge: device.bridge,
      vfio: modules.isVfio(device.driver),
      blocks,
      fix: blocks ? `vioctl vfio bind ${device.bdf} --group` : undefined,
    };
  });
  const node = [groupNode(id), `/dev/vfio/noiommu-${id}`].find((path) => root.exists(path));
  return {
    id,
    type: root.attr(`${dir}/type`),
    members,
    viable: members.length > 0 && !members.some((member) => member.blocks),
    reserved: parseReserved(root.attr(`${dir}/reserved_regions`) ?? ''),
    node,
  };
}
