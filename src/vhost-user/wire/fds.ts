import fs from 'node:fs';
import { native } from '../../native/index.js';
import { Seal } from '../../native/vhost-user.js';

/** What a descriptor is: for trace, and for the checks of a mapping. */
export interface FdInfo {
  kind: 'memfd' | 'file' | 'directory' | 'eventfd' | 'socket' | 'pipe' | 'device' | 'dmabuf' | 'other';
  /** Name as /proc gives it, for people. */
  name: string;
  /** Bytes, for what has a size. */
  size: bigint | undefined;
  /** Names of the seals; undefined where the file can have none. */
  seals: string[] | undefined;
  access: 'r' | 'w' | 'rw';
}

const sealNames: [number, string][] = [
  [Seal.seal, 'seal'],
  [Seal.shrink, 'shrink'],
  [Seal.grow, 'grow'],
  [Seal.write, 'write'],
  [Seal.futureWrite, 'future-write'],
];

/** Describes a descriptor of this process without touching its contents. @throws the system's error */
export function describeFd(fd: number): FdInfo {
  const { vhostUser } = native();
  const stat = fs.fstatSync(fd, { bigint: true });
  const link = fs.readlinkSync(`/proc/self/fd/${fd}`);
  const memfd = /^\/memfd:(.*?)( \(deleted\))?$/s.exec(link);
  let kind: FdInfo['kind'] = 'other';
  if (memfd) kind = 'memfd';
  else if (stat.isFile()) kind = link.startsWith('/dmabuf:') ? 'dmabuf' : 'file';
  else if (stat.isDirectory()) kind = 'directory';
  else if (stat.isSocket()) kind = 'socket';
  else if (stat.isFIFO()) kind = 'pipe';
  else if (stat.isCharacterDevice() || stat.isBlockDevice()) kind = 'device';
  else if (link === 'anon_inode:[eventfd]') kind = 'eventfd';
  const seals = stat.isFile() ? vhostUser.seals(fd) : -1;
  const mode = vhostUser.fdFlags(fd) & 3;
  return {
    kind,
    name: memfd ? memfd[1]! : link,
    size: stat.isFile() ? stat.size : undefined,
    seals: seals < 0 ? undefined : sealNames.filter(([bit]) => seals & bit).map(([, name]) => name),
    access: mode === fs.constants.O_RDONLY ? 'r' : mode === fs.constants.O_WRONLY ? 'w' : 'rw',
  };
}
