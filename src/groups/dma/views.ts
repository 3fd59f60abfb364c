import type { ChalkInstance } from 'chalk';
import { bar, shaded, solid } from '../../cli/output/bars.js';
import { printable } from '../../common/escape.js';
import { counted, formatSize, hex64 } from '../../common/units.js';
import type { Placement, Plan } from '../../dma/layout.js';

/** Aligned columns of placements. */
export function placementLines(maps: readonly Placement[], chalk: ChalkInstance): string[] {
  const width = Math.max(4, ...maps.map((m) => m.name.length));
  const head = `${'NAME'.padEnd(width)}  ${'IOVA'.padEnd(18)}  ${'SIZE'.padStart(8)}  PAGES`;
  return [
    chalk.bold(head),
    ...maps.map(
      (m) => `${m.name.padEnd(width)}  ${hex64(m.iova).padEnd(18)}  ${formatSize(m.size).padStart(8)}  ${formatSize(m.pageSize)}`,
    ),
  ];
}

/** A run of addresses: a mapping, free, or not for mappings. */
interface Segment {
  start: bigint;
  size: bigint;
  name: string;
  kind: 'mapping' | 'free' | 'reserved';
}

/** All addresses from 0 to the end of the last range, in order. */
function segments({ ranges, maps }: Plan): Segment[] {
  const found: Segment[] = [];
  let at = 0n;
  const upTo = (end: bigint, kind: 'free' | 'reserved') => {
    if (end > at) found.push({ start: at, size: end - at, name: kind, kind });
    if (end > at) at = end;
  };
  const sorted = [...maps].sort((a, b) => (a.iova < b.iova ? -1 : 1));
  let next = 0;
  for (const { start, end } of ranges) {
    upTo(start, 'reserved');
    for (; next < sorted.length && sorted[next]!.iova <= end; next++) {
      const { iova, size, name } = sorted[next]!;
      upTo(iova, 'free');
      found.push({ start: iova, size, name: printable(name), kind: 'mapping' });
      at = iova + size;
    }
    upTo(end + 1n, 'free');
  }
  return found;
}

/** Cells of the longest bar of the address map. */
const [shortest, longest] = [4, 24];

/** A picture of the addresses. Sizes reach from a page to exabytes, so the bars are as long as the logarithms. */
function mapLines(plan: Plan, chalk: ChalkInstance, room: number): string[] {
  const all = segments(plan);
  const rows = all.map(({ start, size, name }) => [hex64(start), formatSize(size), name] as const);
  const [address, size, name] = [0, 1, 2].map((i) => rows.reduce((width, row) => Math.max(width, row[i as 0 | 1 | 2].length), 4)) as [
    number,
    number,
    number,
  ];
  const width = Math.max(shortest, Math.min(longest, room - address - size - name - 6));
  const bits = ({ size }: Segment) => size.toString(2).length;
  const shown = all.filter(({ kind }) => kind !== 'free').map(bits);
  const least = shown.reduce((a, b) => Math.min(a, b), shown[0] ?? 0);
  const log = (one: Segment) => 1 + bits(one) - least;
  const most = shown.reduce((max, n) => Math.max(max, 1 + n - least), 0);
  const drawn = (one: Segment) => (one.kind === 'free' ? '' : bar(log(one), most, width, one.kind === 'mapping' ? solid : shaded));
  return [
    chalk.bold(`${'FROM'.padEnd(address)}  ${'SIZE'.padStart(size)}  ADDRESSES`),
    ...rows.map((row, i) => `${row[0].padEnd(address)}  ${row[1].padStart(size)}  ${row[2].padEnd(name)}  ${drawn(all[i]!)}`.trimEnd()),
  ];
}

/** The text form of a plan. */
export function planLines(plan: Plan, chalk: ChalkInstance, room: number): string[] {
  return [
    ...plan.ranges.map((r) => `range    ${hex64(r.start)}-${hex64(r.end)}`),
    `entries  ${plan.entries}`,
    `memlock  ${formatSize(plan.memlock)} (${plan.memlock} bytes)`,
    '',
    ...placementLines(plan.maps, chalk),
    '',
    ...mapLines(plan, chalk, room),
  ];
}

/** The text form of what a device has mapped. */
export function holderLines(info: Plan & { bdf: string; api: string }, chalk: ChalkInstance): string[] {
  const what = counted(info.entries, 'mapping');
  return [`${info.bdf} through ${info.api}: ${what}, ${formatSize(info.memlock)} locked`, ...placementLines(info.maps, chalk)];
}
