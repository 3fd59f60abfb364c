/** ANA states of a configuration: those of all ports, and those of single ones. */
import { Exit, VioError } from '../../../common/errors.js';
import { printable } from '../../../common/escape.js';
import { placeText } from '../../../common/text/place.js';
import { anaStateNames } from '../../wire/index.js';
import type { SubsystemConfig, TargetConfig } from '../serve/config.js';
import type { Subsystem } from '../subsystem.js';
import type { Target } from '../target.js';
import type { WantedListener } from './listeners.js';

/** States of a running subsystem, in a form for comparisons. */
export const anaTexts = (target: Target, subsystem: Subsystem): string[] =>
  [
    ...subsystem.ana.common().map(([group, state]) => `${group} ${state}`),
    ...target.listeners.flatMap((listener) =>
      subsystem.ana.own(listener.id).map(([group, state]) => `${group} ${state} ${placeText(listener)}`),
    ),
  ].sort();
/** The same of a configuration. */
export const wantedAna = (ana: NonNullable<SubsystemConfig['ana']>): string[] =>
  ana
    .filter(({ state, listener }) => listener !== undefined || anaStateNames.get(state) !== 'optimized')
    .map(({ group, state, listener }) => (listener === undefined ? `${group} ${state}` : `${group} ${state} ${listener}`))
    .sort();

/** Sets the states of groups; those that stay the same are not told. */
export function setStates(
  target: Target,
  nqn: string,
  groups: ReadonlyMap<number, number>,
  ana: readonly { group: number; state: number; listener?: string }[],
): void {
  const subsystem = target.subsystems.get(nqn)!;
  const own = target.listeners.flatMap((listener) => subsystem.ana.own(listener.id).map(([group]) => ({ group, listener })));
  for (const [group, state] of groups) {
    const listeners = own.filter((one) => one.group === group);
    // a port's own state goes with that of all; it comes back below if it is to stay
    if (listeners.length > 0 || subsystem.ana.configured(group, -1) !== state) target.setAna(subsystem, [group], state);
  }
  for (const { group, listener } of own)
    if (!groups.has(group)) target.setAna(subsystem, [group], subsystem.ana.configured(group, -1), listener.id);
  for (const { group, state, listener } of ana) {
    const at = target.listeners.find((one) => placeText(one) === listener);
    if (at) target.setAna(subsystem, [group], state, at.id);
  }
}

/** Sets the states of ANA groups of a target that has just begun to listen. */
export function setAnaStates(target: Target, { subsystems }: TargetConfig): void {
  for (const { nqn, ana = [] } of subsystems) {
    const common = ana.filter(({ listener }) => listener === undefined).map(({ group, state }) => [group, state] as const);
    setStates(target, nqn, new Map(common), ana);
  }
}

/** @throws VioError (2) for a state of a port that is not listened on */
export function checkAnaListeners(wanted: TargetConfig, all: readonly WantedListener[]): void {
  for (const { ana = [], nqn } of wanted.subsystems)
    for (const { listener } of ana)
      if (listener !== undefined && !all.some((one) => placeText(one) === listener || one.port === 0))
        throw new VioError(`${nqn}: ANA state of ${printable(listener)}: nothing listens there`, { code: 'CONFIG', exit: Exit.usage });
}
