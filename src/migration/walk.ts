import { assert } from '../common/errors.js';
import { Devices, type FieldChoice } from './devices/devices.js';
import type { Evidence } from './devices/evidence.js';
import type { Fields } from './devices/fields.js';
import { type Description, parseDescription } from './devices/vmdesc.js';
import { type Missing, missingIssues, missingPages } from './memory/missing.js';
import type { RamOptions } from './memory/options.js';
import { RamSection } from './memory/ram.js';
import { readCommand } from './stream/commands.js';
import { readConfiguration, readHeader } from './stream/configuration.js';
import { limits, type SectionRecord, Type } from './stream/format.js';
import { Framing, pathOf } from './stream/framing.js';
import { type Issue, report } from './stream/issues.js';
import { BadBody, isVfio, iterableBody } from './stream/iterables.js';
import type { Configuration, Detail, Section, SectionEvent, WalkEvent } from './stream/model.js';
import { endCode, endText, StreamEnd, type StreamReader } from './stream/reader.js';

export interface WalkOptions {
  /** decode device fields */
  fields?: FieldChoice;
  /** continue even if the version is unknown */
  force?: boolean;
  /** known before the walk: reported first */
  issues?: readonly Issue[];
  /** called with each section when it opens, before its body is read */
  onSection?: (section: { id: number; name: string; instance: number }) => void;
  /** how RAM pages are treated */
  ram?: Omit<RamOptions, 'pageSize' | 'capabilities'>;
}

/** Machines of targets whose pages are always of 4 KiB. */
const pagesOf4K = /^(pc|q35|isapc|microvm|xen|pseries|powernv|s390|none)/;

/** Walks a migration stream, record by record, through damage where it can. One walk per object. */
export class Walker {
  readonly #reader: StreamReader;
  readonly #options: WalkOptions;
  readonly #framing: Framing;
  readonly #devices: Devices;
  readonly #names = new Map<string, Section>();
  #depth = 0;
  /** position of the last progress event */
  #told = 0;
  #postcopySizes = 0n;
  configuration: Configuration | undefined;
  ram: RamSection | undefined;
  /** device sections so far */
  devices = 0;
  /** what the stream turned out to have */
  sawEof = false;
  sawDescription = false;
  /** where the stream begins, and where it ends: behind its description, or how far a damaged one was read */
  start = 0;
  end = 0;
  /** pages that the stream does not give; known at its end */
  missing: Missing[] = [];
  #postcopy = false;

  constructor(reader: StreamReader, options: WalkOptions = {}) {
    this.#reader = reader;
    this.#options = options;
    this.#framing = new Framing(reader);
    this.#devices = new Devices(reader, this.#framing, options.fields ?? false);
  }

  /** The stream's own description, once it was found. */
  get description(): Description | undefined {
    return this.#devices.description;
  }

  /** Facts about the machine, once its devices have passed. */
  get evidence(): Evidence {
    return this.#devices.evidence;
  }

  /** All of the stream, in order. */
  *walk(): Generator<WalkEvent> {
    try {
      this.start = this.end = this.#reader.position;
      for (const issue of this.#options.issues ?? []) yield { type: 'issue', issue };
      if (!(yield* readHeader(this.#reader, this.#options.force ?? false))) return;
      if (this.#reader.next(1) === Type.configuration) {
        yield* readConfiguration(this.#reader, this.#framing, (configuration) => {
          this.configuration = configuration;
        });
      }
      if (!(yield* this.#records())) return;
      yield* this.#afterEof();
    } catch (err) {
      if (!(err instanceof StreamEnd)) throw err;
      yield* this.#ended(err);
    } finally {
      if (this.end === this.start) this.end = this.#reader.position;
      yield* this.#devices.flush();
      yield* this.#untracked();
      yield* this.#memory();
    }
  }

  /** What is not there of the guest's memory. */
  *#memory(): Generator<WalkEvent> {
    const at = this.#reader.position;
    if (!this.ram) {
      // Device state alone (xen-save-devices-state, COLO) has no configuration either.
      const severity = this.configuration ? 'error' : 'warning';
      if (this.sawEof) yield report(severity, 'no-ram', at, '', 'the stream has no RAM section: it has the state of devices only');
      return;
    }
    const ended = this.sawEof || [...this.#framing.sections.values()].some((s) => s.name === 'ram' && s.ended);
    this.missing = missingPages(this.ram, {
      capabilities: this.configuration?.capabilities ?? [],
      evidence: this.#devices.evidence,
      postcopy: this.#postcopy,
      ended,
    });
    yield* missingIssues(this.missing, at);
  }

  /** A RAM section that a START opened and no END closed. */
  *#open(at: number): Generator<WalkEvent> {
    for (const section of this.#framing.sections.values())
      if (section.name === 'ram' && !section.ended)
        yield report('error', 'section-open', at, pathOf(section), 'the stream ends, and the END of this section is missing');
  }

  /** Blocks whose pages could not all be noted: in a stream they are extracted all the same. */
  *#untracked(): Generator<WalkEvent> {
    for (const block of this.ram?.mapped ? [] : (this.ram?.update() ?? [])) {
      if (block.state.tracked) continue;
      const what = 'more of its pages are scattered than this program can follow: the counts of pages present and changed are lower bounds';
      yield report('note', 'ram-untracked', this.#reader.position, `ram/${block.name}`, what);
    }
  }

  *#ended({ end, what, told }: StreamEnd): Generator<WalkEvent> {
    if (told) return;
    yield report('error', endCode(end, 'truncated'), end.at, '', `${what}: ${endText(end)}`, {
      expected: `${end.need} bytes`,
      found: `${end.have}`,
    });
  }

  /** The position whenever enough went by since the last time, because the parts of a section may be small. */
  *#progress(): Generator<WalkEvent> {
    const { position, budget } = this.#reader;
    // The pages of mapped-ram are read behind the records, and tell their own positions.
    if (this.ram?.mapped || position - this.#told < budget) return;
    this.#told = position;
    yield { type: 'progress', position };
  }

  /** Records up to EOF or the end of the enclosing package. False when the walk cannot go on. */
  *#records(): Generator<WalkEvent, boolean> {
    let last = -1;
    for (;;) {
      yield* this.#progress();
      const type = this.#reader.next(1);
      if (this.#depth === 0 && type === Type.full) this.#devices.prepare(this.ram !== undefined);
      const at = this.#reader.position;
      assert(at > last, 'each record takes bytes of the stream');
      last = at;
      if (type < 0) {
        const end = this.#reader.ended();
        if (this.#depth > 0 && end.kind === 'limit') return true;
        yield end.kind === 'io'
          ? report('error', 'read-error', at, '', endText(end))
          : report('error', 'no-eof', at, '', 'the EOF record is missing: the stream was cut off here');
        return false;
      }
      this.#reader.skip(1, 'record type');
      if (type === Type.eof) {
        if (this.#depth === 0) {
          this.sawEof = true;
          yield* this.#open(at);
        }
        yield { type: 'eof', offset: BigInt(at) };
        return true;
      }
      try {
        if (type === Type.start || type === Type.full) yield* this.#opening(at, type === Type.start ? 'start' : 'full');
        else if (type === Type.part || type === Type.end) yield* this.#continuing(at, type === Type.part ? 'part' : 'end');
        else if (type === Type.command) yield* this.#command(at);
        else {
          yield report('error', 'record-type', at, '', 'unknown record type', {
            expected: '00-04, 06-08',
            found: `0x${type.toString(16).padStart(2, '0')}`,
          });
          if (!(yield* this.#framing.resync(at + 1, ''))) return false;
        }
      } catch (err) {
        if (!(err instanceof StreamEnd)) throw err;
        yield* this.#ended(err);
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
    const path = pathOf(section);
    if (name === '') yield report('error', 'section-name', at, path, 'a section without a name');
    const twin = this.#framing.sections.get(id) ?? this.#names.get(`${instance} ${name}`);
    // A VFIO device sends its configuration as FULL, behind the END of its state, under the same id.
    const again = record === 'full' && twin?.iterable && twin.ended && twin.id === id && twin.name === name && twin.instance === instance;
    const doubled = twin && twin.id !== id && record === 'full' && !twin.iterable && this.#doubled(section);
    if (doubled) {
      const text = `its name and instance are those of section ${twin.id}: QEMU registered both, and loads them in order`;
      yield report('note', 'section-name-twice', at, path, text);
    } else if (twin && !again) {
      yield report('error', 'section-twice', at, path, `section id or name is used twice: first at 0x${twin.offset.toString(16)}`, {
        found: `${name} (${id}), instance ${instance}; ${twin.name} (${twin.id}), instance ${twin.instance}`,
      });
    }
    this.#framing.opened(section);
    this.#names.set(`${instance} ${name}`, section);
    if (record === 'full') this.devices += 1;
    this.#options.onSection?.(section);
    yield* this.#body(at, record, section);
  }

  /** Whether QEMU itself gave two devices one name and instance: both are described, or they are the channels of an ISA IDE. */
  #doubled({ name, instance }: Section): boolean {
    const described = this.description?.devices.filter((d) => d.name === name && d.instance_id === instance).length;
    return described === undefined ? name === 'isa-ide' : described > 1;
  }

  /** PART or END of a section that a START opened. */
  *#continuing(at: number, record: 'part' | 'end'): Generator<WalkEvent> {
    const id = this.#reader.be32('section id');
    const section = this.#framing.sections.get(id);
    if (section) {
      if (record === 'end') this.#framing.closed(section);
      yield* this.#body(at, record, section);
      return;
    }
    const known: number[] = [];
    for (const n of this.#framing.sections.keys()) if (known.push(n) === 16) break;
    yield report('error', 'section-unknown', at, '', `${record.toUpperCase()} of a section that was never opened`, {
      expected: `one of ${known.join(', ')}`,
      found: String(id),
    });
    yield* this.#framing.resync(this.#reader.position, '', id);
  }

  *#body(at: number, record: SectionRecord, section: Section): Generator<WalkEvent> {
    const { name, version } = section;
    const path = pathOf(section);
    let detail: Detail | undefined;
    let bounded: SectionEvent['bounded'] = 'content';
    let fields: Fields | undefined;
    let held: Buffer | undefined;
    const parse = iterableBody(name);
    try {
      if (name === 'ram' && record !== 'full') {
        if (version !== 4)
          yield report('error', 'ram-version', at, path, 'version of the ram section', { expected: '4', found: String(version) });
        this.ram ??= new RamSection({
          ...this.#options.ram,
          pageSize: this.configuration?.pageBits ? 1 << this.configuration.pageBits : this.#usualPage(),
          capabilities: this.configuration?.capabilities ?? [],
        });
        const before = this.ram.totals();
        const end = yield* this.ram.part(this.#reader, this.#postcopySizes);
        const after = this.ram.totals();
        detail = Object.fromEntries(Object.entries(after).map(([k, v]) => [k, (v as number) - (before[k] as number)]));
        if (end === 'end') {
          yield this.#section(at, record, section, false, bounded, detail);
          throw new StreamEnd(this.#reader.ended(), 'ram', true);
        }
        if (end === 'bad') yield* this.#framing.skipBody(section, path);
      } else if (parse && (record !== 'full' || isVfio(name))) {
        detail = parse(this.#reader, record);
      } else {
        if (this.#depth === 0) this.#devices.prepare(this.ram !== undefined);
        const found = yield* this.#devices.body(section, this.#depth === 0);
        ({ bounded, fields } = found);
        held = found.held;
      }
    } catch (err) {
      if (!(err instanceof BadBody)) throw err;
      yield report('error', 'section-body', err.at, path, err.message, { expected: err.expected, found: err.found });
      yield* this.#framing.skipBody(section, path);
    }
    const footer = yield* this.#framing.footer(section, path);
    const event = this.#section(at, record, section, footer, bounded, detail, fields);
    if (held) this.#devices.hold(event, held);
    else yield event;
  }

  /** Page of a target whose stream does not say it: 4 KiB, or what the description of an unusual machine has at the end of a file. */
  #usualPage(): number {
    const described = pagesOf4K.test(this.configuration?.machine ?? 'pc') ? undefined : this.#devices.describedPage();
    return described ?? 4096;
  }

  #section(
    at: number,
    record: SectionRecord,
    section: Section,
    footer: boolean,
    bounded: SectionEvent['bounded'],
    detail?: Detail,
    fields?: Fields,
  ): SectionEvent {
    const { id, name, instance, version } = section;
    const size = this.#reader.position - at;
    const base = { type: 'section' as const, record, id, name, instance, version, offset: BigInt(at), size, footer, bounded };
    return { ...base, ...(detail && { detail }), ...(fields && { fields }) };
  }

  *#command(at: number): Generator<WalkEvent> {
    const { pageSizes, packaged, postcopyRun } = yield* readCommand(this.#reader, at);
    if (postcopyRun) this.#postcopy = true;
    if (typeof pageSizes === 'bigint') this.#postcopySizes = pageSizes;
    if (typeof packaged === 'number') yield* this.#package(at, packaged);
  }

  /** The nested stream of PACKAGED. */
  *#package(at: number, size: number): Generator<WalkEvent> {
    const from = this.#reader.position;
    if (this.#depth >= limits.packaged) {
      yield report('error', 'packaged-depth', at, 'PACKAGED', `packages nested deeper than ${limits.packaged}`);
    } else {
      this.#depth += 1;
      assert(this.#depth <= limits.packaged, 'packages nest within their bound');
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
        yield report('warning', 'description-cut', at, 'vmdescription', 'the VM description is cut off');
        return;
      }
      const length = head.readUInt32BE(1);
      this.#reader.skip(5, 'vmdescription');
      // Read even though it was found before: a pipe without devices comes here first.
      const there = this.#reader.take(Math.min(length, limits.description));
      const whole = there.ok && length <= limits.description;
      if (!there.ok && there.end.kind === 'io') {
        yield report('error', 'read-error', there.end.at, 'vmdescription', endText(there.end));
      }
      if (!whole) {
        yield report('warning', 'description-cut', at, 'vmdescription', 'the VM description is cut off', {
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
    this.end = end;
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
    if (description) this.#devices.description = description;
    else yield report('warning', 'description-json', at, 'vmdescription', 'the VM description is not JSON');
  }
}
