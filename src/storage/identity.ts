import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import type { Sysroot } from '../common/sysroot.js';
import type { FileIdentity } from '../native/storage.js';
import { majorMinor } from '../vfio/census/processes.js';

const block = '/sys/class/block';

/** Texts that name a source on their own, wherever it is opened and whatever it is called: two sources have two. */
export interface SourceNames {
  /** The best one. It stays when the source is written, resized or renamed. A snapshot of its file system has the same one. */
  identity: string;
  /** Names that are its own for certain, the best first. */
  strong: string[];
  /** Names that another source may have one day: of a file system whose UUID is not known, of a device without a serial number. */
  weak: string[];
}

/** @param at path of the file; undefined for memory, which has no name but that of its machine */
export function sourceNames(root: Sysroot, at: string | undefined, identity: FileIdentity | undefined): SourceNames {
  if (at === undefined || !identity) return { identity: `memory ${machineName(root)}`, strong: [], weak: [] };
  if (identity.block) {
    // The place of a device that has a name of its own is no weak name: another disk may stand there by now.
    const { name, certain } = deviceName(root, majorMinor(Number(identity.device)), at);
    return { identity: name, strong: certain ? [name] : [], weak: certain ? [] : [name] };
  }
  // A file system without generations: the time of birth tells a file from an earlier one with its number.
  const since = identity.generation ?? identity.born ?? 0;
  const of = (fileSystem: string): string => `file ${fileSystem} ${identity.inode} ${since}`;
  const uuid = fileSystemUuid(root, identity);
  const strong = uuid === undefined ? [] : [of(uuid)];
  // statfs(2): made from the UUID by some file systems, from the number of the device by others
  const weak = identity.fsid === 0n ? [] : [of(identity.fsid.toString(16))];
  return { identity: strong[0] ?? weak[0] ?? of(`${machineName(root)} ${majorMinor(Number(identity.device))}`), strong, weak };
}

/** UUID of a file system: from the kernel, else from udev's links. */
function fileSystemUuid(root: Sysroot, { filesystem, device }: FileIdentity): string | undefined {
  if (filesystem !== undefined) return filesystem;
  const name = path.basename(root.readlink(`/sys/dev/block/${majorMinor(Number(device))}`) ?? '');
  if (name === '') return undefined;
  const folder = '/dev/disk/by-uuid';
  const found = root.list(folder).find((uuid) => path.basename(root.readlink(`${folder}/${uuid}`) ?? '') === name);
  return found?.replaceAll('-', '').toLowerCase();
}

/** An identifier of a block device that stays with it, from sysfs. */
function deviceName(root: Sysroot, number: string, at: string): { name: string; certain: boolean } {
  const name = path.basename(root.readlink(`/sys/dev/block/${number}`) ?? at);
  const attr = (file: string): string | undefined => root.attr(`${block}/${name}/${file}`)?.trim() || undefined;
  const partition = attr('partition');
  if (partition !== undefined) {
    const disk = path.basename(path.dirname(root.readlink(`${block}/${name}`) ?? ''));
    const whole = root.attr(`${block}/${disk}/dev`);
    if (whole !== undefined) {
      const of = deviceName(root, whole, `/dev/${disk}`);
      return { name: `partition ${partition} at ${attr('start')} of ${of.name}`, certain: of.certain };
    }
  }
  const backing = attr('loop/backing_file');
  if (backing !== undefined) return { name: `loop ${attr('loop/offset') ?? 0} of ${fileBehind(root, backing)}`, certain: false };
  const own = attr('dm/uuid') ?? attr('md/uuid') ?? attr('wwid') ?? attr('device/wwid') ?? attr('serial') ?? attr('device/serial');
  // A device without a name of its own has only its place: this machine and this path.
  return own === undefined ? { name: `device ${machineName(root)} ${at}`, certain: false } : { name: `device ${own}`, certain: true };
}

/** A file that is not open here; the loop device's path of it may lead elsewhere by now. */
function fileBehind(root: Sysroot, file: string): string {
  try {
    const { dev, ino } = fs.statSync(root.path(file), { bigint: true });
    return `${machineName(root)} ${dev} ${ino}`;
  } catch {
    return `${machineName(root)} ${file}`;
  }
}

/** What this machine is called: its machine-id(5), else its host name. */
export const machineName = (root: Sysroot): string => root.attr('/etc/machine-id') ?? root.attr('/proc/sys/kernel/hostname') ?? '';

/** A serial number of 20 characters for a source. */
export const serialFor = (identity: string): string => createHash('sha256').update(`vioctl serial\0${identity}`).digest('hex').slice(0, 20);
