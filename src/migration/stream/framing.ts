import { Type } from './format.js';
import { report } from './issues.js';
import type { Section, WalkEvent } from './model.js';
import { StreamEnd, type StreamReader } from './reader.js';
import { findRecord } from './records.js';

/** The path of a section in messages. */
export const pathOf = ({ name, id }: Pick<Section, 'name' | 'id'>): string => `${name} (${id})`;

/** Where the sections of a stream end: footers, and how a walk goes on where one is missing or damage lies. */
export class Framing {
  readonly #reader: StreamReader;
  /** every section that was opened, by its id */
  readonly sections = new Map<number, Section>();
  #iterating = 0;
  /** whether sections end with a footer; unknown until the first one ended */
  footers: boolean | undefined;

  constructor(reader: StreamReader) {
    this.#reader = reader;
  }

  /** Whether a section that a START opened has not come to its END. */
  get iterating(): boolean {
    return this.#iterating > 0;
  }

  /** A START or FULL gave this section. */
  opened(section: Section): void {
    const before = this.sections.get(section.id);
    if (before) this.closed(before);
    this.sections.set(section.id, section);
    if (!section.ended) this.#iterating += 1;
  }

  /** The section's END came. */
  closed(section: Section): void {
    if (!section.ended) this.#iterating -= 1;
    section.ended = true;
  }

  /** Whether a record begins with these bytes. */
  plausibleAt(next: Buffer): boolean {
    return next.length === 0 || [Type.eof, Type.start, Type.part, Type.end, Type.full, Type.command].includes(next[0] as 0);
  }

  /** Whether the footer of this section is next. */
  isFooter(section: Section): boolean {
    return this.#reader.next(5) === Type.footer * 2 ** 32 + section.id;
  }

  /** Footer behind a body. True if there was one. */
  *footer(section: Section, path: string): Generator<WalkEvent, boolean> {
    const at = this.#reader.position;
    const word = this.footers === false ? -1 : this.#reader.next(5);
    if (Math.floor(word / 2 ** 32) === Type.footer) {
      this.footers = true;
      this.#reader.skip(5, 'footer');
      const id = word % 2 ** 32;
      if (id !== section.id) {
        yield report('error', 'footer-id', at, path, 'footer of another section', { expected: String(section.id), found: String(id) });
      }
      return true;
    }
    const next = this.#reader.peek(5);
    if (this.footers === undefined && this.plausibleAt(next)) {
      this.footers = false;
      yield report('note', 'no-footers', at, path, 'sections have no footers: a machine type before 2.4');
    }
    if (this.footers === false) return false;
    if (next[0] === Type.footer || next.length === 0)
      throw new StreamEnd({ ...this.#reader.ended(), at: at + next.length, need: 5, have: next.length }, `footer of ${path}`);
    yield report('error', 'footer-missing', at, path, 'no footer behind the section', {
      expected: `7e ${section.id.toString(16).padStart(8, '0')}`,
      found: next.toString('hex') || 'the end of the file',
    });
    if (next.length > 0 && !this.plausibleAt(next)) yield* this.resync(at, path);
    return false;
  }

  /** Passes what is left of a body that could not be parsed. */
  *skipBody(section: Section, path: string): Generator<WalkEvent> {
    const from = this.#reader.position;
    const passed = this.#reader.findFooter(section.id);
    if (passed === undefined) {
      throw new StreamEnd({ ...this.#reader.ended(), at: from, need: 5 }, `footer of ${path}`);
    }
    if (passed > 0) yield report('note', 'skipped', from, path, `${passed} bytes skipped to the section's footer`);
  }

  /** Goes to the next place where a record may begin, from `from` on. @param id of a footer that counts though its section was never opened @param last the end of the stream will do, behind a device without a footer */
  *resync(from: number, path: string, id?: number, last = false): Generator<WalkEvent, boolean> {
    const start = this.#reader.position;
    let at = Math.max(from, start);
    if (at > start) this.#reader.skip(at - start, 'damage');
    // The next record is mostly near: a stream full of damage is not looked at 64 KiB at a time.
    for (let most = 4 << 10; ; most = 64 << 10) {
      const bytes = this.#reader.peek(most);
      const found = findRecord(bytes, 0, (n) => n === id || this.sections.has(n));
      if (found >= 0) {
        this.#reader.skip(found, 'damage');
        at += found;
        if (bytes[found] === Type.footer) this.#reader.skip(5, 'footer');
        if (!last) yield report('note', 'skipped', from, path, `${at - from} bytes skipped to the next record at 0x${at.toString(16)}`);
        return true;
      }
      if (bytes.length < most && last && this.#reader.seekable && bytes.at(-1) === Type.eof) {
        // Nothing but the EOF record follows.
        this.#reader.skip(bytes.length - 1, 'device');
        return true;
      }
      if (bytes.length < most) {
        this.#reader.skip(bytes.length, 'damage');
        yield report('error', 'lost', from, path, 'no further record was found behind the damage');
        return false;
      }
      // A header may lie across the edge of what was looked at.
      const step = bytes.length - 300;
      this.#reader.skip(step, 'damage');
      at += step;
      yield { type: 'progress', position: at };
    }
  }
}
