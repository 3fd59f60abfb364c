import fs from 'node:fs';
import path from 'node:path';
import { makeFolder, writeDurably } from '../common/durable-file.js';
import { codeOf, Exit, VioError, wrap } from '../common/errors.js';
import { printable, shellFile } from '../common/escape.js';
import { parseJson } from '../common/json.js';
import { native } from '../native/index.js';
import type { SourceNames } from './identity.js';

const stateHint = (err: unknown): string =>
  codeOf(err) === 'ENOTDIR' ? '--state-dir names a folder' : 'the folder of --state-dir must be writable';

/** Sources that are remembered; beyond them, those that were not served for the longest time are forgotten. */
const maxSources = 10_000;
/** Largest file that is read, in bytes. */
const maxBytes = 16 << 20;
/** How long another process may hold the lock, in milliseconds; it needs it for one read and one write. */
const lockTime = 10_000;
const lockPause = 10;

interface Entry {
  /** What identifiers are made from: the name that the source had when it was served first. */
  identity: string;
  /** Its names that are its own for certain. */
  strong: string[];
  /** Names that another source may have one day. */
  weak: string[];
  /** Day on which it was served last. */
  seen: string;
}
interface State {
  version: 1;
  sources: Entry[];
}

/**
 * What sources were called when they were first served. A name can change although the source does not: a newer kernel or udev tells
 * the UUID of its file system. Several processes may share a folder.
 */
export class IdentityState {
  readonly #file: string;
  readonly #lock: string;
  readonly #today: () => string;

  /** @param dir made when it is first needed */
  constructor(dir: string, today: () => string = () => new Date().toISOString().slice(0, 10)) {
    this.#file = path.join(dir, 'identities.json');
    this.#lock = path.join(dir, 'identities.lock');
    this.#today = today;
  }

  /**
   * The name that identifiers of a source are made from.
   * @throws VioError: 5 (STATE_DAMAGED) for a file that is no state, else the system's error
   */
  identity(names: SourceNames): string {
    return this.identities([names])[0]!;
  }

  /** The same for several sources, which are remembered at once. @throws as identity() does */
  identities(list: readonly SourceNames[]): string[] {
    if (list.length === 0) return [];
    return this.#locked(() => {
      const sources = new Known(this.#read().sources);
      const found = list.map((names) => sources.see(names, this.#today()));
      if (sources.changed) this.#write({ version: 1, sources: sources.latestFirst().slice(0, maxSources) });
      return found;
    });
  }

  #locked<T>(use: () => T): T {
    let fd: number;
    try {
      makeFolder(path.dirname(this.#lock));
      fd = fs.openSync(this.#lock, fs.constants.O_RDWR | fs.constants.O_CREAT, 0o644);
    } catch (err) {
      throw wrap(`open ${this.#lock}`, err, { hint: stateHint(err) });
    }
    try {
      const until = performance.now() + lockTime;
      while (!native().vhostUser.lock(fd, true)) {
        if (performance.now() > until) throw new VioError(`${this.#lock}: another process holds it`, { code: 'EBUSY' });
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, lockPause);
      }
      return use();
    } finally {
      fs.closeSync(fd); // and unlock it
    }
  }

  #read(): State {
    let text: string;
    try {
      if ((fs.statSync(this.#file, { throwIfNoEntry: false })?.size ?? 0) > maxBytes) throw this.#damaged('it is too large');
      text = fs.readFileSync(this.#file, 'utf8');
    } catch (err) {
      if ((err as NodeJS.ErrnoException).code === 'ENOENT') return { version: 1, sources: [] };
      throw wrap(`read ${this.#file}`, err);
    }
    const { code, exit, hint } = this.#damaged('');
    const state = parseJson(text, `${this.#file} is damaged`, exit, { code, hint });
    if (!isState(state)) throw this.#damaged('this is no list of identities of this version');
    return state;
  }

  #write(state: State): void {
    try {
      writeDurably(this.#file, `${JSON.stringify(state, undefined, 1)}\n`);
    } catch (err) {
      throw wrap(`write ${this.#file}`, err, { hint: stateHint(err) });
    }
  }

  #damaged(why: string): VioError {
    return new VioError(`${printable(this.#file)} is damaged: ${why}`, {
      code: 'STATE_DAMAGED',
      exit: Exit.damaged,
      hint: `put back a copy, or start anew, with identifiers that may differ: rm ${shellFile(this.#file)}`,
    });
  }
}

const union = (before: readonly string[], now: readonly string[]): string[] => [...new Set([...before, ...now])];

/** The sources that are remembered, by their names. */
class Known {
  changed = false;
  readonly #entries: Entry[];
  /** By a name that is certain, and by one that is not: those that have it, the one to prefer last. */
  readonly #strong = new Map<string, Set<Entry>>();
  readonly #weak = new Map<string, Set<Entry>>();
  /** Those that were seen here for the first time or changed, in that order. */
  readonly #fresh = new Set<Entry>();

  constructor(entries: readonly Entry[]) {
    this.#entries = [...entries];
    for (const entry of entries.toReversed()) this.#index(entry);
  }

  /** The name that a source had when it was seen first. */
  see(names: SourceNames, today: string): string {
    const found = this.#find(names);
    const entry = found ?? { identity: names.identity, strong: [], weak: [], seen: '' };
    const [strong, weak] = [union(entry.strong, names.strong), union(entry.weak, names.weak)];
    if (found?.seen === today && strong.length === entry.strong.length && weak.length === entry.weak.length) return entry.identity;
    this.changed = true;
    if (!found) this.#entries.push(entry);
    Object.assign(entry, { strong, weak, seen: today });
    this.#index(entry);
    this.#fresh.delete(entry);
    this.#fresh.add(entry);
    return entry.identity;
  }

  latestFirst(): Entry[] {
    const others = this.#entries.filter((one) => !this.#fresh.has(one));
    return [...[...this.#fresh].reverse(), ...others.sort((a, b) => (a.seen < b.seen ? 1 : a.seen > b.seen ? -1 : 0))];
  }

  #index(entry: Entry): void {
    for (const [map, names] of [[this.#strong, entry.strong] as const, [this.#weak, entry.weak] as const])
      for (const name of names) {
        const entries = map.get(name) ?? new Set();
        map.set(name, entries);
        entries.delete(entry);
        entries.add(entry);
      }
  }

  /** A source that has one of the names for certain; else one that has one of the weak names and never had a certain one. */
  #find({ strong, weak }: SourceNames): Entry | undefined {
    const having = (map: ReadonlyMap<string, Set<Entry>>, names: readonly string[]) => names.flatMap((name) => [...(map.get(name) ?? [])]);
    const certain = having(this.#strong, strong).at(-1);
    return certain ?? having(this.#weak, weak).findLast((entry) => entry.strong.length === 0 || strong.length === 0);
  }
}

function isState(value: unknown): value is State {
  const texts = (list: unknown): boolean => Array.isArray(list) && list.every((one) => typeof one === 'string');
  const { version, sources } = (value ?? {}) as Partial<State>;
  return (
    version === 1 &&
    Array.isArray(sources) &&
    sources.every(
      (entry: Partial<Entry> | null) =>
        typeof entry?.identity === 'string' && texts(entry.strong) && texts(entry.weak) && typeof entry.seen === 'string',
    )
  );
}
