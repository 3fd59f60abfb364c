import { usage } from '../common/errors.js';
import { parseDecimal, parseDuration, parseSize } from '../common/units.js';
import { native } from '../native/index.js';
import type { Limits, Rate, Store } from '../native/storage.js';

/** Limits by their option names, as text: `1000/4000/10`; `none` lifts one. */
export interface LimitTexts {
  iops?: string | undefined;
  bps?: string | undefined;
}

/** Longest burst (native/binding/storage.cc), in seconds. */
const maxSeconds = 3600;
/** Largest rate: a petabyte a second, so that sums stay exact. */
const maxRate = 2 ** 50;

/**
 * Reads a limit, `RATE[/BURST[/SECONDS]]`: RATE a second on average, BURST a second for up to SECONDS (1) after idle time. With
 * QEMU's words: iops-total, iops-total-max and iops-total-max-length.
 * @param name iops or bps: bytes may be written as 100M
 * @returns undefined for `none`
 * @throws usage error
 */
export function parseRate(name: 'iops' | 'bps', text: string | undefined): Rate | undefined {
  const bad = (why: string) =>
    usage(`${name}=${text ?? ''}: ${why}`, `${name}=RATE, ${name}=RATE/BURST, ${name}=RATE/BURST/SECONDS, or ${name}=none`);
  if (text === 'none') return undefined;
  const parts = (text ?? '').split('/');
  if (parts.length > 3 || parts.includes('')) throw bad('must be a rate');
  const read = (value: string): number => {
    if (name === 'iops') {
      const number = parseDecimal(value);
      if (number === undefined) throw bad(`not a number: "${value}"`);
      return number;
    }
    try {
      return parseSize(value);
    } catch {
      throw bad(`not a size: "${value}"`);
    }
  };
  const average = read(parts[0]!);
  const burst = parts[1] === undefined ? 0 : read(parts[1]);
  const seconds = parts[2] === undefined ? 1 : secondsOf(parts[2], bad);
  if (average < 1 || average > maxRate || burst > maxRate) throw bad(`must be 1 to ${maxRate} a second`);
  if (parts[1] !== undefined && burst < average) throw bad('the burst is below the rate');
  return { average, burst, seconds };
}

function secondsOf(text: string, bad: (why: string) => Error): number {
  let ms: number;
  try {
    ms = parseDuration(text);
  } catch {
    throw bad(`not a number of seconds: "${text}"`);
  }
  if (ms % 1000 !== 0 || ms < 1000 || ms > maxSeconds * 1000) throw bad(`a burst lasts 1 to ${maxSeconds} whole seconds`);
  return ms / 1000;
}

/** The shortest text of a number that parseSize reads: `100M`. */
function exactSize(bytes: number): string {
  const units = ['', 'K', 'M', 'G', 'T', 'P'];
  let unit = 0;
  let value = bytes;
  while (value > 0 && value % 1024 === 0 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${value}${units[unit]}`;
}

/** A limit as parseRate reads it. */
export function rateText(name: 'iops' | 'bps', rate: Rate | undefined): string {
  if (!rate) return 'none';
  const { average, burst, seconds } = rate;
  const text = name === 'iops' ? String : exactSize;
  return [text(average), ...(burst > 0 ? [text(burst)] : []), ...(burst > 0 && seconds > 1 ? [String(seconds)] : [])].join('/');
}

/** The limits of a source for people, ` iops=1000 bps=100M`; empty where there are none. */
export const limitsText = (limits: Limits): string =>
  (['iops', 'bps'] as const).map((name) => (limits[name] ? ` ${name}=${rateText(name, limits[name])}` : '')).join('');

/** Limits of a source, as reports show them. */
export interface LimitsReport {
  iops?: Rate;
  bps?: Rate;
  /** requests that wait for their turn now */
  waiting: number;
  /** requests that have waited so far */
  delayed: number;
}

/** What a report tells of a source's limits; undefined where there are none. */
export function limitsReport(store: Store): LimitsReport | undefined {
  const { iops, bps, ...counts } = native().storage.limits(store);
  return iops || bps ? { ...(iops && { iops }), ...(bps && { bps }), ...counts } : undefined;
}

/**
 * The limits that a source would have after a change, and the words for what changes.
 * @throws usage error
 */
export function changedLimits(store: Store, change: LimitTexts): { limits: Limits; todo: string[] } {
  const now = native().storage.limits(store);
  const limits: Limits = { iops: now.iops, bps: now.bps };
  const todo: string[] = [];
  for (const name of ['iops', 'bps'] as const) {
    if (change[name] === undefined) continue;
    limits[name] = parseRate(name, change[name]);
    const [before, after] = [rateText(name, now[name]), rateText(name, limits[name])];
    if (before !== after) todo.push(`${name}=${after} (was ${before})`);
  }
  return { limits, todo };
}

/** Reads `iops=…` and `bps=…` words of a command line. @throws usage error */
export function limitWords(words: readonly string[]): LimitTexts {
  const texts: LimitTexts = {};
  for (const word of words) {
    const [, name, value] = /^(iops|bps)=(.*)$/s.exec(word) ?? [];
    if (name === undefined) throw usage(`not a limit: "${word}"`, 'iops=1000/4000, bps=100M, or none for a value');
    if (texts[name as 'iops' | 'bps'] !== undefined) throw usage(`${name} is given twice`);
    parseRate(name as 'iops' | 'bps', value);
    texts[name as 'iops' | 'bps'] = value!;
  }
  if (words.length === 0) throw usage('no limit is given', 'iops=1000/4000, bps=100M, or none for a value');
  return texts;
}
