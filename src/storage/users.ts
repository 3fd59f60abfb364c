import fs from 'node:fs';
import path from 'node:path';
import { printable, shellFile } from '../common/escape.js';
import type { Sysroot } from '../common/sysroot.js';
import { native } from '../native/index.js';
import type { Inode } from '../native/storage.js';
import { Blocks, bcacheOf, claimantOf } from '../vfio/census/blocks.js';
import { parseSwaps, readMounts } from '../vfio/census/mounts.js';
import { majorMinor, Processes } from '../vfio/census/processes.js';

/** Who uses a file or block device, and the command that helps. */
export interface User {
  /** What follows "already in use": ` by qemu-system-x86 (pid 4711)`, `: mounted on /srv`. */
  text: string;
  fix: string | undefined;
}

const byProcess = (root: Sysroot, pid: number): User =>
  pid === process.pid
    ? { text: ' by this process', fix: undefined }
    : { text: ` by ${printable(root.attr(`/proc/${pid}/comm`) ?? '?')} (pid ${pid})`, fix: `ps -fp ${pid}` };

/** Whether a line of /proc/locks or fdinfo is a lock of the bytes that QEMU and vioctl lock (native/storage/lock.cc) on an inode. */
function isImageLock(line: string, inode: string): boolean {
  const match = /\b(?:OFDLCK|POSIX) +ADVISORY +\w+ +-?\d+ +[0-9a-f]+:[0-9a-f]+:(\d+) (\d+) (\d+|EOF)$/.exec(line);
  if (match?.[1] !== inode) return false;
  const [start, end] = [Number(match[2]), match[3] === 'EOF' ? Number.POSITIVE_INFINITY : Number(match[3])];
  return [100, 200].some((base) => start < base + 8 && end >= base);
}

/**
 * The process that has locked an image, where /proc shows it: to root, and to the owner of the process.
 * @param own whether it may be this process, which has locked it itself otherwise
 */
export function lockHolder(root: Sysroot, stat: Inode, own = true): User | undefined {
  const inode = String(stat.ino);
  let self: User | undefined;
  for (const pid of root.list('/proc').filter((name) => /^\d+$/.test(name))) {
    for (const fd of root.list(`/proc/${pid}/fdinfo`)) {
      const lines = (root.attr(`/proc/${pid}/fdinfo/${fd}`) ?? '').split('\n').filter((line) => line.startsWith('lock:'));
      if (!lines.some((line) => isImageLock(line, inode)) || !isSame(root.path(`/proc/${pid}/fd/${fd}`), stat)) continue;
      const user = byProcess(root, Number(pid));
      if (Number(pid) !== process.pid) return user;
      self = user;
    }
  }
  if (self && own) return self;
  // locks of the older kind belong to a process, and this file is open to everybody
  const posix = (root.attr('/proc/locks') ?? '').split('\n').find((line) => /POSIX/.test(line) && isImageLock(line, inode));
  const pid = Number(/ (\d+) +[0-9a-f]+:[0-9a-f]+:/.exec(posix ?? '')?.[1] ?? 0);
  return pid > 0 && (own || pid !== process.pid) ? byProcess(root, pid) : undefined;
}

/** S_IFREG, S_IFBLK, …: what a path leads to. */
export const typeOf = ({ mode }: Inode): number => Number(mode) & fs.constants.S_IFMT;
const isBlockDevice = (stat: Inode): boolean => typeOf(stat) === fs.constants.S_IFBLK;

/** What two paths have in common that lead to the same file or block device. */
const keyOf = (stat: Inode): string => (isBlockDevice(stat) ? `device ${stat.rdev}` : `file ${stat.dev} ${stat.ino}`);

function keyAt(file: string): string | undefined {
  try {
    return keyOf(fs.statSync(file, { bigint: true }));
  } catch {
    return undefined;
  }
}

/** Whether a path leads to the same file or block device. */
const isSame = (file: string, stat: Inode): boolean => keyAt(file) === keyOf(stat);

/** How long a path may take to be looked up, in milliseconds: the file systems of others can hang. */
const reachTime = 1000;
/** Paths that have not answered yet: each is asked once. */
const asked = new Map<string, Promise<unknown>>();

/** Those of the paths whose file system hangs. None of them is a file that has answered meanwhile, and nobody is to wait for them. */
async function hungOf(paths: ReadonlySet<string>): Promise<ReadonlySet<string>> {
  const hung = new Set(paths);
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, reachTime);
  });
  const all = [...paths].map(async (name) => {
    if (!asked.has(name))
      asked.set(
        name,
        native()
          .storage.reach([name])
          .catch(() => {})
          .finally(() => asked.delete(name)),
      );
    await asked.get(name);
    hung.delete(name);
  });
  await Promise.race([Promise.all(all), late]);
  clearTimeout(timer);
  return new Set(hung);
}

const swaps = (root: Sysroot): string[] => parseSwaps(root.attr('/proc/swaps') ?? '');

/** The kernel's users of files and devices at one moment: of one source, or of all that are opened together. */
export class KernelUsers {
  readonly blocks: Blocks;
  readonly #users = new Map<string, User>();

  /** @param hung paths that are not looked up */
  constructor(root: Sysroot, blocks = new Blocks(root), hung: ReadonlySet<string> = new Set()) {
    this.blocks = blocks;
    const add = (name: string, user: User): void => {
      const key = hung.has(root.path(name)) ? undefined : keyAt(root.path(name));
      if (key !== undefined && !this.#users.has(key)) this.#users.set(key, user);
    };
    for (const swap of swaps(root)) add(swap, { text: ': active swap', fix: `swapoff ${shellFile(swap)}` });
    for (const user of blocks.kernelUsers) {
      const loop = /^loop device (loop\d+)$/.exec(user.what)?.[1];
      add(user.path, { text: ` by ${printable(user.what)}`, fix: loop === undefined ? undefined : `losetup -d /dev/${loop}` });
    }
  }

  /** The same without waiting for a path that hangs. */
  static async look(root: Sysroot): Promise<KernelUsers> {
    const blocks = new Blocks(root);
    const paths = [...swaps(root), ...blocks.kernelUsers.map((user) => user.path)].map((name) => root.path(name));
    return new KernelUsers(root, blocks, await hungOf(new Set(paths)));
  }

  of(stat: Inode): User | undefined {
    return this.#users.get(keyOf(stat));
  }
}

/** How to look for users. */
export interface Look {
  /** Processes may use it for now. */
  kernelOnly?: boolean;
  /** What is known of the kernel's users. */
  users?: KernelUsers;
}

/**
 * What in the kernel, or which process without a lock, uses a file or block device so that nobody else may write to it:
 * a mount, swap, a holder (LVM, MD, dm-crypt, bcache), a loop device, an NVMe target, a writer of the device.
 */
export function userOf(root: Sysroot, file: string, stat: Inode, look: Look = {}): User | undefined {
  const users = look.users ?? new KernelUsers(root);
  const user = users.of(stat);
  if (user) return user;
  return isBlockDevice(stat) ? deviceUser(root, users.blocks, file, stat, look.kernelOnly ?? false) : undefined;
}

/** Who has a block device that cannot be claimed, where userOf() finds nobody; undefined for a file. */
export function claimantOfDevice(root: Sysroot, stat: Inode): User | undefined {
  if (!isBlockDevice(stat)) return undefined;
  const found = claimantOf(root, path.basename(root.readlink(`/sys/dev/block/${majorMinor(Number(stat.rdev))}`) ?? ''));
  return found && { text: ` by ${printable(found.what)}`, fix: found.fix };
}

function deviceUser(root: Sysroot, blocks: Blocks, file: string, stat: Inode, kernelOnly: boolean): User | undefined {
  const number = majorMinor(Number(stat.rdev));
  const name = path.basename(root.readlink(`/sys/dev/block/${number}`) ?? file);
  const processes = new Processes(root);
  const mounts = readMounts(root, processes).all;
  for (const block of blocks.stack([name])) {
    const names = [`/dev/${block.name}`, `/dev/mapper/${root.attr(`/sys/class/block/${block.name}/dm/name`) ?? ''}`];
    const mount = mounts.find((m) => (block.dev !== '' && m.dev === block.dev) || names.includes(m.source));
    const on = block.name === name ? '' : `${block.name} is `;
    if (mount) return { text: `: ${on}mounted on ${printable(mount.target)}`, fix: `umount ${shellFile(mount.target)}` };
    if (swaps(root).some((swap) => names.includes(swap))) return { text: `: ${on}active swap`, fix: `swapoff ${names[0]}` };
    if (block.kind !== undefined) return { text: ` by ${printable(block.kind)}`, fix: `lsblk ${shellFile(file)}` };
    const bcache = bcacheOf(root, block.name);
    if (bcache) return { text: ` by ${printable(bcache.what)}`, fix: bcache.fix };
  }
  if (kernelOnly) return undefined;
  const writer = processes.files.find((open) => open.rdev === `b${number}` && open.pid !== process.pid && writes(root, open.pid, open.fd));
  return writer && byProcess(root, writer.pid);
}

/** Whether a descriptor is open for writing: the flags of its fdinfo are octal. */
const writes = (root: Sysroot, pid: number, fd: number): boolean => {
  const flags = /^flags:\s+([0-7]+)/m.exec(root.attr(`/proc/${pid}/fdinfo/${fd}`) ?? '')?.[1];
  return flags !== undefined && (Number.parseInt(flags, 8) & 3) !== 0;
};
