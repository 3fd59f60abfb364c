import { engineFlag, Flags, nullFlag } from '../../cli/flags.js';
import type { Output } from '../../cli/output/output.js';
import { stderr } from '../../cli/output/stdio.js';
import { now } from '../../common/clock.js';
import { reason, VioError } from '../../common/errors.js';
import { printable } from '../../common/escape.js';
import type { RingStats } from '../../native/uring.js';
import { inputIsOutput } from '../../uring/bulk/itself.js';
import { type LineForm, sumLine } from '../../uring/bulk/lines.js';
import type { SumResult } from '../../uring/bulk/sum.js';

/** Flags of commands that work on many files. */
export const bulkFlags = {
  null: nullFlag,
  engine: engineFlag('uring, sync (plain system calls), or auto: uring if it works'),
  depth: Flags.integer({ char: 'q', min: 1, max: 1024, default: 256, helpValue: 'N', summary: 'files under way at once' }),
  stats: Flags.boolean({ summary: 'print statistics at the end: files, bytes, time, system calls, overflowed completions' }),
};

/** A file name as text: bytes that are not UTF-8 are shown as U+FFFD. */
export const nameText = (name: string | Buffer): string => (typeof name === 'string' ? name : name.toString('utf8'));

/** The JSON form of a name: `path`, and the exact bytes where they are not UTF-8. */
export const nameJson = (name: string | Buffer): { path: string; pathHex?: string } =>
  typeof name === 'string' ? { path: name } : { path: nameText(name), pathHex: name.toString('hex') };

/** Errors that are no errno. */
const texts: Readonly<Record<string, string>> = {
  TRUNCATED: 'TRUNCATED (it shrank while it was read)',
  [inputIsOutput]: 'input file is output file',
};

/** `ENOENT` as `{code, message}`. */
export const errorJson = (code: string): { code: string; message: string } => ({
  code,
  message: reason(Object.assign(new Error(texts[code] ?? code), { code })),
});

/** The JSON form of a checksum. */
export const sumJson = (algorithm: string, { name, digest, size, error }: SumResult): Record<string, unknown> => ({
  ...nameJson(name),
  algorithm,
  digest,
  size,
  ...(error !== undefined && { error: errorJson(error) }),
});

/** Counts the files, names each that failed on stderr unless the output has it, and tells at the end what it took (--stats). */
export class FileReport {
  readonly #id: string;
  readonly #text: boolean;
  readonly #stats: boolean;
  readonly #start = now();
  #failed = 0;
  #all = 0;
  #bytes = 0;
  #rings: RingStats | undefined;

  /** @param text one line per file that failed on stderr; otherwise the output has them, and stderr is JSON */
  constructor(id: string, text: boolean, stats: boolean) {
    this.#id = id;
    this.#text = text;
    this.#stats = stats;
  }

  /** For BulkOptions: what the rings did. */
  readonly spent = (stats: RingStats): void => {
    this.#rings = stats;
  };

  /** Notes one result. */
  note(name: string | Buffer, code: string | undefined, bytes = 0): void {
    this.#all++;
    this.#bytes += bytes;
    if (code === undefined) return;
    this.#failed++;
    if (this.#text) stderr(`vioctl: ${this.#id}: ${printable(nameText(name))}: ${errorJson(code).message}\n`);
  }

  /** The results of batches one by one, each noted. */
  async *rows<R extends { name: string | Buffer; error: string | undefined; size?: number }>(
    batches: AsyncIterable<R[]>,
  ): AsyncGenerator<R> {
    for await (const batch of batches) {
      for (const { name, error, size } of batch) this.note(name, error, size);
      yield* batch;
    }
  }

  /** Ends the command behind its last line. @throws FILES_FAILED (1) if a file failed */
  async end(out: Output): Promise<undefined> {
    await out.flush();
    if (this.#stats) this.#tell();
    if (this.#failed === 0) return;
    throw new VioError(`${this.#failed} of ${this.#all} files failed`, {
      code: 'FILES_FAILED',
      details: { failed: this.#failed, files: this.#all },
    });
  }

  #tell(): void {
    const [files, failed, bytes, rings] = [this.#all, this.#failed, this.#bytes, this.#rings];
    const seconds = Math.round(now() - this.#start) / 1000;
    const [engine, how] = rings
      ? ['uring', `io_uring: ${rings.enters} calls, ${rings.overflows} with overflowed completions`]
      : ['sync', 'plain system calls'];
    stderr(
      this.#text
        ? `vioctl: ${this.#id}: ${files} files (${failed} failed), ${bytes > 0 ? `${bytes} bytes read, ` : ''}${seconds} s; ${how}\n`
        : `${JSON.stringify({ stats: { files, failed, bytes, seconds, engine, ...rings } })}\n`,
    );
  }
}

/** Prints checksums as lines, as they come, and notes each file in the report. */
export async function printSums(batches: AsyncIterable<SumResult[]>, report: FileReport, out: Output, form: LineForm): Promise<void> {
  for await (const batch of batches) {
    let lines = '';
    for (const { name, size, digest, error } of batch) {
      report.note(name, error, size);
      if (digest === undefined) continue;
      const line = sumLine(name, digest, form);
      if (typeof line === 'string') lines += line;
      else {
        await out.raw(lines);
        await out.raw(line);
        lines = '';
      }
    }
    if (lines !== '') await out.raw(lines);
  }
}
