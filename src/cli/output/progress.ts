import { now } from '../../common/clock.js';
import { formatSize } from '../../common/units.js';
import type { Lifetime } from '../signals.js';
import { beforeMessages, stderr } from './stdio.js';

/** Milliseconds before the first line, and between two lines. */
const first = 1000;
const redraw = 200;
/** Milliseconds that the rate looks back. */
const window = 5000;
/** Cells of the bar, where the terminal has room for it. */
const bar = 24;

/** What is counted: bytes, things, or milliseconds of a measurement. */
export type Unit = 'bytes' | 'items' | 'time';

export interface ProgressOptions {
  label: string;
  /** All there is to do; 0 if nobody knows. */
  total: number;
  unit: Unit;
  /** The user wants none, or stderr is no terminal. */
  hidden: boolean;
  life: Lifetime;
  env: NodeJS.ProcessEnv;
}

/** `0:07`, `12:30`, `3:04:05` */
function clock(ms: number): string {
  const seconds = Math.round(ms / 1000);
  const two = (n: number) => String(n).padStart(2, '0');
  const [h, m, s] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  return h > 0 ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

/** What one line of progress says. @param rate per second, undefined as long as it is not known @param width of the terminal */
export function progressLine(
  { label, total, unit }: Pick<ProgressOptions, 'label' | 'total' | 'unit'>,
  state: { done: number; rate: number | undefined; elapsed: number },
  width: number,
): string {
  const { done, rate, elapsed } = state;
  const show = (value: number) => (unit === 'bytes' ? formatSize(Math.round(value)) : String(Math.round(value)));
  const speed = rate === undefined || unit === 'time' ? [] : [`${show(rate)}/s`];
  if (total <= 0) return [label, ...(unit === 'time' ? [] : [show(done)]), ...speed, clock(elapsed)].join('  ').slice(0, width - 1);
  const part = Math.min(1, done / total);
  const count = unit === 'time' ? [] : [`${show(Math.min(done, total))}/${show(total)}`];
  const left = rate && done < total ? [`ETA ${clock(((total - done) / rate) * 1000)}`] : [];
  const line = [label, `${Math.floor(part * 100)}%`.padStart(4), ...count, ...speed, ...left];
  const room = width - 1 - line.join('  ').length - 4;
  if (room >= bar) line.splice(1, 0, `[${'#'.repeat(Math.round(part * bar)).padEnd(bar, '.')}]`);
  return line.join('  ').slice(0, width - 1);
}

/**
 * One line of progress on stderr: only on a terminal, only after a second, and never where it would mix with the data. It
 * goes before a message and at the end, also when a signal ends the program in the midst of a system call.
 */
export class Progress {
  readonly #options: ProgressOptions;
  readonly #started = now();
  readonly #samples: [at: number, done: number][] = [];
  #timer: NodeJS.Timeout | undefined;
  #shown: boolean;
  #count: (() => number) | undefined;
  #base = 0;
  #done = 0;
  #drawn = 0;
  /** Length of the line on the screen; 0: none. */
  #length = 0;

  constructor(options: ProgressOptions) {
    this.#options = options;
    this.#shown = !options.hidden;
    if (!this.#shown) return;
    this.#samples.push([this.#started, 0]);
    options.life.release(() => this.end());
    this.#timer = setInterval(() => this.#draw(), redraw); // what waits for a peer says so too
    this.#timer.unref();
  }

  /** Counts further work as done. Cheap: safe to call per chunk. */
  add(amount: number): void {
    this.#done += amount;
    if (this.#shown) this.#draw();
  }

  /** So much of this phase is done. Never goes back. */
  to(position: number): void {
    this.#done = Math.max(this.#done, this.#base + position);
    if (this.#shown) this.#draw();
  }

  /** Asks whenever a line is drawn how much more is done than at this moment. */
  readonly follow = (more: () => number): void => {
    const before = Math.max(this.#done, this.#count?.() ?? 0);
    this.#count = () => before + more();
  };

  /** The next phase begins; the one before was of this size. */
  phase(size: number): void {
    this.#base += size;
    this.to(0);
  }

  #draw(): void {
    const at = now();
    if (at - this.#started < first || at - this.#drawn < redraw / 2) return;
    if (this.#drawn === 0) {
      beforeMessages(() => this.#clear());
      this.#options.life.lastWords({ text: this.#options.env.TERM === 'dumb' ? '\n' : '\r\x1b[K' });
    }
    this.#drawn = at;
    this.#done = Math.max(this.#done, this.#count?.() ?? 0);
    this.#samples.push([at, this.#done]);
    while (this.#samples.length > 2 && at - this.#samples[1]![0] > window) this.#samples.shift();
    const [since, before] = this.#samples[0]!;
    const rate = this.#done > before ? ((this.#done - before) / (at - since)) * 1000 : undefined;
    const columns = Number(this.#options.env.COLUMNS) || process.stderr.columns || 80;
    const line = progressLine(this.#options, { done: this.#done, rate, elapsed: at - this.#started }, columns);
    stderr(`\r${line.padEnd(this.#length)}`, false);
    this.#length = line.length;
  }

  #clear(): void {
    if (this.#length > 0) stderr(`\r${' '.repeat(this.#length)}\r`, false);
    this.#length = 0;
  }

  /** Removes the line; nothing is drawn any more. */
  end(): void {
    if (!this.#shown) return;
    this.#shown = false;
    clearInterval(this.#timer);
    if (this.#drawn === 0) return;
    this.#clear();
    beforeMessages(undefined);
    this.#options.life.lastWords({ text: '' });
  }
}
