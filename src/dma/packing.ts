/**
 * Finds places for items in holes. All numbers are pages, so that addresses of 64 bits are exact in a double.
 *
 * Items can be pushed down in their holes, in the order of their places, without breaking alignment or limits; so there is a
 * layout exactly if one exists in which each item stands at the lowest aligned place behind its predecessor. That is what
 * the exact search looks at: for every hole and every set of items placed so far, the lowest end that the set can have.
 */

/** A free run of pages, its end excluded. */
export interface Hole {
  start: number;
  end: number;
}

export interface Item {
  size: number;
  /** Power of two. */
  align: number;
  /** Pages from here on are out of its reach. */
  limit: number;
}

/** Places in the order of the items; or why there are none: `proven` if no layout exists. */
export type Packing = { places: number[] } | { places: undefined; proven: boolean; steps: number };

/** Entries of the table of the exact search that it may take (about 40 MB). */
const mostStates = 1 << 22;
/** Holes that the heuristics look at in all. */
const mostSteps = 20_000_000;

const up = (at: number, align: number): number => Math.ceil(at / align) * align;
const down = (at: number, align: number): number => Math.floor(at / align) * align;

/** The lowest, or the highest, place of an item in a hole; undefined if there is none. */
function placeIn(hole: Hole, item: Item, top: boolean): number | undefined {
  const end = Math.min(hole.end, item.limit);
  const at = top ? down(end - item.size, item.align) : up(hole.start, item.align);
  return at >= hole.start && at + item.size <= end ? at : undefined;
}

/** Places items one after another by first or best fit. @returns undefined if one finds no place */
function greedy(
  holes: readonly Hole[],
  items: readonly Item[],
  order: readonly number[],
  fit: Fit,
  budget: { steps: number },
): number[] | undefined {
  const free = holes.map(({ start, end }) => ({ start, end }));
  const places = new Array<number>(items.length);
  for (const i of order) {
    const item = items[i]!;
    // what may lie anywhere leaves the low places to what may not
    const top = fit.top && item.limit === Number.POSITIVE_INFINITY;
    let best = -1;
    let at = 0;
    let waste = Number.POSITIVE_INFINITY;
    for (let n = 0; n < free.length; n++) {
      const h = top ? free.length - 1 - n : n;
      if (++budget.steps > mostSteps) return undefined;
      const place = placeIn(free[h]!, item, top);
      if (place === undefined) continue;
      const left = free[h]!.end - free[h]!.start - item.size;
      if (left >= waste) continue;
      [best, at, waste] = [h, place, left];
      if (!fit.best) break;
    }
    if (best < 0) return undefined;
    places[i] = at;
    const hole = free[best]!;
    const parts = [
      { start: hole.start, end: at },
      { start: at + item.size, end: hole.end },
    ];
    free.splice(best, 1, ...parts.filter(({ start, end }) => end > start));
  }
  return places;
}

interface Fit {
  best: boolean;
  top: boolean;
}

/** The nearer limit first; two that are infinite have no difference. */
const byLimit = (a: Item, b: Item): number => (a.limit === b.limit ? 0 : a.limit - b.limit);

/** Orders that serve the constrained and the large first. */
const itemOrders: readonly ((a: Item, b: Item) => number)[] = [
  (a, b) => byLimit(a, b) || b.align - a.align || b.size - a.size,
  (a, b) => byLimit(a, b) || b.size - a.size,
  (a, b) => b.size - a.size,
  (a, b) => b.align - a.align || b.size - a.size,
];

/** Layouts of the heuristics: several orders, from the bottom and from the top, first and best fit. */
function tryHeuristics(holes: readonly Hole[], items: readonly Item[], budget: { steps: number }): number[] | undefined {
  for (const compare of itemOrders) {
    const order = items.map((_, i) => i).sort((a, b) => compare(items[a]!, items[b]!) || a - b);
    for (const top of [false, true])
      for (const best of [true, false]) {
        const places = greedy(holes, items, order, { best, top }, budget);
        if (places) return places;
        if (budget.steps > mostSteps) return undefined;
      }
  }
  return undefined;
}

/** Equal items as one kind: where they stand in the list. */
function kindsOf(items: readonly Item[]): { item: Item; members: number[] }[] {
  const kinds = new Map<string, { item: Item; members: number[] }>();
  for (const [i, item] of items.entries()) {
    const key = `${item.size} ${item.align} ${item.limit}`;
    const kind = kinds.get(key) ?? { item, members: [] };
    kind.members.push(i);
    kinds.set(key, kind);
  }
  return [...kinds.values()];
}

const unreached = Number.POSITIVE_INFINITY;
const carried = -1;

/** The exact search. @returns undefined if it would take too much, null if no layout exists */
function exact(holes: readonly Hole[], items: readonly Item[], budget: { steps: number }): number[] | null | undefined {
  const kinds = kindsOf(items);
  // A state is how many of each kind have a place, as digits of a number: `weight` is the value of a kind's digit.
  const weights: number[] = [];
  let states = 1;
  for (const { members } of kinds) {
    weights.push(states);
    states *= members.length + 1;
    if (states * holes.length > mostStates) return undefined;
  }
  const ends = holes.map(() => new Float64Array(states).fill(unreached));
  const last = holes.map(() => new Int16Array(states).fill(carried));
  for (const [h, hole] of holes.entries()) {
    const end = ends[h]!;
    const before = ends[h - 1];
    for (let state = 0; state < states; state++) if (before ? before[state] !== unreached : state === 0) end[state] = hole.start;
    for (let state = 0; state < states; state++) {
      const from = end[state]!;
      if (from === unreached) continue;
      for (const [k, { item, members }] of kinds.entries()) {
        budget.steps++;
        if (Math.floor(state / weights[k]!) % (members.length + 1) === members.length) continue;
        const to = up(from, item.align) + item.size;
        const next = state + weights[k]!;
        if (to > hole.end || to > item.limit || to >= end[next]!) continue;
        end[next] = to;
        last[h]![next] = k;
      }
    }
  }
  let state = states - 1;
  if (ends.at(-1)?.[state] === unreached || holes.length === 0) return null;
  const places = new Array<number>(items.length);
  const used = kinds.map(() => 0);
  for (let h = holes.length - 1; h >= 0; ) {
    const k = last[h]![state]!;
    if (k === carried) {
      h--;
      continue;
    }
    const { item, members } = kinds[k]!;
    state -= weights[k]!;
    places[members[used[k]!++]!] = up(ends[h]![state]!, item.align);
  }
  return places;
}

/** True if counting alone shows that there is no layout: one item too large for every hole, or all of them for all. */
function impossible(holes: readonly Hole[], items: readonly Item[]): boolean {
  if (items.some((item) => !holes.some((hole) => placeIn(hole, item, false) !== undefined))) return true;
  const limits = [...new Set(items.map(({ limit }) => limit))];
  return limits.some((limit) => {
    const room = holes.reduce((sum, { start, end }) => sum + Math.max(0, Math.min(end, limit) - start), 0);
    return items.reduce((sum, item) => sum + (item.limit <= limit ? item.size : 0), 0) > room;
  });
}

/**
 * Places items in holes: heuristics first, then the exact search where its table is small enough.
 * @param holes ascending, apart
 * @param wishes alignments that would be welcome, in the order of the items: tried first
 */
export function pack(holes: readonly Hole[], items: readonly Item[], wishes: readonly number[]): Packing {
  if (impossible(holes, items)) return { places: undefined, proven: true, steps: 0 };
  const budget = { steps: 0 };
  for (const most of [Number.POSITIVE_INFINITY, middle, 1]) {
    const wished = items.map((item, i) => ({ ...item, align: Math.max(item.align, Math.min(wishes[i]!, most)) }));
    const places = tryHeuristics(holes, wished, budget);
    if (places) return { places };
  }
  const places = exact(holes, items, budget);
  return places ? { places } : { places: undefined, proven: places === null, steps: budget.steps };
}

/** Pages of the middle hugepage size (2 MiB of 4 KiB). */
const middle = 512;
