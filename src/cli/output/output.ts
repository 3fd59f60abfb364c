import type { ChalkInstance } from 'chalk';
import { usage } from '../../common/errors.js';
import { printable } from '../../common/escape.js';
import { toJson } from '../../common/json.js';
import { isTerminal } from '../../common/terminal.js';
import { chalkFor } from './color.js';
import { speaksUtf8, toAscii } from './locale.js';
import { ClosedPipe, type FdWriter, WriteError } from './stdio.js';
import { terminalWidth } from './terminal.js';

export type Format = 'text' | 'json' | 'ndjson';

/** What a cell shows. */
export type Value = string | number | bigint | boolean | null | undefined;

/** One column of a table: its heading and how a row is shown in it. */
export interface Column<T> {
  title: string;
  value: (row: T) => Value;
  align?: 'left' | 'right';
  /** Columns of lower priority leave a narrow terminal first; 0 unless given. */
  priority?: number;
  /** Cells below which the column leaves the table instead of shrinking further. */
  min?: number;
}

/** What the user asked of tables: the columns by name, the order of rows, and no fitting to the terminal. */
export interface TableOptions {
  columns?: string | undefined;
  sort?: string | undefined;
  'no-truncate'?: boolean | undefined;
  'no-headings'?: boolean | undefined;
}

/** The name of a column behind `--columns` and `--sort`: `USED BY` is `used-by`. */
const columnName = ({ title }: { title: string }): string => title.toLowerCase().replaceAll(' ', '-');

function findColumn<T>(columns: readonly Column<T>[], name: string): Column<T> {
  const found = columns.find((column) => columnName(column) === name.trim().toLowerCase());
  if (found) return found;
  throw usage(`no such column: "${printable(name)}"`, `columns: ${columns.map(columnName).join(', ')}`);
}

let collator: Intl.Collator | undefined; // six milliseconds to make, for --sort alone

/** Orders values as people would: numbers by value, text with numbers in it by those. */
function compareValues(a: Value, b: Value): number {
  const number = (value: Value) => typeof value === 'number' || typeof value === 'bigint';
  if (number(a) && number(b)) return a! < b! ? -1 : a! > b! ? 1 : 0;
  collator ??= new Intl.Collator('en', { numeric: true });
  return collator.compare(String(a), String(b));
}

/** The text form of a document, as text or lines. @param room columns for its pictures */
export type View<T> = (doc: T, chalk: ChalkInstance, room: number) => string | string[];

/** Columns for pictures that no terminal shows. */
const offTerminal = 80;

/** Rows taken for the column widths before a streaming table starts to print. */
const widthRows = 1000;

/** A cell as text: `-` for nothing, untrusted characters escaped. */
export function cell(value: string | number | bigint | boolean | null | undefined): string {
  if (value === null || value === undefined || value === '') return '-';
  if (typeof value === 'boolean') return value ? 'yes' : 'no';
  return typeof value === 'string' ? printable(value) : String(value);
}

/** Everything a command prints on stdout, from one data model, in the format the user asked for. */
export class Output {
  readonly format: Format;
  readonly tty: boolean;
  readonly #colored: boolean;
  #chalk: ChalkInstance | undefined;
  readonly #writer: FdWriter;
  readonly #tables: TableOptions;
  readonly #headings: boolean;
  readonly #env: NodeJS.ProcessEnv;
  readonly #utf8: boolean;

  readonly #server: boolean;

  constructor(options: {
    writer: FdWriter;
    format: Format;
    tables: TableOptions;
    colored: boolean;
    env: NodeJS.ProcessEnv;
    server?: boolean;
  }) {
    this.#writer = options.writer;
    this.#server = options.server ?? false;
    this.format = options.format;
    this.#tables = options.tables;
    this.#headings = !options.tables['no-headings'];
    this.#colored = options.colored;
    this.#env = options.env;
    this.#utf8 = speaksUtf8(options.env);
    this.tty = isTerminal(options.writer.fd);
  }

  /** Made at its first use: chalk is slow to load, and the machine formats have no colours. */
  get chalk(): ChalkInstance {
    this.#chalk ??= chalkFor(this.#colored);
    return this.#chalk;
  }

  /** Columns for pictures: those of the terminal, and 80 off one. */
  get room(): number {
    return this.tty ? terminalWidth(this.#env) : offTerminal;
  }

  /** Raw bytes or text, for commands whose data is not a table. Await it: that is the back-pressure. */
  raw(data: string | Uint8Array): Promise<void> {
    return this.#put(data);
  }

  async #put(...data: (string | Uint8Array)[]): Promise<void> {
    await this.#writer.write(...data);
  }

  /** Lets `run` write to stdout itself, behind what was written (FdWriter.direct). @returns bytes */
  direct(run: (fd: number) => Promise<number>): Promise<number> {
    return this.#writer.direct(run);
  }

  /** A line for people or for pipes. */
  line(text: string): Promise<void> {
    return this.#put(text, '\n');
  }

  /** Lines that are there at once, which is faster than one after another. */
  async lines(texts: readonly string[]): Promise<void> {
    if (texts.length > 0) await this.line(texts.join('\n'));
  }

  /** Gives stdout up after a failed write: what waits, and all that follows, goes nowhere. For commands that go on without it. */
  abandon(): void {
    this.#writer.abandon();
  }

  /** Resolves when everything has left. */
  flush(): Promise<void> {
    return this.#writer.flush();
  }

  /**
   * One document: `--json` pretty, `--ndjson` on one line, else what `view` returns (text or lines).
   * Written at once, so that a reader of a server's ready line need not wait for the next one; a server serves on even if
   * its reader is gone.
   */
  async document<T>(doc: T, view: View<T>): Promise<void> {
    try {
      await this.#document(doc, view);
    } catch (err) {
      if (!this.#server || !(err instanceof ClosedPipe)) throw err;
    }
  }

  async #document<T>(doc: T, view: View<T>): Promise<void> {
    if (this.format === 'text') {
      const shown = view(doc, this.chalk, this.room);
      const text = this.#spell(await this.#fitted(Array.isArray(shown) ? shown.join('\n') : shown));
      if (text !== '') await this.raw(text.endsWith('\n') ? text : `${text}\n`);
    } else {
      await this.line(toJson(doc, this.format === 'json' ? 2 : undefined));
    }
    await this.flush();
  }

  /**
   * Many rows, also endless ones: a table, `{"<key>":[…]}` written piece by piece, or one object per line.
   * @param key name of the array in the JSON document
   * @param json the JSON form of a row; the row itself unless given
   */
  async list<T>(
    rows: Iterable<T> | AsyncIterable<T>,
    columns: Column<T>[],
    key: string,
    json: (row: T) => unknown = (r) => r,
  ): Promise<void> {
    const { columns: chosen, sort } = this.#tables;
    const shown = chosen === undefined ? columns : chosen.split(',').map((name) => findColumn(columns, name));
    const ordered = sort === undefined ? rows : await sorted(rows, columns, sort);
    if (this.format === 'ndjson') {
      for await (const row of ordered) await this.line(toJson(json(row)));
    } else if (this.format === 'json') {
      let separator = `{${JSON.stringify(key)}:[`;
      for await (const row of ordered) {
        await this.raw(`${separator}\n${toJson(json(row))}`);
        separator = ',';
      }
      await this.raw(separator === ',' ? '\n]}\n' : `{${JSON.stringify(key)}:[]}\n`);
    } else {
      await this.#table(ordered, shown);
    }
    await this.flush();
  }

  /** One record of a stream of events: a JSON line, or the line that `text` makes. `--json` is not offered by such commands. */
  record<T>(record: T, text: (record: T, chalk: ChalkInstance) => string): Promise<void> {
    return this.line(this.format === 'text' ? this.#spell(text(record, this.chalk)) : toJson(record));
  }

  /** record() for a Recorder, whose command goes on without stdout: a failed write gives it up. @throws what it failed with */
  async recordOrAbandon<T>(record: T, text: (record: T, chalk: ChalkInstance) => string): Promise<void> {
    try {
      await this.record(record, text);
    } catch (err) {
      this.abandon();
      throw err instanceof WriteError ? err.cause : err;
    }
  }

  /** Text that fits the terminal. A script stays as it is: broken lines cannot be pasted. */
  async #fitted(text: string): Promise<string> {
    const terminal = terminalWidth(this.#env);
    if (!this.tty || this.#tables['no-truncate'] || text.startsWith('#!') || !text.split('\n').some((line) => line.length > terminal))
      return text;
    const { wrapLine } = await import('./layout.js');
    return text
      .split('\n')
      .map((line) => wrapLine(line, terminal))
      .join('\n');
  }

  /** Text of ours in the locale's characters. */
  #spell(text: string): string {
    return this.#utf8 ? text : toAscii(text);
  }

  async #table<T>(rows: Iterable<T> | AsyncIterable<T>, columns: Column<T>[]): Promise<void> {
    const { cells: widthOf, pad } = await import('./layout.js');
    const align = (texts: string[], widths: number[]) =>
      texts
        .map((text, i) => pad(text, widths[i]!, columns[i]!.align))
        .join('  ')
        .trimEnd();
    const start = async (held: string[][]) => {
      const all = this.#headings ? [columns.map((column) => column.title), ...held] : held;
      const widths = columns.map((_, i) => all.reduce((width, texts) => Math.max(width, widthOf(texts[i]!)), 0));
      for (const texts of all) await this.line(align(texts, widths));
      return widths;
    };
    const held: string[][] = [];
    let widths: number[] | undefined;
    for await (const row of rows) {
      const texts = columns.map((column) => cell(column.value(row)));
      if (widths) await this.line(align(texts, widths));
      else if (held.push(texts) === widthRows && !this.tty) widths = await start(held);
    }
    if (widths) return;
    if (this.tty) await this.#boxed(held, columns);
    else await start(held);
  }

  /** A framed table that fits the terminal; says below what found no room. */
  async #boxed<T>(held: string[][], columns: Column<T>[]): Promise<void> {
    if (held.length === 0) return;
    const [{ default: Table }, { cells: widthOf, fitColumns, wrapCell }] = await Promise.all([import('cli-table3'), import('./layout.js')]);
    const titles = columns.map((column) => column.title);
    const natural = columns.map((_, i) =>
      held.reduce((width, texts) => Math.max(width, widthOf(texts[i]!)), this.#headings ? widthOf(titles[i]!) : 1),
    );
    const terminal = this.#tables['no-truncate'] ? Number.POSITIVE_INFINITY : terminalWidth(this.#env);
    const widths = fitColumns(
      columns.map(({ min, priority }, i) => ({ natural: natural[i]!, min, priority })),
      terminal,
    );
    const shown = columns.flatMap((_, i) => (widths[i] === undefined ? [] : [i]));
    const wrapped = (texts: string[]) => shown.map((i) => wrapCell(texts[i]!, widths[i]!));
    const table = new Table({
      ...(this.#headings && { head: wrapped(titles).map((title) => this.chalk.bold(title)) }),
      colAligns: shown.map((i) => columns[i]!.align ?? 'left'),
      colWidths: shown.map((i) => widths[i]! + 2),
      style: { head: [], border: [], compact: true },
      ...(!this.#utf8 && { chars: asciiFrame }),
    });
    table.push(...held.map(wrapped));
    await this.line(table.toString());
    const hidden = columns.filter((_, i) => widths[i] === undefined).map(columnName);
    if (hidden.length > 0) await this.line(wrapCell(`No room for: ${hidden.join(', ')} (try --columns or --no-truncate)`, terminal));
  }
}

/** Frames for locales without line-drawing characters. */
const asciiFrame = {
  top: '-',
  'top-mid': '+',
  'top-left': '+',
  'top-right': '+',
  bottom: '-',
  'bottom-mid': '+',
  'bottom-left': '+',
  'bottom-right': '+',
  left: '|',
  'left-mid': '+',
  mid: '-',
  'mid-mid': '+',
  right: '|',
  'right-mid': '+',
  middle: '|',
};

/** The rows in the order of a column, `-name` for descending; rows without a value come last in both. */
async function sorted<T>(rows: Iterable<T> | AsyncIterable<T>, columns: readonly Column<T>[], sort: string): Promise<T[]> {
  const descending = sort.startsWith('-');
  const { value } = findColumn(columns, descending ? sort.slice(1) : sort);
  const all: T[] = [];
  for await (const row of rows) all.push(row);
  const present = all.filter((row) => cell(value(row)) !== '-').sort((a, b) => compareValues(value(a), value(b)));
  if (descending) present.reverse();
  return [...present, ...all.filter((row) => cell(value(row)) === '-')];
}
