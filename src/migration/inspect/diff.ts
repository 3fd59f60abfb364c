/** What changed between two streams? */
import { createHash, randomBytes } from 'node:crypto';
import { VioError } from '../../common/errors.js';
import type { Input } from '../containers/input.js';
import { type Issue, report } from '../stream/issues.js';
import { pagesOf, type SectionEvent, type Value } from '../stream/model.js';
import { StreamEnd, type StreamReader } from '../stream/reader.js';
import { Walker } from '../walk.js';
import { events, globs } from './dump.js';

export interface Difference {
  /** `machine`, a section, a field (`cpu/env.eip`), or a block (`ram/pc.ram`) */
  path: string;
  kind: 'only-a' | 'only-b' | 'changed';
  a?: Value;
  b?: Value;
}

export interface Comparison {
  equal: boolean;
  differences: Difference[];
  /** pages of each block that both have, with --ram */
  ram?: { block: string; pages: number; changed: number; unknown: number }[];
  issues: { a: Issue[]; b: Issue[] };
}

/** What is compared of one stream. */
interface Content {
  values: Map<string, Value>;
  walker: Walker;
  issues: Issue[];
}

/** Fields as paths: `cpu/env.segs/0/base`. */
function flatten(value: Value, path: string, into: Map<string, Value>): void {
  const nested = value !== null && typeof value === 'object' && !(value instanceof Uint8Array);
  if (!nested) {
    into.set(path, value);
    return;
  }
  for (const [key, inner] of Object.entries(value)) flatten(inner, `${path}/${key}`, into);
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

async function content(input: Input, ram: boolean, seed: bigint, tick: (position: number) => void): Promise<Content> {
  const walker = new Walker(input.reader, { issues: input.issues, fields: true, ram: { hash: ram, seed, bitmapOrder: input.bitmapOrder } });
  const values = new Map<string, Value>();
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
    values.set(`${name}/version`, event.version);
    if (event.fields) flatten(event.fields, name, values);
    else if (event.record === 'full') {
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
  return { values, walker, issues };
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

/**
 * Compares sections, versions and fields of two streams, and with `ram` every page.
 * @param ignore patterns of paths that do not count
 */
export async function compare(
  a: Input,
  b: Input,
  options: { ram: boolean; ignore: readonly string[] },
  tick: (position: number) => void,
): Promise<Comparison> {
  const seed = randomBytes(8).readBigUInt64LE();
  const left = await content(a, options.ram, seed, tick);
  const right = await content(b, options.ram, seed, () => {});
  const ignored = options.ignore.length > 0 ? globs(options.ignore) : () => false;
  const differences: Difference[] = [];
  // Where one of the two is no stream at all, its issues say so; a list of all that the other one has would bury that.
  const comparable = left.values.size > 0 && right.values.size > 0;
  for (const path of comparable ? new Set([...left.values.keys(), ...right.values.keys()]) : []) {
    if (ignored(path)) continue;
    const [x, y] = [left.values.get(path), right.values.get(path)];
    if (x === undefined) differences.push({ path, kind: 'only-b', b: y! });
    else if (y === undefined) differences.push({ path, kind: 'only-a', a: x });
    else if (!same(x, y)) differences.push({ path, kind: 'changed', a: x, b: y });
  }
  const ram = options.ram ? pages(left.walker, right.walker) : undefined;
  return {
    equal: comparable && differences.length === 0 && !ram?.some((r) => r.changed > 0 || r.unknown > 0),
    differences,
    ...(ram && { ram }),
    issues: { a: left.issues, b: right.issues },
  };
}
