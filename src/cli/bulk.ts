import { reason, VioError } from '../common/errors.js';
import { printable } from '../common/escape.js';
import { Flags, nullFlag } from './flags.js';
import type { Output } from './output.js';
import { stderr } from './stdio.js';

/** Flags of commands that work on many files. */
export const bulkFlags = {
  null: nullFlag,
  engine: Flags.option({
    options: ['auto', 'uring', 'sync'] as const,
    default: 'auto' as const,
    helpValue: 'NAME',
    summary: 'uring, sync (plain system calls), or auto: uring where it works',
  })(),
  depth: Flags.integer({ char: 'q', min: 1, max: 1024, default: 256, helpValue: 'N', summary: 'files under way at once' }),
};

/** A file name as text: bytes that are not UTF-8 are shown as U+FFFD. */
export const nameText = (name: string | Buffer): string => (typeof name === 'string' ? name : name.toString('utf8'));

/** The JSON form of a name: `path`, and the exact bytes where they are not UTF-8. */
export const nameJson = (name: string | Buffer): { path: string; pathHex?: string } =>
  typeof name === 'string' ? { path: name } : { path: nameText(name), pathHex: name.toString('hex') };

/** `ENOENT` as `{code, message}`. */
export const errorJson = (code: string): { code: string; message: string } => ({
  code,
  message: reason(Object.assign(new Error(code), { code })),
});

/** Counts the files that failed, and names each on stderr unless the output has it. */
export class Failures {
  readonly #id: string;
  readonly #show: boolean;
  #failed = 0;
  #all = 0;

  /** @param show one line per file on stderr (text output) */
  constructor(id: string, show: boolean) {
    this.#id = id;
    this.#show = show;
  }

  /** Notes one result. */
  note(name: string | Buffer, code: string | undefined): void {
    this.#all++;
    if (code === undefined) return;
    this.#failed++;
    if (this.#show) stderr(`vioctl: ${this.#id}: ${printable(nameText(name))}: ${errorJson(code).message}\n`);
  }

  get count(): number {
    return this.#all;
  }

  /** Ends the command behind its last line. @throws FILES_FAILED (1) if a file failed */
  async end(out: Output): Promise<undefined> {
    await out.flush();
    if (this.#failed === 0) return;
    throw new VioError(`${this.#failed} of ${this.#all} files failed`, {
      code: 'FILES_FAILED',
      details: { failed: this.#failed, files: this.#all },
    });
  }
}
