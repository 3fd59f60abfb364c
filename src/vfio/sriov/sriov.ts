import { Exit, usage, VioError } from '../../common/errors.js';
import type { Sysroot } from '../../common/sysroot.js';
import { counted } from '../../common/units.js';
import { whileBusy } from '../binding/batch.js';
import { type Binding, type BoundDevice, bind, refused, requirePrivilege } from '../binding/bind.js';
import { declare, keysAbout, sriovMembers, undeclare } from '../binding/declared.js';
import { endPersistent } from '../binding/persist.js';
import type { PersistFile, ProgramWords } from '../binding/persist-files.js';
import type { Census } from '../census/census.js';
import { blocking, describeHolder, holdersOf } from '../census/holders.js';
import { interfacesOf } from '../census/interfaces.js';
import { usesOf } from '../checks/checks.js';
import type { CheckName, Finding } from '../checks/finding.js';
import { identityOf } from '../devices/identity.js';
import { noDevice, type PciDevice, pciDevices, readDevice, readDevices } from '../devices/pci.js';
import { forgetToken, keptToken } from '../session/token.js';
import { type DeviceState, Store } from '../transaction/journal.js';
import { checkSignal, type Host, lockedError, macCommand, planMove, type SysfsWrite, stateOf } from '../transaction/move.js';
import { type Move, Transaction } from '../transaction/transaction.js';
import { parseMac, readMacs } from './macs.js';
import { requireSriov, setToken } from './token.js';

export interface SriovOptions {
  /** Number of virtual functions that there are to be. */
  vfs: number;
  /** Driver of the virtual functions; what the kernel probes unless given. */
  driver?: string | undefined;
  /** MAC addresses of the first virtual functions. */
  macs?: readonly string[] | undefined;
  /** False: the virtual functions are not offered to drivers, now and later. */
  autoprobe?: boolean | undefined;
  allow?: readonly CheckName[] | undefined;
  /** Set them at every boot too: the words that start this program. */
  persist?: ProgramWords | undefined;
  /** VF token for a physical function on VFIO; a new one unless given. */
  token?: string | undefined;
  /** Milliseconds to wait for another run that changes the device. */
  wait: number;
  signal?: AbortSignal | undefined;
}

/** What a change of virtual functions would do. */
export interface SriovPlan {
  pf: PciDevice;
  from: DeviceState;
  /** While virtual functions appear: with a driver of our own they are not offered to others. */
  to: DeviceState;
  /** Network interface of the physical function, where MAC addresses are to be set. */
  link: string | undefined;
  macs: string[];
  driver: string | undefined;
  /** The kernel offers them to drivers afterwards. */
  autoprobe: boolean;
  /** The physical function is on VFIO: its virtual functions open with a token. */
  vfio: boolean;
}

/** Milliseconds that the kernel gets to make virtual functions: some drivers take a tenth of a second for each. */
const vfsTimeout = 120_000;
/** Milliseconds until all links to new virtual functions are there. */
const linksTimeout = 5000;

/** Findings of virtual functions that a change would take away. */
function usesOfVfs(census: Census, pf: PciDevice): (Finding & { bdf: string })[] {
  return readDevices(census.root, pf.vfs).flatMap((vf) => {
    const held = census.modules.isVfio(vf.driver) ? blocking(holdersOf(census.root, census.processes, vf)) : [];
    const holders = held.map((holder): Finding => {
      const message = `virtual function ${vf.bdf} is held by ${describeHolder(holder)}`;
      return { check: 'open', subject: vf.bdf, brief: 'held', message, fix: `end process ${holder.pid}` };
    });
    return [...usesOf(census, vf), ...holders].map((finding) => ({ ...finding, bdf: vf.bdf }));
  });
}

/** The physical function at an address. @throws VioError: ENODEV, usage (2) for a virtual one, NO_SRIOV (7) */
function physical(census: Census, bdf: string): PciDevice {
  const pf = readDevice(census.root, bdf);
  if (!pf) throw noDevice(census.root, bdf);
  if (pf.physfn !== undefined) throw usage(`${bdf} is itself a virtual function`, `its physical function is ${pf.physfn}`);
  if (pf.vfsTotal === 0)
    throw new VioError(`${bdf}: the device has no virtual functions (SR-IOV)`, {
      code: 'NO_SRIOV',
      exit: Exit.unsupported,
      hint: `enable SR-IOV in the firmware set-up; vioctl vfio show ${bdf}`,
    });
  return pf;
}

/** Decides what to do, with every check, and changes nothing. @throws VioError: usage (2), refused (3), permission (6), no SR-IOV (7) */
export function planSriov(census: Census, bdf: string, options: SriovOptions, { privileged }: { privileged: boolean }): SriovPlan {
  const pf = physical(census, bdf);
  if (options.vfs > pf.vfsTotal)
    throw new VioError(`${bdf}: at most ${counted(pf.vfsTotal, 'virtual function')}, not ${options.vfs}`, {
      code: 'ERANGE',
      exit: Exit.usage,
    });
  if (pf.driver === undefined)
    throw new VioError(`${bdf}: it has no driver, which virtual functions need`, { code: 'NO_DRIVER', hint: `vioctl vfio show ${bdf}` });
  if (pf.busy) throw lockedError(bdf);
  const vfio = census.modules.isVfio(pf.driver);
  if (vfio && options.vfs > 0) requireSriov(census, pf);
  if (!vfio && options.token !== undefined) throw usage(`${bdf}: it takes no VF token: its driver is ${pf.driver}`, 'leave out --vf-token');
  const macs = (options.macs ?? []).map(parseMac);
  if (macs.length > options.vfs)
    throw usage(`${counted(macs.length, 'MAC address', 'MAC addresses')} for ${counted(options.vfs, 'virtual function')}`);
  if (new Set(macs).size !== macs.length) throw usage('a MAC address is given twice');
  const [link] = macs.length > 0 ? interfacesOf(census.root, bdf) : [];
  if (macs.length > 0 && link === undefined)
    throw new VioError(`${bdf}: it has no network interface that sets MAC addresses`, { code: 'NO_INTERFACE', exit: Exit.unsupported });
  const from = stateOf(pf);
  const autoprobe = options.autoprobe ?? true;
  const creating = options.driver === undefined && autoprobe;
  const appear = pf.numVfs !== options.vfs && options.vfs > 0;
  const to = { ...from, numVfs: options.vfs, ...(from.autoprobe !== undefined && appear && { autoprobe: creating }) };
  if (pf.numVfs !== options.vfs) {
    const denied = usesOfVfs(census, pf).filter(({ check }) => !options.allow?.includes(check));
    if (denied.length > 0) throw refused(denied);
    if (privileged) requirePrivilege(census, bdf);
  }
  return { pf, from, to, link, macs, driver: options.driver, autoprobe, vfio };
}

/** The writes to the physical function. */
export const sriovWrites = ({ pf, from, to }: SriovPlan): SysfsWrite[] => planMove(pf.bdf, from, to);

/** The plan as lines of a shell script. Addresses of virtual functions are known only when they are there. */
export function sriovLines(plan: SriovPlan): string[] {
  const { pf, from, to, link, macs, driver, autoprobe } = plan;
  const lines = ['#!/bin/sh', 'set -eu', `# ${pf.bdf}`, ...sriovWrites(plan).map(({ path, value }) => `echo ${value} > ${path}`)];
  macs.forEach((mac, i) => {
    lines.push(`ip ${macCommand(link!, i, mac).join(' ')}`);
  });
  if (driver !== undefined && to.numVfs > 0)
    lines.push(
      `for vf in ${pciDevices}/${pf.bdf}/virtfn*; do`,
      '  vf=$(basename "$(readlink "$vf")")',
      `  echo ${driver} > ${pciDevices}/$vf/driver_override`,
      `  echo "$vf" > /sys/bus/pci/drivers/${driver}/bind`,
      'done',
    );
  if (from.autoprobe !== undefined && to.numVfs > 0 && to.autoprobe !== autoprobe)
    lines.push(`echo ${autoprobe ? 1 : 0} > ${pciDevices}/${pf.bdf}/sriov_drivers_autoprobe`);
  return lines;
}

/** What a change of virtual functions came to. */
export interface SriovResult {
  /** PCI address of the physical function */
  bdf: string;
  /** number of virtual functions now */
  numVfs: number;
  /** number of virtual functions before */
  previousVfs: number;
  /** virtual functions: PCI address, driver, MAC address, IOMMU group */
  vfs: { bdf: string; index: number; driver: string | undefined; mac: string | undefined; group: number | undefined }[];
  /** nothing had to be changed */
  already: boolean;
  /** Files that were written or removed to make it persistent. */
  files: string[];
  /** VF token that vioctl set */
  vfToken: string | undefined;
}

/** Waits until every virtual function has its link. @throws VioError NO_VFS */
async function awaitVfs(host: Host, bdf: string, count: number): Promise<string[]> {
  const deadline = performance.now() + linksTimeout;
  for (;;) {
    const vfs = readDevice(host.root, bdf)?.vfs ?? [];
    if (vfs.length === count) return vfs;
    if (performance.now() > deadline)
      throw new VioError(`${bdf}: ${vfs.length} of ${counted(count, 'virtual function')} appeared`, { code: 'NO_VFS', details: { bdf } });
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Addresses that differ: of each virtual function what it has, and what it is to have. */
async function wrongMacs(host: Host, { link, macs }: SriovPlan): Promise<{ vf: number; is: string | undefined; mac: string }[]> {
  if (link === undefined || macs.length === 0) return [];
  const now = await readMacs(host, link);
  return [...macs.entries()].map(([vf, mac]) => ({ vf, mac, is: now.get(vf) })).filter(({ is, mac }) => is !== mac);
}

/** No MAC address is set for a virtual function. */
const noMac = '00:00:00:00:00:00';

/**
 * MAC addresses to put back if the change is undone: those that are changed, and all of virtual functions that go. What ip(8) does not
 * tell keeps nobody from removing them.
 */
async function earlierMacs(host: Host, plan: SriovPlan, wrong: Awaited<ReturnType<typeof wrongMacs>>): Promise<Move['macs']> {
  const { pf, to } = plan;
  const [link] = plan.link === undefined ? interfacesOf(host.root, pf.bdf) : [plan.link];
  if (link === undefined) return undefined;
  const goes = pf.numVfs > 0 && pf.numVfs !== to.numVfs;
  const all = goes ? [...(await readMacs(host, link).catch(() => new Map<number, string>()))] : [];
  const before = [...all, ...wrong.flatMap(({ vf, is }): [number, string][] => (is === undefined ? [] : [[vf, is]]))];
  const set = before.filter(([, mac]) => mac !== noMac);
  return set.length === 0 ? undefined : { link, before: set };
}

/** Sets the MAC addresses that differ, and looks whether each virtual function has its own. @throws VioError NOT_APPLIED */
async function setMacs(host: Host, plan: SriovPlan, mark: () => void): Promise<boolean> {
  const wrong = await wrongMacs(host, plan);
  if (wrong.length === 0) return false;
  for (const { vf, mac } of wrong) {
    mark();
    await host.ip(macCommand(plan.link!, vf, mac));
  }
  const [left] = await wrongMacs(host, plan);
  if (left)
    throw new VioError(`${plan.pf.bdf}: virtual function ${left.vf} has MAC address ${left.is ?? 'none'}, not ${left.mac}`, {
      code: 'NOT_APPLIED',
      hint: `its driver does not take it from the host; ip link show dev ${plan.link}`,
    });
  return true;
}

/**
 * Switches virtual functions on or off, gives them MAC addresses and a driver. Any failure puts the number back; a run that is
 * killed is undone by `vfio restore`.
 * @throws VioError of planSriov, of a step, or NOT_RESTORED (8)
 */
export const sriov = (host: Host, census: Census, bdf: string, options: SriovOptions): Promise<SriovResult> =>
  whileBusy(options.wait, options.signal, (again) => sriovOnce(host, again ? census.fresh() : census, bdf, options));

async function sriovOnce(host: Host, census: Census, bdf: string, options: SriovOptions): Promise<SriovResult> {
  const plan = planSriov(census, bdf, options, { privileged: true });
  const { pf, from, to } = plan;
  const changes = sriovWrites(plan).length > 0;
  const macsNow = pf.numVfs === to.numVfs ? await wrongMacs(host, plan) : [];
  const macs = await earlierMacs(host, plan, macsNow);
  const begins = changes || macsNow.length > 0;
  const transaction = begins ? Transaction.begin(host, 'sriov', [{ device: pf, to, ...(macs && { macs }) }]) : undefined;
  let binding: Binding | undefined;
  let macsChanged = false;
  let settled = false;
  let tokenSet = false;
  let files: string[] = [];
  try {
    if (plan.vfio && to.numVfs > 0 && (changes || options.token !== undefined)) tokenSet = setToken(host.root, pf, options.token);
    await transaction?.run({ signal: options.signal, timeout: vfsTimeout });
    if (plan.vfio && to.numVfs === 0) forgetToken(host.root, bdf);
    const store = new Store(host.root);
    const vfs = await awaitVfs(host, bdf, to.numVfs);
    if (pf.numVfs !== to.numVfs) for (const vf of [...pf.vfs, ...vfs]) store.forget(vf); // those that come at these addresses are others
    macsChanged = await setMacs(host, plan, () => transaction?.mark('macs'));
    if (transaction) await checkSignal(options.signal);
    if (plan.driver !== undefined && vfs.length > 0)
      binding = await bind(host, census.fresh(), {
        bdfs: vfs,
        driver: plan.driver,
        allow: options.allow,
        wait: options.wait,
        signal: options.signal,
      });
    settled = await settleAutoprobe(host, plan);
    if (options.persist !== undefined) files = persist(host.root, options, pf);
  } catch (err) {
    // run() has put the number back if it failed itself
    if (transaction && !transaction.ended) await transaction.undo(err);
    throw err;
  }
  await transaction?.commit();
  return resultOf(host, plan, {
    previousVfs: from.numVfs,
    files,
    already:
      !changes &&
      !macsChanged &&
      !settled &&
      !tokenSet &&
      files.length === 0 &&
      (binding?.devices ?? []).every((device: BoundDevice) => device.already),
  });
}

/** The files that declare the virtual functions for the next boot; of none, what is left of them. */
export function sriovFiles(root: Sysroot, options: Omit<SriovOptions, 'wait'>, pf: PciDevice): { write: PersistFile[]; remove: string[] } {
  const { vfs, driver, autoprobe, macs } = options;
  if (vfs === 0) return undeclare(root, keysAbout(root, pf.bdf), sriovMembers);
  const members = {
    vfs,
    vfDriver: driver,
    autoprobe,
    macs: macs && macs.length > 0 ? macs.map(parseMac) : undefined,
    ...(options.allow && options.allow.length > 0 && { allow: [...options.allow] }),
  };
  return { write: declare(root, pf, identityOf(root, pf)!, members, options.persist!), remove: [] };
}

const persist = (root: Sysroot, options: SriovOptions, pf: PciDevice): string[] => endPersistent(root, sriovFiles(root, options, pf));

/** Sets whether drivers are offered the virtual functions from now on. @returns whether that changed */
async function settleAutoprobe(host: Host, { pf, to, autoprobe }: SriovPlan): Promise<boolean> {
  if (to.autoprobe === undefined || to.numVfs === 0 || readDevice(host.root, pf.bdf)?.autoprobe === autoprobe) return false;
  await host.writer.write(`${pciDevices}/${pf.bdf}/sriov_drivers_autoprobe`, `${autoprobe ? 1 : 0}\n`, { timeout: vfsTimeout });
  return true;
}

async function resultOf(
  host: Host,
  { pf, link }: Pick<SriovPlan, 'pf' | 'link'>,
  told: Pick<SriovResult, 'previousVfs' | 'already' | 'files'>,
): Promise<SriovResult> {
  const now = readDevice(host.root, pf.bdf);
  const macs = link === undefined ? new Map<number, string>() : await readMacs(host, link);
  const byBdf = new Map(readDevices(host.root, now?.vfs ?? []).map((vf) => [vf.bdf, vf]));
  return {
    bdf: pf.bdf,
    numVfs: now?.numVfs ?? 0,
    ...told,
    vfToken: now !== undefined && now.numVfs > 0 ? keptToken(host.root, pf.bdf) : undefined,
    vfs: (now?.vfs ?? []).map((vf, index) => {
      const device = byBdf.get(vf);
      return { bdf: vf, index, driver: device?.driver, mac: macs.get(index), group: device?.group };
    }),
  };
}

/** The virtual functions as they are. @throws VioError (7) without SR-IOV */
export function showSriov(host: Host, census: Census, bdf: string): Promise<SriovResult> {
  const pf = physical(census, bdf);
  const [link] = interfacesOf(census.root, bdf);
  return resultOf(host, { pf, link }, { previousVfs: pf.numVfs, already: true, files: [] });
}
