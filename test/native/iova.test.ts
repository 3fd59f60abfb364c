import { constants } from 'node:os';
import fc from 'fast-check';
import { Batch, type Extent, IovaSpace, type MapRequest, type Outcome } from '../../src/dma/space.js';

const Errno = constants.errno;

const PAGE = 0x1000n;
/** A small machine: 192 pages, pages of 4 KiB, 16 KiB and 64 KiB, a reserved window in the middle. */
const PAGES = [PAGE, 4n * PAGE, 16n * PAGE];
const RANGES: Extent[] = [
  { start: 0n, end: 100n * PAGE - 1n },
  { start: 107n * PAGE, end: 192n * PAGE - 1n },
];
const FLOOR = 2n * PAGE;

interface Live {
  iova: bigint;
  size: bigint;
  va: bigint | undefined;
  temporary: boolean;
}

/** The specification, page by page, with no index at all. */
class Oracle {
  live: Live[] = [];

  free(start: bigint, size: bigint): boolean {
    const end = start + size - 1n;
    return (
      RANGES.some((range) => range.start <= start && end <= range.end) &&
      !this.live.some((m) => m.iova <= end && start <= m.iova + m.size - 1n)
    );
  }

  /** Every address at which the request could go with this alignment, lowest first. */
  places(request: MapRequest, align: bigint): bigint[] {
    const phase = request.va !== undefined && request.align === undefined ? request.va % align : 0n;
    const places: bigint[] = [];
    for (let at = phase; at < 192n * PAGE; at += align) {
      if (at < FLOOR || (request.below4G && at + request.size > 1n << 32n)) continue;
      if (this.free(at, request.size)) places.push(at);
    }
    return places;
  }

  /** Alignments in the order of preference. */
  aligns(request: MapRequest): bigint[] {
    if (request.align !== undefined) return [request.align > PAGE ? request.align : PAGE];
    return PAGES.filter((page) => page <= request.size).reverse();
  }

  overlapVa(request: MapRequest): Live | undefined {
    return this.live.find(
      (m) => request.va !== undefined && m.va !== undefined && m.va < request.va + request.size && request.va < m.va + m.size,
    );
  }
}

const pages = (min: number, max: number) => fc.integer({ min, max }).map((n) => BigInt(n) * PAGE);
const request: fc.Arbitrary<MapRequest> = fc.record(
  {
    size: fc.oneof({ arbitrary: pages(1, 3), weight: 4 }, pages(4, 40)),
    iova: pages(0, 200),
    align: fc.constantFrom(PAGE, 2n * PAGE, 8n * PAGE, 16n * PAGE, 32n * PAGE),
    va: pages(1000, 1400),
  },
  { requiredKeys: ['size'] },
);
type Step = { map: MapRequest } | { unmap: number } | { reset: true } | { find: bigint; size: bigint };
const step = (temporary: boolean): fc.Arbitrary<Step> =>
  fc.oneof(
    { arbitrary: request.map((map) => ({ map })), weight: 6 },
    {
      arbitrary: request.map((map) => ({ map: temporary ? { ...map, iova: undefined, temporary: true } : map })),
      weight: temporary ? 6 : 0,
    },
    { arbitrary: fc.nat(50).map((unmap) => ({ unmap })), weight: 5 },
    { arbitrary: fc.record({ find: pages(990, 1410), size: pages(1, 8) }), weight: 2 },
    { arbitrary: fc.constant({ reset: true as const }), weight: temporary ? 1 : 0 },
  );

/** Runs the steps through both and compares; the allocator sees the map steps of a run in one batch each. */
function compare(steps: Step[], chunk: bigint, exact: boolean): void {
  const space = new IovaSpace(RANGES, PAGES, { floor: FLOOR, chunk });
  const oracle = new Oracle();
  for (const s of steps) {
    if ('reset' in s) {
      expect(space.run(new Batch().reset())[0]!.error).toBe(0);
      oracle.live = oracle.live.filter((m) => !m.temporary);
    } else if ('unmap' in s) {
      const victim = oracle.live[s.unmap % Math.max(1, oracle.live.length)];
      if (!victim) continue;
      expect(space.unmap(victim.iova)).toEqual({ error: 0, at: victim.iova, extra: victim.size });
      oracle.live.splice(oracle.live.indexOf(victim), 1);
      expect(space.unmap(victim.iova).error).toBe(Errno.ENOENT);
    } else if ('find' in s) {
      const hit = oracle.live.find((m) => m.va !== undefined && m.va <= s.find && s.find + s.size <= m.va + m.size);
      const [byVa] = space.run(new Batch().findVa(s.find, s.size)) as [Outcome];
      expect(byVa.error).toBe(hit ? 0 : Errno.ENOENT);
      if (hit) {
        expect(byVa.at).toBe(hit.iova + s.find - hit.va!);
        expect(space.run(new Batch().findIova(byVa.at, s.size))[0]).toMatchObject({ error: 0, at: s.find });
      }
    } else {
      check(space, oracle, s.map, exact);
    }
  }
  const byIova = (a: Live, b: Live) => (a.iova < b.iova ? -1 : 1);
  expect(space.mappings.sort(byIova)).toEqual(oracle.live.sort(byIova));
  const used = oracle.live.reduce((sum, m) => sum + m.size, 0n);
  expect(space.measure()).toMatchObject({ mappings: oracle.live.length, bytes: used, free: 185n * PAGE - used });
}

function check(space: IovaSpace, oracle: Oracle, map: MapRequest, exact: boolean): void {
  const outcome = space.map(map);
  const clash = oracle.overlapVa(map);
  if (clash) {
    expect(outcome.error).toBe(Errno.EEXIST);
    return;
  }
  if (map.iova !== undefined) {
    const align = map.align ?? PAGE;
    if (map.iova % align !== 0n) {
      expect(outcome.error).toBe(Errno.EINVAL);
      return;
    }
    expect(outcome.error === 0).toBe(oracle.free(map.iova, map.size));
    if (outcome.error === Errno.EEXIST) expect(oracle.live.map((m) => m.iova)).toContain(outcome.at);
    if (outcome.error !== 0) return;
    expect(outcome.at).toBe(map.iova);
  } else {
    const places = oracle.aligns(map).map((align) => oracle.places(map, align));
    const best = places.find((list) => list.length > 0);
    expect(outcome.error).toBe(best ? 0 : Errno.ENOSPC);
    if (!best) return;
    if (exact) expect(outcome.at).toBe(best[0]);
    else expect(places.flat()).toContain(outcome.at);
  }
  oracle.live.push({ iova: outcome.at, size: map.size, va: map.va, temporary: map.temporary ?? false });
}

describe('the allocator against a brute-force oracle', () => {
  test('persistent mappings: the very address, first fit by the best alignment', () => {
    fc.assert(
      fc.property(fc.array(step(false), { maxLength: 120 }), (steps) => compare(steps, PAGE, true)),
      { numRuns: 400 },
    );
  });

  test('with temporary mappings: a fitting address exactly when there is one', () => {
    fc.assert(
      fc.property(fc.array(step(true), { maxLength: 120 }), fc.constantFrom(PAGE, 8n * PAGE, 32n * PAGE), (steps, chunk) =>
        compare(steps, chunk, false),
      ),
      { numRuns: 400 },
    );
  });

  test('same requests, same addresses', () => {
    fc.assert(
      fc.property(fc.array(request, { maxLength: 60 }), (requests) => {
        const batch = () => requests.reduce((all, r) => all.map(r), new Batch());
        const one = new IovaSpace(RANGES, PAGES, { floor: FLOOR }).run(batch());
        const two = new IovaSpace(RANGES, PAGES, { floor: FLOOR });
        expect(requests.map((r) => two.map(r))).toEqual(one);
      }),
      { numRuns: 100 },
    );
  });
});

const x86 = [0x1000n, 0x20_0000n, 0x4000_0000n];
const vtd: Extent[] = [
  { start: 0n, end: 0xfedf_ffffn },
  { start: 0xfef0_0000n, end: 0xffff_ffff_ffffn },
];

describe('fixed mappings far apart, against a list', () => {
  const top = 2n ** 64n - PAGE; // the last page is never given
  /** Page numbers on both sides of every power of 64: there, words of an index of pages and its levels begin. */
  const edges = [...Array(9).keys()].flatMap((level) => [-2n, -1n, 0n, 1n, 63n, 64n].map((by) => 64n ** BigInt(level) + by));
  const place = fc
    .oneof(
      fc.constantFrom(...edges),
      fc.bigInt({ min: 0n, max: 2n ** 52n - 2n }).map((n) => n & ~0xffn),
    )
    .map((page) => page * PAGE);
  const size = fc.oneof(
    pages(1, 3),
    fc.nat(8).map((level) => 64n ** BigInt(level) * PAGE),
  );
  const spot = fc
    .record({ iova: place, size, va: place })
    .filter((m) => m.iova >= 0n && m.va >= 0n && m.iova + m.size <= top && m.va + m.size <= top);
  const step = fc.oneof(
    { arbitrary: spot.map((map) => ({ map })), weight: 4 },
    { arbitrary: fc.nat(100).map((unmap) => ({ unmap })), weight: 2 },
    { arbitrary: fc.constant({ reset: true }), weight: 1 },
  );
  const overlap = (a: bigint, aSize: bigint, b: bigint, bSize: bigint): boolean => a < b + bSize && b < a + aSize;

  test.each([[[PAGE]], [x86], [[0x10n]]])('pages of %j', (sizes) => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const space = new IovaSpace([{ start: 0n, end: 2n ** 64n - 1n }], sizes, { floor: 0n });
        let live: { iova: bigint; size: bigint; va: bigint }[] = [];
        for (const one of steps) {
          if ('map' in one) {
            const { iova, size, va } = one.map;
            const inTheWay = live.filter((m) => overlap(m.iova, m.size, iova, size));
            const used = live.some((m) => overlap(m.va, m.size, va, size));
            const { error, at } = space.map(one.map);
            expect([one.map, error !== 0]).toEqual([one.map, used || inTheWay.length > 0]);
            if (error === 0) live.push({ iova, size, va });
            else if (!used) expect(inTheWay.map((m) => m.iova)).toContain(at);
          } else if ('unmap' in one) {
            const [gone] = live.splice(one.unmap % Math.max(1, live.length), 1);
            if (gone) expect(space.unmap(gone.iova)).toMatchObject({ error: 0, extra: gone.size });
          } else {
            for (const { iova } of live) expect(space.unmap(iova).error).toBe(0);
            live = [];
          }
          for (const { iova, size, va } of live) {
            const ask = new Batch()
              .findVa(va, size)
              .findIova(iova + size - sizes[0]!, sizes[0]!)
              .findVa(va, size + sizes[0]!);
            const [whole, last, more] = space.run(ask) as [Outcome, Outcome, Outcome];
            expect([whole, last]).toMatchObject([
              { error: 0, at: iova },
              { error: 0, at: va + size - sizes[0]! },
            ]);
            expect(more.error).toBe(Errno.ENOENT);
          }
        }
        const byIova = (a: { iova: bigint }, b: { iova: bigint }) => (a.iova < b.iova ? -1 : 1);
        expect(space.mappings.map(({ iova, size, va }) => ({ iova, size, va })).sort(byIova)).toEqual(live.sort(byIova));
      }),
      { numRuns: 150 },
    );
  });

  test('addresses that crowd in the hash table come and go', () => {
    const mask = 2n ** 64n - 1n;
    const crowd: bigint[] = [];
    for (let page = 1n; crowd.length < 1500; page++) if (((page * 0x9e37_79b9_7f4a_7c15n) & mask) >> 57n === 5n) crowd.push(page * PAGE);
    const steps = fc.array(fc.tuple(fc.constantFrom('map', 'unmap'), fc.nat(1499), fc.integer({ min: 1, max: 700 })), {
      minLength: 8,
      maxLength: 16,
    });
    fc.assert(
      fc.property(steps, (steps) => {
        const space = new IovaSpace([{ start: 0n, end: 2n ** 64n - 1n }], [PAGE], { floor: 0n });
        const live = new Set<bigint>();
        for (const [what, from, count] of steps) {
          const some = Array.from({ length: count }, (_, i) => crowd[(from + 7 * i) % crowd.length]!);
          const batch = new Batch();
          for (const at of some) what === 'map' ? batch.map({ iova: at, va: at, size: PAGE }) : batch.unmap(at);
          const errors = some.map((at) => {
            if (what === 'unmap') return live.delete(at) ? 0 : Errno.ENOENT;
            if (live.has(at)) return Errno.EEXIST;
            live.add(at);
            return 0;
          });
          expect(space.run(batch).map((outcome) => outcome.error)).toEqual(errors);
          const ask = new Batch();
          for (const at of crowd) ask.findVa(at, PAGE);
          expect(space.run(ask).map((outcome) => outcome.error)).toEqual(crowd.map((at) => (live.has(at) ? 0 : Errno.ENOENT)));
        }
        expect(space.mappings.map(({ iova }) => iova)).toEqual([...live].sort((a, b) => (a < b ? -1 : 1)));
      }),
      { numRuns: 20 },
    );
  });

  test('exhausted, and given back in any order, the space is one run again', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 300, maxLength: 600 }), fc.integer(), (sizes, seed) => {
        const total = 4096n;
        const space = new IovaSpace([{ start: 0n, end: total * PAGE - 1n }], [PAGE], { floor: 0n });
        const got: bigint[] = [];
        for (const n of sizes) {
          const { error, at } = space.map({ size: BigInt(n) * PAGE });
          if (error === 0) got.push(at);
          else expect(space.measure().largest).toBeLessThan(BigInt(n) * PAGE);
        }
        for (let at = 0n; at < total; at++) {
          const one = space.map({ size: PAGE });
          if (one.error !== 0) break;
          got.push(one.at);
        }
        expect(space.measure()).toMatchObject({ free: 0n, largest: 0n });
        for (let x = seed >>> 0; got.length > 0; x = (x * 1664525 + 1013904223) >>> 0)
          expect(space.unmap(got.splice(x % got.length, 1)[0]!).error).toBe(0);
        expect(space.measure()).toMatchObject({ mappings: 0, bytes: 0n, free: total * PAGE, largest: total * PAGE });
      }),
      { numRuns: 20 },
    );
  });
});

describe('a hundred holes that no aligned request fits', () => {
  const total = 512;
  const small = fc.integer({ min: 1, max: 6 });
  const step = fc.record(
    { size: small, align: fc.constantFrom(1, 2, 4, 8), va: fc.nat(63), temporary: fc.boolean() },
    { requiredKeys: ['size'] },
  );
  const lengths = fc.array(small, { minLength: 100, maxLength: 100 });

  test.each([[[PAGE]], [[PAGE, 4n * PAGE]]])('pages of %j: what is free is what no mapping has', (sizes) => {
    fc.assert(
      fc.property(lengths, fc.array(step, { maxLength: 100 }), fc.array(fc.nat(), { maxLength: 100 }), (fill, steps, victims) => {
        const space = new IovaSpace([{ start: 0n, end: BigInt(total) * PAGE - 1n }], sizes, { floor: 0n, chunk: 16n * PAGE });
        const used = new Array<boolean>(total).fill(false);
        const live: bigint[] = [];
        const mark = (at: bigint, size: bigint, now: boolean): void => {
          const [from, to] = [Number(at / PAGE), Number((at + size) / PAGE)];
          expect(used.slice(from, to)).toEqual(new Array(Number(size / PAGE)).fill(!now));
          used.fill(now, from, to);
        };
        const map = (request: MapRequest): boolean => {
          const { error, at } = space.map(request);
          if (error !== 0) return false;
          mark(at, request.size, true);
          live.push(at);
          return true;
        };
        for (let page = 0n; page < 200n; page += 2n) map({ size: PAGE, iova: page * PAGE });
        fill.forEach((size, i) => {
          map({ size: BigInt(size) * PAGE, align: 2n * PAGE, temporary: i % 8 === 0 });
        });
        steps.forEach(({ size, align, va, temporary }, i) => {
          const victim = victims[i];
          if (victim !== undefined && live.length > 0) {
            const [gone] = live.splice(victim % live.length, 1);
            mark(gone!, space.unmap(gone!).extra, false);
          }
          map({
            size: BigInt(size) * PAGE,
            align: align === undefined ? undefined : BigInt(align) * PAGE,
            va: va === undefined ? undefined : BigInt(70 * i + va) * PAGE,
            temporary,
          });
        });
        while (map({ size: PAGE }));
        expect(used.every(Boolean)).toBe(true);
        for (const at of live.splice(0)) mark(at, space.unmap(at).extra, false);
        while (map({ size: PAGE, temporary: true }));
        expect(live.length).toBe(total);
      }),
      { numRuns: 30 },
    );
  });
});

describe('the allocator on a real layout', () => {
  test('many levels deep: 70,000 mappings come and go, and all space comes back', () => {
    const space = new IovaSpace(vtd, x86);
    const fill = new Batch(70_000);
    for (let i = 0n; i < 70_000n; i++) fill.map({ size: PAGE, va: 0x7000_0000_0000n + i * PAGE });
    const got = space.run(fill);
    expect(got.every((o, i) => o.error === 0 && o.at === 0x10000n + BigInt(i) * PAGE)).toBe(true);
    const odd = new Batch(35_000);
    for (let i = 1; i < 70_000; i += 2) odd.unmap(got[i]!.at);
    expect(space.run(odd).every((o) => o.error === 0)).toBe(true);
    expect(space.map({ size: 2n * PAGE }).at).toBe(0x10000n + 69_999n * PAGE);
    expect(space.map({ size: PAGE }).at).toBe(0x11000n);
    const rest = new Batch();
    for (const { iova } of space.mappings) rest.unmap(iova);
    space.run(rest);
    expect(space.measure()).toMatchObject({ mappings: 0, bytes: 0n, largest: 0x1_0000_0000_0000n - 0xfef0_0000n });
  });

  test('huge-page phase: the device address has the offset of the processor address within 2 MiB', () => {
    const space = new IovaSpace(vtd, x86);
    const { at } = space.map({ size: 6n << 20n, va: 0x7f12_3456_7000n });
    expect(at % 0x20_0000n).toBe(0x7f12_3456_7000n % 0x20_0000n);
  });

  test('an alignment that the tree does not index: short misfits are passed over, and tried only when nothing else is left', () => {
    const space = new IovaSpace([{ start: 0n, end: (1n << 20n) - 1n }], [PAGE], { floor: 0n });
    // Holes of two pages at odd page numbers, as far as the space goes: none takes two aligned pages.
    for (let page = 0n; page < 256n; page += 3n) space.map({ size: PAGE, iova: page * PAGE });
    expect(space.map({ size: 2n * PAGE, align: 2n * PAGE }).at).toBe(4n * PAGE); // pages 4 and 5
    for (let i = 0; i < 200; i++) space.map({ size: 2n * PAGE, align: 2n * PAGE });
    expect(space.map({ size: 2n * PAGE, align: 2n * PAGE }).error).toBe(Errno.ENOSPC);
    expect(space.map({ size: 2n * PAGE }).at).toBe(PAGE); // pages 1 and 2 are still free
    expect(() => new IovaSpace([], [8n])).toThrow(expect.objectContaining({ code: 'EINVAL' }));
  });

  test('temporary mappings come from the top and are reset together, persistent ones stay', () => {
    const space = new IovaSpace(vtd, x86);
    const low = space.map({ size: 0x1000n });
    const high = space.map({ size: 0x1000n, temporary: true });
    expect(high.at).toBe(0xffff_ffff_f000n);
    const batch = new Batch(20_000);
    for (let i = 0; i < 20_000; i++) batch.map({ size: 0x3000n, temporary: true });
    space.run(batch.reset());
    expect(space.mappings.map((m) => m.iova)).toEqual([low.at]);
    expect(space.map({ size: 0x1000n, temporary: true }).at).toBe(0xffff_ffff_f000n);
  });

  test('32-bit devices stay below 4 GiB and out of the window; a full low space is an error, not a high address', () => {
    const space = new IovaSpace(vtd, x86);
    const batch = new Batch();
    for (let i = 0; i < 5; i++) batch.map({ size: 1n << 30n, below4G: true });
    expect(space.run(batch).map((o) => [o.error, o.at])).toEqual([
      [0, 0x4000_0000n],
      [0, 0x8000_0000n],
      [Errno.ENOSPC, 0n],
      [Errno.ENOSPC, 0n],
      [Errno.ENOSPC, 0n],
    ]);
  });

  test('what is in the way is named by its first address', () => {
    const space = new IovaSpace(vtd, x86);
    space.map({ size: 0x4000n, iova: 0x100000n });
    expect(space.map({ size: 0x10000n, iova: 0xf8000n })).toMatchObject({ error: Errno.EEXIST, at: 0x100000n });
    expect(space.map({ size: 0x2000n, iova: 0xfedf_f000n })).toMatchObject({ error: Errno.EADDRNOTAVAIL, at: 0xfee0_0000n });
    expect(space.map({ size: 0x1000n, iova: 1n << 48n })).toMatchObject({ error: Errno.EADDRNOTAVAIL, at: 1n << 48n });
    expect(space.map({ size: 0x2000n, iova: 0xffff_ffff_ffff_f000n })).toMatchObject({ error: Errno.EOVERFLOW });
    expect(space.map({ size: 0x800n })).toMatchObject({ error: Errno.EINVAL });
    expect(space.map({ size: 0n })).toMatchObject({ error: Errno.EINVAL });
    expect(space.map({ size: 0x1000n, align: 0x3000n })).toMatchObject({ error: Errno.EINVAL });
  });

  test('a space that ends at 2^64, an empty one, and overlapping ranges', () => {
    const top = new IovaSpace([{ start: 0n, end: 0xffff_ffff_ffff_ffffn }], x86);
    expect(top.map({ size: 0x1000n, temporary: true }).at).toBe(0xffff_ffff_ffff_e000n);
    expect(top.map({ size: 0x2000n, iova: 0xffff_ffff_ffff_d000n })).toMatchObject({ error: Errno.EEXIST });
    expect(new IovaSpace([], x86).map({ size: 0x1000n }).error).toBe(Errno.ENOSPC);
    const ranges = [
      { start: 0x3000n, end: 0x8fffn },
      { start: 0x1800n, end: 0x4fffn },
      { start: 0x9000n, end: 0x9ffen },
    ];
    expect(new IovaSpace(ranges, x86).ranges).toEqual([{ start: 0x2000n, end: 0x8fffn }]);
  });
});
