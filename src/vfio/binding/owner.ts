import fs from 'node:fs';
import { usage, wrap } from '../../common/errors.js';
import { printable } from '../../common/escape.js';
import { findGroup, findUser } from '../../common/host/ids.js';
import type { Sysroot } from '../../common/sysroot.js';
import { groupNode } from '../devices/group.js';
import { linkName, pciDevices } from '../devices/pci.js';

/** Who is to own the VFIO nodes of a device. */
export interface Owner {
  uid: number;
  gid: number;
  /** As the user wrote it. */
  text: string;
}

/** Parses `USER`, `USER:GROUP` or `:GROUP`, names or numbers; a user's own group unless one is given. @throws usage errors */
export function parseOwner(root: Sysroot, text: string): Owner {
  const match = /^([^:]*)(?::([^:]+))?$/.exec(text);
  const [, user = '', group] = match ?? [];
  if (!match || (user === '' && group === undefined))
    throw usage(`not an owner: "${printable(text)}"`, 'owners are USER, USER:GROUP or :GROUP');
  const { uid, gid: own } = user === '' ? { uid: 0, gid: 0 } : findUser(root, user);
  const gid = group === undefined ? own : findGroup(root, group);
  return { uid, gid, text };
}

/** The IOMMU group of a device. */
export function groupNumber(root: Sysroot, bdf: string): number | undefined {
  const name = linkName(root, `${pciDevices}/${bdf}/iommu_group`);
  return name === undefined ? undefined : Number(name);
}

/** The group node of a device as it will be named. */
export function nodeOf(root: Sysroot, bdf: string): string | undefined {
  const group = groupNumber(root, bdf);
  return group === undefined ? undefined : groupNode(group);
}

/** The nodes that give access to a bound device: its group's, and its own where the kernel has one. */
export function nodesOf(root: Sysroot, bdf: string): string[] {
  const group = groupNumber(root, bdf);
  if (group === undefined) return [];
  const own = root.list(`${pciDevices}/${bdf}/vfio-dev`).map((name) => `/dev/vfio/devices/${name}`);
  return [groupNode(group), `/dev/vfio/noiommu-${group}`, ...own].filter((path) => root.exists(path));
}

/** Owner of a node before it was changed. */
export interface NodeOwner {
  path: string;
  uid: number;
  gid: number;
}

/** Gives the nodes of a device to an owner. @returns who owned those that were changed @throws VioError */
export function changeOwner(root: Sysroot, bdf: string, owner: Pick<Owner, 'uid' | 'gid'>): NodeOwner[] {
  const changed: NodeOwner[] = [];
  for (const path of nodesOf(root, bdf)) {
    try {
      const { uid, gid } = fs.statSync(root.path(path));
      if (uid === owner.uid && gid === owner.gid) continue;
      fs.chownSync(root.path(path), owner.uid, owner.gid);
      changed.push({ path, uid, gid });
    } catch (err) {
      restoreOwners(root, changed);
      throw wrap(`${bdf}: give ${path} to ${owner.uid}:${owner.gid}`, err);
    }
  }
  return changed;
}

/** Gives nodes back; those that went away with their device need nothing. */
export function restoreOwners(root: Sysroot, nodes: readonly NodeOwner[]): void {
  for (const { path, uid, gid } of nodes) if (root.exists(path)) fs.chownSync(root.path(path), uid, gid);
}
