import fs from 'node:fs';
import { promisify } from 'node:util';
import { now } from '../../../common/clock.js';
import { errnoError, errnoName } from '../../../common/errno.js';
import { codeOf } from '../../../common/errors.js';
import type { RingStats } from '../../../native/uring.js';
import { Op } from '../../abi.js';
import { addressOf, Slot } from '../../request/request.js';
import { Ring, readWholeOpen } from '../../ring/ring.js';
import { FileTable } from '../../ring/table.js';
import { type Name, PATH_MAX, pathError, putPath } from '../name.js';
import { turn } from './flow.js';

/** Takes a file's content in order. The bytes are the engine's again when chunk() returns or its promise resolves. */
export interface Sink {
  chunk(bytes: Buffer): Promise<void> | undefined;
  /** Takes the rest of a large regular file from a descriptor, which stays the engine's. @returns its bytes */
  pour?: ((fd: number, offset: number) => Promise<number>) | undefined;
}

/** How a file ended: its errno name (or TRUNCATED: it shrank while it was read), where it failed, and the bytes delivered. */
export type Ended = (code: string | undefined, size: number) => void;

/** Reads many files at once, each into its own sink. */
export interface Reader {
  readonly name: 'uring' | 'sync';
  /** Files under way at once. */
  readonly depth: number;
  read(name: Name, sink: Sink, done: Ended): void;
  submit(): void;
  close(): void;
}

/** First read of a file: most files end in it. */
const firstRead = 64 * 1024;
/** Reads behind it, and how many of them a file may have under way. */
const chunkSize = 256 * 1024;
const readAhead = 4;
const spareChunks = 16;
const AT_FDCWD = -100;
const O_NOCTTY = fs.constants.O_NOCTTY;
const S_IFMT = 0o170000;
const S_IFREG = 0o100000;

const nothing = Buffer.alloc(0);

interface Piece {
  buffer: Buffer;
  offset: number;
  result: number | undefined;
}

/** One file under way. The object, its slot, path and first buffer are used again for the next file. */
class Job {
  readonly slot: Slot;
  readonly path = Buffer.alloc(PATH_MAX);
  readonly first: Buffer;
  readonly statx = Buffer.alloc(256);
  sink!: Sink;
  done!: Ended;
  pieces: Piece[] = [];
  failure: string | undefined;
  size = 0;
  /** Bytes of a regular file when its first buffer was full: it has shrunk if fewer can be read. */
  least = 0;
  nextOffset = 0;
  opened = false;
  ended = false;
  delivering = false;
  examining = false;
  /** Reads at once: 1, and readAhead for regular files that outgrew the first buffer. */
  ahead = 1;

  constructor(index: number, first: Buffer) {
    this.slot = new Slot(index);
    this.first = first;
  }
}

/**
 * Reads files through direct descriptors of one ring. A file that fits the first buffer is one call (Ring.readWhole); a
 * larger one goes on here, with several reads under way. A file is closed when a read returned 0 (a short read alone does
 * not prove the end), and its slot is used again on the completion of the close.
 */
export class UringReader implements Reader {
  readonly name = 'uring';
  readonly depth: number;
  readonly #ring: Ring;
  readonly #table: FileTable;
  readonly #idle: Job[] = [];
  readonly #spare: Buffer[] = [];
  readonly #spent: ((stats: RingStats) => void) | undefined;
  #spareLeft = spareChunks;
  /** Whether slots can be made descriptors (6.8). */
  #installs = true;
  #closed = false;

  /** @throws errno of io_uring_setup(2), EMFILE */
  constructor(depth: number, spent?: (stats: RingStats) => void) {
    this.depth = depth;
    this.#spent = spent;
    this.#ring = new Ring({ entries: Math.min(4096, depth * 2) });
    this.#table = new FileTable(this.#ring);
    try {
      this.#table.registerSparse(depth);
      this.#enter();
    } catch (err) {
      this.#ring.close();
      throw err;
    }
    const memory = Buffer.alloc(depth * firstRead);
    for (let i = 0; i < depth; i++) this.#idle.push(new Job(i, memory.subarray(i * firstRead, (i + 1) * firstRead)));
  }

  /** A seccomp filter may allow to open rings and forbid to enter them. @throws errno of io_uring_enter(2) */
  #enter(): void {
    let result = 0;
    this.#ring.push({ opcode: Op.nop }, (n) => {
      result = n;
    });
    this.#ring.submit(1);
    if (result < 0) throw errnoError(result, 'io_uring_enter');
  }

  read(name: Name, sink: Sink, done: Ended): void {
    const invalid = pathError(name);
    if (invalid !== undefined) {
      done(invalid, 0);
      return;
    }
    const job = this.#idle.pop()!;
    job.sink = sink;
    job.done = done;
    job.failure = undefined;
    job.size = job.least = job.nextOffset = 0;
    job.opened = job.ended = job.delivering = false;
    job.ahead = 1;
    putPath(job.path, name);
    const { first } = job;
    this.#ring.readWhole(job.path, O_NOCTTY, job.slot.index, first, (result, flags) => {
      if (this.#closed) return; // cancelled, and nobody waits for it
      job.opened = (flags & readWholeOpen) !== 0;
      if (result < 0 && errnoName(result) === 'ECANCELED') {
        // The kernel's threads count as well (RLIMIT_NPROC, pids.max): where not even one can be made, it cancels.
        this.#idle.push(job);
        new SyncReader().read(name, sink, done);
        return;
      }
      job.nextOffset = Math.max(0, result);
      if (result < 0) job.failure = errnoName(result);
      if (result > 0) job.pieces.push({ buffer: first, offset: 0, result });
      if (!job.opened) job.pieces.push({ buffer: nothing, offset: job.nextOffset, result: 0 }); // the end was seen
      this.#advance(job);
    });
  }

  submit(): void {
    this.#ring.submit();
  }

  close(): void {
    this.#closed = true;
    this.#spent?.(this.#ring.stats);
    this.#ring.close();
  }

  #issue(job: Job, buffer: Buffer): void {
    const piece: Piece = { buffer, offset: job.nextOffset, result: undefined };
    job.nextOffset += buffer.length;
    job.pieces.push(piece);
    this.#ring.read(job.slot, buffer, piece.offset, (result) => {
      piece.result = result;
      this.#advance(job);
    });
  }

  /** Delivers what is there in order; then reads on, or closes. */
  #advance(job: Job): void {
    if (job.delivering || this.#closed) return;
    for (let piece = job.pieces[0]; piece?.result !== undefined; piece = job.pieces[0]) {
      const { result, buffer } = piece;
      if (job.ended || job.failure !== undefined || piece.offset !== job.size) {
        this.#drop(job); // behind the end, or behind a short read
      } else if (result < 0) {
        job.failure = errnoName(result);
        this.#drop(job);
      } else if (result === 0) {
        job.ended = true;
        if (job.size < job.least) job.failure = 'TRUNCATED';
        this.#drop(job);
      } else {
        job.size += result;
        let pending: Promise<void> | undefined;
        try {
          pending = job.sink.chunk(result === buffer.length ? buffer : buffer.subarray(0, result));
        } catch (err) {
          job.failure = codeOf(err) ?? 'EIO';
        }
        if (pending) {
          job.delivering = true;
          const resume = (): void => {
            job.delivering = false;
            this.#delivered(job, result);
            this.#advance(job);
          };
          pending.then(resume, (err) => {
            job.failure = codeOf(err) ?? 'EIO';
            resume();
          });
          return;
        }
        this.#delivered(job, result);
      }
    }
    if (job.pieces.length > 0 || job.examining) return;
    if (job.ended || job.failure !== undefined) this.#finish(job);
    else if (job.least > job.size && job.sink.pour && this.#installs) this.#pour(job);
    else {
      job.nextOffset = job.size;
      this.#issue(job, job.first);
      this.#readAhead(job);
    }
  }

  #delivered(job: Job, size: number): void {
    const whole = size === job.pieces[0]!.buffer.length;
    this.#drop(job);
    if (!whole || job.failure !== undefined) return;
    if (job.size === firstRead) this.#examine(job);
    if (!job.sink.pour || !this.#installs) this.#readAhead(job);
  }

  /** The first buffer was filled: is it a regular file, which may be read at several offsets at once? */
  #examine(job: Job): void {
    job.examining = true;
    const mask = 0x1 | 0x200; // STATX_TYPE, STATX_SIZE
    const request = { opcode: Op.statx, fd: AT_FDCWD, buffer: job.path, length: mask, offset: addressOf(job.statx) };
    this.#ring.push(request, (result) => {
      job.examining = false;
      const { statx } = job; // stx_mode at 28, stx_size at 40
      if (result === 0 && (statx.readUInt16LE(28) & S_IFMT) === S_IFREG) job.least = Number(statx.readBigUInt64LE(40));
      if (job.least > 0) job.ahead = readAhead;
      this.#advance(job);
    });
  }

  /** Hands the rest of a file over as a descriptor. */
  #pour(job: Job): void {
    job.delivering = true;
    this.#ring.push({ opcode: Op.fixedFdInstall, fd: job.slot }, (fd) => {
      if (fd >= 0) {
        this.#poured(job, fd);
        return;
      }
      this.#installs = errnoName(fd) !== 'EINVAL'; // an older kernel
      job.delivering = false;
      if (this.#installs) job.failure = errnoName(fd);
      this.#advance(job);
    });
  }

  async #poured(job: Job, fd: number): Promise<void> {
    try {
      job.size += await job.sink.pour!(fd, job.size);
      job.ended = true;
      if (job.size < job.least) job.failure = 'TRUNCATED';
    } catch (err) {
      job.failure = codeOf(err) ?? 'EIO';
    }
    fs.closeSync(fd);
    job.delivering = false;
    this.#advance(job);
  }

  #readAhead(job: Job): void {
    if (job.ended || job.failure !== undefined || job.ahead === 1) return;
    while (job.pieces.length < job.ahead) {
      let buffer = this.#spare.pop();
      if (!buffer && this.#spareLeft > 0) {
        this.#spareLeft--;
        buffer = Buffer.allocUnsafeSlow(chunkSize);
      }
      if (!buffer) return;
      this.#issue(job, buffer);
    }
  }

  #drop(job: Job): void {
    const { buffer } = job.pieces.shift()!;
    if (buffer !== job.first && buffer !== nothing) this.#spare.push(buffer);
  }

  #finish(job: Job): void {
    const end = (): void => {
      this.#idle.push(job);
      job.done(job.failure, job.size);
    };
    if (!job.opened) end();
    else this.#ring.closeSlot(job.slot.index, end);
  }
}

/**
 * Reads one file after the other with plain system calls: what runs where io_uring does not. Regular files are read in line,
 * which is fastest; what may block for ever (a FIFO, a terminal) in libuv's threads, so that signals are seen.
 */
export class SyncReader implements Reader {
  readonly name = 'sync';
  readonly depth = 1;
  readonly #buffer = Buffer.allocUnsafeSlow(chunkSize);
  #closed = false;
  #turned = now();

  read(name: Name, sink: Sink, done: Ended): void {
    const invalid = pathError(name);
    if (invalid !== undefined) queueMicrotask(() => done(invalid, 0));
    else this.#read(name, sink).then(({ error, size }) => done(error, size));
  }

  submit(): void {}
  close(): void {
    this.#closed = true;
  }

  /** Lets the event loop see signals and timers: reads in line would keep it from that. */
  async #turn(): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve));
    this.#turned = now();
  }

  async #read(name: Name, sink: Sink): Promise<{ error: string | undefined; size: number }> {
    let size = 0;
    let fd: number | undefined;
    let error: string | undefined;
    const flags = fs.constants.O_RDONLY | O_NOCTTY;
    try {
      const stat = fs.statSync(name);
      const inLine = stat.isFile();
      fd = inLine ? fs.openSync(name, flags) : await openLater(name, flags);
      for (;;) {
        const n = inLine ? fs.readSync(fd, this.#buffer) : await readLater(fd, this.#buffer);
        if (n === 0) break;
        size += n;
        await sink.chunk(this.#buffer.subarray(0, n));
        if (inLine && sink.pour && stat.size > size) {
          size += await sink.pour(fd, size);
          break;
        }
        if (now() - this.#turned > turn) await this.#turn();
        if (this.#closed) throw Object.assign(new Error('ECANCELED'), { code: 'ECANCELED' });
      }
      if (inLine && size >= firstRead && size < stat.size) error = 'TRUNCATED'; // what ends in the first buffer was read at one moment
    } catch (err) {
      error = codeOf(err) ?? 'EIO';
    }
    if (fd !== undefined) fs.closeSync(fd);
    return { error, size };
  }
}

const openLater = promisify<Name, number, number>(fs.open);
const readLater = async (fd: number, buffer: Buffer): Promise<number> =>
  (await promisify(fs.read)(fd, buffer, 0, buffer.length, null)).bytesRead;
