import { limits, Type } from '../stream/format.js';
import type { StreamReader } from '../stream/reader.js';
import { sectionHeaderAt } from '../stream/records.js';

/** A field of the VM description (JSON behind the EOF record). */
export interface FieldDesc {
  name: string;
  type: string;
  size: number;
  array_len?: number;
  index?: number;
  struct?: StateDesc;
  /** elements of `tmp` and the like are described in place */
  vmsd_name?: string;
  version?: number;
  fields?: FieldDesc[];
  subsections?: StateDesc[];
}
export interface StateDesc {
  vmsd_name: string;
  version: number;
  fields: FieldDesc[];
  subsections?: StateDesc[];
}
export interface DeviceDesc extends StateDesc {
  name: string;
  instance_id: number;
}

/** Checks the parts of a field description that sizes depend on. Unknown keys are fine. */
function goodFields(fields: unknown, depth = 0): fields is FieldDesc[] {
  return (
    Array.isArray(fields) &&
    fields.every(
      (f: FieldDesc) =>
        typeof f?.name === 'string' &&
        typeof f.type === 'string' &&
        Number.isSafeInteger(f.size) &&
        f.size >= 0 &&
        (f.array_len === undefined || (Number.isSafeInteger(f.array_len) && f.array_len >= 0)) &&
        (f.struct === undefined || goodState(f.struct, depth + 1)) &&
        goodState(f, depth + 1), // of `tmp` and the like
    )
  );
}
function goodState(state: Pick<FieldDesc, 'fields' | 'subsections'>, depth: number): boolean {
  return (
    typeof state === 'object' &&
    state !== null &&
    depth < 32 &&
    (state.fields === undefined || goodFields(state.fields, depth)) &&
    (state.subsections === undefined ||
      (Array.isArray(state.subsections) && state.subsections.every((s) => typeof s?.vmsd_name === 'string' && goodState(s, depth + 1))))
  );
}

/** Bytes that a state takes in the stream: its fields, then its subsections with their headers. */
export function stateSize(state: Pick<StateDesc, 'fields' | 'subsections'>): number {
  let size = 0;
  for (const field of state.fields ?? []) size += field.size * (field.array_len ?? 1);
  for (const sub of state.subsections ?? []) size += 1 + 1 + Buffer.byteLength(sub.vmsd_name, 'latin1') + 4 + stateSize(sub);
  return size;
}

/** The VM description of a stream: what each device's bytes mean. */
export class Description {
  readonly pageSize: number | undefined;
  /** true if the JSON was whole */
  readonly complete: boolean;
  /** position of the record's type byte */
  readonly offset: number;
  /** bytes of the JSON, as the record says */
  readonly length: number;
  readonly text: string;
  readonly devices: DeviceDesc[];
  readonly #byName = new Map<string, DeviceDesc>();

  constructor(offset: number, length: number, text: string, json: unknown, complete: boolean) {
    const root = json as { page_size?: unknown; devices?: unknown };
    this.offset = offset;
    this.length = length;
    this.text = text;
    this.complete = complete;
    this.pageSize = typeof root.page_size === 'number' ? root.page_size : undefined;
    const devices = Array.isArray(root.devices) ? (root.devices as DeviceDesc[]) : [];
    this.devices = devices.filter((d) => typeof d?.name === 'string' && Number.isInteger(d.instance_id) && goodState(d, 0));
    for (const device of this.devices) this.#byName.set(`${device.instance_id} ${device.name}`, device);
  }

  /** The device of a section. */
  device(name: string, instance: number): DeviceDesc | undefined {
    return this.#byName.get(`${instance} ${name}`);
  }
}

/**
 * Parses JSON that was cut off: takes what is whole of the top-level `devices` array. One pass, whatever the text is.
 * @returns undefined when not even one device is whole
 */
export function parseCutJson(text: string): unknown {
  // A device ends where the depth is that of the array again; brackets in strings do not count.
  let depth = 0;
  let end = 0;
  let string = false;
  for (let i = 0; i < text.length; i++) {
    const c = text[i];
    if (c === '"') string = !string;
    else if (string) i += c === '\\' ? 1 : 0;
    else if (c === '{' || c === '[') depth += 1;
    else if (c === '}' || c === ']') {
      depth -= 1;
      if (c === '}' && depth === 2) end = i + 1;
    }
  }
  try {
    return end === 0 ? undefined : JSON.parse(`${text.slice(0, end)}]}`);
  } catch {
    return undefined;
  }
}

/**
 * The description in `text`, which may be cut off.
 * @param length what the record says
 * @returns undefined when this is none
 */
export function parseDescription(offset: number, length: number, text: string): Description | undefined {
  if (!openings.some((opening) => text.startsWith(opening))) return undefined;
  let json: unknown;
  let complete = Buffer.byteLength(text) === length;
  try {
    json = JSON.parse(text);
  } catch {
    complete = false;
    json = parseCutJson(text);
  }
  if (typeof json !== 'object' || json === null) return undefined;
  return new Description(offset, length, text, json, complete);
}

/** What the JSON of a description begins with, by version. */
const openings = ['{"page_size"', '{"configuration"', '{"devices"'];

const window = 1 << 20;
/** How much is searched from the start of the devices, and from the end of the input. */
const search = 256 << 20;

/** Positions of what may be a VMDESCRIPTION record: 06, be32 length, JSON. In order. */
function candidates(reader: StreamReader, from: number, to: number): number[] {
  const places: number[] = [];
  for (let at = from; at < to; at += window) {
    reader.seek(at);
    const bytes = reader.take(Math.min(window + 32, to - at)).bytes;
    for (const opening of openings)
      for (let i = bytes.indexOf(opening, 5); i >= 0 && i < window + 5; i = bytes.indexOf(opening, i + 1))
        if (bytes[i - 5] === 0x06) places.push(at + i - 5);
  }
  return places.sort((a, b) => a - b);
}

/** The description at `place`, if one is there, whole or cut off. */
function descriptionAt(reader: StreamReader, place: number, end: number): Description | undefined {
  reader.seek(place);
  const head = reader.take(5);
  if (!head.ok) return undefined;
  const length = head.bytes.readUInt32BE(1);
  const there = Math.min(length, end - place - 5);
  return there > limits.description ? undefined : parseDescription(place, length, reader.take(there).bytes.toString('utf8'));
}

/** Whether the devices from `from` on have the sizes that this description gives them, up to the EOF record in front of it. */
function fits(reader: StreamReader, description: Description, from: number): boolean {
  for (let at = from; ; ) {
    reader.seek(at);
    const bytes = reader.peek(300);
    if (bytes[0] === Type.eof) return at + 1 === description.offset;
    const header = bytes[0] === Type.full ? sectionHeaderAt(bytes, 0) : 0;
    const name = bytes.toString('latin1', 6, header - 8);
    const device = header > 0 ? description.device(name, bytes.readUInt32BE(header - 8)) : undefined;
    if (!device) return false;
    at += header + stateSize(device);
    reader.seek(at);
    if (reader.next(1) === Type.footer) at += 5;
  }
}

/** How many places that look like a description are tried: what a guest has in its devices may look like many. */
const tries = 32;

/**
 * Finds the VM description of a seekable stream whose devices begin at `from`. Of several the first that fits the devices
 * is taken, since an older stream may lie behind the end; else the last that is whole, since nothing that a guest wrote
 * into its devices can come behind it. A description that was cut off is used as far as it goes.
 */
export function locateDescription(reader: StreamReader, from: number): Description | undefined {
  const end = reader.size;
  const back = reader.position;
  const first = candidates(reader, from, Math.min(end, from + search));
  const places = end > from + search ? first.concat(candidates(reader, Math.max(from + search, end - limits.description), end)) : first;
  const find = (): Description | undefined => {
    if (places.length > 1) {
      for (const place of places.slice(0, tries)) {
        const description = descriptionAt(reader, place, end);
        if (description?.complete && fits(reader, description, from)) return description;
      }
    }
    let cut: Description | undefined;
    for (const place of places.slice(-tries).reverse()) {
      const description = descriptionAt(reader, place, end);
      if (description?.complete) return description;
      cut ??= description;
    }
    return cut;
  };
  const found = find();
  reader.seek(back);
  return found;
}
