/** Limits of a running target, and its rest. */
import { Exit, VioError } from '../../../common/errors.js';
import { checkLimit, type HostLimits, type TargetLimits } from '../admission/limits.js';
import { checkHostNqn } from '../names.js';
import type { Subsystem } from '../subsystem.js';
import type { Target } from '../target.js';
import type { Change } from './change.js';

/** How often a drain looks at what is under way, in milliseconds. */
const drainLook = 20;

type Named = Readonly<Record<string, number | undefined>>;
const differing = (now: Named, wanted: Named): [name: string, value: number | undefined][] =>
  Object.entries(wanted).filter(([name, value]) => now[name] !== value);
const text = ([name, value]: [string, number | undefined]): string => `${name}=${value ?? 'none'}`;

/** Changes limits of the whole target. Hosts that are connected stay, however many they are. @throws usage error */
export function setLimits(target: Target, wanted: Partial<TargetLimits>): Change {
  for (const [name, value] of Object.entries(wanted)) checkLimit(name, value);
  const changed = differing({ ...target.limits }, { ...wanted });
  return { todo: changed.map((one) => `limit the target to ${text(one)}`), apply: () => target.setLimits(wanted) };
}

/**
 * Changes limits of one host, or of every host that has none of its own. Connections and queues that a host has stay.
 * @param host NQN, `hostid:` and the identifier of a host without a name, or `any`
 * @param wanted undefined lifts a limit
 * @throws usage error
 */
export function setHostLimits(target: Target, host: string, wanted: HostLimits): Change {
  if (host !== 'any' && !/^hostid:[0-9a-f]{32}$/.test(host)) checkHostNqn(host);
  for (const [name, value] of Object.entries(wanted)) if (value !== undefined) checkLimit(name, value);
  const changed = differing({ ...target.hostLimits.get(host) }, { ...wanted });
  const who = host === 'any' ? 'every host' : host;
  return { todo: changed.map((one) => `limit ${who} to ${text(one)}`), apply: () => target.setHostLimits(host, wanted) };
}

/** Commands of hosts that are under way in a subsystem. */
export const outstanding = (subsystem: Subsystem): number => subsystem.counters().outstanding;

/**
 * Stops admitting hosts and commands, waits for the commands under way, and flushes: afterwards the subsystems are idle. Hosts
 * stay connected, and wait or use other paths (ANA state inaccessible) until resume().
 * @param wait milliseconds after which it is given up; the subsystems stay closed
 * @throws VioError: ETIMEDOUT, errors of flushes
 */
export function drain(target: Target, subsystems: readonly Subsystem[], wait: number): Change {
  const open = subsystems.filter(({ ana }) => !ana.draining);
  const busy = subsystems.filter((one) => outstanding(one) > 0);
  return {
    todo: [...new Set([...open, ...busy])].map(({ nqn }) => `drain ${nqn}`),
    apply: async () => {
      for (const subsystem of open) target.setDraining(subsystem, true);
      await target.renew(); // no queue takes commands by an older table
      const until = performance.now() + wait;
      for (;;) {
        const left = subsystems.reduce((sum, one) => sum + outstanding(one), 0);
        if (left === 0) break;
        if (performance.now() >= until)
          throw new VioError(`drain: ${left} commands are still under way after ${wait} ms`, {
            code: 'ETIMEDOUT',
            exit: Exit.timeout,
            hint: 'vioctl nvmf ctl SOCK drain --timeout 1m waits longer; drain off ends it',
          });
        await new Promise((resolve) => setTimeout(resolve, drainLook));
      }
      for (const subsystem of subsystems) await target.flush(subsystem);
    },
  };
}

/** Admits hosts and commands again. */
export function resume(target: Target, subsystems: readonly Subsystem[]): Change {
  const closed = subsystems.filter(({ ana }) => ana.draining);
  return {
    todo: closed.map(({ nqn }) => `end the drain of ${nqn}`),
    apply: () => {
      for (const subsystem of closed) target.setDraining(subsystem, false);
    },
  };
}
