import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import type { Sysroot } from '../common/sysroot.js';
import type { FileIdentity } from '../native/storage.js';
import { majorMinor } from '../vfio/census/processes.js';

const BLOCK = '/sys/class/block';

/**
 * A text that names a source on its own, wherever it is opened and whatever it is called: two sources have two, and one keeps
 * its own when it is written, resized or opened by another path.
 * @param at path of the file; undefined for memory, which has no name but that of its machine
 */
export function sourceIdentity(root: Sysroot, at: string | undefined, identity: FileIdentity | undefined): string {
  if (at === undefined || !identity) return `memory ${machine(root)}`;
  const stat = fs.statSync(at, { bigint: true });
  if (stat.isBlockDevice()) return deviceIdentity(root, majorMinor(Number(identity.device)), at);
  // A file system without generations: the time of birth tells a file from an earlier one with its number.
  const since = identity.generation ?? (stat.birthtimeNs > 0n ? stat.birthtimeNs : 0);
  return `file ${fileSystem(root, identity)} ${identity.inode} ${since}`;
}

/** UUID of a file system: from the kernel, else from udev's links, else what statfs(2) says. */
function fileSystem(root: Sysroot, { filesystem, device, fsid }: FileIdentity): string {
  if (filesystem) return filesystem.toString('hex');
  const number = majorMinor(Number(device));
  const name = path.basename(root.readlink(`/sys/dev/block/${number}`) ?? '');
  const folder = '/dev/disk/by-uuid';
  const found =
    name === '' ? undefined : root.list(folder).find((uuid) => path.basename(root.readlink(`${folder}/${uuid}`) ?? '') === name);
  if (found !== undefined) return found.replaceAll('-', '').toLowerCase();
  return fsid !== 0n ? fsid.toString(16) : `${machine(root)} ${number}`;
}

/** An identifier of a block device that stays with it, from sysfs. */
function deviceIdentity(root: Sysroot, number: string, at: string): string {
  const name = path.basename(root.readlink(`/sys/dev/block/${number}`) ?? at);
  const attr = (file: string): string | undefined => root.attr(`${BLOCK}/${name}/${file}`)?.trim() || undefined;
  const partition = attr('partition');
  if (partition !== undefined) {
    const disk = path.basename(path.dirname(root.readlink(`${BLOCK}/${name}`) ?? ''));
    const whole = root.attr(`${BLOCK}/${disk}/dev`);
    if (whole !== undefined) return `partition ${partition} at ${attr('start')} of ${deviceIdentity(root, whole, `/dev/${disk}`)}`;
  }
  const backing = attr('loop/backing_file');
  if (backing !== undefined) return `loop ${attr('loop/offset') ?? 0} of ${fileBehind(root, backing)}`;
  const own = attr('dm/uuid') ?? attr('md/uuid') ?? attr('wwid') ?? attr('device/wwid') ?? attr('serial') ?? attr('device/serial');
  // A device without a name of its own has only its place: this machine and this path.
  return own === undefined ? `device ${machine(root)} ${at}` : `device ${own}`;
}

/** A file that is not open here; the loop device's path of it may lead elsewhere by now. */
function fileBehind(root: Sysroot, file: string): string {
  try {
    const { dev, ino } = fs.statSync(root.path(file), { bigint: true });
    return `${machine(root)} ${dev} ${ino}`;
  } catch {
    return `${machine(root)} ${file}`;
  }
}

const machine = (root: Sysroot): string => root.attr('/etc/machine-id') ?? root.attr('/proc/sys/kernel/hostname') ?? '';

/** A serial number of 20 characters for a source. */
export const serialFor = (identity: string): string => createHash('sha256').update(`vioctl serial\0${identity}`).digest('hex').slice(0, 20);
