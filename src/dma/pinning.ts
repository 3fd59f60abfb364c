import fs from 'node:fs';
import { Exit, VioError } from '../common/errors.js';
import type { Sysroot } from '../common/sysroot.js';
import type { MapSpec } from './spec.js';

/**
 * File systems that write dirty pages back (linux/magic.h). Since Linux 6.5 the kernel pins no writable shared mapping of
 * their files for long (writable_file_mapping_allowed() in mm/gup.c): a device could write behind the file system's back.
 */
const writeBack = new Map([
  [0xef53, 'ext4'],
  [0x58465342, 'XFS'],
  [0x9123683e, 'btrfs'],
  [0xf2f52010, 'F2FS'],
  [0x6969, 'NFS'],
  [0xff534d42, 'CIFS'],
  [0xfe534d42, 'SMB'],
  [0x00c36400, 'Ceph'],
  [0x65735546, 'FUSE'],
  [0x4d44, 'FAT'],
  [0x2011bab0, 'exFAT'],
  [0x2fc12fc1, 'ZFS'],
  [0xca451a4e, 'bcachefs'],
  [0x01161970, 'GFS2'],
  [0x7461636f, 'OCFS2'],
]);

/** First kernel with the rule. */
const since = [6, 5] as const;

/** Whether a kernel has the rule; assumed where its release is no version. */
export function refusesWriteBack(release: string | undefined): boolean {
  const match = /^(\d+)\.(\d+)/.exec(release ?? '');
  if (!match) return true;
  const [major, minor] = [Number(match[1]), Number(match[2])];
  return major > since[0] || (major === since[0] && minor >= since[1]);
}

/** The file system that keeps a mapping from being pinned, undefined where nothing does. */
export function writeBackOf(spec: Pick<MapSpec, 'file' | 'readOnly'>): string | undefined {
  if (spec.file === undefined || spec.readOnly) return undefined;
  return writeBack.get(fs.statfsSync(spec.file).type >>> 0);
}

/** The way out of such a refusal. */
export const pinHint = ({ name, file }: Pick<MapSpec, 'name' | 'file'>): string =>
  `map it read-only (${name}=${file},ro), or put it on tmpfs (/dev/shm) or hugetlbfs`;

/** What a mapping will meet, as a sentence; undefined for nothing. */
export function pinProblem(spec: MapSpec): string | undefined {
  const type = writeBackOf(spec);
  return type && `mapping ${spec.name}: the kernel does not pin a writable mapping of a file on ${type} (${spec.file}) for DMA`;
}

/** Refuses mappings of files that the running kernel will not pin. @throws VioError NOT_PINNABLE (3) */
export function requirePinnable(root: Sysroot, specs: readonly MapSpec[]): void {
  if (!refusesWriteBack(root.attr('/proc/sys/kernel/osrelease'))) return;
  for (const spec of specs) {
    const problem = pinProblem(spec);
    if (problem !== undefined)
      throw new VioError(`${problem}: EFAULT`, {
        code: 'NOT_PINNABLE',
        exit: Exit.refused,
        hint: pinHint(spec),
        details: { name: spec.name },
      });
  }
}
