import { errnoError, errnoName } from '../../common/errno.js';
import { VioError } from '../../common/errors.js';
import { native } from '../../native/index.js';
import { FdFault } from '../../native/uring.js';
import { alloc, maxFixedFiles, Op, Reg, SqeFlag, skip } from '../abi.js';
import { prep } from '../request/prep.js';
import { addressOf, type File, fileIndex, integer, invalid, pathBytes, Slot } from '../request/request.js';
import type { Ring } from './ring.js';

/** Why one descriptor cannot be registered. */
export interface Fault {
  /** Position in the array given. */
  index: number;
  fd: number;
  /** EBADF, or the errno that the kernel returned for the whole. */
  code: string;
  /** `is closed`, `is an io_uring`, `is an O_PATH descriptor`, `is negative` */
  why: string;
}

const faultTexts: Record<number, string> = {
  [FdFault.closed]: 'is closed',
  [FdFault.ring]: 'is an io_uring, which cannot be registered',
  [FdFault.path]: 'is an O_PATH descriptor, which cannot be registered',
  [FdFault.negative]: 'is negative',
};

/** The array that the kernel reads. @throws EINVAL for what is no descriptor, and would become 0 there */
function descriptors(fds: readonly number[]): Int32Array {
  if (!Array.isArray(fds)) throw invalid('descriptors', fds, 'an array');
  fds.forEach((fd, index) => {
    if ((fd | 0) !== fd) throw invalid(`entry ${index}`, fd, 'a descriptor');
  });
  return Int32Array.from(fds);
}

/**
 * The descriptors that the kernel would refuse, with the reason. The kernel itself never says which one it was.
 * @param holes whether -1 (hole) is allowed
 * @param skips whether -2 (leave the slot as it is) is allowed: updates only
 */
export function findFaults(fds: readonly number[], holes: boolean, skips: boolean): Fault[] {
  const answers = native().uring.checkFds(descriptors(fds));
  const faults: Fault[] = [];
  answers.forEach((answer, index) => {
    const fd = fds[index]!;
    if (answer === FdFault.none || (holes && fd === -1) || (skips && fd === skip)) return;
    faults.push({ index, fd, code: 'EBADF', why: faultTexts[answer]! });
  });
  return faults;
}

/** The index of a slot, of this class or not; never ALLOC. @throws EINVAL */
const slotIndex = (slot: Slot): number => integer('slot', slot?.index, 0, maxFixedFiles - 1);

/** Memory that a register call in progress points to: named here so that it cannot be collected before the call. */
let held: unknown;
const holding = <T>(memory: unknown, run: () => T): T => {
  held = memory;
  try {
    return run();
  } finally {
    if (held !== undefined) held = undefined;
  }
};

const describe = ({ index, fd, why }: Fault): string => `entry ${index}: descriptor ${fd} ${why}`;

/** The errors of a table, with the reason in words. */
function tableError(what: string, code: string, why: string, details: Record<string, unknown> = {}, hint?: string): VioError {
  return new VioError(`${what}: ${why}`, { code, details, hint });
}

/**
 * The file table of a ring: descriptors that requests name by slot. Registering is all or nothing; updating validates
 * first, because the kernel hides the errno of a failing entry and empties its slot. Slots opened, closed and installed
 * by requests of the ring (openat, socket, close) are followed here too. The table is unregistered before its ring closes, so
 * its files are let go at once and not some 30 ms later.
 */
export class FileTable {
  readonly #ring: Ring;
  #size = 0;

  /** A table on this ring; nothing is registered yet. */
  constructor(ring: Ring) {
    this.#ring = ring;
  }

  /** Slots of the registered table; 0 where none is registered. */
  get size(): number {
    return this.#ring.closed ? 0 : this.#size;
  }

  /** A file of the table, for requests. */
  slot(index: number): Slot {
    return new Slot(index);
  }

  /**
   * Registers descriptors as slots 0, 1, …; -1 is a hole. The descriptors may be closed afterwards.
   * @param tags one per entry (0: none, below 2^31): ring.onTag gets it when the last request on that file has ended
   * @throws EBADF naming the entries, EBUSY (a table exists), EMFILE (more than RLIMIT_NOFILE), EINVAL (none, or too many)
   */
  register(fds: readonly number[], tags?: readonly number[]): void {
    const list = descriptors(fds);
    const result = tags
      ? this.#tagged(Reg.registerFiles2, 0, list, tags)
      : this.#ring.register(Reg.registerFiles, list.length ? new Uint8Array(list.buffer) : new Uint8Array(4), list.length);
    this.#registered(result, fds.length, fds);
  }

  /** Registers a table of holes. @throws EBUSY, EMFILE, EINVAL */
  registerSparse(size: number): void {
    integer('size of the table', size, 1, maxFixedFiles);
    const arg = new DataView(new ArrayBuffer(32)); // struct io_uring_rsrc_register
    arg.setUint32(0, size, true);
    arg.setUint32(4, 1, true); // IORING_RSRC_REGISTER_SPARSE, 5.19
    let result = this.#ring.register(Reg.registerFiles2, new Uint8Array(arg.buffer), 32);
    if (result === -22) {
      const holes = new Int32Array(size).fill(-1);
      result = this.#ring.register(Reg.registerFiles, new Uint8Array(holes.buffer), size);
    }
    this.#registered(result, size);
  }

  /**
   * Replaces slots from `offset` on: descriptors, -1 (empty the slot), SKIP (leave it). Every entry is checked before
   * anything changes, so a bad descriptor leaves the table as it was.
   * @throws EBADF naming the entries; ENXIO (no table); EINVAL (outside the table); PARTIAL naming the first slot that is
   *   now empty, where an entry went bad between check and update
   */
  update(offset: number, fds: readonly number[], tags?: readonly number[]): void {
    integer('slot', offset, 0, maxFixedFiles - 1);
    const faults = findFaults(fds, true, true);
    if (faults.length > 0) throw tableError('file table', 'EBADF', faults.map(describe).join('; '), { faults });
    const list = descriptors(fds);
    const done = tags ? this.#tagged(Reg.registerFilesUpdate2, offset, list, tags) : this.#plainUpdate(offset, list);
    this.#updated(done, offset, fds);
  }

  /**
   * The same as a request of the ring (IORING_OP_FILES_UPDATE). With offset ALLOC the kernel picks free slots.
   * @returns the slots used
   */
  async updateAsync(offset: number, fds: readonly number[]): Promise<number[]> {
    if (offset !== alloc) integer('slot', offset, 0, maxFixedFiles - 1);
    const faults = findFaults(fds, true, true);
    if (faults.length > 0) throw tableError('file table', 'EBADF', faults.map(describe).join('; '), { faults });
    const list = descriptors(fds);
    const done = await new Promise<number>((resolve) =>
      this.#ring.push({ opcode: Op.filesUpdate, buffer: list, length: list.length, offset }, resolve),
    );
    this.#updated(done, offset, fds);
    return offset === alloc ? [...list] : fds.map((_, i) => offset + i);
  }

  /** Lets the kernel pick slots (ALLOC) only from [offset, offset + length). @throws EINVAL, EOVERFLOW, ENXIO */
  allocRange(offset: number, length: number): void {
    integer('offset', offset, 0, 0xffff_ffff);
    integer('length', length, 0, 0xffff_ffff);
    const arg = new DataView(new ArrayBuffer(16)); // struct io_uring_file_index_range
    arg.setUint32(0, offset, true);
    arg.setUint32(4, length, true);
    const result = this.#ring.register(Reg.registerFileAllocRange, new Uint8Array(arg.buffer), 0);
    if (result < 0) throw this.#error('allocation range', result, `[${offset}, ${offset + length}) of a table of ${this.#size}`);
  }

  /**
   * Opens a file into a slot, without a descriptor of the process. An occupied slot is replaced silently.
   * @param slot index, or ALLOC: the kernel picks one (ENFILE: none is free)
   * @param flags O_* of open(2); O_CLOEXEC means nothing in a table and is left out (the kernel refuses it)
   * @returns the slot
   */
  async open(path: string | Uint8Array, flags: number, slot: number = alloc, mode = 0): Promise<Slot> {
    const request = this.openRequest(path, flags, slot, mode);
    const result = await new Promise<number>((resolve) => this.#ring.push(request, resolve));
    if (result < 0) throw this.#slotError(result, 'openat', slot, path);
    return new Slot(slot === alloc ? result : slot);
  }

  /** The request of open(), for chains. */
  openRequest(path: string | Uint8Array, flags: number, slot: number, mode = 0) {
    const opFlags = integer('flags of open', flags, 0, 0x7fff_ffff) & ~0o2000000;
    return {
      opcode: Op.openat,
      fd: -100,
      buffer: pathBytes(path),
      length: integer('mode', mode, 0, 0o7777),
      opFlags,
      fileIndex: fileIndex(slot),
    };
  }

  /** The request that closes a slot, for chains: never with the file as `fd`, which the kernel refuses. */
  closeRequest(slot: Slot) {
    return { opcode: Op.close, fd: 0, fileIndex: slotIndex(slot) + 1 };
  }

  /** Closes a slot. @throws EBADF (empty), EINVAL (outside the table) */
  async close(slot: Slot): Promise<void> {
    const result = await new Promise<number>((resolve) => this.#ring.push(this.closeRequest(slot), resolve));
    if (result < 0) throw this.#error('close', result, `slot ${slot.index}`);
  }

  /** socket(2) into a slot. */
  async socket(domain: number, type: number, protocol: number, slot: number = alloc): Promise<Slot> {
    const request = { opcode: Op.socket, fd: domain, offset: type, length: protocol, fileIndex: fileIndex(slot) };
    const result = await new Promise<number>((resolve) => this.#ring.push(request, resolve));
    if (result < 0) throw this.#slotError(result, 'socket', slot);
    return new Slot(slot === alloc ? result : slot);
  }

  /** accept(2) into a slot, of a connection to a listener that is a descriptor or a slot. */
  async accept(listener: File, slot: number = alloc): Promise<Slot> {
    const request = prep.accept(listener, slot);
    const result = await new Promise<number>((resolve) => this.#ring.push(request, resolve));
    if (result < 0) throw this.#slotError(result, 'accept', slot);
    return new Slot(slot === alloc ? result : slot);
  }

  /**
   * Makes a slot a descriptor of the process (6.8). The caller owns it.
   * @param inherit without close-on-exec
   */
  install(slot: Slot, inherit = false): Promise<number> {
    return this.#ring.request({ opcode: Op.fixedFdInstall, fd: new Slot(slotIndex(slot)), opFlags: inherit ? 1 : 0 }, 'fixed_fd_install');
  }

  /**
   * Sends a file to the table of another ring (MSG_RING, 6.0).
   * @param ring descriptor of the other ring
   * @param to slot there, or ALLOC
   * @returns slot in the other table
   */
  send(slot: Slot, ring: number, to: number = alloc): Promise<number> {
    // addr 1: IORING_MSG_SEND_FD; addr3 is the slot here; len and off become the CQE there
    const from = slotIndex(slot);
    integer('descriptor of the other ring', ring, 0, 0x7fff_ffff);
    return this.#ring.request({ opcode: Op.msgRing, fd: ring, address: 1, addr3: from, fileIndex: fileIndex(to), opFlags: 1 }, 'msg_ring');
  }

  /**
   * A whole small file in one chain: open → read → close, the links hard behind the read, because a short read breaks a
   * soft link and would leave the slot occupied. Resolves on the completion of the close: only then is the slot free.
   * @returns bytes read. @throws the one error that began it, never the ECANCELED of what was linked to it
   */
  readOnce(path: string | Uint8Array, slot: Slot, buffer: NodeJS.ArrayBufferView): Promise<number> {
    let failure: Error | undefined;
    let size = 0;
    const note = (result: number, call: string): void => {
      if (result < 0) failure ??= errnoError(result, call);
    };
    return new Promise((resolve, reject) => {
      const ring = this.#ring;
      const open = this.openRequest(path, 0, slotIndex(slot));
      const close = this.closeRequest(slot);
      addressOf(buffer); // nothing may throw between the parts of the chain
      ring.reserve(3);
      ring.push({ ...open, flags: SqeFlag.link }, (result) => note(result, 'openat'));
      ring.push({ opcode: Op.read, fd: slot, buffer, offset: 0, flags: SqeFlag.hardlink }, (result) => {
        note(result, 'read');
        size = result;
      });
      ring.push(close, (result) => {
        note(result, 'close');
        if (failure) reject(failure);
        else resolve(size);
      });
    });
  }

  /** Empties the table and forgets it; the remaining tags are posted. @throws ENXIO where none is registered */
  unregister(): void {
    const result = this.#ring.register(Reg.unregisterFiles, null, 0);
    if (result < 0) throw this.#error('unregister', result, 'nothing is registered');
    this.#size = 0;
  }

  [Symbol.dispose](): void {
    if (this.#size > 0 && !this.#ring.closed) this.unregister();
  }

  #plainUpdate(offset: number, list: Int32Array): number {
    return holding(list, () => {
      const arg = new DataView(new ArrayBuffer(16)); // struct io_uring_files_update
      arg.setUint32(0, offset, true);
      arg.setBigUint64(8, BigInt(addressOf(list)), true);
      return this.#ring.register(Reg.registerFilesUpdate, new Uint8Array(arg.buffer), list.length);
    });
  }

  #tagged(opcode: number, offset: number, list: Int32Array, tags: readonly number[]): number {
    if (tags.length !== list.length) throw invalid('tags', tags.length, `one for each of ${list.length} entries`);
    const words = BigUint64Array.from(tags, (tag, i) => {
      const value = integer(`tag ${i}`, tag, 0, 0x7fff_ffff);
      return value === 0 ? 0n : (1n << 63n) | BigInt(value);
    });
    return holding([list, words], () => {
      // struct io_uring_rsrc_register {nr, flags, resv2, data, tags}; io_uring_rsrc_update2 {offset, resv, data, tags, nr, resv2}
      const update = opcode === Reg.registerFilesUpdate2;
      const arg = new DataView(new ArrayBuffer(32));
      arg.setUint32(0, update ? offset : list.length, true);
      arg.setBigUint64(update ? 8 : 16, BigInt(addressOf(list)), true);
      arg.setBigUint64(update ? 16 : 24, BigInt(addressOf(words)), true);
      if (update) arg.setUint32(24, list.length, true);
      return this.#ring.register(opcode, new Uint8Array(arg.buffer), 32);
    });
  }

  #registered(result: number, count: number, fds?: readonly number[]): void {
    if (result >= 0) {
      this.#size = count;
      return;
    }
    const faults = fds && result === -9 ? findFaults(fds, true, false) : [];
    if (faults.length > 0) throw tableError('file table', 'EBADF', faults.map(describe).join('; '), { faults });
    throw this.#error('file table', result, `${count} entries`);
  }

  #updated(done: number, offset: number, fds: readonly number[]): void {
    if (done === fds.length) return;
    if (done < 0) throw this.#error('update', done, `slots ${offset}..${offset + fds.length - 1} of a table of ${this.#size}`);
    throw tableError('update', 'PARTIAL', `entry ${done} failed, slot ${offset + done} is now empty, the entries behind it were not done`, {
      done,
      slot: offset + done,
    });
  }

  /** The error of what opens into a slot: ENFILE and EINVAL of the table are told from those of the file. */
  #slotError(result: number, call: string, slot: number, path?: string | Uint8Array): Error {
    const code = errnoName(result);
    const outside = slot !== alloc && slot >= this.#size;
    if (code === 'ENFILE' || code === 'ENXIO' || (code === 'EINVAL' && outside)) {
      if (this.#size === 0) return tableError(call, code, 'no table is registered');
      return this.#error(call, result, slot === alloc ? 'the table' : `slot ${slot} of a table of ${this.#size}`);
    }
    return path === undefined ? errnoError(result, call) : Object.assign(errnoError(result, `${call} '${path}'`), { syscall: call, path });
  }

  #error(what: string, result: number, on: string): VioError {
    const code = errnoName(result);
    const whys: Record<string, [string, string?]> = {
      EBUSY: ['a table is registered already', 'update it, or unregister it first'],
      ENXIO: ['no table is registered'],
      EMFILE: [`${on} are more than RLIMIT_NOFILE (or than ${maxFixedFiles})`, 'ulimit -n'],
      ENFILE: ['no slot is free'],
      EBADF: [`${on} is empty`],
      EINVAL: [`${on}: out of range`],
    };
    const [why, hint] = whys[code] ?? [`${on}: ${code}`];
    return tableError(what, code, why, {}, hint);
  }
}
