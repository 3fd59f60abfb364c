import { isIP } from 'node:net';
import { printable } from '../../common/escape.js';
import type { Census } from '../census/census.js';
import { routesTo, uppersOf } from '../census/interfaces.js';
import type { PciDevice } from '../devices/pci.js';
import type { Finding } from './finding.js';

/**
 * Watchdogs that run: without their driver the machine reboots, or nothing notices that it hangs. Some drivers register theirs without
 * a parent (i6300esb): it is known by the identity then, which names driver or module.
 */
function watchdogFindings(census: Census, device: PciDevice): Finding[] {
  const { driver } = device;
  if (driver === undefined) return [];
  return census.watchdogs
    .filter(({ target, identity }) => {
      if (!/\/virtual\//.test(target)) return target.includes(`/${device.bdf}/`);
      const module = census.modules.moduleOf(driver);
      return identity === driver || (module !== undefined && identity.toLowerCase().split(/\W/).includes(module));
    })
    .map(({ name, identity }) => {
      const label = identity === '' ? '' : ` (${printable(identity)})`;
      const message = `its watchdog ${name}${label} runs: if nobody serves it, the machine reboots`;
      return { check: 'watchdog', subject: name, brief: `watchdog ${name}`, message, fix: 'stop the watchdog daemon' };
    });
}

/** Memory controllers whose errors the kernel counts (EDAC), by the link of their device or by their driver. */
function edacFindings(census: Census, device: PciDevice): Finding[] {
  const found = census.edac.flatMap(({ name, target }) => (target.endsWith(`/${device.bdf}`) || target === device.bdf ? [name] : []));
  const name = found[0] ?? (/(^|_)edac(_|$)/.test(device.driver ?? '') ? device.driver : undefined);
  if (name === undefined) return [];
  const message = `the kernel watches memory errors with it (EDAC, ${printable(name)})`;
  return [{ check: 'edac', subject: name, brief: 'EDAC', message, fix: undefined }];
}

/** Disks and interfaces that a loaded crash kernel needs. What is mounted has a finding of its own. */
function crashFindings(census: Census, device: PciDevice): Finding[] {
  const { root } = census;
  const { devices, hosts } = census.crash;
  const found: Finding[] = [];
  const add = (subject: string, what: string) =>
    found.push({
      check: 'kdump',
      subject,
      brief: 'crash dumps',
      message: `the loaded crash kernel writes its dump ${what}`,
      fix: 'unload it (kexec -p -u), or give it another target',
    });
  if (devices.length > 0) {
    const tag = (text: string) => /^(?:(UUID|LABEL|PARTUUID|PARTLABEL)=)(.*)$/.exec(text);
    const paths = devices.map((text) => {
      const match = tag(text);
      return match ? `/dev/disk/by-${match[1]!.toLowerCase()}/${match[2]!.replaceAll('"', '')}` : text;
    });
    const real = new Set(paths.flatMap((path) => [path, root.realpath(path)]));
    for (const { name } of census.blocks.tree(device.bdf)) if (real.has(`/dev/${name}`)) add(`/dev/${name}`, `to /dev/${name}`);
  }
  for (const { name } of hosts.length === 0 ? [] : census.below('/sys/class/net', device.bdf)) {
    const stack = new Set([name, ...uppersOf(root, name)]);
    const target = hosts.find((text) => isIP(text) !== 0 && routesTo(census.routes, text).some((route) => stack.has(route.device)));
    if (target !== undefined) add(name, `to ${target} through ${name}`);
  }
  return found;
}

/** What the machine itself relies on. */
export const machineFindings = (census: Census, device: PciDevice): Finding[] => [
  ...watchdogFindings(census, device),
  ...edacFindings(census, device),
  ...crashFindings(census, device),
];
