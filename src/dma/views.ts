import type { ChalkInstance } from 'chalk';
import { VioError } from '../common/errors.js';
import { formatSize, hex64 } from '../common/units.js';
import type { HolderInfo } from './holder.js';
import type { Placement, Plan } from './layout.js';

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

/**
 * The answer of a holder as the document it was: addresses are bigints again.
 * @throws VioError (5) for an answer of another shape
 */
export function parseHolderInfo(answer: Record<string, unknown>): HolderInfo {
  const { bdf, api, ioas, ranges, maps, entries, memlock } = answer as unknown as HolderInfo;
  try {
    return {
      bdf,
      api,
      ...(ioas !== undefined && { ioas }),
      ranges: ranges.map(({ start, end }) => ({ start: BigInt(start), end: BigInt(end) })),
      maps: maps.map((map) => ({ ...map, iova: BigInt(map.iova) })),
      entries,
      memlock,
    };
  } catch (err) {
    throw new VioError('the holder answers in an unknown form', { code: 'EPROTO', exit: 5, cause: err });
  }
}
