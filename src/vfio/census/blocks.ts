import { shellFile } from '../../common/escape.js';
import type { Sysroot } from '../../common/sysroot.js';
import { functionsIn } from '../devices/pci.js';

const blockFolder = '/sys/class/block';

/** A block device that lives on a PCI device, directly or through dm, md, bcache. */
export interface BlockDevice {
  /** `nvme0n1p2`, `dm-0` */
  name: string;
  /** `259:3` */
  dev: string;
  /** The block device below it; undefined for a disk of the PCI device itself. */
  below: string | undefined;
  /** `LVM volume vg-root`, `md array`: what a stacked device is. */
  kind: string | undefined;
}

/** The name of the folder that a link of sysfs leads into: `nvme0n1` for `../../devices/…/nvme0n1/nvme0n1p1`. */
const folderOf = (link: string): string => link.split('/').at(-2) ?? '';

/** What a stacked block device is, from its sysfs folder. */
function kindOf(root: Sysroot, name: string): string {
  const uuid = root.attr(`${blockFolder}/${name}/dm/uuid`);
  if (uuid !== undefined) {
    const label = root.attr(`${blockFolder}/${name}/dm/name`) ?? name;
    const type = uuid.startsWith('LVM-') ? 'LVM volume' : uuid.startsWith('CRYPT-') ? 'dm-crypt volume' : 'device-mapper device';
    return `${type} ${label}`;
  }
  if (root.exists(`${blockFolder}/${name}/md`)) return `MD array ${name}`;
  if (root.exists(`${blockFolder}/${name}/bcache`) || name.startsWith('bcache')) return `bcache device ${name}`;
  return `block device ${name}`;
}

/** What in the kernel has a device that cannot be claimed, and the command that helps. */
export interface Claimant {
  what: string;
  fix: string | undefined;
}

/** bcache has a device from its registration on, and shows it before anything is stacked on it (drivers/md/bcache/super.c). */
export function bcacheOf(root: Sysroot, name: string): Claimant | undefined {
  if (name.startsWith('bcache') || !root.exists(`${blockFolder}/${name}/bcache`)) return undefined;
  const set = root.readlink(`${blockFolder}/${name}/bcache/set`) ?? root.readlink(`${blockFolder}/${name}/bcache/cache`);
  const uuid = set?.split('/').at(-1);
  if (uuid === undefined) return { what: 'bcache', fix: `echo 1 > ${blockFolder}/${name}/bcache/stop` };
  return { what: `bcache set ${uuid}`, fix: `echo 1 > /sys/fs/bcache/${uuid}/stop` };
}

/** Who in the kernel may have a block device that an exclusive open finds busy, although nothing is mounted or stacked on it. */
export function claimantOf(root: Sysroot, name: string): Claimant | undefined {
  const bcache = bcacheOf(root, name);
  if (bcache) return bcache;
  // a pool leaves no trace at its devices; those that are imported have a folder of counters
  const pools = root.list('/proc/spl/kstat/zfs').filter((pool) => root.exists(`/proc/spl/kstat/zfs/${pool}/state`));
  if (pools.length === 0) return undefined;
  const one = pools.length === 1 ? `ZFS pool ${pools[0]}` : `one of the ZFS pools ${pools.join(', ')}`;
  return { what: `${one}, probably`, fix: pools.length === 1 ? `zpool export ${shellFile(pools[0]!)}` : 'zpool status' };
}

/** Every block device by name, with the links that tell where it lives. */
export class Blocks {
  readonly #root: Sysroot;
  readonly #links: Map<string, string>;
  /** Names by the PCI functions on the way to them. */
  readonly #on = new Map<string, string[]>();
  /** Names by the folder that they are in: the partitions of a disk. */
  readonly #in = new Map<string, string[]>();
  readonly #trees = new Map<string, readonly BlockDevice[]>();
  #users: { path: string; what: string }[] | undefined;
  #generic: ReadonlySet<string> | undefined;

  constructor(root: Sysroot) {
    this.#root = root;
    this.#links = new Map(root.list(blockFolder).map((name) => [name, root.readlink(`${blockFolder}/${name}`) ?? '']));
    const add = (index: Map<string, string[]>, key: string, name: string) => {
      const names = index.get(key);
      if (names) names.push(name);
      else index.set(key, [name]);
    };
    for (const [name, link] of this.#links) {
      for (const bdf of functionsIn(link)) add(this.#on, bdf, name);
      add(this.#in, folderOf(link), name);
    }
  }

  /** True for a partition: its folder lies in that of its disk. */
  #isPartition(name: string): boolean {
    return this.#links.has(folderOf(this.#links.get(name) ?? ''));
  }

  /** `259:3` of the character device that passes commands to an NVMe namespace; undefined for other disks. */
  generic(name: string): string | undefined {
    const folder = '/sys/class/nvme-generic';
    this.#generic ??= new Set(this.#root.list(folder));
    const node = name.replace(/^nvme/, 'ng');
    return this.#generic.has(node) ? this.#root.attr(`${folder}/${node}/dev`) : undefined;
  }

  /** `259:3`; empty where the device is gone. */
  dev(name: string): string {
    return this.#root.attr(`${blockFolder}/${name}/dev`) ?? '';
  }

  /**
   * Disks of a PCI device. An NVMe namespace under native multipath is the subsystem's disk `nvmeSnN`; below the controller
   * there is only its hidden path `nvmeScCnN` (drivers/nvme/host/multipath.c).
   */
  disks(bdf: string): string[] {
    const names = new Set<string>();
    for (const name of this.#on.get(bdf) ?? []) {
      if (this.#isPartition(name)) continue;
      const path = /^nvme(\d+)c\d+n(\d+)$/.exec(name);
      if (!path) names.add(name);
      else if (this.#links.has(`nvme${path[1]}n${path[2]}`)) names.add(`nvme${path[1]}n${path[2]}`);
    }
    return [...names];
  }

  /** The disks of a PCI device with partitions and everything stacked on them. */
  tree(bdf: string): readonly BlockDevice[] {
    let tree = this.#trees.get(bdf);
    if (!tree) this.#trees.set(bdf, (tree = this.stack(this.disks(bdf))));
    return tree;
  }

  /** Block devices by name, with partitions and everything stacked on them. */
  stack(names: readonly string[]): BlockDevice[] {
    const found = new Map<string, BlockDevice>();
    const visit = (name: string, below: string | undefined, kind: string | undefined) => {
      if (found.has(name)) return;
      found.set(name, { name, dev: this.dev(name), below, kind });
      for (const other of this.#in.get(name) ?? []) visit(other, name, undefined);
      for (const holder of this.#root.list(`${blockFolder}/${name}/holders`)) visit(holder, name, kindOf(this.#root, holder));
    };
    for (const name of names) visit(name, undefined, undefined);
    return [...found.values()];
  }

  /** Kernel users that leave no holder link: loop devices, NVMe and SCSI targets, members of a btrfs. By device path, links resolved. */
  get kernelUsers(): { path: string; what: string }[] {
    return (this.#users ??= this.#readUsers());
  }

  #readUsers(): { path: string; what: string }[] {
    const root = this.#root;
    const users: { path: string; what: string }[] = [];
    for (const name of this.#links.keys()) {
      const file = name.startsWith('loop') ? root.attr(`${blockFolder}/${name}/loop/backing_file`) : undefined;
      if (file !== undefined) users.push({ path: file, what: `loop device ${name}` });
    }
    const nvmet = '/sys/kernel/config/nvmet/subsystems';
    for (const nqn of root.list(nvmet)) {
      for (const nsid of root.list(`${nvmet}/${nqn}/namespaces`)) {
        const dir = `${nvmet}/${nqn}/namespaces/${nsid}`;
        const file = root.attr(`${dir}/enable`) === '1' ? root.attr(`${dir}/device_path`) : undefined;
        if (file !== undefined) users.push({ path: root.realpath(file), what: `NVMe target ${nqn} namespace ${nsid}` });
      }
    }
    for (const nqn of root.list(nvmet)) {
      const dir = `${nvmet}/${nqn}/passthru`;
      const controller = root.attr(`${dir}/enable`) === '1' ? root.attr(`${dir}/device_path`) : undefined;
      if (controller !== undefined) users.push({ path: root.realpath(controller), what: `NVMe target ${nqn} (passthru)` });
    }
    const core = '/sys/kernel/config/target/core';
    for (const hba of root.list(core).filter((name) => /^(iblock|fileio|pscsi)_\d+$/.test(name)))
      for (const name of root.list(`${core}/${hba}`)) {
        const file = root.attr(`${core}/${hba}/${name}/udev_path`);
        if (file?.startsWith('/') && root.attr(`${core}/${hba}/${name}/enable`) !== '0')
          users.push({ path: root.realpath(file), what: `the SCSI target's backstore ${name}` });
      }
    for (const uuid of root.list('/sys/fs/btrfs')) {
      for (const name of root.list(`/sys/fs/btrfs/${uuid}/devices`)) users.push({ path: `/dev/${name}`, what: `btrfs ${uuid}` });
    }
    return users;
  }
}
