import { setTimeout as sleep } from 'node:timers/promises';
import { Exit, VioError } from '../../common/errors.js';
import type { Sysroot } from '../../common/sysroot.js';
import type { Census } from '../census/census.js';
import { blocking, describeHolder, type Holder, holdersOf } from '../census/holders.js';
import { Processes } from '../census/processes.js';
import { idOf, linkName, type PciDevice, parseBdf, pciDevices, readDevice } from '../devices/pci.js';
import { findDevice, isSelector, select } from '../devices/select.js';
import { forgetToken } from '../session/token.js';
import { type DeviceState, Store } from '../transaction/journal.js';
import { type Host, lockedError, planMove, type SysfsWrite, stateOf } from '../transaction/move.js';
import { Transaction, writeTimeout } from '../transaction/transaction.js';
import { whileBusy } from './batch.js';
import { requirePrivilege } from './bind.js';
import { keysAbout } from './declared.js';
import { endOf, endPersistent, type PersistentEnd, persistent } from './persist.js';

export interface UnbindOptions {
  bdfs: readonly string[];
  /** The driver to give the device to; the earlier one unless given. */
  driver?: string | undefined;
  /** Milliseconds to wait for holders to let go. */
  wait: number;
  /** Begin the unbind at once: the kernel asks the holder to let go (VFIO_PCI_REQ_IRQ), and cannot be stopped. */
  ask?: boolean | undefined;
  /** Also end what bind --persist set up; an address where no device is any more is accepted then. */
  persist?: boolean | undefined;
  /** Selectors of persistent bindings whose devices are gone, to end too. */
  gone?: readonly string[] | undefined;
}

export interface PlannedUnbind {
  device: PciDevice;
  from: DeviceState;
  to: DeviceState;
  /** Where the target driver comes from. */
  source: 'record' | 'asked' | 'id' | 'none';
  /** Module to load when the driver is not registered. */
  module: string | undefined;
  already: boolean;
}

/** Decides which driver each device goes back to; changes nothing. @throws VioError usage (2), refused (3), permission (6) */
export function planUnbind(
  census: Census,
  options: Pick<UnbindOptions, 'bdfs' | 'driver' | 'persist'>,
  { privileged }: { privileged: boolean },
): PlannedUnbind[] {
  const { root, modules } = census;
  const store = new Store(root);
  const set = options.persist ? persistent(root) : [];
  const present = options.bdfs.filter((text) => !set.includes(parseBdf(text)) || readDevice(root, parseBdf(text)) !== undefined);
  const devices = [...new Map(present.map((bdf) => findDevice(root, bdf)).map((device) => [device.bdf, device])).values()];
  return devices.map((device) => {
    if (device.busy) throw lockedError(device.bdf);
    const from = stateOf(device);
    const record = store.record(device.bdf);
    const ours = record && record.vendor === device.vendor && record.device === device.device ? record : undefined;
    const target = (driver: string | undefined, override: string | undefined, numVfs = 0): DeviceState => ({ driver, override, numVfs });
    let source: PlannedUnbind['source'];
    let to: DeviceState;
    let module: string | undefined;
    if (options.driver !== undefined) {
      const choice = modules.choose(device, options.driver);
      if (choice.vfio)
        throw new VioError(`${choice.driver} is a VFIO driver`, {
          code: 'USAGE',
          exit: Exit.usage,
          hint: `vioctl vfio bind --driver ${choice.driver}`,
        });
      source = 'asked';
      to = target(choice.driver, undefined);
      module = choice.module;
    } else if (!modules.isVfio(device.driver)) {
      // nothing of VFIO is on it: asking for the host's state is asking for what is there
      return { device, from, to: from, source: 'none', module: undefined, already: true };
    } else if (ours) {
      source = 'record';
      to = ours.before;
      module = to.driver !== undefined && !modules.registered(to.driver) ? to.driver : undefined;
    } else {
      // bound by somebody else: the driver whose id table claims the device, a loaded one before others
      const candidates = modules.claimants(device.modalias).map((name) => ({ name, driver: modules.driverOf(name) }));
      const best = candidates.find(({ driver }) => driver !== undefined) ?? candidates[0];
      source = best === undefined ? 'none' : 'id';
      to = target(best && (best.driver ?? best.name), undefined);
      module = best && best.driver === undefined ? best.name : undefined;
    }
    const already = from.driver === to.driver && from.override === to.override;
    if (!already && privileged) requirePrivilege(census, device.bdf);
    if (!already && options.driver !== undefined && device.driver !== undefined && !modules.isVfio(device.driver))
      throw new VioError(`${device.bdf}: refused: it is on host driver ${device.driver}, not on VFIO`, {
        code: 'NOT_VFIO',
        exit: Exit.refused,
        hint: `vioctl vfio bind ${device.bdf} --driver ${options.driver} moves it between host drivers, with all checks`,
      });
    return { device, from, to, source, module, already };
  });
}

/** The writes of a plan, in order. */
export const unbindWrites = (plan: readonly PlannedUnbind[]): { bdf: string; writes: SysfsWrite[] }[] =>
  plan.map(({ device, from, to, already }) => ({ bdf: device.bdf, writes: already ? [] : planMove(device.bdf, from, to) }));

/** True for a selector of a persistent binding whose device is not there any more. */
export function isGoneSelector(root: Sysroot, word: string): boolean {
  if (!isSelector(word) || keysAbout(root, word).length === 0) return false;
  try {
    select(root, word);
    return false;
  } catch (err) {
    return err instanceof VioError && err.code === 'ENODEV';
  }
}

/** What becomes of the files of persistent bindings. */
export const unbindFiles = (census: Census, options: Pick<UnbindOptions, 'bdfs' | 'persist' | 'gone'>): PersistentEnd =>
  options.persist ? endOf(census.root, options.bdfs.map(parseBdf), options.gone) : { write: [], remove: [] };

/** The holders that remain after waiting; empty when all let go. */
async function waitForHolders(
  host: Host,
  device: PciDevice,
  wait: number,
  signal: AbortSignal | undefined,
  note: (holders: Holder[]) => void,
): Promise<Holder[]> {
  const deadline = performance.now() + wait;
  for (let told = false; ; told = true) {
    const holders = blocking(holdersOf(host.root, new Processes(host.root), device));
    const left = deadline - performance.now();
    if (holders.length === 0 || left <= 0) return holders;
    if (!told) note(holders);
    await sleep(Math.min(200, left), undefined, signal === undefined ? {} : { signal });
  }
}

/** A device after unbind. */
export interface UnboundDevice {
  bdf: string;
  id: string;
  /** The driver it is on now; undefined for none. */
  driver: string | undefined;
  previousDriver: string | undefined;
  already: boolean;
}

/**
 * Gives devices back to their earlier drivers, as one transaction. Never blocks: a held device is waited for, then
 * reported (HELD, 3) with nothing changed; with `ask` the kernel's own unbind is begun, and reported (STUCK, 8) if it does
 * not come back in time.
 * @param note told once who holds a device, before the wait
 */
export const unbind = (
  host: Host,
  census: Census,
  options: UnbindOptions & { signal?: AbortSignal | undefined; note?: (bdf: string, holders: Holder[]) => void },
): Promise<{ devices: UnboundDevice[]; files: string[] }> =>
  whileBusy(options.wait, options.signal, (again) => unbindOnce(host, again ? census.fresh() : census, options));

async function unbindOnce(
  host: Host,
  census: Census,
  options: UnbindOptions & { signal?: AbortSignal | undefined; note?: (bdf: string, holders: Holder[]) => void },
): Promise<{ devices: UnboundDevice[]; files: string[] }> {
  const plan = planUnbind(census, options, { privileged: true });
  // before the move: a device that leaves VFIO is called by other means
  const end = unbindFiles(census, options);
  const moving = plan.filter(({ already }) => !already);
  if (!options.ask) {
    for (const { device, from } of moving) {
      if (!host.modules.isVfio(from.driver)) continue;
      const holders = await waitForHolders(host, device, options.wait, options.signal, (list) => options.note?.(device.bdf, list));
      if (holders.length === 0) continue;
      throw new VioError(`${device.bdf}: still held by ${holders.map(describeHolder).join(', ')}: nothing was changed`, {
        code: 'HELD',
        exit: Exit.refused,
        hint: `end ${holders.some((h) => h.pid > 0) ? `process ${[...new Set(holders.filter((h) => h.pid > 0).map((h) => h.pid))].join(', ')}` : 'the holder'}; --ask lets the kernel ask for the device`,
        details: { bdf: device.bdf, holders },
      });
    }
  }
  if (moving.length > 0) {
    const transaction = Transaction.begin(host, 'unbind', moving);
    try {
      for (const { module } of moving) if (module !== undefined) await host.modprobe(module);
    } catch (err) {
      await transaction.undo(err);
      throw err;
    }
    await transaction.run({ signal: options.signal, timeout: options.ask ? Math.max(options.wait, 1000) : writeTimeout });
    await transaction.commit();
    for (const { device } of moving) forgetToken(host.root, device.bdf); // the next driver begins with another
  }
  // last: a device that could not be given back stays as it is at the next boot too
  const files = endPersistent(host.root, end);
  const devices = plan.map(({ device, from, already }) => ({
    bdf: device.bdf,
    id: idOf(device),
    driver: linkName(host.root, `${pciDevices}/${device.bdf}/driver`),
    previousDriver: from.driver,
    already,
  }));
  return { devices, files };
}
