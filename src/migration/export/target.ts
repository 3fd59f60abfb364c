/** Where a command writes: a file in place, or stdout by way of a temporary file. */
import fs from 'node:fs';
import { usage, wrap } from '../../common/errors.js';
import { temporaryFile } from '../containers/tempfile.js';

const { O_CREAT, O_RDWR } = fs.constants;

/** Writes all bytes at the position of a descriptor. @param name of the file, for the error @throws VioError */
export function writeAll(fd: number, bytes: Buffer, name: string): void {
  try {
    for (let at = 0; at < bytes.length; ) at += fs.writeSync(fd, bytes, at);
  } catch (err) {
    throw wrap(`write ${name}`, err);
  }
}

/** The output of an extraction: a regular file in place, or a temporary file that is copied out after. */
export class Target {
  readonly fd: number;
  /** true if the bytes must be copied to where they belong when all is written */
  readonly spooled: boolean;
  readonly #out: number;
  /** Name of a file that was made here. */
  readonly #made: string | undefined;

  /** @param out path, or - for stdout */
  constructor(out: string, input: string) {
    let fd = 1;
    if (out !== '-') {
      const same = fs.statSync(out, { throwIfNoEntry: false });
      const source = input === '-' ? fs.fstatSync(0) : fs.statSync(input, { throwIfNoEntry: false });
      if (same && source && same.isFile() && same.ino === source.ino && same.dev === source.dev)
        throw usage('output and input are the same file');
      try {
        fd = fs.openSync(out, same && !same.isFile() ? 'w' : O_RDWR | O_CREAT, 0o600);
      } catch (err) {
        throw wrap(`open ${out}`, err);
      }
      if (!same) this.#made = out;
    }
    this.#out = fd;
    this.spooled = out === '-' || !fs.fstatSync(fd).isFile();
    this.fd = this.spooled ? temporaryFile() : fd;
  }

  /** What was spooled, in pieces, for stdout. */
  *pieces(size: number): Generator<Buffer> {
    for (let at = 0; at < size; ) {
      const bytes = Buffer.alloc(Math.min(1 << 20, size - at));
      const got = fs.readSync(this.fd, bytes, 0, bytes.length, at);
      if (got === 0) return;
      at += got;
      yield bytes.subarray(0, got);
    }
  }

  /** The descriptor that spooled bytes belong to. */
  get out(): number {
    return this.#out;
  }

  /** Ends it; a file that was made for nothing goes. */
  close(): void {
    if (this.#made !== undefined && fs.fstatSync(this.fd).size === 0) fs.rmSync(this.#made, { force: true });
    fs.closeSync(this.fd);
    if (this.spooled && this.#out > 2) fs.closeSync(this.#out);
  }
}
