import { createHash } from 'node:crypto';
import type { Sysroot } from '../../common/sysroot.js';
import { fits, type Identity } from '../devices/identity.js';
import { type PciDevice } from '../devices/pci.js';
import { select } from '../devices/select.js';
import { configs, type PersistFile, type ProgramWords, rules, units, unitWord } from './persist-files.js';

/**
 * Persistence of devices that are recognised by serial number, MAC address or slot: a declaration of `vfio apply` for each device. A
 * udev rule for all devices of its id starts the unit that applies it, so that the device is found wherever it is plugged in.
 */

/** An entry of a declaration as it is written: that of document.ts, without what is left out. */
export type Entry = Record<string, unknown> & { device: string };

const unit = 'vioctl-vfio-apply@.service';
/** Seconds that a device gets to appear under its name: its host driver has to read the serial number first. */
const appear = '10s';

/** Name of a declaration's file, also of its unit's instance (systemd.unit(5)): of a serial number that has other characters a hash goes along. */
export function keyOf({ selector, function: fn }: Pick<Identity, 'selector' | 'function'>): string {
  const safe = selector.replace(/[^A-Za-z0-9_.]/g, '_');
  const exact = safe === selector.replace(':', '_');
  return `${safe}${exact ? '' : `-${createHash('sha256').update(selector).digest('hex').slice(0, 8)}`}-${fn}`;
}

const fileOf = (key: string): string => `${configs}/${key}.json`;
const ruleOf = (key: string): string => `${rules}/20-vioctl-vfio-${key}.rules`;

/** The template unit: one instance for each declaration. */
export const applyUnitText = (program: ProgramWords): string => `[Unit]
Description=Bring the PCI device of %i.json to its declared state
Documentation=man:vioctl-vfio-apply(1)
DefaultDependencies=no
After=systemd-modules-load.service local-fs.target
Before=basic.target
ConditionPathExists=${configs}/%i.json

[Service]
Type=oneshot
ExecStart=${program.map(unitWord).join(' ')} vfio apply ${configs}/%i.json --appear ${appear}
`;

function ruleText(key: string, device: PciDevice): string {
  const hex = (value: number) => `0x${value.toString(16).padStart(4, '0')}`;
  const match = `ACTION=="add", SUBSYSTEM=="pci", ATTR{vendor}=="${hex(device.vendor)}", ATTR{device}=="${hex(device.device)}"`;
  return `# Written by vioctl vfio --persist; removed by vioctl vfio unbind --persist.
${match}, TAG+="systemd", ENV{SYSTEMD_WANTS}+="vioctl-vfio-apply@${key}.service"
`;
}

/** All declarations that --persist wrote, by their keys; files of other shapes are left out. */
export function declarations(root: Sysroot): Map<string, Entry> {
  const found = new Map<string, Entry>();
  for (const name of root.list(configs).filter((file) => file.endsWith('.json'))) {
    try {
      const { devices } = JSON.parse(root.read(`${configs}/${name}`)) as { devices: Entry[] };
      if (devices.length === 1 && typeof devices[0]!.device === 'string') found.set(name.slice(0, -5), devices[0]!);
    } catch {
      // not ours: an administrator may keep other files here
    }
  }
  return found;
}

/** The files that declare a device, what was declared about it before included. */
export function declare(
  root: Sysroot,
  device: PciDevice,
  identity: Identity,
  members: Record<string, unknown>,
  program: ProgramWords,
): PersistFile[] {
  const key = keyOf(identity);
  const entry: Entry = {
    device: identity.selector,
    expect: identity.expect,
    function: identity.function,
    optional: true,
    ...withoutIdentity(declarations(root).get(key)),
    ...members,
  };
  return [
    { path: `${units}/${unit}`, mode: 0o644, text: applyUnitText(program) },
    { path: fileOf(key), mode: 0o644, text: textOf(entry) },
    { path: ruleOf(key), mode: 0o644, text: ruleText(key, device) },
  ];
}

const textOf = (entry: Entry): string => `${JSON.stringify({ version: 1, devices: [entry] }, null, 2)}\n`;

const identityKeys = new Set(['device', 'expect', 'function', 'optional']);

/** What an entry declares besides whose it is. */
const withoutIdentity = (entry: Entry | undefined): Record<string, unknown> =>
  Object.fromEntries(Object.entries(entry ?? {}).filter(([key]) => !identityKeys.has(key)));

/** True if an entry is about the device at an address. */
function isAbout(root: Sysroot, entry: Entry, bdf: string): boolean {
  try {
    const wanted = { expect: entry.expect as string | undefined, function: entry.function as number | undefined };
    return select(root, entry.device).some((device) => device.bdf === bdf && fits(device, wanted));
  } catch {
    return false; // it is not there under this name
  }
}

/** Keys of the declarations about a device, or of those with exactly this selector, whose device may be gone. */
export const keysAbout = (root: Sysroot, bdfOrSelector: string): string[] =>
  [...declarations(root)].flatMap(([key, entry]) => (entry.device === bdfOrSelector || isAbout(root, entry, bdfOrSelector) ? [key] : []));

/**
 * What is left of declarations when some of their members go.
 * @param members names of what goes
 * @returns files to write, and files to remove
 */
export function undeclare(root: Sysroot, keys: readonly string[], members: readonly string[]): { write: PersistFile[]; remove: string[] } {
  const all = declarations(root);
  const write: PersistFile[] = [];
  const remove: string[] = [];
  for (const key of new Set(keys)) {
    const entry = all.get(key);
    if (!entry) continue;
    const rest: Entry = { ...Object.fromEntries(Object.entries(entry).filter(([name]) => !members.includes(name))), device: entry.device };
    if (Object.keys(withoutIdentity(rest)).length > 0) write.push({ path: fileOf(key), mode: 0o644, text: textOf(rest) });
    else {
      all.delete(key);
      remove.push(ruleOf(key), fileOf(key));
    }
  }
  if (remove.length > 0 && all.size === 0) remove.push(`${units}/${unit}`);
  return { write, remove: remove.filter((file) => root.exists(file)) };
}

/** Members that `vfio bind --persist` declares, and those of `vfio sriov --persist`. */
export const bindMembers = ['driver', 'owner', 'allow'] as const;
export const sriovMembers = ['vfs', 'vfDriver', 'macs', 'autoprobe'] as const;
