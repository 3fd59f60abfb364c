import fc from 'fast-check';
import { VioError } from '../../src/common/errors.js';
import { type Aperture, entryLimit, type Reserved } from '../../src/dma/aperture.js';
import { plan } from '../../src/dma/layout.js';
import type { Extent } from '../../src/dma/space.js';
import { type MapSpec, parseSpecs } from '../../src/dma/spec.js';

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

function check(holds: boolean, what: string): void {
  if (!holds) throw new Error(what);
}

/** Random sets of mappings in a small world: a plan exactly if exhaustive search finds one, without overlap, the same for every order. */
export const planProperty = fc.property(
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
        if (!(err instanceof VioError)) throw err;
        return undefined;
      }
    };
    const aligned = (w: Wish) => w.at === undefined || (FIRST + BigInt(w.at)) % BigInt(w.align) === 0n;
    const possible = wishes.every(aligned) && exists(free, wishes);
    const found = attempt(specs);
    check((found !== undefined) === possible, possible ? 'a layout exists and was refused' : 'there is no layout');
    const other = attempt(shuffled.map(([, spec]) => spec));
    const byName = (maps: typeof found) =>
      maps
        ?.map((map) => `${map.name} ${map.iova}`)
        .sort()
        .join();
    check(byName(other) === byName(found), 'the order of the list decides');
    const room = [...free];
    found?.forEach(({ iova, size }, i) => {
      for (let page = iova / PAGE; page < (iova + size) / PAGE; page++) {
        check(room[Number(page - FIRST)] === true, 'an overlap, or a place that is not free');
        room[Number(page - FIRST)] = false;
      }
      const w = wishes[i]!;
      check((iova / PAGE) % BigInt(w.align) === 0n, 'not aligned');
      check(!w.low || iova + size <= FOUR_G, 'not below 4 GiB');
      check(w.at === undefined || iova / PAGE - FIRST === BigInt(w.at), 'not at its address');
    });
  },
);
