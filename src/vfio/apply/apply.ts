import fs from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { codeOf, Exit, type ExitStatus, reason, VioError } from '../../common/errors.js';
import type { Sysroot } from '../../common/sysroot.js';
import type { Failure } from '../binding/batch.js';
import { bind, planBind } from '../binding/bind.js';
import { nodesOf, type Owner, parseOwner } from '../binding/owner.js';
import type { ProgramWords } from '../binding/persist-files.js';
import { type Restored, restorationError, restore } from '../binding/restore.js';
import { unbind } from '../binding/unbind.js';
import type { Census } from '../census/census.js';
import { interfacesOf } from '../census/interfaces.js';
import { fits } from '../devices/identity.js';
import { idOf, type PciDevice, pciDevices, readDevice, readDevices } from '../devices/pci.js';
import { select } from '../devices/select.js';
import { readMacs } from '../sriov/macs.js';
import { planSriov, sriov, sriovFiles } from '../sriov/sriov.js';
import { Store } from '../transaction/journal.js';
import type { Host } from '../transaction/move.js';
import type { Declared } from './document.js';

/** One difference between what is and what is declared. */
export interface Difference {
  what: 'driver' | 'owner' | 'persist' | 'vfs' | 'vfDriver' | 'macs' | 'autoprobe' | 'power' | 'd3cold' | 'resetMethod' | 'interrupted';
  is: string;
  wanted: string;
}

/** What apply found and did about one device. */
export interface Applied {
  /** As the file names it. */
  device: string;
  /** undefined where nothing matches. */
  bdf: string | undefined;
  /** same: as declared; changed: now as declared; differs: --check found differences; absent: optional and not there */
  outcome: 'same' | 'changed' | 'differs' | 'absent' | 'failed';
  differences: Difference[];
  /** What an earlier run that was cut short had left of it, and was put back first. */
  restored?: Restored[];
  error: Failure | undefined;
}

export interface ApplyOptions {
  /** Only tell the differences. */
  check: boolean;
  wait: number;
  /** Milliseconds from the start to wait for devices that are not there yet. */
  appear?: number | undefined;
  signal?: AbortSignal | undefined;
  program: ProgramWords;
}

const failureOf = (bdf: string, err: VioError): Failure => ({
  bdf,
  code: err.code,
  message: err.message,
  hint: err.hint,
  exit: err.exit as ExitStatus,
});

const bindOptions = (declared: Declared, bdf: string, owner: Owner | undefined, program: ProgramWords) => ({
  bdfs: [bdf],
  driver: declared.driver === 'vfio' ? undefined : declared.driver,
  allow: declared.allow,
  owner,
  persist: declared.persist ? program : undefined,
});

/** The differences of the driver, its nodes and files. @throws VioError: the refusals of bind */
function bindingDifferences(census: Census, declared: Declared, device: PciDevice, program: ProgramWords): Difference[] {
  const { root, modules } = census;
  const found: Difference[] = [];
  const { driver } = declared;
  if (driver === undefined) return found;
  const is = device.driver ?? 'none';
  if (driver === 'host') {
    if (modules.isVfio(device.driver)) found.push({ what: 'driver', is, wanted: 'host' });
    return found;
  }
  const right = driver === 'vfio' ? modules.isVfio(device.driver) : device.driver === driver;
  const owner = declared.owner === undefined ? undefined : parseOwner(root, declared.owner);
  const { files } = planBind(census, bindOptions(declared, device.bdf, owner, program), { privileged: false });
  if (!right) found.push({ what: 'driver', is, wanted: driver });
  if (owner !== undefined) {
    const { uid, gid } = owner;
    const owners = right ? nodesOf(root, device.bdf).map((path) => fs.statSync(root.path(path))) : [];
    const other = owners.find((stat) => stat.uid !== uid || stat.gid !== gid);
    if (other || !right) found.push({ what: 'owner', is: other ? `${other.uid}:${other.gid}` : 'none', wanted: owner.text });
  }
  if (declared.persist) {
    const missing = files.filter((file) => !root.exists(file.path) || root.read(file.path) !== file.text);
    if (missing.length > 0) found.push({ what: 'persist', is: 'no', wanted: 'yes' });
  }
  return found;
}

const sriovOptions = ({ vfs, vfDriver, macs, autoprobe, allow }: Declared) => ({ vfs: vfs!, driver: vfDriver, macs, autoprobe, allow });

/** The differences of virtual functions. @throws VioError (7) without SR-IOV */
async function vfDifferences(
  host: Host,
  census: Census,
  declared: Declared,
  device: PciDevice,
  program: ProgramWords,
): Promise<Difference[]> {
  const { vfs, vfDriver, macs, autoprobe } = declared;
  if (vfs === undefined) return [];
  const found: Difference[] = [];
  planSriov(census, device.bdf, { vfs: device.numVfs, wait: 0 }, { privileged: false });
  if (device.numVfs !== vfs) found.push({ what: 'vfs', is: String(device.numVfs), wanted: String(vfs) });
  if (vfDriver !== undefined && vfs > 0) {
    const wrong = readDevices(census.root, device.vfs).find((vf) => vf.driver !== vfDriver);
    if (wrong || device.vfs.length < vfs) found.push({ what: 'vfDriver', is: wrong?.driver ?? 'none', wanted: vfDriver });
  }
  if (autoprobe !== undefined && vfs > 0 && device.autoprobe !== autoprobe)
    found.push({ what: 'autoprobe', is: String(device.autoprobe), wanted: String(autoprobe) });
  const [link] = macs.length > 0 ? interfacesOf(census.root, device.bdf) : [];
  if (macs.length > 0) {
    const now = link === undefined || device.vfs.length === 0 ? new Map<number, string>() : await readMacs(host, link);
    const i = macs.findIndex((mac, index) => now.get(index) !== mac);
    if (i >= 0) found.push({ what: 'macs', is: now.get(i) ?? 'none', wanted: macs[i]! });
  }
  if (declared.persist) {
    const { write, remove } = sriovFiles(census.root, { ...sriovOptions(declared), persist: program }, device);
    if (remove.length > 0 || write.some((file) => census.root.attr(file.path) !== file.text.trim()))
      found.push({ what: 'persist', is: 'no', wanted: 'yes' });
  }
  return found;
}

/** Attributes of a device that a declaration sets as they are. */
function attributesOf({
  power,
  d3cold,
  resetMethod,
}: Declared): { what: 'power' | 'd3cold' | 'resetMethod'; file: string; wanted: string }[] {
  return [
    ...(power === undefined ? [] : [{ what: 'power' as const, file: 'power/control', wanted: power }]),
    ...(d3cold === undefined ? [] : [{ what: 'd3cold' as const, file: 'd3cold_allowed', wanted: d3cold ? '1' : '0' }]),
    ...(resetMethod === undefined ? [] : [{ what: 'resetMethod' as const, file: 'reset_method', wanted: resetMethod }]),
  ];
}

function attributeDifferences(root: Sysroot, declared: Declared, bdf: string): Difference[] {
  return attributesOf(declared).flatMap(({ what, file, wanted }): Difference[] => {
    const is = root.attr(`${pciDevices}/${bdf}/${file}`)?.trim() ?? 'none';
    return is === wanted ? [] : [{ what, is, wanted }];
  });
}

/** Sets the attributes that differ. @throws VioError (7) for one that this device or kernel does not have */
async function setAttributes(host: Host, declared: Declared, bdf: string, options: Pick<ApplyOptions, 'wait' | 'signal'>): Promise<void> {
  for (const { what } of attributeDifferences(host.root, declared, bdf)) {
    const { file, wanted } = attributesOf(declared).find((one) => one.what === what)!;
    const path = `${pciDevices}/${bdf}/${file}`;
    if (!host.root.exists(path))
      throw new VioError(`${bdf}: it has no ${file}`, { code: 'ENOENT', exit: Exit.unsupported, hint: `vioctl vfio show ${bdf}` });
    try {
      await host.writer.write(path, `${wanted}\n`, { timeout: options.wait, signal: options.signal });
    } catch (err) {
      throw new VioError(`${bdf}: write ${wanted} to ${path}: ${reason(err)}`, { code: codeOf(err) ?? 'FAILED', cause: err });
    }
  }
}

/** A device and its virtual functions. */
const family = (root: Sysroot, bdf: string): ReadonlySet<string> => new Set([bdf, ...(readDevice(root, bdf)?.vfs ?? [])]);

/**
 * What a run that was killed left of a device. It counts even if all is as declared: the kill may have come when only the journal was
 * left to end, and until that is done other commands refuse the device.
 */
function interruptedDifferences(root: Sysroot, bdf: string): Difference[] {
  const store = new Store(root);
  const journals = new Set([...family(root, bdf)].flatMap((one) => store.interrupted(one) ?? []));
  return [...journals].map((journal) => ({ what: 'interrupted', is: journal, wanted: 'none' }));
}

/** All differences of one device. */
async function differencesOf(host: Host, census: Census, declared: Declared, bdf: string, program: ProgramWords): Promise<Difference[]> {
  const device = readDevice(census.root, bdf);
  if (!device) throw new VioError(`${bdf}: the device is gone: ENODEV (No such device)`, { code: 'ENODEV' });
  return [
    ...bindingDifferences(census, declared, device, program),
    ...(await vfDifferences(host, census, declared, device, program)),
    ...attributeDifferences(census.root, declared, bdf),
  ];
}

/** Brings one device to its declared state. */
async function bring(
  host: Host,
  census: Census,
  declared: Declared,
  bdf: string,
  differences: Difference[],
  options: ApplyOptions,
): Promise<void> {
  const has = (...whats: Difference['what'][]) => differences.some(({ what }) => whats.includes(what));
  const { wait, signal } = options;
  if (declared.driver !== undefined && has('driver', 'owner', 'persist')) {
    if (declared.driver === 'host') await unbind(host, census, { bdfs: [bdf], wait, signal });
    else {
      const owner = declared.owner === undefined ? undefined : parseOwner(host.root, declared.owner);
      await bind(host, census, { ...bindOptions(declared, bdf, owner, options.program), wait, signal });
    }
  }
  if (declared.vfs !== undefined && has('vfs', 'vfDriver', 'macs', 'autoprobe', 'persist'))
    await sriov(host, census.fresh(), bdf, {
      ...sriovOptions(declared),
      persist: declared.persist ? options.program : undefined,
      wait,
      signal,
    });
  await setAttributes(host, declared, bdf, options);
}

/**
 * An earlier run was killed: what it left of a device and its virtual functions is undone first, so that a declaration can be applied
 * again. @throws VioError NOT_RESTORED (8)
 */
async function undoInterrupted(host: Host, census: Census, bdf: string, options: ApplyOptions): Promise<Restored[]> {
  const only = family(host.root, bdf);
  const restoration = await restore(host, census.fresh(), { all: false, only, wait: options.wait, signal: options.signal });
  const error = restorationError(restoration);
  if (error) throw error;
  return restoration.devices;
}

async function applyOne(host: Host, census: Census, declared: Declared, bdf: string, options: ApplyOptions): Promise<Applied> {
  const { device } = declared;
  let differences: Difference[] = [];
  let restored: Restored[] = [];
  const done = () => ({ device, bdf, differences, ...(restored.length > 0 && { restored }) });
  try {
    differences = interruptedDifferences(host.root, bdf);
    if (differences.length > 0 && !options.check) restored = await undoInterrupted(host, census, bdf, options);
    const now = restored.length > 0 ? census.fresh() : census;
    differences.push(...(await differencesOf(host, now, declared, bdf, options.program)));
    if (differences.length === 0) return { ...done(), outcome: 'same', error: undefined };
    if (options.check) return { ...done(), outcome: 'differs', error: undefined };
    await bring(host, now, declared, bdf, differences, options);
    return { ...done(), outcome: 'changed', error: undefined };
  } catch (err) {
    if (!(err instanceof VioError) || options.signal?.aborted) throw err;
    return { ...done(), outcome: 'failed', error: failureOf(bdf, err) };
  }
}

/** Milliseconds between two looks for a device. */
const lookAgain = 200;

/** The devices of an entry, waited for until a deadline. @throws VioError of select(); ENODEV where id or function differ; the signal's reason */
async function matching(root: Sysroot, declared: Declared, deadline: number, signal: AbortSignal | undefined): Promise<PciDevice[]> {
  for (;;) {
    try {
      const found = select(root, declared.device);
      const right = found.filter((device) => fits(device, declared));
      if (right.length > 0) return right;
      throw new VioError(
        `${declared.device}: ${found[0]!.bdf} is ${idOf(found[0]!)}, not what is expected: it was renumbered or replaced`,
        {
          code: 'ENODEV',
          hint: 'vioctl vfio list',
        },
      );
    } catch (err) {
      const left = deadline - performance.now();
      if (!(err instanceof VioError) || err.code !== 'ENODEV' || left <= 0) throw err;
      await sleep(Math.min(lookAgain, left), undefined, signal === undefined ? {} : { signal });
    }
  }
}

/**
 * Brings devices to their declared state, entry by entry, or tells the differences. What fails keeps no other from being done,
 * and a second run changes nothing.
 * @throws the signal's reason
 */
export async function apply(host: Host, census: Census, entries: readonly Declared[], options: ApplyOptions): Promise<Applied[]> {
  const results: Applied[] = [];
  const deadline = performance.now() + (options.appear ?? 0);
  for (const declared of entries) {
    options.signal?.throwIfAborted();
    const { device } = declared;
    let bdfs: string[];
    try {
      bdfs = (await matching(census.root, declared, deadline, options.signal)).map(({ bdf }) => bdf);
      if (bdfs.length > 1 && !declared.all)
        throw new VioError(`${device} matches ${bdfs.length} devices: ${bdfs.slice(0, 8).join(', ')}`, {
          code: 'USAGE',
          exit: Exit.usage,
          hint: 'all: true takes them all',
        });
    } catch (err) {
      if (!(err instanceof VioError)) throw err;
      const absent = err.code === 'ENODEV' && declared.optional;
      results.push({
        device,
        bdf: undefined,
        outcome: absent ? 'absent' : 'failed',
        differences: [],
        error: absent ? undefined : failureOf(device, err),
      });
      continue;
    }
    for (const bdf of bdfs) results.push(await applyOne(host, census.fresh(), declared, bdf, options));
  }
  return results;
}
