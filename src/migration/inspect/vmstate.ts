/** The JSON of QEMU's -dump-vmstate: what a program knows of each type of device. */
import fs from 'node:fs';
import { usage, wrap } from '../../common/errors.js';

/** Version and subsections of a device type. */
export interface TypeShape {
  version: number;
  minimum: number;
  subsections: Set<string>;
}

/** The machine and the device types, by the name of their state. */
export interface TypesShape {
  machine: string;
  types: Map<string, TypeShape>;
}

/** The document of a QEMU has 3 MB. */
const documentMost = 16 << 20;
/** States within states; no QEMU nests them as deep. */
const nested = 32;

interface Json {
  [name: string]: unknown;
}

/** @throws usage error for a text that is no such document */
export function typesOf(file: string, text: string): TypesShape {
  const foreign = () => usage(`${file}: neither a migration stream nor the JSON of -dump-vmstate`);
  const object = (v: unknown): Json => {
    if (typeof v !== 'object' || v === null || Array.isArray(v)) throw foreign();
    return v as Json;
  };
  const list = (v: unknown = []): Json[] => {
    if (!Array.isArray(v)) throw foreign();
    return v.map(object);
  };
  const number = (v: unknown = 0): number => {
    if (!Number.isSafeInteger(v)) throw foreign();
    return v as number;
  };
  const subsectionsIn = (state: Json, depth = 0): string[] => {
    if (depth > nested) throw foreign();
    const own = list(state.Subsections).flatMap((s) => [String(s.name), ...subsectionsIn(s, depth + 1)]);
    const fields = list(state.Fields).flatMap((f) => (f.Description === undefined ? [] : subsectionsIn(object(f.Description), depth + 1)));
    return own.concat(fields);
  };
  let json: Json;
  try {
    json = object(JSON.parse(text));
  } catch {
    throw foreign();
  }
  const types = new Map<string, TypeShape>();
  for (const [name, value] of Object.entries(json)) {
    const type = object(value);
    if (name === 'vmschkmachine' || type.Description === undefined) continue;
    const state = object(type.Description);
    if (typeof state.name !== 'string') throw foreign();
    const [version, minimum] = [number(type.version_id), number(type.minimum_version_id)];
    const before = types.get(state.name) ?? { version, minimum, subsections: new Set() };
    types.set(state.name, {
      version: Math.max(version, before.version),
      minimum: Math.min(minimum, before.minimum),
      subsections: new Set([...before.subsections, ...subsectionsIn(state)]),
    });
  }
  const machine = json.vmschkmachine === undefined ? '' : object(json.vmschkmachine).Name;
  if (typeof machine !== 'string' || (machine === '' && types.size === 0)) throw foreign();
  return { machine, types };
}

/** The text of a file that begins as JSON. @throws VioError */
export function documentIn(file: string): string | undefined {
  let fd: number | undefined;
  try {
    fd = fs.openSync(file, 'r');
    const stat = fs.fstatSync(fd);
    if (!stat.isFile() && !stat.isBlockDevice()) throw usage('--against reads both files by name, not through a pipe');
    const head = Buffer.alloc(64);
    fs.readSync(fd, head, 0, head.length, 0);
    if (!/^\s*\{/.test(head.toString('latin1'))) return undefined;
    if (stat.size > documentMost) throw usage(`${file}: larger than any document of -dump-vmstate`);
    return fs.readFileSync(file, 'utf8');
  } catch (err) {
    throw wrap(`open ${file}`, err);
  } finally {
    if (fd !== undefined) fs.closeSync(fd);
  }
}
