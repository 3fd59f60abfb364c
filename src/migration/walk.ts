import { commandDetail } from './commands.js';
import { type Device, decodeDevice } from './fields.js';
import { commands, limits, MAGIC, type SectionRecord, Type, VERSION, VERSION_OBSOLETE } from './format.js';
import type { Issue } from './issues.js';
import { BadBody, isVfio, iterableBody } from './iterables.js';
import type { Configuration, Detail, PendingSection, Section, SectionEvent, Value, WalkEvent } from './model.js';
import { type RamOptions, RamSection } from './ram.js';
import { endText, StreamEnd, type StreamReader } from './reader.js';
import { findRecord } from './records.js';
import { spool } from './spool.js';
import { BadForm } from './types/cursor.js';
import { type Description, type DeviceDesc, locateDescription, parseDescription, stateSize } from './vmdesc.js';

export interface WalkOptions {
  /** decode device fields */
  fields?: boolean | ((name: string) => boolean);
  /** read on although the version is not one that is known */
  force?: boolean;
  /** known before the walk: reported first */
  issues?: readonly Issue[];
  /** called with each section when it opens, before its body is read */
  onSection?: (section: { id: number; name: string; instance: number }) => void;
  /** how RAM pages are treated */
  ram?: Omit<RamOptions, 'pageSize' | 'capabilities'>;
}

/** Walks a migration stream, record by record, through damage where it can. One walk per object. */
export class Walker {
  readonly #reader: StreamReader;
  readonly #options: WalkOptions;
  readonly #sections = new Map<number, Section>();
  readonly #names = new Map<string, Section>();
  readonly #pending: PendingSection[] = [];
  /** whether sections end with a footer; unknown until the first one ended */
  #footers: boolean | undefined;
  #searched = false;
  #depth = 0;
  #postcopySizes = 0n;
  configuration: Configuration | undefined;
  description: Description | undefined;
  ram: RamSection | undefined;
  /** device sections so far */
  devices = 0;
  /** what the stream turned out to have */
  sawEof = false;
  sawDescription = false;

  constructor(reader: StreamReader, options: WalkOptions = {}) {
    this.#reader = reader;
    this.#options = options;
  }

  /** All of the stream, in order. */
  *walk(): Generator<WalkEvent> {
    try {
      for (const issue of this.#options.issues ?? []) yield { type: 'issue', issue };
      if (!(yield* this.#header())) return;
      if (this.#reader.peek(1)[0] === Type.configuration) yield* this.#configuration();
      if (!(yield* this.#records())) return;
      yield* this.#afterEof();
    } catch (err) {
      if (!(err instanceof StreamEnd)) throw err;
      yield this.#ended(err, '');
    } finally {
      yield* this.#flushPending();
    }
  }

  #issue(severity: Issue['severity'], code: string, offset: number, path: string, message: string, more: Partial<Issue> = {}): WalkEvent {
    return { type: 'issue', issue: { severity, code, offset: BigInt(offset), path, message, ...more } };
  }

  #ended(err: StreamEnd, path: string): WalkEvent {
    const { end } = err;
    return this.#issue('error', end.kind === 'io' ? 'read-error' : 'truncated', end.at, path, `${err.what}: ${endText(end)}`, {
      expected: `${end.need} bytes`,
      found: `${end.have}`,
    });
  }

  *#header(): Generator<WalkEvent, boolean> {
    const at = this.#reader.position;
    const head = this.#reader.take(8);
    if (!head.ok) {
      if (head.end.kind === 'io') {
        yield this.#issue('error', 'read-error', head.end.at, '', `header: ${endText(head.end)}`);
      } else if (head.bytes.length === 0) {
        yield this.#issue('error', 'empty', at, '', 'the input is empty', { expected: 'a migration stream' });
      } else {
        yield this.#issue('error', 'truncated', head.end.at, '', 'truncated header', {
          expected: '8 bytes',
          found: String(head.bytes.length),
        });
      }
      return false;
    }
    const magic = head.bytes.readUInt32BE(0);
    const version = head.bytes.readUInt32BE(4);
    if (magic !== MAGIC) {
      yield this.#issue('error', 'magic', at, '', 'not a QEMU migration stream', {
        expected: 'QEVM',
        found: head.bytes.subarray(0, 4).toString('latin1'),
      });
      return false;
    }
    yield { type: 'header', offset: BigInt(at), version };
    if (version === VERSION) return true;
    const what = version === VERSION_OBSOLETE ? 'stream version 2 is obsolete: QEMU refuses it since 2009' : 'unknown stream version';
    yield this.#issue('error', 'version', at + 4, '', what, { expected: '3', found: String(version) });
    return this.#options.force ?? false;
  }

  *#configuration(): Generator<WalkEvent> {
    const at = this.#reader.position;
    this.#reader.skip(1, 'configuration');
    const length = this.#reader.be32('machine name length');
    if (length > limits.machineName) {
      yield this.#issue('error', 'machine-name', at + 1, 'configuration', 'length of the machine name', {
        expected: `at most ${limits.machineName}`,
        found: String(length),
      });
      yield* this.#resync(at + 5, 'configuration');
      return;
    }
    const configuration: Configuration = { machine: this.#reader.bytes(length, 'machine name').toString('utf8') };
    this.configuration = configuration;
    while (this.#reader.peek(1)[0] === Type.subsection) {
      const sub = this.#reader.position;
      this.#reader.skip(1, 'subsection');
      const name = this.#reader.string8('configuration subsection');
      const version = this.#reader.be32('configuration subsection version');
      if (name === 'configuration/target-page-bits') {
        configuration.pageBits = this.#reader.be32(name);
      } else if (name === 'configuration/capabilities') {
        const count = this.#reader.be32(name);
        if (count > limits.capabilities) {
          yield this.#issue('error', 'capabilities', sub, 'configuration', 'number of capabilities', {
            expected: `at most ${limits.capabilities}`,
            found: String(count),
          });
          yield* this.#resync(sub, 'configuration');
          break;
        }
        configuration.capabilities = Array.from({ length: count }, () => this.#reader.string8('capability'));
        for (const name of configuration.capabilities) {
          if (name !== 'x-ignore-shared' && name !== 'mapped-ram')
            yield this.#issue('warning', 'capability', sub, 'configuration', `unknown capability ${name}`);
        }
      } else if (name === 'configuration/uuid') {
        const hex = this.#reader.bytes(16, name).toString('hex');
        configuration.uuid = hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
      } else {
        yield this.#issue('error', 'configuration', sub, 'configuration', `unknown subsection ${name} version ${version}`);
        yield* this.#resync(sub, 'configuration');
        break;
      }
    }
    yield { type: 'configuration', offset: BigInt(at), size: this.#reader.position - at, ...configuration };
  }

  /** Records up to EOF or the end of the enclosing package. False when the walk cannot go on. */
  *#records(): Generator<WalkEvent, boolean> {
    for (;;) {
      if (this.#reader.peek(1)[0] === Type.full) this.#prepare();
      const at = this.#reader.position;
      const head = this.#reader.take(1);
      if (!head.ok) {
        if (this.#depth > 0 && head.end.kind === 'limit') return true;
        yield head.end.kind === 'io'
          ? this.#issue('error', 'read-error', at, '', endText(head.end))
          : this.#issue('error', 'no-eof', at, '', 'the EOF record is missing: the stream was cut off here');
        return false;
      }
      const type = head.bytes[0]!;
      if (type === Type.eof) {
        if (this.#depth === 0) this.sawEof = true;
        yield { type: 'eof', offset: BigInt(at) };
        return true;
      }
      try {
        if (type === Type.start || type === Type.full) yield* this.#opening(at, type === Type.start ? 'start' : 'full');
        else if (type === Type.part || type === Type.end) yield* this.#continuing(at, type === Type.part ? 'part' : 'end');
        else if (type === Type.command) yield* this.#command(at);
        else {
          yield this.#issue('error', 'record-type', at, '', 'unknown record type', {
            expected: '00-04, 06-08',
            found: `0x${type.toString(16).padStart(2, '0')}`,
          });
          if (!(yield* this.#resync(at + 1, ''))) return false;
        }
      } catch (err) {
        if (!(err instanceof StreamEnd)) throw err;
        yield this.#ended(err, '');
        if (this.#depth > 0 && err.end.kind === 'limit') return true;
        return false;
      }
    }
  }

  /** START or FULL: header, body, footer. */
  *#opening(at: number, record: 'start' | 'full'): Generator<WalkEvent> {
    const id = this.#reader.be32('section id');
    const name = this.#reader.string8('section name');
    const instance = this.#reader.be32('instance id');
    const version = this.#reader.be32('section version');
    const section: Section = { id, name, instance, version, offset: at, iterable: record === 'start', ended: record === 'full' };
    const path = `${name} (${id})`;
    if (name === '') yield this.#issue('error', 'section-name', at, path, 'a section without a name');
    const twin = this.#sections.get(id) ?? this.#names.get(`${instance} ${name}`);
    // A VFIO device sends its configuration as FULL, behind the END of its state, under the same id.
    const again = record === 'full' && twin?.iterable && twin.ended && twin.id === id && twin.name === name && twin.instance === instance;
    if (twin && !again) {
      yield this.#issue('error', 'section-twice', at, path, `section id or name is used twice: first at 0x${twin.offset.toString(16)}`, {
        found: `${name} (${id}), instance ${instance}; ${twin.name} (${twin.id}), instance ${twin.instance}`,
      });
    }
    this.#sections.set(id, section);
    this.#names.set(`${instance} ${name}`, section);
    if (record === 'full') this.devices += 1;
    this.#options.onSection?.(section);
    yield* this.#body(at, record, section);
  }

  /** PART or END of a section that a START opened. */
  *#continuing(at: number, record: 'part' | 'end'): Generator<WalkEvent> {
    const id = this.#reader.be32('section id');
    const section = this.#sections.get(id);
    if (section) {
      if (record === 'end') section.ended = true;
      yield* this.#body(at, record, section);
      return;
    }
    yield this.#issue('error', 'section-unknown', at, '', `${record.toUpperCase()} of a section that was never opened`, {
      expected: `one of ${[...this.#sections.keys()].slice(0, 16).join(', ')}`,
      found: String(id),
    });
    const from = this.#reader.position;
    const passed = this.#reader.findFooter(id, limits.body);
    if (passed === undefined) {
      if (this.#reader.seekable) this.#reader.seek(from);
      yield* this.#resync(from, '');
    } else {
      this.#reader.skip(5, 'footer');
    }
  }

  *#body(at: number, record: SectionRecord, section: Section): Generator<WalkEvent> {
    const { id, name, version } = section;
    const path = `${name} (${id})`;
    let detail: Detail | undefined;
    let bounded: SectionEvent['bounded'] = 'content';
    let device: Device | undefined;
    let held: Buffer | undefined;
    const parse = iterableBody(name);
    try {
      if (name === 'ram' && record !== 'full') {
        if (version !== 4)
          yield this.#issue('error', 'ram-version', at, path, 'version of the ram section', { expected: '4', found: String(version) });
        this.ram ??= new RamSection({
          ...this.#options.ram,
          pageSize: 1 << Math.min(16, Math.max(10, this.configuration?.pageBits ?? 12)),
          capabilities: this.configuration?.capabilities ?? [],
        });
        const before = this.ram.totals();
        const end = yield* this.ram.part(this.#reader, this.#postcopySizes);
        const after = this.ram.totals();
        detail = Object.fromEntries(Object.entries(after).map(([k, v]) => [k, (v as number) - (before[k] as number)]));
        if (end === 'end') {
          yield this.#section(at, record, section, false, bounded, detail);
          throw new RamCut();
        }
        if (end === 'bad') yield* this.#skipBody(section, path);
      } else if (parse && (record !== 'full' || isVfio(name))) {
        detail = parse(this.#reader, record);
      } else {
        const found = yield* this.#deviceBody(section);
        ({ bounded, device } = found);
        held = found.held;
      }
    } catch (err) {
      if (err instanceof BadBody) {
        yield this.#issue('error', 'section-body', err.at, path, err.message, { expected: err.expected, found: err.found });
        yield* this.#skipBody(section, path);
      } else if (err instanceof RamCut) {
        throw new StreamEnd({ kind: 'eof', at: this.#reader.position, need: 1, have: 0 }, 'ram');
      } else {
        throw err;
      }
    }
    const footer = yield* this.#footer(section, path);
    const event = this.#section(at, record, section, footer, bounded, detail, device?.fields);
    if (held) this.#pending.push({ event, body: held });
    else yield event;
  }

  #section(
    at: number,
    record: SectionRecord,
    section: Section,
    footer: boolean,
    bounded: SectionEvent['bounded'],
    detail?: Detail,
    fields?: { [name: string]: Value },
  ): SectionEvent {
    const { id, name, instance, version } = section;
    const size = this.#reader.position - at;
    const base = { type: 'section' as const, record, id, name, instance, version, offset: BigInt(at), size, footer, bounded };
    return { ...base, ...(detail && { detail }), ...(fields && { fields }) };
  }

  /** Passes what is left of a body that could not be parsed. */
  *#skipBody(section: Section, path: string): Generator<WalkEvent> {
    const from = this.#reader.position;
    const passed = this.#reader.findFooter(section.id);
    if (passed === undefined) {
      if (this.#reader.seekable) this.#reader.seek(from);
      throw new StreamEnd({ kind: 'eof', at: from, need: 5, have: 0 }, `footer of ${path}`);
    }
    if (passed > 0) yield this.#issue('note', 'skipped', from, path, `${passed} bytes skipped to the section's footer`);
  }

  /** Looks for the description before the first device: at once in a file, behind the RAM in a pipe, which is kept from there on. */
  #prepare(): void {
    if (this.#searched || this.#depth > 0) return;
    const iterating = [...this.#sections.values()].some((s) => !s.ended);
    if (!this.#reader.seekable && (iterating || !this.ram)) return;
    this.#searched = true;
    if (!this.#reader.seekable) spool(this.#reader);
    this.description = locateDescription(this.#reader, this.#reader.position);
  }

  /** Finds the end of a device's body: by the description, by its footer, or by the next header. */
  *#deviceBody(section: Section): Generator<WalkEvent, { bounded: SectionEvent['bounded']; device?: Device; held?: Buffer }> {
    const path = `${section.name} (${section.id})`;
    this.#prepare();
    const from = this.#reader.position;
    const desc = this.description?.device(section.name, section.instance);
    if (desc) {
      const size = stateSize(desc);
      const end = from + size;
      if (end + (this.#footers === false ? 0 : 5) <= this.#reader.size) {
        this.#reader.seek(end);
        const next = this.#reader.peek(5);
        const fits = this.#footers === false || (next[0] === Type.footer && next.readUInt32BE(1) === section.id);
        const oldMachine = this.#footers === undefined && !fits && this.#plausibleAt(next);
        if (fits || oldMachine) {
          this.#reader.seek(from);
          const device = this.#decode(desc, size);
          this.#reader.seek(end);
          return { bounded: 'description', ...(device && { device }) };
        }
      }
      this.#reader.seek(from);
      const passed = this.#reader.findFooter(section.id);
      if (passed === undefined) {
        // Without a footer of its own there may be one of another number where the description ends the fields.
        this.#reader.seek(Math.min(end, this.#reader.size));
        if (end > this.#reader.size || this.#reader.peek(1)[0] !== Type.footer) {
          throw new StreamEnd({ kind: 'eof', at: this.#reader.size, need: size, have: this.#reader.size - from }, `fields of ${path}`);
        }
        return { bounded: 'description' };
      }
      yield this.#issue('error', 'fields-size', from, path, 'the described fields do not end at the footer', {
        expected: `${size} bytes`,
        found: `${passed} bytes (${passed - size > 0 ? '+' : ''}${passed - size})`,
        recovered: 'went on at the footer',
      });
      const footer = this.#reader.position;
      this.#reader.seek(from);
      const device = this.#decode(desc, passed);
      this.#reader.seek(footer);
      return { bounded: 'footer', ...(device && { device }) };
    }
    if (this.#footers === false) {
      yield* this.#resync(from, path);
      return { bounded: 'footer' };
    }
    const early = !this.#searched && this.#depth === 0;
    const start = early ? this.#reader.peek(128 << 10) : undefined;
    const passed = this.#reader.findFooter(section.id);
    if (passed === undefined && this.#footers === undefined && this.#reader.seekable) {
      // No section so far had a footer: a machine type before 2.4. The next header is where this one ends.
      this.#reader.seek(from);
      yield* this.#resync(from, path);
      return { bounded: 'footer' };
    }
    if (passed === undefined) throw new StreamEnd({ kind: 'eof', at: this.#reader.position, need: 5, have: 0 }, `footer of ${path}`);
    const held = start && passed <= start.length ? Buffer.from(start.subarray(0, passed)) : undefined;
    return { bounded: 'footer', ...(held && { held }) };
  }

  #decode(desc: DeviceDesc, size: number): Device | undefined {
    const { fields } = this.#options;
    const wanted = typeof fields === 'function' ? fields(desc.name) : fields;
    if (!wanted || size > limits.body) return undefined;
    return decodeDevice(desc, this.#reader.take(size).bytes);
  }

  /** Whether a record begins with these bytes. */
  #plausibleAt(next: Buffer): boolean {
    return next.length === 0 || [Type.eof, Type.start, Type.part, Type.end, Type.full, Type.command].includes(next[0] as 0);
  }

  /** Footer behind a body. True if there was one. */
  *#footer(section: Section, path: string): Generator<WalkEvent, boolean> {
    const at = this.#reader.position;
    const next = this.#reader.peek(5);
    if (next[0] === Type.footer && next.length === 5 && this.#footers !== false) {
      this.#footers = true;
      this.#reader.skip(5, 'footer');
      const id = next.readUInt32BE(1);
      if (id !== section.id) {
        yield this.#issue('error', 'footer-id', at, path, 'footer of another section', { expected: String(section.id), found: String(id) });
      }
      return true;
    }
    if (this.#footers === undefined && this.#plausibleAt(next)) {
      this.#footers = false;
      yield this.#issue('note', 'no-footers', at, path, 'sections have no footers: a machine type before 2.4');
    }
    if (this.#footers === false) return false;
    if (next[0] === Type.footer || next.length === 0)
      throw new StreamEnd({ kind: 'eof', at: at + next.length, need: 5, have: next.length }, `footer of ${path}`);
    yield this.#issue('error', 'footer-missing', at, path, 'no footer behind the section', {
      expected: `7e ${section.id.toString(16).padStart(8, '0')}`,
      found: next.toString('hex') || 'the end of the file',
    });
    if (next.length > 0 && !this.#plausibleAt(next)) yield* this.#resync(at, path);
    return false;
  }

  /** Goes to the next place where a record may begin, from `from` on. */
  *#resync(from: number, path: string): Generator<WalkEvent, boolean> {
    const start = this.#reader.position;
    let at = Math.max(from, start);
    if (at > start) this.#reader.skip(at - start, 'damage');
    for (;;) {
      const bytes = this.#reader.peek(64 << 10);
      const found = findRecord(bytes, 0, (id) => this.#sections.has(id));
      if (found >= 0) {
        this.#reader.skip(found, 'damage');
        at += found;
        if (bytes[found] === Type.footer) this.#reader.skip(5, 'footer');
        yield this.#issue('note', 'skipped', from, path, `${at - from} bytes skipped to the next record at 0x${at.toString(16)}`);
        return true;
      }
      if (bytes.length < 64 << 10) {
        this.#reader.skip(bytes.length, 'damage');
        yield this.#issue('error', 'lost', from, path, 'no further record was found behind the damage');
        return false;
      }
      // A header may lie across the edge of what was looked at.
      const step = bytes.length - 300;
      this.#reader.skip(step, 'damage');
      at += step;
      yield { type: 'progress', position: at };
    }
  }

  *#command(at: number): Generator<WalkEvent> {
    const command = this.#reader.be16('command');
    const length = this.#reader.be16('command length');
    const format = commands[command];
    const data = this.#reader.bytes(length, `data of command ${command}`);
    const name = format?.name ?? `COMMAND ${command}`;
    if (!format) {
      yield this.#issue('error', 'command', at, '', `unknown command ${command}, ${length} bytes skipped`);
    } else if (format.length && !format.length.includes(length)) {
      yield this.#issue('error', 'command-length', at, name, 'length of a command', {
        expected: format.length.join(' or '),
        found: String(length),
      });
    }
    let detail: Detail = {};
    try {
      if (!format?.length || format.length.includes(length)) detail = commandDetail(command, data);
    } catch (err) {
      if (!(err instanceof BadForm)) throw err;
      yield this.#issue('error', 'command-data', at, name, `data of a command: ${err.message}`, {
        found: data.subarray(0, 32).toString('hex'),
      });
    }
    if (command === 3 && typeof detail.pageSizes === 'bigint') this.#postcopySizes = detail.pageSizes;
    const packaged = typeof detail.packaged === 'number' ? detail.packaged : undefined;
    yield {
      type: 'command',
      offset: BigInt(at),
      command,
      name,
      size: this.#reader.position - at,
      ...(Object.keys(detail).length > 0 && { data: detail }),
    };
    if (packaged !== undefined) yield* this.#package(at, packaged);
  }

  /** The nested stream of PACKAGED. */
  *#package(at: number, size: number): Generator<WalkEvent> {
    const from = this.#reader.position;
    if (this.#depth >= limits.packaged) {
      yield this.#issue('error', 'packaged-depth', at, 'PACKAGED', `packages nested deeper than ${limits.packaged}`);
    } else {
      this.#depth += 1;
      const records = this.#records.bind(this);
      yield* this.#reader.within(from + size, function* () {
        yield* records();
      });
      this.#depth -= 1;
    }
    const rest = from + size - this.#reader.position;
    if (rest > 0) this.#reader.skip(rest, 'package');
  }

  /** VMDESCRIPTION and what lies behind it. */
  *#afterEof(): Generator<WalkEvent> {
    const at = this.#reader.position;
    const head = this.#reader.peek(5);
    if (head[0] === Type.vmdescription) {
      if (head.length < 5) {
        yield this.#issue('warning', 'description-cut', at, 'vmdescription', 'the VM description is cut off');
        return;
      }
      const length = head.readUInt32BE(1);
      this.#reader.skip(5, 'vmdescription');
      // Read even though it was found before: a pipe without devices comes here first.
      const there = this.#reader.take(Math.min(length, limits.description));
      const whole = there.ok && length <= limits.description;
      if (!there.ok && there.end.kind === 'io') {
        yield this.#issue('error', 'read-error', there.end.at, 'vmdescription', endText(there.end));
      }
      if (!whole) {
        yield this.#issue('warning', 'description-cut', at, 'vmdescription', 'the VM description is cut off', {
          expected: `${length} bytes`,
          found: String(there.bytes.length),
          ...(this.description && { recovered: `${this.description.devices.length} devices of it are used` }),
        });
      } else if (this.description?.offset !== at) {
        yield* this.#lateDescription(at, length, there.bytes.toString('utf8'));
      }
      this.sawDescription = whole && (this.description?.complete ?? false);
      yield { type: 'vmdescription', offset: BigInt(at), size: this.#reader.position - at, complete: this.sawDescription };
      if (!whole) return;
    }
    const end = this.#reader.position;
    if (this.#reader.seekable) {
      if (this.#reader.size > end) yield { type: 'trailing', offset: BigInt(end), size: this.#reader.size - end };
    } else {
      let size = 0;
      try {
        this.#reader.skip(Number.MAX_SAFE_INTEGER, 'rest');
      } catch (err) {
        if (!(err instanceof StreamEnd)) throw err;
        size = err.end.have;
      }
      if (size > 0) yield { type: 'trailing', offset: BigInt(end), size };
    }
  }

  *#lateDescription(at: number, length: number, text: string): Generator<WalkEvent> {
    const description = parseDescription(at, length, text);
    if (description) this.description = description;
    else yield this.#issue('warning', 'description-json', at, 'vmdescription', 'the VM description is not JSON');
  }

  /** Sections that waited for the description. */
  *#flushPending(): Generator<WalkEvent> {
    for (const { event, body } of this.#pending.splice(0)) {
      const desc = this.description?.device(event.name, event.instance);
      if (desc && stateSize(desc) !== body.length) {
        yield this.#issue(
          'error',
          'fields-size',
          Number(event.offset),
          `${event.name} (${event.id})`,
          'the described fields do not end at the footer',
          {
            expected: `${stateSize(desc)} bytes`,
            found: `${body.length} bytes`,
          },
        );
      }
      const { fields } = this.#options;
      const wanted = desc && (typeof fields === 'function' ? fields(event.name) : fields);
      yield wanted ? { ...event, fields: decodeDevice(desc, body).fields } : event;
    }
  }
}

/** The RAM section ended with the input: no record can follow. */
class RamCut extends Error {}
