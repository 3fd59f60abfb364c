import { Exit, VioError } from '../../common/errors.js';
import { printable } from '../../common/escape.js';
import type { Census } from '../census/census.js';
import { blocking, describeHolder, holdersOf } from '../census/holders.js';
import { checkDevice } from '../checks/checks.js';
import { chipsetRole } from '../checks/chipset.js';
import { type CheckName, checkNames, type Finding } from '../checks/finding.js';
import { readGroup } from '../devices/group.js';
import type { IdentityKind } from '../devices/identity.js';
import { noIommu, readIommu } from '../devices/iommu.js';
import type { DriverChoice } from '../devices/modules.js';
import { idOf, isGone, type PciDevice, pciDevices, readDevice } from '../devices/pci.js';
import { findDevice } from '../devices/select.js';
import { type DeviceState, Store } from '../transaction/journal.js';
import { checkSignal, type Host, lockedError, planMove, type SysfsWrite, stateOf } from '../transaction/move.js';
import { type Move, Transaction } from '../transaction/transaction.js';
import { writable } from '../transaction/writer.js';
import { raceWait, whileBusy } from './batch.js';
import { changeOwner, groupNumber, type NodeOwner, nodeOf, nodesOf, type Owner, restoreOwners } from './owner.js';
import { persistFiles } from './persist.js';
import { type PersistFile, type ProgramWords, takeBack, type WrittenFile, writePersistent } from './persist-files.js';

export interface BindOptions {
  /** PCI addresses as the user wrote them. */
  bdfs: readonly string[];
  /** Bind every endpoint of the devices' IOMMU groups. */
  group?: boolean | undefined;
  /** The driver; the best VFIO driver unless given. */
  driver?: string | undefined;
  /** Checks that may fail. */
  allow?: readonly CheckName[] | undefined;
  owner?: Owner | undefined;
  /** `vendor:device` that must be at the address. */
  expect?: string | undefined;
  /** Bind at every boot too: the words that start this program. */
  persist?: ProgramWords | undefined;
  /** How the next boot recognises the devices; the best way that each has unless given. */
  identity?: IdentityKind | undefined;
}

/** What bind would do with one device. */
export interface PlannedDevice {
  device: PciDevice;
  choice: DriverChoice;
  from: DeviceState;
  to: DeviceState;
  /** Bound as asked already. */
  already: boolean;
  /** Findings that were allowed. */
  allowed: Finding[];
}

export interface BindPlan {
  devices: PlannedDevice[];
  /** Modules to load first. */
  modules: string[];
  owner: Owner | undefined;
  /** Files that make it persistent. */
  files: PersistFile[];
}

/** All members of the groups of devices that VFIO can take. What the machine runs on stays out unless a driver on it blocks the group. */
function withGroups(census: Census, devices: PciDevice[]): PciDevice[] {
  const all = new Map(devices.map((device) => [device.bdf, device]));
  for (const { group } of devices) {
    if (group === undefined) continue;
    for (const member of readGroup(census.root, census.modules, group).members) {
      const device = member.bridge ? undefined : readDevice(census.root, member.bdf);
      if (!device || all.has(device.bdf) || (!member.blocks && chipsetRole(census, device) !== undefined)) continue;
      all.set(device.bdf, device);
    }
  }
  return [...all.values()].sort((a, b) => (a.bdf < b.bdf ? -1 : 1));
}

/** What keeps an unprivileged run from changing a device. @throws VioError (6) */
export function requirePrivilege(census: Census, bdf: string): void {
  const file = `${pciDevices}/${bdf}/driver_override`;
  const state = writable(census.root, file);
  if (state === true) return;
  if (state === 'ENOENT')
    throw new VioError(`${bdf}: this kernel has no driver_override (Linux 3.16 or newer is needed)`, {
      code: 'ENOENT',
      exit: Exit.unsupported,
    });
  throw new VioError(`${bdf}: not permitted: ${file} cannot be written: ${state}`, {
    code: state,
    exit: Exit.permission,
    hint:
      state === 'EROFS'
        ? '/sys is read-only here (a container?): run on the host'
        : 'run it as root (sudo vioctl …); in a container it takes --privileged',
  });
}

/** Base class of bridges (PCI Code and ID Assignment), those to a host included: no check that is allowed makes endpoints of them. */
const isBridge = (device: PciDevice): boolean => device.bridge || device.class >> 16 === 0x06;

/** The refusal for findings that were not allowed (exit 3). @param never devices that no option lets through */
export function refused(findings: readonly (Finding & { bdf: string })[], never: readonly PciDevice[] = []): VioError {
  const [first] = findings as [Finding & { bdf: string }];
  const others = [...new Set(findings.slice(1).map((finding) => `${finding.message} (check "${finding.check}")`))];
  const allow = [...new Set(findings.map((finding) => finding.check))].map((check) => `--allow ${check}`).join(' ');
  return new VioError(`${first.bdf}: refused: ${[`${first.message} (check "${first.check}")`, ...others].join('; ')}`, {
    code: first.check.toUpperCase().replaceAll('-', '_'),
    exit: Exit.refused,
    hint: never.some(({ bdf }) => bdf === first.bdf)
      ? 'VFIO takes endpoints only'
      : `${first.fix === undefined ? '' : `${first.fix}, or `}${allow}`,
    details: { findings: findings.map(({ bdf, check, subject, message, fix }) => ({ bdf, check, subject, message, fix })) },
  });
}

/** Exact vendor and device that must be at an address (a renumbered device is never taken). @throws VioError RENUMBERED (3) */
export function requireId(device: PciDevice, expect: string): void {
  if (!/^(?:0x)?[0-9a-f]{4}:(?:0x)?[0-9a-f]{4}$/i.test(expect))
    throw new VioError(`not a vendor:device pair: "${printable(expect)}"`, { code: 'USAGE', exit: Exit.usage, hint: 'such as 1b36:0010' });
  if (idOf(device) !== expect.toLowerCase().replaceAll('0x', ''))
    throw new VioError(
      `${device.bdf}: refused: the device at this address is ${idOf(device)}, not ${expect}: it was renumbered or replaced`,
      {
        code: 'RENUMBERED',
        exit: Exit.refused,
        hint: 'find the device with vioctl vfio list, then unbind --persist the old address and bind --persist the new one',
      },
    );
}

/**
 * Decides what to do, with every check, and changes nothing.
 * @param options.privileged false for a dry run, which needs no privilege
 * @throws VioError: usage (2), refused (3), permission (6), no IOMMU or no such driver (7)
 */
export function planBind(census: Census, options: BindOptions, { privileged }: { privileged: boolean }): BindPlan {
  const { root, modules } = census;
  const unknown = (options.allow ?? []).find((check) => !checkNames.includes(check));
  if (unknown !== undefined)
    throw new VioError(`no such check: "${printable(unknown)}"`, {
      code: 'USAGE',
      exit: Exit.usage,
      hint: `checks are ${checkNames.join(', ')}`,
    });
  const named = [...new Map(options.bdfs.map((bdf) => findDevice(root, bdf)).map((device) => [device.bdf, device])).values()];
  if (options.expect !== undefined) for (const device of named) requireId(device, options.expect);
  const iommu = readIommu(root);
  if (!iommu.present && !iommu.noiommu) throw noIommu(iommu);
  const devices = options.group ? withGroups(census, named) : named;
  const taken = new Set(devices.map((device) => device.bdf));
  const planned: PlannedDevice[] = [];
  const denied: (Finding & { bdf: string })[] = [];
  for (const device of devices) {
    const from = stateOf(device);
    const choice =
      options.driver === undefined && modules.isVfio(device.driver)
        ? { driver: device.driver!, module: undefined, vfio: true }
        : modules.choose(device, options.driver);
    const already = device.driver === choice.driver;
    // the override stays while the device is bound: it survives a probe, and keeps others from taking the device
    const to: DeviceState = { driver: choice.driver, override: choice.vfio ? choice.driver : undefined, numVfs: already ? from.numVfs : 0 };
    if (already) to.override = from.override;
    const entry: PlannedDevice = { device, choice, from, to, already, allowed: [] };
    planned.push(entry);
    if (device.busy) throw lockedError(device.bdf);
    if (already) continue;
    if (isGone(root, device))
      throw new VioError(`${device.bdf}: the device does not answer (its config space reads as ones): EIO`, {
        code: 'EIO',
        hint: 'it was removed or sleeps in D3cold; vioctl vfio show tells the power state',
      });
    if (privileged) requirePrivilege(census, device.bdf);
    refuseHeld(census, device);
    for (const finding of checkDevice(census, device, taken)) {
      if (options.allow?.includes(finding.check) && !isBridge(device)) entry.allowed.push(finding);
      else denied.push({ ...finding, bdf: device.bdf });
    }
  }
  if (denied.length > 0) throw refused(denied, devices.filter(isBridge));
  const load = planned.flatMap(({ already, choice }) => (already || choice.module === undefined ? [] : [choice.module]));
  const files = options.persist === undefined ? [] : persistFiles(root, planned, options, options.persist);
  return { devices: planned, modules: [...new Set(load)], owner: options.owner, files };
}

/** A device on a VFIO driver that is to move to another driver must not be held: its unbind would block. @throws VioError HELD (3) */
function refuseHeld(census: Census, device: PciDevice): void {
  if (!census.modules.isVfio(device.driver)) return;
  const holders = blocking(holdersOf(census.root, census.processes, device));
  if (holders.length === 0) return;
  throw new VioError(`${device.bdf}: refused: held by ${holders.map(describeHolder).join(', ')}`, {
    code: 'HELD',
    exit: Exit.refused,
    hint: 'end these processes, then bind again',
    details: { holders },
  });
}

/** The writes of a plan, in order. */
export function plannedWrites(plan: BindPlan): { bdf: string; writes: SysfsWrite[] }[] {
  return plan.devices.map(({ device, from, to, already }) => ({ bdf: device.bdf, writes: already ? [] : planMove(device.bdf, from, to) }));
}

/** A bound device, as bind reports it. */
export interface BoundDevice {
  bdf: string;
  driver: string;
  /** The driver it had before; undefined for none. */
  previousDriver: string | undefined;
  group: number | undefined;
  /** `/dev/vfio/7`, or undefined when it was bound to a host driver. */
  node: string | undefined;
  /** `/dev/vfio/devices/vfio0` where the kernel has one. */
  cdev: string | undefined;
  already: boolean;
  /** Checks that failed and were allowed. */
  allowed: Finding[];
}

/** The outcome of bind. `undo` gives the devices back that this call bound; the caller decides whether to. */
export interface Binding {
  devices: BoundDevice[];
  /** Files that were written to make it persistent; those that were right already are not among them. */
  files: string[];
  /** @throws VioError NOT_RESTORED (8) */
  undo(): Promise<void>;
}

/** Waits until udev or devtmpfs has made the group's node. @throws VioError NO_NODE (1) */
async function awaitNode(host: Host, bdf: string): Promise<void> {
  const deadline = performance.now() + 2000;
  while (nodesOf(host.root, bdf).length === 0) {
    if (performance.now() > deadline)
      throw new VioError(`${bdf}: bound, but its node ${nodeOf(host.root, bdf)} did not appear: ENOENT`, {
        code: 'NO_NODE',
        hint: 'is /dev a devtmpfs, or does udev run? A container needs the node passed in',
        details: { bdf },
      });
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Loads the modules of a transaction. @throws VioError; the transaction is undone */
async function loadModules(host: Host, modules: readonly string[], transaction: Transaction): Promise<void> {
  try {
    for (const module of modules) await host.modprobe(module);
  } catch (err) {
    await transaction.undo(err);
    throw err;
  }
}

/**
 * Binds devices as one transaction: checks, journal, modules, override, unbind, bind, verification, owner. Any failure puts
 * everything back.
 * @param options.hold leave the journal in place until `undo`, so that `vfio restore` undoes it should we die (vfio exec)
 * @param options.signal stops before the next write and rolls back
 * @param options.wait milliseconds to wait for another run that changes one of the devices; then what it did is looked at
 * @throws VioError of planBind, of a step, or NOT_RESTORED (8)
 */
export const bind = (
  host: Host,
  census: Census,
  options: BindOptions & { signal?: AbortSignal | undefined; hold?: boolean; wait?: number | undefined },
): Promise<Binding> =>
  whileBusy(options.wait ?? raceWait, options.signal, (again) => bindOnce(host, again ? census.fresh() : census, options));

async function bindOnce(
  host: Host,
  census: Census,
  options: BindOptions & { signal?: AbortSignal | undefined; hold?: boolean },
): Promise<Binding> {
  const plan = planBind(census, options, { privileged: true });
  const { signal } = options;
  const { root } = host;
  const moving = plan.devices.filter(({ already }) => !already);
  let owners: NodeOwner[] = [];
  const own = () => {
    const { owner } = plan;
    if (owner) for (const { device } of plan.devices) owners.push(...changeOwner(root, device.bdf, owner));
  };
  let written: WrittenFile[] = [];
  const persist = async () => {
    if (plan.files.length > 0) await checkSignal(signal);
    written = writePersistent(root, plan.files);
  };
  let transaction: Transaction | undefined;
  try {
    if (moving.length === 0) {
      own();
      await persist();
    } else {
      const moves: Move[] = moving.map(({ device, to }) => ({ device, to }));
      transaction = Transaction.begin(host, 'bind', moves);
      await loadModules(host, plan.modules, transaction);
      await transaction.run({
        signal,
        afterwards: async () => {
          for (const { device, choice } of moving) if (choice.vfio) await awaitNode(host, device.bdf);
          if (plan.owner) transaction?.mark('owner');
          own();
          await persist();
        },
      });
      if (!options.hold) await transaction.commit();
    }
  } catch (err) {
    try {
      restoreOwners(root, owners);
    } finally {
      takeBack(root, written);
    }
    throw err;
  }
  const devices = plan.devices.map(({ device, choice, from, already, allowed }): BoundDevice => {
    const nodes = choice.vfio ? nodesOf(root, device.bdf) : [];
    const before = already ? new Store(root).record(device.bdf)?.before : from;
    return {
      bdf: device.bdf,
      driver: choice.driver,
      previousDriver: before?.driver,
      group: groupNumber(root, device.bdf),
      node: nodes.find((node) => !node.startsWith('/dev/vfio/devices/')),
      cdev: nodes.find((node) => node.startsWith('/dev/vfio/devices/')),
      already,
      allowed,
    };
  });
  return {
    devices,
    files: written.map(({ path }) => path),
    undo: async () => {
      restoreOwners(root, owners);
      owners = [];
      if (!transaction) return;
      await transaction.undo();
      if (!options.hold) for (const { device } of moving) new Store(root).forget(device.bdf);
      transaction = undefined;
    },
  };
}
