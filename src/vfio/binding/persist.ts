import fs from 'node:fs';
import path from 'node:path';
import { Exit, VioError, wrap } from '../../common/errors.js';
import type { Sysroot } from '../../common/sysroot.js';
import type { CheckName } from '../checks/finding.js';
import type { DriverChoice } from '../devices/modules.js';
import { idOf, type PciDevice } from '../devices/pci.js';
import type { Owner } from './owner.js';

/** How this program is started: the words before `vfio bind`, absolute. */
export type ProgramWords = readonly string[];

const rules = '/etc/udev/rules.d';
const units = '/etc/systemd/system';
const unit = 'vioctl-vfio@.service';
const configs = '/etc/vioctl/vfio.d';
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
}

/** A file that --persist writes. */
export interface PersistFile {
  path: string;
  mode: number;
  text: string;
}

/** A word of a unit's command line (systemd.service(5), COMMAND LINES). */
const unitWord = (word: string): string =>
  /^[\w./:@+,=-]+$/.test(word) ? word : `"${word.replace(/["\\$%]/g, (c) => (c === '"' || c === '\\' ? `\\${c}` : c + c))}"`;

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
  const files: PersistFile[] = [{ path: `${units}/${unit}`, mode: 0o644, text: unitText(program) }];
  if (hasInitramfsTools(root)) files.push({ path: hook, mode: 0o755, text: hookText });
  for (const entry of planned) {
    if (!entry.choice.vfio)
      throw new VioError(`${entry.device.bdf}: --persist is for VFIO drivers, not for ${entry.choice.driver}`, {
        code: 'USAGE',
        exit: Exit.usage,
      });
    files.push({ path: configFile(entry.device.bdf), mode: 0o644, text: configText(entry, options) });
    files.push({ path: ruleFile(entry.device.bdf), mode: 0o644, text: udevRule(entry) });
  }
  return files;
}

/** A file that was written, and what was there before; undefined for nothing. */
export interface WrittenFile {
  path: string;
  before: PersistFile | undefined;
}

/** Writes files, each at once (temporary file, rename). @returns those that differed @throws VioError; what was written is taken back */
export function writePersistent(root: Sysroot, files: readonly PersistFile[]): WrittenFile[] {
  const written: WrittenFile[] = [];
  try {
    for (const file of files) {
      const { path } = file;
      const before = root.exists(path) ? { path, mode: fs.statSync(root.path(path)).mode & 0o7777, text: root.read(path) } : undefined;
      if (before?.text === file.text) continue;
      replace(root, file);
      written.push({ path, before });
    }
  } catch (err) {
    takeBack(root, written);
    throw wrap('make the binding persistent', err, { hint: '/etc must be writable' });
  }
  return written;
}

/** Undoes writePersistent. Every file is tried. @throws VioError that names the files that could not be put back */
export function takeBack(root: Sysroot, written: readonly WrittenFile[]): void {
  const stuck: string[] = [];
  let cause: unknown;
  for (const { path, before } of written) {
    try {
      if (before === undefined) fs.rmSync(root.path(path), { force: true });
      else replace(root, before);
    } catch (err) {
      stuck.push(path);
      cause ??= err;
    }
  }
  if (stuck.length > 0) throw wrap(`put back ${stuck.join(', ')}`, cause);
}

function replace(root: Sysroot, file: PersistFile): void {
  const target = root.path(file.path);
  fs.mkdirSync(path.dirname(target), { recursive: true });
  fs.writeFileSync(`${target}.new`, file.text, { mode: file.mode });
  fs.chmodSync(`${target}.new`, file.mode);
  fs.renameSync(`${target}.new`, target);
}

/** Addresses with a persistent binding. */
export const persistent = (root: Sysroot): string[] =>
  root.list(configs).flatMap((name) => (name.endsWith('.env') ? [name.slice(0, -4)] : []));

/** The files that go with the persistent bindings of some addresses; the shared ones go with the last binding. */
export function filesToRemove(root: Sysroot, bdfs: readonly string[]): string[] {
  const own = bdfs.flatMap((bdf) => [ruleFile(bdf), configFile(bdf)]);
  const shared = persistent(root).every((bdf) => bdfs.includes(bdf)) ? [`${units}/${unit}`, hook] : [];
  return [...own, ...shared].filter((file) => root.exists(file));
}

/** Removes persistent bindings. @returns the files that were removed */
export function removePersistent(root: Sysroot, bdfs: readonly string[]): string[] {
  const files = filesToRemove(root, bdfs);
  for (const file of files) {
    try {
      fs.rmSync(root.path(file));
    } catch (err) {
      throw wrap(`remove ${file}`, err);
    }
  }
  return files;
}

/** Programs that take notice of changed files, where they are installed. */
export function reloadCommands(root: Sysroot, changed: readonly string[]): string[][] {
  const commands: string[][] = [];
  if (changed.some((file) => file.startsWith(units)) && root.exists('/run/systemd/system')) commands.push(['systemctl', 'daemon-reload']);
  if (changed.some((file) => file.startsWith(rules)) && root.exists('/run/udev/control')) commands.push(['udevadm', 'control', '--reload']);
  return commands;
}
