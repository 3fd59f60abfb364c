import fs from 'node:fs';
import { Exit, VioError, wrap } from '../../common/errors.js';
import type { Sysroot } from '../../common/sysroot.js';
import type { CheckName } from '../checks/finding.js';
import { type IdentityKind, identityOf } from '../devices/identity.js';
import type { DriverChoice } from '../devices/modules.js';
import { idOf, type PciDevice } from '../devices/pci.js';
import { bindMembers, declare, keysAbout, undeclare } from './declared.js';
import type { Owner } from './owner.js';
import { configs, type PersistFile, type ProgramWords, rules, takeBack, units, unitWord, writePersistent } from './persist-files.js';

const unit = 'vioctl-vfio@.service';
const hook = '/etc/initramfs-tools/hooks/vioctl-vfio';

const ruleFile = (bdf: string): string => `${rules}/20-vioctl-vfio-${bdf}.rules`;
const configFile = (bdf: string): string => `${configs}/${bdf}.env`;

/** A device that is to be bound at every boot, and its driver. */
export interface Persisted {
  device: PciDevice;
  choice: DriverChoice;
}

/** Options of bind that the next boot has to know. */
export interface PersistOptions {
  owner?: Owner | undefined;
  allow?: readonly CheckName[] | undefined;
  /** How the device is recognised; the best way that it has unless given. */
  identity?: IdentityKind | undefined;
}

/**
 * The udev rule of a device. It holds for the address *and* the id, so a device that was renumbered or replaced is left to its
 * own driver. It works without vioctl (initramfs): override, module, bind; the service then makes it a full transaction.
 */
export function udevRule({ device, choice }: Persisted): string {
  const hex = (value: number) => `0x${value.toString(16).padStart(4, '0')}`;
  const match = `ACTION=="add", SUBSYSTEM=="pci", KERNEL=="${device.bdf}", ATTR{vendor}=="${hex(device.vendor)}", ATTR{device}=="${hex(device.device)}"`;
  const bind = `/bin/sh -c 'test -e /sys/bus/pci/devices/$kernel/driver || echo $kernel > /sys/bus/pci/drivers/${choice.driver}/bind'`;
  return [
    '# Written by vioctl vfio bind --persist; removed by vioctl vfio unbind --persist.',
    `${match}, ATTR{driver_override}="${choice.driver}", TAG+="systemd", ENV{SYSTEMD_WANTS}+="vioctl-vfio@${device.bdf}.service"`,
    `${match}, RUN{builtin}+="kmod load ${choice.driver}", RUN+="${bind}"`,
    '',
  ].join('\n');
}

/** The template unit: one instance per address, its options in an environment file. */
export const unitText = (program: ProgramWords): string => `[Unit]
Description=Bind PCI device %i to VFIO
Documentation=man:vioctl-vfio-bind(1)
DefaultDependencies=no
After=systemd-modules-load.service local-fs.target
Before=basic.target
ConditionPathExists=/sys/bus/pci/devices/%i

[Service]
Type=oneshot
RemainAfterExit=yes
EnvironmentFile=${configs}/%i.env
ExecStart=${program.map(unitWord).join(' ')} vfio bind %i $VIOCTL_BIND
`;

/** The unit's options for one device. */
export function configText({ device, choice }: Persisted, options: PersistOptions): string {
  const words = ['--expect', idOf(device), '--driver', choice.driver];
  if (options.owner) words.push('--owner', options.owner.text);
  for (const check of options.allow ?? []) words.push('--allow', check);
  return `# Written by vioctl vfio bind --persist\nVIOCTL_BIND=${words.join(' ')}\n`;
}

/** The initramfs-tools hook: takes the rules and their drivers along, so that host drivers in the initramfs come too late. */
export const hookText = `#!/bin/sh
# Written by vioctl vfio bind --persist: devices are bound before the initramfs loads their host drivers.
PREREQ="udev"
case "\${1:-}" in
prereqs)
	echo "$PREREQ"
	exit 0
	;;
esac
. /usr/share/initramfs-tools/hook-functions
for rule in ${rules}/20-vioctl-vfio-*.rules; do
	[ -e "$rule" ] || continue
	copy_file rule "$rule"
	for module in $(sed -n 's/.*kmod load \\([a-zA-Z0-9_-]*\\)".*/\\1/p' "$rule"); do
		manual_add_modules "$module"
	done
done
exit 0
`;

/** Folders whose absence means that the system has no initramfs-tools. */
const hasInitramfsTools = (root: Sysroot): boolean =>
  root.exists('/etc/initramfs-tools/hooks') || root.exists('/usr/share/initramfs-tools/hook-functions');

/** All files that make a binding persistent. */
export function persistFiles(root: Sysroot, planned: readonly Persisted[], options: PersistOptions, program: ProgramWords): PersistFile[] {
  const files: PersistFile[] = [];
  for (const entry of planned) {
    if (!entry.choice.vfio)
      throw new VioError(`${entry.device.bdf}: --persist is for VFIO drivers, not for ${entry.choice.driver}`, {
        code: 'USAGE',
        exit: Exit.usage,
      });
    const identity = identityOf(root, entry.device, options.identity);
    if (identity === undefined)
      throw new VioError(`${entry.device.bdf}: it has no ${options.identity} of its own to be recognised by`, {
        code: 'NO_IDENTITY',
        exit: Exit.unsupported,
        hint: '--identity address',
      });
    if (identity.kind !== 'address') {
      const members = {
        driver: entry.choice.driver,
        ...(options.owner && { owner: options.owner.text }),
        ...(options.allow && options.allow.length > 0 && { allow: [...options.allow] }),
      };
      for (const file of declare(root, entry.device, identity, members, program))
        if (!files.some(({ path }) => path === file.path)) files.push(file);
      continue;
    }
    if (!files.some(({ path }) => path === `${units}/${unit}`)) {
      files.push({ path: `${units}/${unit}`, mode: 0o644, text: unitText(program) });
      if (hasInitramfsTools(root)) files.push({ path: hook, mode: 0o755, text: hookText });
    }
    files.push({ path: configFile(entry.device.bdf), mode: 0o644, text: configText(entry, options) });
    files.push({ path: ruleFile(entry.device.bdf), mode: 0o644, text: udevRule(entry) });
  }
  return files;
}

/** Addresses with a persistent binding. */
export const persistent = (root: Sysroot): string[] =>
  root.list(configs).flatMap((name) => (name.endsWith('.env') ? [name.slice(0, -4)] : []));

/** What ends the persistent bindings of some devices; shared files go with the last binding. */
export interface PersistentEnd {
  write: PersistFile[];
  remove: string[];
}

/**
 * @param addresses where no device need be any more
 * @param selectors as --persist wrote them, for devices that are gone
 */
export function endOf(root: Sysroot, addresses: readonly string[], selectors: readonly string[] = []): PersistentEnd {
  const own = addresses.flatMap((bdf) => [ruleFile(bdf), configFile(bdf)]).filter((file) => root.exists(file));
  const kept = persistent(root).filter((bdf) => !addresses.includes(bdf));
  const shared = own.length > 0 && kept.length === 0 ? [`${units}/${unit}`, hook].filter((file) => root.exists(file)) : [];
  const keys = [...addresses, ...selectors].flatMap((word) => keysAbout(root, word));
  const { write, remove } = undeclare(root, keys, bindMembers);
  return { write, remove: [...own, ...shared, ...remove] };
}

/** Makes it so. @returns the files that were removed or changed @throws VioError; changed files are put back, removed ones are gone */
export function endPersistent(root: Sysroot, { write, remove }: PersistentEnd): string[] {
  const written = writePersistent(root, write);
  for (const file of remove) {
    try {
      fs.rmSync(root.path(file));
    } catch (err) {
      takeBack(root, written);
      throw wrap(`remove ${file}`, err);
    }
  }
  return [...remove, ...written.map(({ path }) => path)];
}
