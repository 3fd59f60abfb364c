import fc from 'fast-check';
import type { Aperture, Reserved } from '../../../src/dma/aperture.js';
import { entryLimit } from '../../../src/dma/aperture.js';
import { plan } from '../../../src/dma/layout.js';
import { pack } from '../../../src/dma/packing.js';
import type { Extent } from '../../../src/dma/space.js';
import { type MapSpec, parseSpecs } from '../../../src/dma/spec.js';

const PAGE = 4096n;
const FOUR_G = 1n << 32n;
/** Pages around 4 GiB that the sets below play with: a world small enough to try every place. */
const WORLD = 48;
const FIRST = FOUR_G / PAGE - 24n;

interface Wish {
  size: number;
  align: number;
  low: boolean;
  at: number | undefined;
}

/** Whether a layout exists, by trying every page for every mapping. */
function exists(free: readonly boolean[], wishes: readonly Wish[]): boolean {
  const [wish, ...rest] = wishes;
  if (!wish) return true;
  for (let at = 0; at + wish.size <= WORLD; at++) {
    if (wish.at !== undefined && at !== wish.at) continue;
    if ((Number(FIRST % BigInt(wish.align)) + at) % wish.align !== 0) continue;
    if (wish.low && FIRST + BigInt(at + wish.size) > FOUR_G / PAGE) continue;
    const taken = free.slice(at, at + wish.size);
    if (taken.includes(false)) continue;
    const left = free.map((is, i) => is && !(i >= at && i < at + wish.size));
    if (exists(left, rest)) return true;
  }
  return false;
}

const wish = fc.record({
  size: fc.integer({ min: 1, max: 12 }),
  align: fc.constantFrom(1, 1, 2, 4, 8),
  low: fc.boolean(),
  at: fc.option(fc.integer({ min: 0, max: WORLD - 1 }), { nil: undefined, freq: 8 }),
});

const specOf = (w: Wish, i: number): MapSpec =>
  parseSpecs([
    `m${i}=${BigInt(w.size) * PAGE}${w.align > 1 ? `,align=${BigInt(w.align) * PAGE}` : ''}${w.low ? ',below4g' : ''}${
      w.at === undefined ? '' : `,iova=0x${((FIRST + BigInt(w.at)) * PAGE).toString(16)}`
    }`,
  ])[0]!;

/** The aperture in which the pages of the world are free that the mask says. */
function apertureOf(free: readonly boolean[]): Aperture {
  const ranges: Extent[] = [];
  for (let i = 0; i < WORLD; i++) {
    if (!free[i]) continue;
    const start = (FIRST + BigInt(i)) * PAGE;
    const last = ranges.at(-1);
    if (last && last.end + 1n === start) last.end = start + PAGE - 1n;
    else ranges.push({ start, end: start + PAGE - 1n });
  }
  return { ranges, reserved: [] as Reserved[], pages: [PAGE, 4n * PAGE, 16n * PAGE], limit: entryLimit };
}

test('small sets: a plan exactly if there is one, without overlap, the same for every order', () => {
  fc.assert(
    fc.property(
      fc.array(fc.record({ free: fc.boolean(), length: fc.integer({ min: 3, max: 14 }) }), { minLength: 4, maxLength: 10 }),
      fc.array(wish, { minLength: 1, maxLength: 6 }),
      fc.infiniteStream(fc.nat()),
      (runs, wishes, randomness) => {
        const free = runs.flatMap(({ free, length }) => Array.from({ length }, () => free)).slice(0, WORLD);
        while (free.length < WORLD) free.push(false);
        const specs = wishes.map(specOf);
        const shuffled = specs.map((spec) => [randomness.next().value, spec] as const).sort((a, b) => a[0] - b[0]);
        const attempt = (list: MapSpec[]) => {
          try {
            return plan(apertureOf(free), list).maps;
          } catch (err) {
            expect(err).toMatchObject({ exit: expect.any(Number) });
            return undefined;
          }
        };
        const aligned = (w: Wish) => w.at === undefined || (FIRST + BigInt(w.at)) % BigInt(w.align) === 0n;
        const possible = wishes.every(aligned) && exists(free, wishes);
        const found = attempt(specs);
        expect(found !== undefined).toBe(possible);
        const other = attempt(shuffled.map(([, spec]) => spec));
        const byName = (maps: typeof found) => maps && Object.fromEntries(maps.map((map) => [map.name, map.iova]));
        expect(byName(other)).toEqual(byName(found));
        const room = [...free];
        found?.forEach(({ iova, size }, i) => {
          for (let page = iova / PAGE; page < (iova + size) / PAGE; page++) {
            expect(room[Number(page - FIRST)]).toBe(true);
            room[Number(page - FIRST)] = false;
          }
          const w = wishes[i]!;
          expect((iova / PAGE) % BigInt(w.align)).toBe(0n);
          if (w.low) expect(iova + size <= FOUR_G).toBe(true);
          if (w.at !== undefined) expect(iova / PAGE - FIRST).toBe(BigInt(w.at));
        });
      },
    ),
    { numRuns: Number(process.env.PACKING_RUNS ?? 400) },
  );
});

test('a refusal says whether there is no layout or none was found, and measures the class that failed', () => {
  const refusal = (aperture: Aperture, ...texts: string[]) => {
    try {
      plan(aperture, parseSpecs(texts));
    } catch (err) {
      return err;
    }
    throw new Error('not refused');
  };
  const low: Aperture = { ranges: [{ start: 0n, end: (1n << 36n) - 1n }], reserved: [], pages: [PAGE], limit: entryLimit };
  expect(refusal(low, 'a=3G,below4g', 'b=2G,below4g')).toMatchObject({
    exit: 3,
    message: expect.stringMatching(/^mapping b: 2G do not fit below 4 GiB: 1G are free, .* in one piece; no layout exists$/),
    details: { proven: true, free: 2 ** 30, largest: 2 ** 30 - 65536 },
  });
  // Thirty holes for one item each, and thirty-one items: counting pages does not tell, and there are too many sets to try.
  const holes = Array.from({ length: 30 }, (_, i) => ({ start: i * 1000, end: i * 1000 + 100 }));
  const items = Array.from({ length: 31 }, (_, i) => ({ size: 51 + i, align: 1, limit: Number.POSITIVE_INFINITY }));
  expect(
    pack(
      holes,
      items,
      items.map(() => 1),
    ),
  ).toMatchObject({ places: undefined, proven: false });
});

test('large sets take no longer than their number', () => {
  const low: Aperture = { ranges: [{ start: 0n, end: (1n << 48n) - 1n }], reserved: [], pages: [PAGE, 512n * PAGE], limit: entryLimit };
  const specs = parseSpecs(Array.from({ length: 65_535 }, (_, i) => `m${i}=${4 * (1 + (i % 5))}K${i % 7 === 0 ? ',below4g' : ''}`));
  const { maps } = plan(low, specs);
  expect(new Set(maps.map(({ iova }) => iova)).size).toBe(65_535);
});
