import path from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { Exit, reason, VioError } from '../../common/errors.js';
import { printable } from '../../common/escape.js';
import { native } from '../../native/index.js';
import { changedLimits, rateText } from '../../storage/limits.js';
import { type SourceOptions, withoutOff } from '../../storage/source.js';
import type { ControlledDisk, DiskOptions, DiskSet } from './model.js';

/** One change on the way to a configuration. */
interface Step {
  text: string;
  /** Checks of what can be known before anything is changed. @throws VioError */
  check?: () => Promise<void>;
  run: () => unknown;
  /** Whether it was made although it has failed. */
  made?: () => boolean;
}

/** What two disks differ in, apart from limits, which change in place. */
const fixed = ({ socket, listener: _listener, source, ...rest }: DiskOptions): unknown => {
  const { iops: _iops, bps: _bps, later: _later, ...of } = source;
  return JSON.parse(JSON.stringify({ ...rest, source: withoutOff(of), socket: path.resolve(socket!) }));
};

/** Whether two disks are the same but for their limits. */
export const sameDisk = (a: DiskOptions, b: DiskOptions): boolean => isDeepStrictEqual(fixed(a), fixed(b));

const limitTexts = ({ iops, bps }: SourceOptions) => ({
  iops: rateText('iops', iops ?? undefined),
  bps: rateText('bps', bps ?? undefined),
});

/** Whether two sources were given the same limits. */
export const sameLimits = (a: SourceOptions, b: SourceOptions): boolean => isDeepStrictEqual(limitTexts(a), limitTexts(b));

function limitsStep(disk: ControlledDisk, wanted: SourceOptions): Step | undefined {
  const { store, name } = disk.source;
  const { limits, todo } = changedLimits(store, limitTexts(wanted));
  if (todo.length === 0) return undefined;
  return { text: `limit ${name} to ${todo.join(' ')}`, run: () => native().storage.setLimits(store, limits) };
}

/** The steps from what is served to what is to be served: ends first, so that a source can move to another socket. */
function stepsTo(set: DiskSet, wanted: readonly (DiskOptions & { socket: string })[]): Step[] {
  const at = (socket: string) => wanted.find((disk) => path.resolve(disk.socket) === path.resolve(socket));
  const [ends, changes, adds]: [Step[], Step[], Step[]] = [[], [], []];
  for (const disk of set.disks) {
    if (disk.socket === undefined) continue; // an inherited connection is of no file
    const next = at(disk.socket);
    if (next && sameDisk(disk.options, next)) {
      const step = limitsStep(disk, next.source);
      if (step) changes.push(step);
      continue;
    }
    ends.push({ text: `end ${disk.source.name} at ${disk.socket}`, run: () => set.remove(disk), made: () => !set.disks.includes(disk) });
  }
  const stays = (socket: string): boolean => {
    const disk = set.find(socket);
    return disk !== undefined && sameDisk(disk.options, at(socket)!);
  };
  const freed = new Set(set.disks.filter(({ socket }) => socket !== undefined && !(at(socket) && stays(socket))).map((d) => d.source.name));
  for (const disk of wanted) {
    if (stays(disk.socket)) continue;
    // what one of the ends gives free cannot be tried before
    const check = set.find(disk.socket) || freed.has(disk.source.source) ? undefined : () => set.try(disk);
    adds.push({ text: `serve ${disk.source.source} at ${disk.socket}`, ...(check && { check }), run: () => set.add(disk) });
  }
  return [...ends, ...changes, ...adds];
}

/**
 * Serves what a configuration says. What can be checked is checked before anything is changed; a step that fails all the same does not
 * keep the others from being made.
 * @param wanted complete
 * @returns what was changed; with dryRun, what would be
 * @throws VioError: nothing was changed; 8 (PARTLY) if some steps were made
 */
export async function reload(set: DiskSet, wanted: readonly (DiskOptions & { socket: string })[], dryRun = false): Promise<string[]> {
  const steps = stepsTo(set, wanted);
  for (const { check } of steps) await check?.();
  if (dryRun) return steps.map(({ text }) => text);
  const [done, failed]: [string[], string[]] = [[], []];
  let changed = false;
  for (const { text, run, made } of steps) {
    try {
      await run();
      done.push(text);
      changed = true;
    } catch (err) {
      changed ||= made?.() ?? false;
      failed.push(`${printable(text)}: ${err instanceof VioError ? err.message : reason(err)}`);
    }
  }
  if (failed.length > 0)
    throw new VioError(`${failed.length} of ${steps.length} changes failed: ${failed.join('; ')}`, {
      code: 'PARTLY',
      exit: changed ? Exit.notRestored : Exit.failed,
    });
  return done;
}
