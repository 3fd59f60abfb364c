import type { ChalkInstance } from 'chalk';
import { printable } from '../common/escape.js';
import { hex64 } from '../common/units.js';
import { chalkFor } from './color.js';
import type { FdWriter } from './stdio.js';
import { isTerminal } from './terminal.js';

export type Format = 'text' | 'json' | 'ndjson';

/** One column of a table: its heading and how a row is shown in it. */
export interface Column<T> {
  title: string;
  value: (row: T) => string | number | bigint | boolean | null | undefined;
  align?: 'left' | 'right';
}

/** Rows taken for the column widths before a streaming table starts to print. */
const WIDTH_ROWS = 1000;

/** Keys whose values are sizes: the contract has them as numbers, and addresses, offsets and words of bits as strings. */
const sizeKeys: ReadonlySet<string> = new Set(['size', 'len', 'length', 'bytes']);

/** How values that JSON has no form for are written: `toJSON`, which JSON.stringify asks bigint and objects for. */
const jsonForms: [prototype: object, form: (this: never, key: string) => string | number][] = [
  [
    BigInt.prototype,
    function (this: bigint, key) {
      const value = BigInt(this);
      return sizeKeys.has(key) && value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : hex64(value);
    },
  ],
  ...[Uint8Array.prototype, Buffer.prototype].map((prototype): (typeof jsonForms)[number] => [
    prototype,
    function (this: Uint8Array) {
      return Buffer.from(this.buffer, this.byteOffset, this.byteLength).toString('hex');
    },
  ]),
];

/**
 * JSON of the contract: 64-bit values (bigint) as "0x…", but sizes as numbers (up to 2^53), undefined left out, bytes as hex. The forms stand in the
 * prototypes during the call: a replacer would be called for every value, and too late for a Buffer, whose own toJSON
 * makes an array of numbers.
 */
export function toJson(value: unknown, indent?: number): string {
  const before = jsonForms.map(([prototype]) => Object.getOwnPropertyDescriptor(prototype, 'toJSON'));
  for (const [prototype, form] of jsonForms) Object.defineProperty(prototype, 'toJSON', { value: form, configurable: true });
  try {
    // JSON itself escapes C0 only; what is outside of ASCII here stands in strings.
    const text = JSON.stringify(value, undefined, indent) ?? 'null';
    return text.replace(/[\x7f-\x9f]/g, (c) => `\\u00${c.charCodeAt(0).toString(16)}`);
  } finally {
    jsonForms.forEach(([prototype], i) => {
      if (before[i]) Object.defineProperty(prototype, 'toJSON', before[i]);
      else delete (prototype as { toJSON?: unknown }).toJSON;
    });
  }
}

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
  readonly #headings: boolean;

  constructor(options: { writer: FdWriter; format: Format; headings: boolean; colored: boolean }) {
    this.#writer = options.writer;
    this.format = options.format;
    this.#headings = options.headings;
    this.#colored = options.colored;
    this.tty = isTerminal(options.writer.fd);
  }

  /** Made at its first use: chalk is slow to load, and the machine formats have no colours. */
  get chalk(): ChalkInstance {
    this.#chalk ??= chalkFor(this.#colored);
    return this.#chalk;
  }

  /** Raw bytes or text, for commands whose data is not a table. Await it: that is the back-pressure. */
  async raw(data: string | Uint8Array): Promise<void> {
    await this.#writer.write(data);
  }

  /** A line for people or for pipes. */
  line(text: string): Promise<void> {
    return this.raw(`${text}\n`);
  }

  /** Resolves when everything has left. */
  flush(): Promise<void> {
    return this.#writer.flush();
  }

  /**
   * One document: `--json` pretty, `--ndjson` on one line, else what `view` returns (text or lines).
   * Written at once, so that a reader of a server's ready line need not wait for the next one.
   */
  async document<T>(doc: T, view: (doc: T, chalk: ChalkInstance) => string | string[]): Promise<void> {
    if (this.format === 'text') {
      const shown = view(doc, this.chalk);
      const text = Array.isArray(shown) ? shown.join('\n') : shown;
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
    if (this.format === 'ndjson') {
      for await (const row of rows) await this.line(toJson(json(row)));
    } else if (this.format === 'json') {
      let separator = `{${JSON.stringify(key)}:[`;
      for await (const row of rows) {
        await this.raw(`${separator}\n${toJson(json(row))}`);
        separator = ',';
      }
      await this.raw(separator === ',' ? '\n]}\n' : `{${JSON.stringify(key)}:[]}\n`);
    } else {
      await this.#table(rows, columns);
    }
    await this.flush();
  }

  /** One record of a stream of events: a JSON line, or the line that `text` makes. `--json` is not offered by such commands. */
  record<T>(record: T, text: (record: T, chalk: ChalkInstance) => string): Promise<void> {
    return this.line(this.format === 'text' ? text(record, this.chalk) : toJson(record));
  }

  async #table<T>(rows: Iterable<T> | AsyncIterable<T>, columns: Column<T>[]): Promise<void> {
    const held: string[][] = [];
    let widths: number[] | undefined;
    for await (const row of rows) {
      const cells = columns.map((column) => cell(column.value(row)));
      if (widths) await this.line(this.#align(cells, columns, widths));
      else if (held.push(cells) === WIDTH_ROWS) widths = await this.#start(held, columns);
    }
    if (widths) return;
    if (this.tty) await this.#boxed(held, columns);
    else await this.#start(held, columns);
  }

  /** Prints headings and the rows held so far; returns the column widths for those that follow. */
  async #start<T>(held: string[][], columns: Column<T>[]): Promise<number[]> {
    const titles = columns.map((column) => column.title);
    const all = this.#headings ? [titles, ...held] : held;
    const widths = columns.map((_, i) => all.reduce((width, cells) => Math.max(width, cells[i]!.length), 0));
    for (const cells of all) await this.line(this.#align(cells, columns, widths));
    return widths;
  }

  #align<T>(cells: string[], columns: Column<T>[], widths: number[]): string {
    return cells
      .map((text, i) => (columns[i]!.align === 'right' ? text.padStart(widths[i]!) : text.padEnd(widths[i]!)))
      .join('  ')
      .trimEnd();
  }

  async #boxed<T>(held: string[][], columns: Column<T>[]): Promise<void> {
    if (held.length === 0) return;
    const { default: Table } = await import('cli-table3');
    const table = new Table({
      ...(this.#headings && { head: columns.map((column) => this.chalk.bold(column.title)) }),
      colAligns: columns.map((column) => column.align ?? 'left'),
      style: { head: [], border: [], compact: true },
    });
    table.push(...held);
    await this.line(table.toString());
  }
}
