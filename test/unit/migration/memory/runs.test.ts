import fs from 'node:fs';
import path from 'node:path';
import fc from 'fast-check';
import { openInput } from '../../../../src/migration/containers/input.js';
import { Walker } from '../../../../src/migration/walk.js';
import { native } from '../../../../src/native/index.js';
import * as m from '../../../support/migration.js';

/** A run of records of one kind whose pages follow each other. */
interface Run {
  kind: 'zero' | 'page';
  first: number;
  count: number;
}
const PAGES = 700;
const runs: fc.Arbitrary<Run[]> = fc.array(
  fc.record({
    kind: fc.constantFrom('zero' as const, 'page' as const),
    first: fc.nat(PAGES - 1),
    count: fc.oneof(fc.integer({ min: 1, max: 5 }), fc.integer({ min: 1, max: 300 })),
  }),
  { minLength: 1, maxLength: 12 },
);

/** What the records mean, page by page. */
function model(list: readonly Run[]) {
  const seen = new Set<number>();
  const content = new Set<number>();
  const counts = { zero: 0, normal: 0, resent: 0 };
  for (const { kind, first, count } of list) {
    for (let page = first; page < Math.min(first + count, PAGES); page++) {
      if (seen.has(page)) counts.resent += 1;
      seen.add(page);
      if (kind === 'zero') content.delete(page);
      else content.add(page);
      counts[kind === 'zero' ? 'zero' : 'normal'] += 1;
    }
  }
  return { ...counts, seen: seen.size, content: content.size, pages: [...content].sort((a, b) => a - b) };
}

const bytes = (list: readonly Run[]): Buffer =>
  m.cat(
    m.zero(0, 'b'),
    ...list.flatMap(({ kind, first, count }) =>
      Array.from({ length: Math.max(0, Math.min(first + count, PAGES) - first) }, (_, i) =>
        kind === 'zero' ? m.zero((first + i) * m.PAGE) : m.page((first + i) * m.PAGE, m.pattern(first + i)),
      ),
    ),
    m.EOS,
  );

// Read in buffers of 256 KiB (pieces of a file), so that runs are cut at any record; the model never heard of runs.
test('runs of records count as their records do, read or extracted', () =>
  m.inFolder((dir) => {
    const n = native().migration;
    fc.assert(
      fc.property(runs, (list) => {
        const file = path.join(dir, 'f');
        const stream = bytes(list);
        fs.writeFileSync(file, stream);
        const expected = model([{ kind: 'zero', first: 0, count: 1 }, ...list]);
        // Without room to note which page came, the memory must come out the same.
        for (const [extracted, pageMaps] of [[false], [true], [true, 0], [true, 600]] as [boolean, number?][]) {
          const fd = fs.openSync(file, 'r');
          const out = fs.openSync(path.join(dir, 'out'), 'w+');
          try {
            const source = n.openSource({ fd, kind: 'extents', start: 0, extents: BigInt64Array.from([0n, BigInt(stream.length), 0n]) });
            const ram = n.newRam({ pageSize: m.PAGE, ...(pageMaps !== undefined && { pageMaps }) });
            n.addBlock(ram, 'b', BigInt(PAGES * m.PAGE));
            if (extracted) n.extractTo(ram, out, BigInt64Array.from([0n, 0n, BigInt(PAGES * m.PAGE), 0n]));
            let step = n.stepRam(ram, source, 1 << 20);
            while (step.stop === 'budget') step = n.stepRam(ram, source, 1 << 20);
            expect(step).toMatchObject({ stop: 'eos', position: stream.length });
            const [state] = n.blockStates(ram);
            const { pages, ...counts } = expected;
            if (pageMaps === undefined) {
              expect(state).toMatchObject({ ...counts, tracked: true });
              const found = n
                .pageRuns(ram, 0, 'content', 0, PAGES)
                .flatMap(([from, to]) => Array.from({ length: to - from }, (_, i) => from + i));
              expect(found).toEqual(pages);
            } else {
              expect(state).toMatchObject({
                zero: counts.zero,
                normal: counts.normal,
                tracked: pageMaps > 0 && pages.length === 0 && counts.normal === 0,
              });
            }
            if (!extracted) continue;
            fs.ftruncateSync(out, PAGES * m.PAGE);
            const memory = fs.readFileSync(path.join(dir, 'out'));
            const same = Array.from({ length: PAGES }, (_, page) => {
              const want = pages.includes(page) ? m.pattern(page) : Buffer.alloc(m.PAGE);
              return memory.subarray(page * m.PAGE, (page + 1) * m.PAGE).equals(want);
            });
            expect(same.indexOf(false)).toBe(-1);
          } finally {
            fs.closeSync(fd);
            fs.closeSync(out);
          }
        }
      }),
      { numRuns: 12 },
    );
  }));

test('a run stops at the end of its block and at a fill byte', () =>
  m.inFolder((dir) => {
    const n = native().migration;
    const file = path.join(dir, 'f');
    const list = [0, 1, 2, 3, 4, 5, 6, 7].map((i) => m.zero(i * m.PAGE, i === 0 ? 'b' : undefined, i === 6 ? 0xaa : 0));
    fs.writeFileSync(file, m.cat(...list, m.zero(8 * m.PAGE), m.zero(9 * m.PAGE), m.EOS));
    const fd = fs.openSync(file, 'r');
    const ram = n.newRam({ pageSize: m.PAGE });
    n.addBlock(ram, 'b', BigInt(8 * m.PAGE));
    expect(n.stepRam(ram, n.openSource({ fd, kind: 'file', start: 0 }), 1 << 20).stop).toBe('eos');
    expect(n.ramIssues(ram).issues.map((i) => [i.fault, Number(i.page) / m.PAGE])).toEqual([
      [4, 6],
      [3, 8],
      [3, 9],
    ]);
    expect(n.blockStates(ram)[0]).toMatchObject({ zero: 7, normal: 1, seen: 8, content: 1 });
    fs.closeSync(fd);
  }));

test('stretches of 4096 pages that all came cost no room, and can be taken apart again', () =>
  m.inFolder((dir) => {
    const n = native().migration;
    const file = path.join(dir, 'f');
    const size = 1024;
    const pages = 3 * 4096;
    const page = (i: number, fill: number, name?: string) => m.page(i * size, Buffer.alloc(size, fill), name);
    const all = Array.from({ length: pages }, (_, i) => page(i, 1 + (i % 255), i === 0 ? 'b' : undefined));
    fs.writeFileSync(file, m.cat(...all, m.zero(5000 * size), m.zero(5001 * size), page(5001, 7), m.EOS));
    const fd = fs.openSync(file, 'r');
    // Room for one stretch of each of the two maps and their pointers: six would be needed to keep them.
    const ram = n.newRam({ pageSize: size, pageMaps: 2 * 520 + 2 * 3 * 8 });
    n.addBlock(ram, 'b', BigInt(pages * size));
    const source = n.openSource({ fd, kind: 'file', start: 0 });
    expect(n.stepRam(ram, source, 1 << 30).stop).toBe('eos');
    expect(n.blockStates(ram)[0]).toMatchObject({ normal: pages + 1, zero: 2, resent: 3, seen: pages, content: pages - 1, tracked: true });
    expect(n.pageRuns(ram, 0, 'content', 0, 10)).toEqual([
      [0, 5000],
      [5001, pages],
    ]);
    fs.closeSync(fd);
  }));

test('a mapped-ram bitmap that is too scattered to be followed is an error, not a loss', () =>
  m.inFolder((dir) => {
    const file = path.join(dir, 'f');
    const bytes = m.mappedRam([{ name: 'pc.ram', pages: 192, set: Array.from({ length: 64 }, (_, i) => i * 3) }]);
    fs.writeFileSync(file, bytes);
    for (const [pageMaps, codes] of [
      [undefined, []],
      [600, ['ram-untracked']],
    ] as const) {
      const walker = new Walker(openInput(file).reader, { ram: { ...(pageMaps !== undefined && { pageMaps }) } });
      const errors = [...walker.walk()].flatMap((e) => (e.type === 'issue' && e.issue.code.startsWith('ram') ? [e.issue] : []));
      expect(errors.map(({ code, severity }) => [code, severity])).toEqual(codes.map((code) => [code, 'error']));
    }
  }));
