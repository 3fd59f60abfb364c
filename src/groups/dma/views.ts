import type { ChalkInstance } from 'chalk';
import { formatSize, hex64 } from '../../common/units.js';
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

/** The text form of a plan. */
export function planLines(plan: Plan, chalk: ChalkInstance): string[] {
  return [
    ...plan.ranges.map((r) => `range    ${hex64(r.start)}-${hex64(r.end)}`),
    `entries  ${plan.entries}`,
    `memlock  ${formatSize(plan.memlock)} (${plan.memlock} bytes)`,
    '',
    ...placementLines(plan.maps, chalk),
  ];
}

/** The text form of what a device has mapped. */
export function holderLines(info: Plan & { bdf: string; api: string }, chalk: ChalkInstance): string[] {
  const what = info.entries === 1 ? '1 mapping' : `${info.entries} mappings`;
  return [`${info.bdf} through ${info.api}: ${what}, ${formatSize(info.memlock)} locked`, ...placementLines(info.maps, chalk)];
}
