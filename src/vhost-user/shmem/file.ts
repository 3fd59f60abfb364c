import fs from 'node:fs';
import { Exit, usage, VioError, wrap } from '../../common/errors.js';
import { parseSizeBig } from '../../common/units.js';
import { native } from '../../native/index.js';
import { OwnedFd } from '../../native/owned-fd.js';
import { Seal } from '../../native/vhost-user.js';
import { describeFd } from '../wire/fds.js';
import { keepSize, pageSize } from './regions.js';

/** `ID:OFF=FILE[:rw|:ro]` as the user wrote it. */
export interface MapSpec {
  shmid: number;
  offset: bigint;
  file: string;
  mode: 'rw' | 'ro';
}

/** A file that is ready to be mapped. */
export interface MapFile {
  fd: OwnedFd;
  /** Bytes to map, a multiple of the page size. */
  len: bigint;
  /** `shared`: writes of the guest reach the file. `sealed-copy`: they stay in a copy of our own. */
  how: 'shared' | 'sealed-copy';
  /** Holds the lock while the file is mapped; none for a file whose size is sealed, and for a copy. */
  lock: OwnedFd | undefined;
  warnings: string[];
}

/** Reads `ID:OFF`. @throws usage */
export function parsePlace(text: string): { shmid: number; offset: bigint } {
  const match = /^(\d{1,3}):([0-9a-zA-Z]+)$/.exec(text);
  const shmid = Number(match?.[1]);
  if (!match || shmid > 255) throw usage(`not a place in a region: "${text}"`, 'write ID:OFFSET, such as 0:16M');
  return { shmid, offset: parseSizeBig(match[2]!) };
}

/** Reads `ID:OFF=FILE[:rw|:ro]`; rw unless told otherwise. @throws usage */
export function parseMap(text: string): MapSpec {
  const at = text.indexOf('=');
  if (at < 0 || at === text.length - 1) throw usage(`not a mapping: "${text}"`, 'write ID:OFFSET=FILE[:rw|:ro], such as 0:0=disk.img:rw');
  const file = text.slice(at + 1);
  const mode = /:(rw|ro)$/.exec(file)?.[1] as 'rw' | 'ro' | undefined;
  return { ...parsePlace(text.slice(0, at)), file: mode ? file.slice(0, -3) : file, mode: mode ?? 'rw' };
}

/** Reads `ID=SIZE`. @throws usage */
export function parseRegion(text: string): { shmid: number; size: bigint } {
  const match = /^(\d{1,3})=(.+)$/.exec(text);
  const shmid = Number(match?.[1]);
  if (!match || shmid > 255) throw usage(`not a region: "${text}"`, 'write ID=SIZE, such as 0=64M');
  const size = parseSizeBig(match[2]!);
  if (size === 0n || size % pageSize() !== 0n) throw usage(`region ${shmid}: its size must be a multiple of ${pageSize()}`);
  return { shmid, size };
}

/** Copies a file into a memfd whose size and seals are fixed. The copy's last page is filled up with zeroes. */
async function sealedCopy(source: number, size: bigint): Promise<OwnedFd> {
  const { vhostUser } = native();
  const whole = ((size + pageSize() - 1n) / pageSize()) * pageSize();
  const copy = new OwnedFd(vhostUser.memfd('vioctl-shmem', Number(whole), 0));
  const chunk = Buffer.allocUnsafe(1 << 20);
  const read = (at: number): Promise<number> =>
    new Promise((resolve, reject) => fs.read(source, chunk, 0, chunk.length, at, (err, n) => (err ? reject(err) : resolve(n))));
  try {
    for (let at = 0; at < Number(size); ) {
      const got = await read(at);
      if (got === 0) break;
      // Holes stay holes: a sparse file does not fill memory.
      const part = chunk.subarray(0, Math.min(got, Number(size) - at));
      if (part.some((byte) => byte !== 0))
        for (let done = 0; done < part.length; ) done += fs.writeSync(copy.fd, part, done, part.length - done, at + done);
      at += got;
    }
    vhostUser.addSeals(copy.fd, keepSize);
    return copy;
  } catch (err) {
    copy.close();
    throw err;
  }
}

/** Whether nobody can cut the file short: then no access to a mapping of it can fail. */
const keepsSize = (fd: number): boolean => {
  const seals = native().vhostUser.seals(fd);
  return seals >= 0 && (seals & Seal.shrink) !== 0;
};

/**
 * Locks a file that is to be shared. The lock belongs to an open file of its own that never leaves this process: the one that is
 * mapped goes to the front-end, and a lock of it would outlive a server that was killed.
 * @throws VioError (EBUSY, refused)
 */
function lockFile(fd: number, name: string): OwnedFd {
  let own: OwnedFd;
  try {
    own = new OwnedFd(fs.openSync(`/proc/self/fd/${fd}`, fs.constants.O_RDWR));
  } catch {
    own = new OwnedFd(native().vhostUser.dup(fd)); // opened with rights that we do not have: its own lock is better than none
  }
  if (native().vhostUser.lock(own.fd, true)) return own;
  own.close();
  throw new VioError(`${name}: its lock is held: another program uses it, or it is mapped already`, {
    code: 'EBUSY',
    exit: Exit.refused,
    hint: 'a file can be mapped rw once; :ro maps a copy',
  });
}

/**
 * Makes a file ready to be mapped into a guest.
 *
 * `rw` shares the file itself. Unless it is a sealed memfd it is locked, so that it can be mapped `rw` only once on this machine (by
 * this server or another), and a warning says that cutting it short ends the guest. `ro` gives a sealed private copy, because front-ends map read-only
 * requests writable: what the guest writes never reaches the file.
 * @param source takes the descriptor of the opened file in any case @throws VioError
 */
export async function prepareFile(source: OwnedFd, name: string, mode: 'rw' | 'ro'): Promise<MapFile> {
  try {
    const info = describeFd(source.fd);
    if (info.size === undefined) throw new VioError(`${name}: a ${info.kind} cannot be mapped`, { code: 'ENODEV' });
    if (info.size === 0n) throw new VioError(`${name}: the file is empty`, { code: 'EINVAL' });
    if (mode === 'ro') {
      const fd = await sealedCopy(source.fd, info.size);
      source.close();
      return { fd, len: ((info.size + pageSize() - 1n) / pageSize()) * pageSize(), how: 'sealed-copy', lock: undefined, warnings: [] };
    }
    if (info.access !== 'rw') throw new VioError(`${name}: opened for reading only`, { code: 'EACCES', exit: Exit.permission });
    if (info.size % pageSize() !== 0n)
      throw new VioError(`${name}: its size ${info.size} is no multiple of the page size`, {
        code: 'EINVAL',
        hint: `truncate -s %${pageSize()} FILE rounds it up; :ro maps a copy of any size`,
      });
    if (keepsSize(source.fd)) return { fd: source, len: info.size, how: 'shared', lock: undefined, warnings: [] };
    const lock = lockFile(source.fd, name);
    const warnings = [`${name} can be cut short while it is mapped, and that ends the guest: keep others from it`];
    return { fd: source, len: info.size, how: 'shared', lock, warnings };
  } catch (err) {
    source.close();
    throw wrap(name, err);
  }
}

/** Opens a file as its mode needs it. @throws VioError */
export function openForMap(spec: MapSpec): OwnedFd {
  try {
    return new OwnedFd(fs.openSync(spec.file, spec.mode === 'rw' ? fs.constants.O_RDWR : fs.constants.O_RDONLY));
  } catch (err) {
    throw wrap(`open ${spec.file}`, err);
  }
}
