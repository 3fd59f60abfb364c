import fs from 'node:fs';
import type { Output } from '../../cli/output/output.js';
import { stderr } from '../../cli/output/stdio.js';
import { readSome } from '../../cli/streams/input.js';
import { codeOf, Exit, type ExitStatus, VioError } from '../../common/errors.js';
import { type Checked, type CheckOptions, checkList, type ListCount } from '../../uring/bulk/check.js';
import { algorithms, verdictLine } from '../../uring/bulk/lines.js';
import type { Name } from '../../uring/bulk/name.js';
import { quotedName } from '../../uring/bulk/quote.js';
import { errorJson, nameJson } from './files.js';

/** What --check prints and how it judges, as coreutils' programs do. */
export interface Judgement {
  /** Nothing but the exit status. */
  status: boolean;
  /** No lines for files that are all right. */
  quiet: boolean;
  /** Files that do not exist count as nothing. */
  ignoreMissing: boolean;
  /** A malformed line is a failure. */
  strict: boolean;
  /** Name each malformed line. */
  warn: boolean;
}

/** Checks lists of checksums one after the other and reports in coreutils' words. */
export class ListCheck {
  readonly #out: Output;
  readonly #judgement: Judgement;
  readonly #options: CheckOptions;
  #differ = 0;
  #unreadable = 0;
  #malformed = 0;
  #failed = 0;
  #files = 0;
  #fine = 0;

  constructor(out: Output, judgement: Judgement, options: CheckOptions) {
    this.#out = out;
    this.#judgement = judgement;
    this.#options = options;
  }

  /** The rows of all lists, as JSON has them. */
  async *rows(lists: readonly Name[]): AsyncGenerator<Checked> {
    for (const list of lists) for await (const batch of this.#check(list)) yield* batch;
  }

  /** Prints a line for each file, and warnings, as text. */
  async print(lists: readonly Name[]): Promise<void> {
    for (const list of lists)
      for await (const batch of this.#check(list)) {
        if (this.#judgement.status) continue;
        for (const { name, algorithm, digest, expected, error } of batch) {
          if (digest === expected && this.#judgement.quiet) continue;
          await this.#out.raw(
            verdictLine(name, error !== undefined ? 'FAILED open or read' : digest === expected ? 'OK' : 'FAILED', algorithm),
          );
        }
      }
  }

  /**
   * Ends the command behind its last line: 4 if a file is not as its list says; 1 if one could not be read, a list has no
   * proper line or no file to verify, or, with `strict`, a malformed one.
   * @throws the same as an error where the output is JSON
   */
  async end(): Promise<ExitStatus> {
    await this.#out.flush();
    const bad = this.#unreadable + this.#failed + (this.#judgement.strict ? this.#malformed : 0);
    if (this.#differ + bad === 0) return Exit.ok;
    const exit = this.#differ > 0 ? Exit.differs : Exit.failed;
    if (this.#out.format === 'text') return exit; // the lines have said it
    throw new VioError(`${this.#differ} of ${this.#files} files differ, ${this.#unreadable} could not be read`, {
      code: this.#differ > 0 ? 'DIFFERS' : 'FILES_FAILED',
      exit,
      details: { differ: this.#differ, unreadable: this.#unreadable, malformed: this.#malformed, files: this.#files },
    });
  }

  /** The JSON form of a row. */
  static json({ name, algorithm, expected, digest, size, error }: Checked): Record<string, unknown> {
    return {
      ...nameJson(name),
      algorithm,
      expected,
      digest,
      size,
      matches: digest === expected,
      ...(error !== undefined && { error: errorJson(error) }),
    };
  }

  async *#check(list: Name): AsyncGenerator<Checked[]> {
    const { ignoreMissing, warn } = this.#judgement;
    const count: ListCount = { proper: 0, malformed: 0 };
    const shown = list === '-' ? 'standard input' : quotedName(list);
    const kind = this.#options.algorithm === undefined ? 'checksum' : `${algorithms[this.#options.algorithm]!.tag} checksum`;
    const malformed = (line: number): void => {
      if (warn) this.#say(`${shown}: ${line}: improperly formatted ${kind} line`);
    };
    const before = { fine: this.#fine, differ: this.#differ, unreadable: this.#unreadable };
    try {
      for await (const checked of checkList(chunksOf(list, this.#options.signal), count, { ...this.#options, malformed })) {
        const counted = ignoreMissing ? checked.filter(({ error }) => error !== 'ENOENT') : checked;
        for (const { name, digest, expected, error } of counted) this.#count(name, digest === expected, error);
        if (counted.length > 0) yield counted;
      }
    } catch (err) {
      const code = codeOf(err);
      if (code === undefined || !/^E[A-Z0-9]+$/.test(code)) throw err;
      this.#failed++;
      this.#say(`${shown}: ${errorJson(code).message}`, true);
      return;
    }
    this.#malformed += count.malformed;
    await this.#out.flush(); // warnings come behind the lines, also on a terminal
    if (count.proper === 0) {
      this.#failed++;
      this.#say(`${shown}: no properly formatted checksum lines found`, true);
      return;
    }
    const differ = this.#differ - before.differ;
    const unreadable = this.#unreadable - before.unreadable;
    if (count.malformed > 0) this.#warn(count.malformed, 'line is improperly formatted', 'lines are improperly formatted');
    if (unreadable > 0) this.#warn(unreadable, 'listed file could not be read', 'listed files could not be read');
    if (differ > 0) this.#warn(differ, 'computed checksum did NOT match', 'computed checksums did NOT match');
    if (ignoreMissing && this.#fine === before.fine && differ + unreadable === 0) {
      this.#failed++;
      this.#say(`${shown}: no file was verified`);
    }
  }

  #count(name: Name, matches: boolean, error: string | undefined): void {
    this.#files++;
    if (matches) this.#fine++;
    else if (error === undefined) this.#differ++;
    else {
      this.#unreadable++;
      this.#say(`${quotedName(name)}: ${errorJson(error).message}`, true);
    }
  }

  #warn(count: number, one: string, many: string): void {
    this.#say(`WARNING: ${count} ${count === 1 ? one : many}`);
  }

  /** @param always an error that --status does not silence either */
  #say(text: string, always = false): void {
    if (this.#out.format === 'text' && (always || !this.#judgement.status)) stderr(`vioctl: uring sum: ${text}\n`);
  }
}

/** A list in pieces. @throws the system's error */
async function* chunksOf(list: Name, signal: AbortSignal | undefined): AsyncGenerator<Buffer> {
  const fd = list === '-' ? 0 : fs.openSync(list, 'r');
  try {
    const chunk = Buffer.allocUnsafe(64 * 1024);
    for (let size = await readSome(fd, chunk, signal); size > 0; size = await readSome(fd, chunk, signal))
      yield Buffer.from(chunk.subarray(0, size));
  } finally {
    if (fd !== 0) fs.closeSync(fd);
  }
}
