/** What changed between two streams? */
import { createHash, randomBytes } from 'node:crypto';
import { VioError } from '../../common/errors.js';
import { globs } from '../../common/glob.js';
import type { Input } from '../containers/input.js';
import type { StateDesc } from '../devices/vmdesc.js';
import { type Issue, report } from '../stream/issues.js';
import { pagesOf, type SectionEvent, type Value } from '../stream/model.js';
import { StreamEnd, type StreamReader } from '../stream/reader.js';
import { Walker } from '../walk.js';
import { events } from './dump.js';

export interface Difference {
  /** `machine`, a section, a field (`cpu/env.eip`), or a block (`ram/pc.ram`) */
  path: string;
  kind: 'only-a' | 'only-b' | 'changed';
  a?: Value;
  b?: Value;
  /** values below this path that only one stream has: a device, a subsection */
  values?: number;
  /** of two byte strings: where they first differ, and in how many bytes */
  first?: number;
  bytes?: number;
}

export interface CompareOptions {
  /** compare every page too */
  ram: boolean;
  /** patterns of paths that do not count */
  ignore: readonly string[];
  /** list the fields of what only one stream has */
  fields?: boolean;
  /** compare the shape (sections, versions, subsections, types and sizes of fields), not the values */
  structure?: boolean;
}

export interface Comparison {
  /** true if the streams have no difference */
  equal: boolean;
  /** values, sections and blocks that differ */
  differences: Difference[];
  /** pages of each block that both have, with --ram */
  ram?: { block: string; pages: number; changed: number; unknown: number }[];
  /** what is wrong with each stream */
  issues: { a: Issue[]; b: Issue[] };
}

/** What is compared of one stream. */
interface Content {
  values: Map<string, Value>;
  /** paths that begin a device */
  roots: Set<string>;
  /** paths of all that holds values: a device, a structure, a subsection, whose name may have slashes */
  nodes: Set<string>;
  walker: Walker;
  issues: Issue[];
}

/** Fields as paths: `cpu/env.segs/0/base`. */
function flatten(value: Value, path: string, into: Map<string, Value>, nodes: Set<string>): void {
  const nested = value !== null && typeof value === 'object' && !(value instanceof Uint8Array);
  if (!nested) {
    into.set(path, value);
    return;
  }
  nodes.add(path);
  for (const [key, inner] of Object.entries(value)) {
    // The bytes of a virtio device's class are in its fields already.
    if (key === 'deviceState' && 'class' in value) continue;
    flatten(inner, `${path}/${key}`, into, nodes);
  }
}

/** SHA-256 of a section's body; undefined where its bytes cannot be read again: they went by with a pipe. */
function bodyHash(reader: StreamReader, event: SectionEvent): Buffer | undefined {
  const back = reader.position;
  const head = 1 + 4 + 1 + event.name.length + 8; // type, id, name, instance, version
  try {
    reader.seek(Number(event.offset) + head);
  } catch (err) {
    if (!(err instanceof VioError)) throw err;
    return undefined;
  }
  const hash = createHash('sha256');
  const size = event.size - head - (event.footer ? 5 : 0);
  try {
    for (const bytes of reader.pieces(size, 'device')) hash.update(bytes);
    return hash.digest();
  } catch (err) {
    if (!(err instanceof StreamEnd)) throw err;
    return undefined;
  } finally {
    reader.seek(back);
  }
}

/** The parts of a state's description. */
interface Shape {
  fields?: StateDesc['fields'] | undefined;
  subsections?: StateDesc['subsections'] | undefined;
}

/** The shape of a device: the type and size of each field, by its path. */
function shape(state: Shape, path: string, into: Map<string, Value>, nodes: Set<string>): void {
  nodes.add(path);
  for (const field of state.fields ?? []) {
    const at = `${path}/${field.name}`;
    const inner = field.struct ?? field;
    if (inner.fields) shape(inner, at, into, nodes);
    else into.set(at, `${field.type}, ${field.size} bytes${field.array_len === undefined ? '' : ` x ${field.array_len}`}`);
  }
  for (const sub of state.subsections ?? []) {
    into.set(`${path}/${sub.vmsd_name}/version`, sub.version);
    shape(sub, `${path}/${sub.vmsd_name}`, into, nodes);
  }
}

async function content(input: Input, options: CompareOptions, seed: bigint, tick: (position: number) => void): Promise<Content> {
  const { ram, structure = false } = options;
  const fields = !structure;
  const walker = new Walker(input.reader, { issues: input.issues, fields, ram: { hash: ram, seed, bitmapOrder: input.bitmapOrder } });
  const values = new Map<string, Value>();
  const roots = new Set<string>();
  const nodes = new Set<string>();
  const issues: Issue[] = [];
  for await (const event of events(input, walker)) {
    if (event.type === 'progress') tick(event.position);
    if (event.type === 'issue') issues.push(event.issue);
    if (event.type === 'configuration') {
      values.set('machine', event.machine);
      values.set('capabilities', (event.capabilities ?? []).join(' '));
    }
    if (event.type !== 'section' || event.record === 'part' || event.record === 'end') continue;
    const name = event.instance === 0 ? event.name : `${event.name}#${event.instance}`;
    roots.add(name);
    values.set(`${name}/version`, event.version);
    const description = structure ? walker.description?.device(event.name, event.instance) : undefined;
    if (description) shape(description, name, values, nodes);
    else if (event.fields) flatten(event.fields, name, values, nodes);
    else if (event.record === 'full' && !structure) {
      // Nothing says what is in it, but whether it is the same can be told.
      const hash = bodyHash(input.reader, event);
      if (hash) values.set(`${name}/sha256`, hash);
      else
        issues.push(
          report('warning', 'not-compared', event.offset, name, 'a device without a description whose bytes went by: not compared').issue,
        );
    }
  }
  for (const block of walker.ram?.update() ?? []) values.set(`ram/${block.name}/length`, block.length);
  return { values, roots, nodes, walker, issues };
}

const same = (a: Value, b: Value): boolean =>
  a instanceof Uint8Array && b instanceof Uint8Array ? Buffer.from(a).equals(Buffer.from(b)) : Object.is(a, b);

/** Pages of the blocks that both streams have. A page whose content one walk cannot know (XBZRLE) is counted apart. */
function pages(a: Walker, b: Walker): Comparison['ram'] {
  const others = b.ram?.blocks ?? [];
  return (a.ram?.blocks ?? []).flatMap((block, i) => {
    const j = others.findIndex((o) => o.name === block.name);
    if (j < 0) return [];
    const [x, y] = [a.ram!.hashes(i), b.ram!.hashes(j)];
    let changed = 0;
    // Pages for whose hashes there was no room are not compared.
    let unknown = Math.max(block.state.unhashed, others[j]!.state.unhashed);
    for (let page = 0; page < Math.max(x.length, y.length); page++) {
      const [p, q] = [x[page] ?? 0n, y[page] ?? 0n];
      if (p === 2n || q === 2n) unknown += 1;
      else if (p !== q) changed += 1;
    }
    return [{ block: block.name, pages: pagesOf(block, a.ram!.options.pageSize), changed, unknown }];
  });
}

/** Where two byte strings first differ, and in how many bytes. */
function difference(a: Uint8Array, b: Uint8Array): { first: number; bytes: number } {
  let first = -1;
  let bytes = Math.abs(a.length - b.length);
  for (let i = 0; i < Math.min(a.length, b.length); i++) {
    if (a[i] === b[i]) continue;
    if (first < 0) first = i;
    bytes += 1;
  }
  return { first: first < 0 ? Math.min(a.length, b.length) : first, bytes };
}

/** Every path of values and of what holds them. */
function prefixes(values: ReadonlyMap<string, Value>): Set<string> {
  const all = new Set<string>();
  for (const path of values.keys()) for (let at = path.length; at > 0; at = path.lastIndexOf('/', at - 1)) all.add(path.slice(0, at));
  return all;
}

/** The longest part of the tree around `path` that the other stream has nothing of: a device, a subsection, or the field alone. */
function lonely(path: string, { roots, nodes }: Pick<Content, 'roots' | 'nodes'>, others: ReadonlySet<string>): string {
  let root = path;
  while (!roots.has(root)) {
    const slash = root.lastIndexOf('/');
    if (slash < 0) return path;
    root = root.slice(0, slash);
  }
  for (let end = root.length; end < path.length; ) {
    const part = path.slice(0, end);
    if ((part === root || nodes.has(part)) && !others.has(part)) return part;
    const next = path.indexOf('/', end + 1);
    end = next < 0 ? path.length : next;
  }
  return path;
}

/** All that differs between the values of two streams, in the order of the first. */
function differencesOf(left: Content, right: Content, options: CompareOptions): Difference[] {
  const ignored = options.ignore.length > 0 ? globs(options.ignore) : () => false;
  const trees = { a: prefixes(left.values), b: prefixes(right.values) };
  const found: Difference[] = [];
  const whole = new Map<string, Difference>();
  const only = (path: string, kind: 'only-a' | 'only-b', value: Value) => {
    const [own, other] = kind === 'only-a' ? [left, trees.b] : [right, trees.a];
    const root = options.fields ? path : lonely(path, own, other);
    if (ignored(root)) return;
    const before = whole.get(root);
    if (before) before.values = (before.values ?? 1) + 1;
    const difference: Difference = {
      path: root,
      kind,
      ...(root !== path ? { values: 1 } : kind === 'only-a' ? { a: value } : { b: value }),
    };
    if (before) return;
    whole.set(root, difference);
    found.push(difference);
  };
  for (const path of new Set([...left.values.keys(), ...right.values.keys()])) {
    if (ignored(path)) continue;
    const [x, y] = [left.values.get(path), right.values.get(path)];
    if (x === undefined) only(path, 'only-b', y!);
    else if (y === undefined) only(path, 'only-a', x);
    else if (!same(x, y)) {
      const where = x instanceof Uint8Array && y instanceof Uint8Array && !path.endsWith('/sha256') ? difference(x, y) : {};
      found.push({ path, kind: 'changed', a: x, b: y, ...where });
    }
  }
  return found;
}

/** Compares sections, versions and fields of two streams, or their shape alone, and if wanted every page. @param tick gets positions of the one, then of the other behind it */
export async function compare(a: Input, b: Input, options: CompareOptions, tick: (position: number) => void): Promise<Comparison> {
  const seed = randomBytes(8).readBigUInt64LE();
  const left = await content(a, options, seed, tick);
  const before = left.walker.end;
  const right = await content(b, options, seed, (position) => tick(before + position));
  // Where one of the two is no stream at all, its issues say so; a list of all that the other one has would bury that.
  const comparable = left.values.size > 0 && right.values.size > 0;
  const differences = comparable ? differencesOf(left, right, options) : [];
  const ram = options.ram ? pages(left.walker, right.walker) : undefined;
  return {
    equal: comparable && differences.length === 0 && !ram?.some((r) => r.changed > 0 || r.unknown > 0),
    differences,
    ...(ram && { ram }),
    issues: { a: left.issues, b: right.issues },
  };
}
