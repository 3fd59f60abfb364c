import { isTerminal } from '../../common/terminal.js';
import { formatSize } from '../../common/units.js';
import { now, stderr } from './stdio.js';

/** A progress line on stderr: only on a terminal, only after a second, redrawn at most ten times a second. */
export class Progress {
  readonly #label: string;
  readonly #total: number;
  readonly #unit: 'bytes' | 'items';
  readonly #started = now();
  readonly #shown: boolean;
  #done = 0;
  #drawn = 0;

  constructor(label: string, total: number, unit: 'bytes' | 'items', quiet: boolean, tty = isTerminal(2)) {
    this.#label = label;
    this.#total = total;
    this.#unit = unit;
    this.#shown = tty && !quiet;
  }

  /** Counts further work as done. Cheap: safe to call per chunk. */
  add(amount: number): void {
    this.#done += amount;
    if (!this.#shown) return;
    const at = now();
    if (at - this.#started < 1000 || at - this.#drawn < 100) return;
    this.#drawn = at;
    stderr(`\r\x1b[K${this.text(at - this.#started)}`);
  }

  /** The line as it stands, `elapsed` in milliseconds. */
  text(elapsed: number): string {
    const show = (value: number) => (this.#unit === 'bytes' ? formatSize(value) : String(Math.round(value)));
    const rate = this.#done / (elapsed / 1000 || 1);
    if (this.#total <= 0) return `${this.#label} ${show(this.#done)} ${show(rate)}/s`;
    const part = Math.min(1, this.#done / this.#total);
    const bar = '#'.repeat(Math.round(part * 20)).padEnd(20, '.');
    return `${this.#label} [${bar}] ${Math.floor(part * 100)}% ${show(this.#done)}/${show(this.#total)} ${show(rate)}/s`;
  }

  /** Removes the line. */
  end(): void {
    if (this.#drawn > 0) stderr('\r\x1b[K');
    this.#drawn = 0;
  }
}
