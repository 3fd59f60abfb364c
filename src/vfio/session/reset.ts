import fs from 'node:fs';
import { Exit, usage, VioError, wrap } from '../../common/errors.js';
import { printable } from '../../common/escape.js';
import type { Sysroot } from '../../common/sysroot.js';
import { pciDevices } from '../devices/pci.js';
import type { Session } from './session.js';

/** What a reset would do. */
export interface ResetPlan {
  bdf: string;
  method: 'function' | 'hot';
  /** devices that lose their state */
  devices: string[];
}

/** Which devices a reset reaches. @throws VioError (7) where there is none of the kind */
export function planReset(session: Session, hot: boolean): ResetPlan {
  if (!hot) return { bdf: session.bdf, method: 'function', devices: [session.bdf] };
  return { bdf: session.bdf, method: 'hot', devices: session.resetPeers().map((peer) => peer.bdf) };
}

/**
 * Lets the kernel reset a device by one method only, as long as `work` runs; then its methods are as before.
 * @param method one of those that `reset_method` names: flr, af_flr, pm, bus, …
 * @throws VioError (7) if the device or the kernel does not have it
 */
export function byMethod<T>(root: Sysroot, bdf: string, method: string, work: () => T): T {
  const file = `${pciDevices}/${bdf}/reset_method`;
  const before = root.attr(file)?.trim();
  if (!/^[a-z_]{1,32}$/.test(method)) throw usage(`not a reset method: "${printable(method)}"`, 'such as flr, pm or bus');
  const has = before?.split(/\s+/) ?? [];
  if (!has.includes(method))
    throw new VioError(`${bdf}: it cannot be reset by ${method}`, {
      code: 'NO_RESET',
      exit: Exit.unsupported,
      hint: before === undefined ? 'Linux 5.15 and later let it be chosen' : `it has ${has.join(', ') || 'no method'}`,
    });
  const set = (value: string) => {
    try {
      fs.writeFileSync(root.path(file), `${value}\n`);
    } catch (err) {
      throw wrap(`${bdf}: write ${value} to ${file}`, err);
    }
  };
  set(method);
  try {
    return work();
  } finally {
    set(before!);
  }
}

/** Does it. @throws VioError: 7 no such reset, 3 a device of the slot is not ours */
export function resetDevice(session: Session, plan: ResetPlan): void {
  if (plan.method === 'hot') session.hotReset();
  else session.reset();
}
