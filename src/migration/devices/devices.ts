import { maxPeek } from '../../native/migration.js';
import { spool } from '../containers/tempfile.js';
import { limits, Type } from '../stream/format.js';
import { type Framing, pathOf } from '../stream/framing.js';
import { report } from '../stream/issues.js';
import type { PendingSection, Section, SectionEvent, WalkEvent } from '../stream/model.js';
import { StreamEnd, type StreamReader } from '../stream/reader.js';
import { Evidence } from './evidence.js';
import { type Allowance, decodeDevice, type Fields } from './fields.js';
import { storageKeys } from './s390.js';
import { type Description, type DeviceDesc, locateDescription, stateSize } from './vmdesc.js';

/** Which devices' fields are decoded. */
export type FieldChoice = boolean | ((name: string) => boolean);

/** Device sections: where their bodies end, by the stream's description or without it, and what their fields are. */
export class Devices {
  readonly #reader: StreamReader;
  readonly #framing: Framing;
  readonly #fields: FieldChoice;
  readonly #pending: PendingSection[] = [];
  readonly #empty: Allowance = { left: limits.empty };
  #searched = false;
  #told = false;
  description: Description | undefined;
  /** facts of the sections that were decoded */
  readonly evidence = new Evidence();

  constructor(reader: StreamReader, framing: Framing, fields: FieldChoice) {
    this.#reader = reader;
    this.#framing = framing;
    this.#fields = fields;
  }

  /** Looks for the description before the first device: at once in a file, behind the RAM in a pipe, which is kept from there on. */
  prepare(ramPassed: boolean): void {
    if (this.#searched) return;
    if (!this.#reader.seekable && (this.#framing.iterating || !ramPassed)) return;
    this.#searched = true;
    if (!this.#reader.seekable) spool(this.#reader);
    this.description = locateDescription(this.#reader, this.#reader.position);
  }

  /** Finds the end of a device's body: by the description, by its footer, or by the next header. @param hold return the body if the description may still come */
  *body(section: Section, hold: boolean): Generator<WalkEvent, { bounded: SectionEvent['bounded']; fields?: Fields; held?: Buffer }> {
    const path = pathOf(section);
    const from = this.#reader.position;
    const desc = this.description?.device(section.name, section.instance);
    if (desc) {
      const size = stateSize(desc);
      const end = from + size;
      if (end + (this.#framing.footers === false ? 0 : 5) <= this.#reader.size) {
        this.#reader.seek(end);
        const fits = this.#framing.footers === false || this.#framing.isFooter(section);
        const oldMachine = this.#framing.footers === undefined && !fits && this.#framing.plausibleAt(this.#reader.peek(5));
        if (fits || oldMachine) {
          this.#reader.seek(from);
          const fields = this.#decode(section.name, desc, size);
          yield* this.#left(from, path);
          this.#reader.seek(end);
          return { bounded: 'description', ...(fields && { fields }) };
        }
      }
      this.#reader.seek(from);
      const passed = this.#reader.findFooter(section.id);
      if (passed === undefined) {
        const ended = this.#reader.ended();
        // Without a footer of its own there may be one of another number where the description ends the fields.
        this.#reader.seek(Math.min(end, this.#reader.size));
        if (end > this.#reader.size || this.#reader.next(1) !== Type.footer) {
          throw new StreamEnd({ ...ended, need: size, have: ended.at - from }, `fields of ${path}`);
        }
        return { bounded: 'description' };
      }
      yield report('error', 'fields-size', from, path, 'the described fields do not end at the footer', {
        expected: `${size} bytes`,
        found: `${passed} bytes (${passed - size > 0 ? '+' : ''}${passed - size})`,
        recovered: 'went on at the footer',
      });
      const footer = this.#reader.position;
      this.#reader.seek(from);
      const fields = this.#decode(section.name, desc, passed);
      yield* this.#left(from, path);
      this.#reader.seek(footer);
      return { bounded: 'footer', ...(fields && { fields }) };
    }
    // Facts that lie at the start of a body need no description.
    if (Evidence.wantsRaw(section.name)) this.evidence.noteRaw(section.name, this.#reader.peek(Evidence.rawBytes));
    if (this.#framing.footers === false) {
      yield* this.#framing.resync(from, path, undefined, true);
      return { bounded: 'footer' };
    }
    const early = hold && !this.#searched;
    const start = early ? this.#reader.peek(maxPeek) : undefined;
    const passed = this.#reader.findFooter(section.id);
    if (passed === undefined && this.#framing.footers === undefined && this.#reader.seekable) {
      // No section so far had a footer: a machine type before 2.4. The next header is where this one ends.
      this.#reader.seek(from);
      yield* this.#framing.resync(from, path, undefined, true);
      return { bounded: 'footer' };
    }
    if (passed === undefined) throw new StreamEnd({ ...this.#reader.ended(), need: 5 }, `footer of ${path}`);
    const held = start && passed <= start.length ? Buffer.from(start.subarray(0, passed)) : undefined;
    return { bounded: 'footer', ...(held && { held }) };
  }

  /** Page size of the target by the description at the end of a file, before the devices are reached. */
  describedPage(): number | undefined {
    if (!this.#reader.seekable) return undefined;
    const from = Math.max(this.#reader.position, this.#reader.size - limits.description);
    const size = locateDescription(this.#reader, from)?.pageSize ?? 0;
    const [least, most] = limits.pageBits;
    return Number.isInteger(Math.log2(size)) && size >= 1 << least && size <= 1 << most ? size : undefined;
  }

  #wants(name: string): boolean {
    return typeof this.#fields === 'function' ? this.#fields(name) : this.#fields;
  }

  #decode(name: string, desc: DeviceDesc, size: number): Fields | undefined {
    if (size > limits.body || !(this.#wants(name) || Evidence.wants(name))) return undefined;
    return this.#fieldsOf(name, desc, this.#reader.take(size).bytes);
  }

  /** The fields of a body that are asked for; facts are noted in any case. */
  #fieldsOf(name: string, desc: DeviceDesc, body: Buffer): Fields | undefined {
    const wanted = this.#wants(name);
    if (!wanted && !Evidence.wants(name)) return undefined;
    const fields = decodeDevice(desc, body, this.#empty);
    this.evidence.note(name, fields);
    if (!wanted) return undefined;
    return name === 's390-skeys' ? { ...fields, ...storageKeys(body) } : fields;
  }

  /** Says once that values were left out. */
  *#left(at: number, path: string): Generator<WalkEvent> {
    if (this.#empty.left >= 0 || this.#told) return;
    this.#told = true;
    yield report('warning', 'fields-empty', at, path, `more than ${limits.empty} described values without bytes: the rest is left out`);
  }

  /** Keeps a section from before the RAM until the description is known: `flush` yields it. */
  hold(event: SectionEvent, body: Buffer): void {
    this.#pending.push({ event, body });
  }

  /** Sections that waited for the description. */
  *flush(): Generator<WalkEvent> {
    for (const { event, body } of this.#pending.splice(0)) {
      const desc = this.description?.device(event.name, event.instance);
      if (desc && stateSize(desc) !== body.length) {
        yield report('error', 'fields-size', Number(event.offset), pathOf(event), 'the described fields do not end at the footer', {
          expected: `${stateSize(desc)} bytes`,
          found: `${body.length} bytes`,
        });
      }
      const fields = desc && this.#fieldsOf(event.name, desc, body);
      yield fields ? { ...event, fields } : event;
      yield* this.#left(Number(event.offset), pathOf(event));
    }
  }
}
