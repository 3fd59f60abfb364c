import fs from 'node:fs';
import { VioError } from '../../common/errors.js';
import { native } from '../../native/index.js';
import type { MigrationNative, NativeSource } from '../../native/migration.js';

/** Why fewer bytes came than were asked for. */
export interface Ended {
  kind: 'eof' | 'io' | 'limit';
  /** absolute position of the first byte that was not there */
  at: number;
  need: number;
  have: number;
  /** errno name of an I/O error */
  errno?: string;
}

/** Bytes, or the reason why there are not enough; never a value made from fewer bytes. */
export type Taken = { ok: true; bytes: Buffer } | { ok: false; bytes: Buffer; end: Ended };

/** Thrown by the reading methods that return values; the walker turns it into an issue. */
export class StreamEnd extends Error {
  readonly end: Ended;
  readonly what: string;
  /** the walk said so already */
  readonly told: boolean;
  constructor(end: Ended, what: string, told = false) {
    super(`${what}: ${end.have} of ${end.need} bytes`);
    this.end = end;
    this.what = what;
    this.told = told;
  }
}

/** Why a read ended, for messages. */
export function endText(end: Ended): string {
  if (end.kind === 'io') return `read error ${end.errno ?? 'EIO'}`;
  if (end.errno === 'EFBIG') return 'the decompressed data is larger than --max-size';
  return end.kind === 'limit' ? 'the enclosing record ends' : 'the file ends';
}

/** Code of the issue about a read that ended: only the end of the input itself is `truncated`, or what the caller calls it. */
export function endCode(end: Ended, truncated: string): string {
  if (end.kind === 'io') return 'read-error';
  return end.kind === 'limit' && end.errno !== 'EFBIG' ? 'package-end' : truncated;
}

/** Big-endian reading of a source with absolute positions and a stack of limits. */
export class StreamReader {
  readonly #native: MigrationNative;
  #source: NativeSource;
  readonly #limits: number[] = [];
  #cap = -1;
  #owned: number | undefined;
  /** why a pipe that was spooled ended, if that was not its end */
  #why: Ended | undefined;
  /** bytes before this position are gone: they came through a pipe */
  #floor = 0;
  seekable: boolean;
  /** descriptor of a plain file whose positions are file offsets; -1 otherwise */
  fileFd: number;

  constructor(source: NativeSource, fileFd = -1) {
    this.#native = native().migration;
    this.#source = source;
    this.seekable = this.#native.sourceState(source).seekable;
    this.fileFd = fileFd;
  }

  /** The native handle, for RAM walks. */
  get source(): NativeSource {
    return this.#source;
  }

  /** Goes on with another source that has the same positions (a spooled pipe), from `start` on, and owns its descriptor. */
  replace(source: NativeSource, fd: number, start: number, why: Ended): void {
    if (why.kind !== 'eof') this.#why = why;
    this.#floor = start;
    this.#source = source;
    this.#owned = fd;
    this.seekable = this.#native.sourceState(source).seekable;
    this.fileFd = -1;
  }

  /** No byte at or behind this position is read: a bound on what compressed data may grow to. */
  cap(size: number): void {
    this.#cap = size;
    this.#native.setLimit(this.#source, size);
  }

  /** Closes what the reader itself opened. */
  close(): void {
    if (this.#owned !== undefined) fs.closeSync(this.#owned);
    this.#owned = undefined;
  }

  /** Absolute position of the next byte. */
  get position(): number {
    return this.#native.position(this.#source);
  }

  /** Where the source ends; 0 where that is not known. */
  get size(): number {
    return this.#native.sourceSize(this.#source);
  }

  /** Bytes walked between two progress events: of a file, which is fast, and of a pipe, which may be a slow network. */
  get budget(): number {
    return this.seekable ? 16 << 20 : 256 << 10;
  }

  /** Takes n bytes, or says why there are fewer. */
  take(n: number): Taken {
    const bytes = this.#native.read(this.#source, n);
    if (bytes.length === n) return { ok: true, bytes };
    return { ok: false, bytes, end: this.#end(n, bytes.length) };
  }

  /** Why the last read came short. */
  ended(): Ended {
    return this.#end(0, 0);
  }

  #end(need: number, have: number): Ended {
    const { end, position: at, errno } = this.#native.sourceState(this.#source);
    if (this.#why && end !== 'limit') return { ...this.#why, at, need, have };
    if (end === 'io') return { kind: 'io', at, need, have, errno };
    if (end === 'limit' && this.#limits.length === 0) return { kind: 'limit', at, need, have, errno: 'EFBIG' };
    return { kind: end === 'none' ? 'eof' : end, at, need, have };
  }

  /** Up to n bytes (at most 128 KiB) without taking them. */
  peek(n: number): Buffer {
    return this.#native.peek(this.#source, n);
  }

  /** The next n bytes (at most 6) as a number without taking them; -1 where there are fewer. */
  next(n: number): number {
    return this.#native.nextNumber(this.#source, n, false);
  }

  /** @throws StreamEnd */
  bytes(n: number, what: string): Buffer {
    const taken = this.take(n);
    if (!taken.ok) throw new StreamEnd(taken.end, what);
    return taken.bytes;
  }

  /** The next n bytes a megabyte at a time. @throws StreamEnd */
  *pieces(n: number, what: string): Generator<Buffer> {
    for (let done = 0; done < n; done += 1 << 20) yield this.bytes(Math.min(1 << 20, n - done), what);
  }

  #number(n: number, what: string): number {
    const value = this.#native.nextNumber(this.#source, n, true);
    return value >= 0 ? value : this.bytes(n, what).readUIntBE(0, n); // which says where and why it ends
  }
  u8(what: string): number {
    return this.#number(1, what);
  }
  be16(what: string): number {
    return this.#number(2, what);
  }
  be32(what: string): number {
    return this.#number(4, what);
  }
  be64(what: string): bigint {
    return this.bytes(8, what).readBigUInt64BE();
  }
  /** A length (u8) and as many bytes of Latin-1 text, so that no byte is lost. */
  string8(what: string): string {
    return this.bytes(this.u8(what), what).toString('latin1');
  }

  /** Moves on by any number of bytes. @throws StreamEnd */
  skip(n: number | bigint, what: string): void {
    const size = Number(n);
    const done = this.skipUpTo(size);
    if (done < size) throw new StreamEnd(this.#end(size, done), what);
  }

  /** Moves on by `n` bytes, or to the end; returns how far it went. */
  skipUpTo(n: number): number {
    return this.#native.skip(this.#source, Math.min(n, Number.MAX_SAFE_INTEGER));
  }

  /** Goes to an absolute position. @throws VioError where the source cannot */
  seek(position: number): void {
    if (!this.seekable || position < this.#floor) throw new VioError('seek: the input is a pipe', { code: 'ESPIPE' });
    // A damaged size may be of exabytes: nothing lies behind the last offset that a number holds exactly.
    this.#native.seek(this.#source, Math.min(position, Number.MAX_SAFE_INTEGER));
  }

  /** Bytes to the next footer of section `id` that a record can follow; the position is at the footer. undefined if there is none. */
  findFooter(id: number, most = Number.MAX_SAFE_INTEGER): number | undefined {
    const passed = this.#native.findFooter(this.#source, id, most);
    return passed < 0 ? undefined : passed;
  }

  /** Runs `inner` with no byte at or behind `end` readable; limits nest and only ever get narrower. */
  *within<T>(end: number, inner: () => Generator<T, void>): Generator<T, void> {
    const limit = Math.min(end, this.#limits.at(-1) ?? end);
    this.#limits.push(limit);
    this.#native.setLimit(this.#source, limit);
    try {
      yield* inner();
    } finally {
      this.#limits.pop();
      this.#native.setLimit(this.#source, this.#limits.at(-1) ?? this.#cap);
    }
  }
}
