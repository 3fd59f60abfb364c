import { printable } from '../../common/escape.js';
import type { Census } from '../census/census.js';
import type { PciDevice } from '../devices/pci.js';
import type { Finding } from './finding.js';

/** Another tool, or the boot configuration, has plans for the device. */
export function ownedFindings(census: Census, device: PciDevice): Finding[] {
  const domain = census.domains.get(device.bdf);
  const found: Finding[] = [];
  if (domain !== undefined) {
    const name = printable(domain.name);
    const owner = `${domain.running ? 'the running' : 'the'} libvirt ${domain.kind} ${name}`;
    const network = domain.kind === 'network';
    found.push({
      check: 'owned',
      subject: domain.name,
      brief: `libvirt ${network ? 'network ' : ''}${name}`,
      message: network ? `${owner} hands it to domains` : `${owner} has it as a host device`,
      fix: network ? `virsh net-edit ${name}` : `virsh detach-device ${name}, or virsh edit it`,
    });
  }
  for (const { by, where, fix } of census.bootRules.of(device, true))
    found.push({ check: 'owned', subject: where, brief: by, message: `${by} gives it to a driver at boot (${printable(where)})`, fix });
  return found;
}
