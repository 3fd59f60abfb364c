import fs from 'node:fs';
import { errnoName } from '../common/errno.js';
import { codeOf, Exit, reason, VioError, wrap } from '../common/errors.js';
import type { Sysroot } from '../common/sysroot.js';
import { Op, Setup } from './abi.js';
import type { Name } from './bulk/name.js';
import { limitOf, unavailable } from './host/unavailable.js';
import type { Slot } from './request/request.js';
import { Ring } from './ring/ring.js';
import { FileTable, findFaults } from './ring/table.js';

/** What one slot shall hold: a path, a descriptor, or nothing. */
export type Wanted = { path: Name } | { fd: number } | { hole: true };

/** One slot and how it went. */
export interface Entry {
  /** slot */
  index: number;
  path: Name | undefined;
  /** the inherited descriptor of --fd */
  fd: number | undefined;
  /** file, directory, block, char, fifo, socket */
  type: string | undefined;
  /** ok, hole or failed */
  result: 'ok' | 'hole' | 'failed';
  /** errno name */
  errno: string | undefined;
  /** text of the error */
  message: string | undefined;
}

export interface RegisterPlan {
  entries: Wanted[];
  /** Size of the table; at least the entries. */
  size: number;
  /** Replacements behind the registration. */
  updates: { index: number; to: Wanted }[];
  /** Open paths for reading and writing. */
  write: boolean;
}

/** Parses `I=FILE`; FILE `-` empties the slot. @throws usage */
export function parseUpdate(text: string): { index: number; to: Wanted } {
  const match = /^(\d{1,7})=(.+)$/s.exec(text);
  if (!match)
    throw new VioError(`not an update: "${text}"`, { code: 'USAGE', exit: Exit.usage, hint: 'updates are I=FILE, or I=- to empty slot I' });
  return { index: Number(match[1]), to: match[2] === '-' ? { hole: true } : { path: match[2]! } };
}

const typeOf = (stat: fs.Stats): string =>
  stat.isFile()
    ? 'file'
    : stat.isDirectory()
      ? 'directory'
      : stat.isBlockDevice()
        ? 'block'
        : stat.isCharacterDevice()
          ? 'char'
          : stat.isFIFO()
            ? 'fifo'
            : 'socket';

/**
 * A ring with a file table that is filled, proved and reported entry by entry. Paths are opened straight into slots, so
 * they take no descriptors of the process. The ring is plain (no SINGLE_ISSUER), so that another process may use it.
 */
export class RegisteredFiles {
  readonly ring: Ring;
  readonly table: FileTable;
  readonly entries: Entry[] = [];
  /** Whether the last place() changed the slot. */
  #replaced = false;

  /** @throws UNAVAILABLE (7); EMFILE where the table is larger than RLIMIT_NOFILE, naming both numbers */
  constructor(size: number, sysroot: Sysroot, entries = 64) {
    try {
      this.ring = new Ring({ entries, prefer: Setup.submitAll | Setup.clamp, registered: false, watch: false });
    } catch (err) {
      throw unavailable(err, sysroot);
    }
    this.table = new FileTable(this.ring);
    try {
      this.table.registerSparse(size);
    } catch (err) {
      this.ring.close();
      if (codeOf(err) !== 'EMFILE') throw err;
      const limit = limitOf(sysroot, 'Max open files')?.soft;
      throw new VioError(`${size} slots are more than the limit of open files${limit === undefined ? '' : ` (${limit})`}`, {
        code: 'EMFILE',
        hint: `ulimit -n ${size}, as root where it is above the hard limit`,
        details: { slots: size, limit },
        cause: err,
      });
    }
    for (let index = 0; index < size; index++) this.entries.push(empty(index));
  }

  /** Puts something into a slot and proves it. What fails leaves the slot as it was. */
  place(index: number, wanted: Wanted, write: boolean): void {
    if (index >= this.entries.length)
      throw new VioError(`slot ${index} is outside a table of ${this.entries.length}`, {
        code: 'USAGE',
        exit: Exit.usage,
        hint: '--sparse N makes it larger',
      });
    if ('hole' in wanted) {
      if (this.entries[index]!.result === 'ok') this.table.update(index, [-1]);
      this.entries[index] = empty(index);
      return;
    }
    this.#replaced = false;
    const entry = 'path' in wanted ? this.#open(index, wanted.path, write) : this.#take(index, wanted.fd);
    const kept = this.entries[index]!.result === 'ok' && entry.result === 'failed' && !this.#replaced;
    if (entry.result === 'failed' && this.#replaced) this.table.update(index, [-1]); // it is there but does not work
    this.entries[index] = kept ? { ...entry, message: `${entry.message}; the slot keeps what it had` } : entry;
  }

  close(): void {
    this.ring.close();
  }

  #open(index: number, path: Name, write: boolean): Entry {
    const failed = (code: string): Entry => ({
      ...empty(index),
      path,
      result: 'failed',
      errno: code,
      message: reason(Object.assign(new Error(code), { code })),
    });
    if (path.length === 0 || path.includes('\0')) return failed(path.length === 0 ? 'ENOENT' : 'EINVAL');
    let type: string;
    try {
      type = typeOf(fs.statSync(path));
    } catch (err) {
      return failed(codeOf(err) ?? 'EIO');
    }
    const { O_RDWR, O_RDONLY, O_NONBLOCK, O_NOCTTY } = fs.constants;
    const flags = (write && type !== 'directory' ? O_RDWR : O_RDONLY) | O_NONBLOCK | O_NOCTTY;
    const result = this.#run(this.table.openRequest(path, flags, index));
    if (result < 0) return failed(errnoName(result));
    this.#replaced = true;
    const code = this.#prove(this.table.slot(index), type);
    return code === undefined ? { ...empty(index), path, type, result: 'ok' } : { ...failed(code), type };
  }

  #take(index: number, fd: number): Entry {
    const fault = findFaults([fd], false, false)[0];
    if (fault) return { ...empty(index), fd, result: 'failed', errno: fault.code, message: `descriptor ${fd} ${fault.why}` };
    this.table.update(index, [fd]);
    this.#replaced = true;
    const type = typeOf(fs.fstatSync(fd));
    const path = link(fd);
    const entry = { ...empty(index), fd, path, type };
    const code = this.#prove(this.table.slot(index), type);
    return code === undefined
      ? { ...entry, result: 'ok' }
      : { ...entry, result: 'failed', errno: code, message: reason(Object.assign(new Error(code), { code })) };
  }

  /** Reads one byte of what can be read without side effects. EBADF means open for writing only, which is fine. */
  #prove(slot: Slot, type: string): string | undefined {
    if (type !== 'file' && type !== 'block') return undefined;
    const result = this.#run({ opcode: Op.read, fd: slot, buffer: Buffer.alloc(1), offset: 0 });
    return result < 0 && errnoName(result) !== 'EBADF' ? errnoName(result) : undefined;
  }

  #run(request: Parameters<Ring['push']>[0]): number {
    let result: number | undefined;
    this.ring.push(request, (value) => {
      result = value;
    });
    while (result === undefined) this.ring.submit(1);
    return result;
  }
}

const empty = (index: number): Entry => ({
  index,
  path: undefined,
  fd: undefined,
  type: undefined,
  result: 'hole',
  errno: undefined,
  message: undefined,
});

function link(fd: number): string | undefined {
  try {
    return fs.readlinkSync(`/proc/self/fd/${fd}`);
  } catch (err) {
    if (codeOf(err) === 'ENOENT') return undefined; // no /proc
    throw wrap(`descriptor ${fd}`, err);
  }
}

/** Makes the table of a plan. The caller closes it. @throws what RegisteredFiles throws */
export function registerFiles(plan: RegisterPlan, sysroot: Sysroot): RegisteredFiles {
  if (plan.size === 0)
    throw new VioError('nothing to register', { code: 'USAGE', exit: Exit.usage, hint: 'name files, --fd N, --sparse N, or - for a hole' });
  const files = new RegisteredFiles(plan.size, sysroot);
  try {
    plan.entries.forEach((wanted, index) => {
      files.place(index, wanted, plan.write);
    });
    for (const { index, to } of plan.updates) files.place(index, to, plan.write);
  } catch (err) {
    files.close();
    throw err;
  }
  return files;
}

/**
 * What a child needs to use an inherited ring: see include/vioctl-ring.h, whose vioctl_ring_attach() reads it.
 * @param fd number of the ring's descriptor in the child
 */
export function childEnvironment(files: RegisteredFiles, fd: number): Record<string, string> {
  return {
    VIOCTL_RING_FD: String(fd),
    VIOCTL_RING_PARAMS: files.ring.info.params.toString('hex'),
    VIOCTL_RING_FILES: String(files.entries.length),
  };
}
