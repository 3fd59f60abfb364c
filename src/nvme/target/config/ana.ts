/** ANA states of a configuration: those of all ports, and those of single ones. */
import { Exit, VioError } from '../../../common/errors.js';
import { printable } from '../../../common/escape.js';
import { placeText } from '../../../common/text/place.js';
import { anaStateNames } from '../../wire/index.js';
import type { SubsystemConfig, TargetConfig } from '../serve/config.js';
import { parseListen } from '../serve/listen.js';
import type { Subsystem } from '../subsystem.js';
import type { Target } from '../target.js';
import type { WantedListener } from './listeners.js';
import { anaPlace } from './live.js';

/** The same for a name that a configuration may have: the port that a listener has names it too. */
const sameName = (target: Target, name: string): string => {
  const listener = target.listeners.find((one) => placeText(one) === name);
  return listener ? anaPlace(target, listener) : name;
};

/** States of a running subsystem, in a form for comparisons. */
export const anaTexts = (target: Target, subsystem: Subsystem): string[] =>
  [
    ...subsystem.ana.common().map(([group, state]) => `${group} ${state}`),
    ...target.listeners.flatMap((listener) =>
      subsystem.ana.own(listener.id).map(([group, state]) => `${group} ${state} ${anaPlace(target, listener)}`),
    ),
  ].sort();
/** The same of a configuration. */
export const wantedAna = (target: Target, ana: NonNullable<SubsystemConfig['ana']>): string[] =>
  ana
    .filter(({ state, listener }) => listener !== undefined || anaStateNames.get(state) !== 'optimized')
    .map(({ group, state, listener }) => (listener === undefined ? `${group} ${state}` : `${group} ${state} ${sameName(target, listener)}`))
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
    const at = listener === undefined ? undefined : target.listeners.find((one) => anaPlace(target, one) === sameName(target, listener));
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

/** Whether a name of a configuration can be that of a listener: a free port may become any. */
const mayBe = (wanted: WantedListener, name: string): boolean =>
  placeText(wanted) === name || (wanted.port === 0 && parseListen(name).address === wanted.address);

/** @throws VioError (2) for a state of a port that is not listened on */
export function checkAnaListeners(wanted: TargetConfig, all: readonly WantedListener[]): void {
  for (const { ana = [], nqn } of wanted.subsystems)
    for (const { listener } of ana)
      if (listener !== undefined && !all.some((one) => mayBe(one, listener)))
        throw new VioError(`${nqn}: ANA state of ${printable(listener)}: nothing listens there`, { code: 'CONFIG', exit: Exit.usage });
}
