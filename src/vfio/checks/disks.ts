import fs from 'node:fs';
import { codeOf } from '../../common/errors.js';
import { printable } from '../../common/escape.js';
import { type BlockDevice, claimantOf } from '../census/blocks.js';
import type { Census } from '../census/census.js';
import { type PciDevice, pciDevices } from '../devices/pci.js';
import { mountFindings } from './filesystems.js';
import type { Finding } from './finding.js';

/** Mounts, swap, stacked devices and kernel users of a device's disks. @param claim also try an exclusive open of each */
export function blockFindings(census: Census, device: PciDevice, claim: boolean): Finding[] {
  const found: Finding[] = [];
  const users = census.blocks.kernelUsers;
  const used = (path: string, what: string): Finding => ({
    check: 'holder',
    subject: path,
    brief: what,
    message: `${path} is used by ${what}`,
    fix: `stop ${what}`,
  });
  // a controller that a target exports as a whole opens no namespace
  for (const name of users.length > 0 && device.entries.includes('nvme') ? census.root.list(`${pciDevices}/${device.bdf}/nvme`) : [])
    for (const user of users.filter(({ path }) => path === `/dev/${name}`)) found.push(used(user.path, printable(user.what)));
  const tree = census.blocks.tree(device.bdf);
  if (tree.length === 0) return found;
  const path = (block: BlockDevice) => `/dev/${block.name}`;
  const chain = (block: BlockDevice): string => {
    const parts: string[] = [path(block)];
    for (let at = block; at.below !== undefined; ) {
      const below = tree.find((other) => other.name === at.below);
      if (!below) break;
      if (at.kind !== undefined) parts.push(path(below));
      at = below;
    }
    return parts.join(' on ');
  };
  for (const block of tree) {
    const dm = block.name.startsWith('dm-') ? census.root.attr(`/sys/class/block/${block.name}/dm/name`) : undefined;
    const names = [path(block), ...(dm === undefined ? [] : [`/dev/mapper/${dm}`])];
    // btrfs and others mount an anonymous device: their source tells
    for (const mount of census.mounts.all.filter((m) => (block.dev !== '' && m.dev === block.dev) || names.includes(m.source)))
      found.push(...mountFindings(census, path(block), chain(block), mount));
    if (census.swaps.some((swap) => names.includes(swap)))
      found.push({
        check: 'swap',
        subject: path(block),
        brief: 'swap',
        message: `${chain(block)} is active swap`,
        fix: `swapoff ${path(block)}`,
      });
    if (block.kind !== undefined) {
      const kind = printable(block.kind);
      const below = block.below === undefined ? '' : `/dev/${block.below}`;
      found.push({ check: 'holder', subject: below, brief: kind, message: `${below} is held by ${kind}`, fix: `deactivate ${kind}` });
    }
    for (const user of users.filter((u) => names.includes(u.path))) found.push(used(path(block), printable(user.what)));
  }
  const block = claim && found.length === 0 ? tree.find((entry) => claimed(census, path(entry))) : undefined;
  if (block) {
    const { what, fix } = claimantOf(census.root, block.name) ?? { what: 'a kernel user that shows no holder', fix: undefined };
    found.push({
      check: 'holder',
      subject: path(block),
      brief: 'claimed by the kernel',
      message: `${path(block)} is claimed exclusively (EBUSY) by ${printable(what)}`,
      fix,
    });
  }
  return found;
}

/** True when an exclusive open fails: somebody in the kernel claims the block device (ZFS leaves no other trace). */
function claimed(census: Census, path: string): boolean {
  const { O_RDONLY, O_EXCL, O_NONBLOCK } = fs.constants;
  try {
    fs.closeSync(fs.openSync(census.root.path(path), O_RDONLY | O_EXCL | O_NONBLOCK));
    return false;
  } catch (err) {
    return codeOf(err) === 'EBUSY';
  }
}
