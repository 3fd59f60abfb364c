/** How hosts get to a target: listeners, ANA states, referrals. */

import { Exit, usage, VioError } from '../../../common/errors.js';
import { placeText } from '../../../common/text/place.js';
import { AnaState, anaStateNames } from '../../wire/index.js';
import { askedText } from '../config/live.js';
import { type Listener, ofDiscoveryPort, type Referral, sameAddress } from '../discovery.js';
import { maxGroups } from '../model.js';
import { checkChoice, type TlsChoice, tlsText } from '../security/tls.js';
import type { Subsystem } from '../subsystem.js';
import type { Target } from '../target.js';
import { type Change, nothing } from './change.js';

/** A listener that is to be there. */
export interface NewListener {
  /** An IP address; names are looked up before. */
  address: string;
  port: number;
  discoveryOnly?: boolean | undefined;
  advertise?: Listener['advertise'];
  /** TLS, if it is not the target's. */
  tls?: TlsChoice | undefined;
}

/** The listener at an address and port, if there is one. */
export const listenerAt = (target: Target, at: { address: string; port: number }): Listener | undefined =>
  target.listeners.find((one) => one.port === at.port && sameAddress(one.address, at.address));

/** Listens at one more address. @throws VioError (EEXIST) if it listens there in another way, usage error for TLS without a key */
export function addListener(target: Target, wanted: NewListener): Change {
  const { address, port, discoveryOnly = false, advertise, tls } = wanted;
  checkChoice(tls, target.keys);
  const now = port === 0 ? undefined : listenerAt(target, wanted);
  if (now) {
    const same = (now.discoveryOnly ?? false) === discoveryOnly && placeOf(now.advertise) === placeOf(advertise) && now.askedTls === tls;
    if (same) return nothing;
    const hint = `vioctl nvmf ctl SOCK listener remove ${placeText(now)}, then add it`;
    throw new VioError(`the target listens on ${placeText(now)} in another way`, { code: 'EEXIST', exit: Exit.refused, hint });
  }
  return {
    todo: [
      `listen on ${placeText(wanted)}${discoveryOnly ? ' for discovery' : ''}` +
        `${advertise ? `, advertised as ${placeText(advertise)}` : ''}${tls ? `, ${tlsText(tls)}` : ''}`,
    ],
    apply: () => {
      const added = target.listen(address, port, discoveryOnly, advertise, { tls });
      // discovery ports follow from the addresses of the other listeners: with one of those more, nothing else follows
      const known = target.listeners.some((one) => one !== added && !one.discoveryOnly && one.address === address);
      if (!discoveryOnly && !known) nameEach(target);
    },
  };
}

const placeOf = (at: Listener['advertise']): string | undefined => at && placeText(at);

/** Stops listening at an address, if it does, and ends the associations of hosts that came through it. */
export function removeListener(target: Target, at: { address: string; port: number }): Change {
  const listener = listenerAt(target, at);
  if (!listener) return nothing;
  return {
    todo: [`no longer listen on ${placeText(listener)}`],
    apply: () => {
      nameEach(target, listener.asked);
      return target.unlisten(listener);
    },
  };
}

/**
 * Has the addresses of the discovery port saved, and listeners of a name that has lost an address one by one. A reload of what was
 * saved would bring back what was removed.
 */
function nameEach(target: Target, name?: string): void {
  for (const one of target.listeners)
    if (name !== undefined && one.asked === name && !ofDiscoveryPort(one))
      one.asked = askedText(one, { advertise: one.advertise, tls: one.askedTls });
  target.listenersChanged = true;
}

/** The listener that an operation is about. @throws VioError (ENOENT) */
export function listenerOf(target: Target, at: { address: string; port: number }): Listener {
  const found = listenerAt(target, at);
  if (found) return found;
  const places = target.listeners.map(placeText);
  throw new VioError(`the target does not listen on ${placeText(at)}`, {
    code: 'ENOENT',
    hint: places.length > 0 ? places.join(' | ') : undefined,
  });
}

/** An ANA state by its name, as the log has it. @throws usage error */
export function anaState(name: string): number {
  for (const [state, text] of anaStateNames) if (text === name) return state;
  throw new VioError(`not an ANA state: ${name}`, { code: 'BAD_STATE', exit: Exit.usage, hint: [...anaStateNames.values()].join(', ') });
}

/** @throws usage error */
export function checkGroup(group: number): number {
  if (!Number.isInteger(group) || group < 1 || group > maxGroups)
    throw new VioError(`ANA group ${group}: must be 1 to ${maxGroups}`, { code: 'BAD_GROUP', exit: Exit.usage });
  return group;
}

/** Sets the state of an ANA group on all ports, whatever single ones had. @param state AnaState @throws usage error */
export function setAna(target: Target, subsystem: Subsystem, group: number, state: number): Change {
  checkGroup(group);
  const ports = target.listeners.map(({ id }) => id);
  // a port that comes later has the state of all
  if ([...ports, -1].every((port) => subsystem.ana.configured(group, port) === state)) return nothing;
  return {
    todo: [`make ANA group ${group} of ${subsystem.nqn} ${anaStateNames.get(state)}`],
    apply: () => target.setAna(subsystem, [group], state),
  };
}

/**
 * Sets the state of an ANA group on one port; without a group, of all groups that namespaces are in.
 * @param state AnaState
 * @throws usage error
 */
export function setListenerAna(target: Target, subsystem: Subsystem, listener: Listener, group: number | undefined, state: number): Change {
  if (listener.discoveryOnly) throw usage(`${placeText(listener)} is for discovery alone: it has no ANA states`);
  const inUse = [...new Set([...subsystem.namespaces.values()].map((namespace) => namespace.group))];
  const groups = group === undefined ? (inUse.length > 0 ? inUse : [1]) : [checkGroup(group)];
  const changed = groups.filter((one) => subsystem.ana.configured(one, listener.id) !== state).sort((a, b) => a - b);
  if (changed.length === 0) return nothing;
  return {
    todo: changed.map((one) => `make ANA group ${one} of ${subsystem.nqn} ${anaStateNames.get(state)} on ${placeText(listener)}`),
    apply: () => target.setAna(subsystem, changed, state, listener.id),
  };
}

const sameReferral = (a: Referral, b: Referral): boolean => a.port === b.port && sameAddress(a.address, b.address);

/** Tells hosts of another discovery service. @throws VioError (EEXIST) if it is told of by another name */
export function addReferral(target: Target, referral: Referral): Change {
  const now = target.referrals.find((one) => sameReferral(one, referral));
  if (now && now.nqn === referral.nqn) return nothing;
  if (now)
    throw new VioError(`there is a referral to ${placeText(now)}${now.nqn === undefined ? '' : ` (${now.nqn})`} already`, {
      code: 'EEXIST',
      exit: Exit.refused,
      hint: `vioctl nvmf ctl SOCK referral remove ${placeText(now)}, then add it`,
    });
  return {
    todo: [`refer hosts to ${placeText(referral)}`],
    apply: () => target.setReferrals([...target.referrals, referral]),
  };
}

/** No longer tells hosts of another discovery service. */
export function removeReferral(target: Target, at: { address: string; port: number }): Change {
  const now = target.referrals.find((one) => sameReferral(one, at));
  if (!now) return nothing;
  return {
    todo: [`no longer refer hosts to ${placeText(now)}`],
    apply: () => target.setReferrals(target.referrals.filter((one) => one !== now)),
  };
}

/** ANA states of a subsystem on a port, as they were set. */
export const anaOf = (subsystem: Subsystem, port: number): { group: number; state: string }[] => {
  const groups = new Set([...[...subsystem.namespaces.values()].map(({ group }) => group), ...subsystem.ana.groups(port)]);
  return [...groups]
    .sort((a, b) => a - b)
    .map((group) => ({ group, state: anaStateNames.get(subsystem.ana.stateOf(group, port) || AnaState.optimized)! }));
};
