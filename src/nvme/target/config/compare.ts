/** What of a running target is as a configuration has it, and what cannot change while it runs. */

import { isDeepStrictEqual } from 'node:util';
import { defaultSpin } from '../../../common/engines.js';
import { Exit, VioError } from '../../../common/errors.js';
import { idsOf, serialOf } from '../identity.js';
import type { Namespace } from '../model.js';
import { lastCntlid } from '../names.js';
import type { NumberedNamespace, SubsystemConfig, TargetConfig } from '../serve/config.js';
import { defaultModel, type Subsystem } from '../subsystem.js';

/** Keys that need a restart. */
export const fixedKeys = [
  ...['control', 'stateDir', 'metrics', 'threads', 'spinMicroseconds', 'engine', 'headerDigest', 'dataDigest', 'discoveryNqn'],
] as (keyof TargetConfig)[];

/** Keys that stay as they are if a file leaves them out: nobody is admitted because a line was forgotten. */
export const stayingKeys = ['keys', 'chapPolicy', 'tls'] as const satisfies readonly (keyof TargetConfig)[];

/** What those that can be left out are then. */
const fixedDefaults: Partial<TargetConfig> = {
  threads: 1,
  spinMicroseconds: defaultSpin,
  engine: 'auto',
  headerDigest: true,
  dataDigest: true,
};

/** @throws VioError (3) for a key that needs a restart */
export function checkFixed(settings: TargetConfig, wanted: TargetConfig): void {
  for (const key of fixedKeys) {
    const now = settings[key] ?? fixedDefaults[key];
    if (wanted[key] === undefined || isDeepStrictEqual(wanted[key], now)) continue;
    throw new VioError(`${key} cannot change while the target runs`, {
      code: 'FIXED',
      exit: Exit.refused,
      hint: `restart the server, or leave ${key} out of the file`,
    });
  }
}

/** Whether a namespace is what is wanted, but for what can change in place. */
export function sameNamespace(subsystem: Subsystem, now: Namespace, wanted: NumberedNamespace): boolean {
  const { source, readonly = false, direct = false, shared = false, zero, group = 1, blockSize, ids } = wanted;
  const { options } = now;
  // remote sources have options of their own
  const own = (one: object) =>
    Object.entries(one).filter(
      ([key, value]) => value !== undefined && ![...knownOptions, 'force', 'format', 'iops', 'bps', 'hosts', 'later', 'nsid'].includes(key),
    );
  const name = /^ram:/.test(source) ? `${now.identity}\0${now.nsid}` : now.identity;
  const wantedIds = idsOf(subsystem.nqn, name, ids);
  return (
    source === now.source &&
    readonly === now.readonly &&
    direct === (options.direct ?? false) &&
    shared === (options.shared ?? false) &&
    zero === options.zero &&
    group === now.group &&
    (blockSize === undefined ? options.blockSize === undefined : blockSize === now.blockSize) &&
    (['nguid', 'eui64', 'uuid'] as const).every((kind) => wantedIds[kind].equals(now.ids[kind])) &&
    isDeepStrictEqual(Object.fromEntries(own(wanted)), Object.fromEntries(own(options)))
  );
}
const knownOptions = ['source', 'readonly', 'direct', 'shared', 'zero', 'group', 'blockSize', 'ids'];

/** Whether a subsystem presents itself as it is to. */
export const sameSubsystem = (now: Subsystem, wanted: SubsystemConfig): boolean =>
  now.serial === (wanted.serial ?? serialOf(wanted.nqn)) &&
  now.model === (wanted.model ?? defaultModel) &&
  isDeepStrictEqual([...now.cntlids], [...(wanted.cntlids ?? [1, lastCntlid])]);
