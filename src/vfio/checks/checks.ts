import { counted } from '../../common/units.js';
import type { Census } from '../census/census.js';
import { readGroup } from '../devices/group.js';
import { type PciDevice, pciDevices } from '../devices/pci.js';
import { attachedFindings } from './attached.js';
import { chipsetRole } from './chipset.js';
import { consoleFindings } from './console.js';
import { blockFindings } from './disks.js';
import { shareFindings } from './filesystems.js';
import type { Finding } from './finding.js';
import { machineFindings } from './machine.js';
import { netFindings } from './network.js';
import { openFindings } from './opens.js';
import { ownedFindings } from './owned.js';

/** Members of the device's group on host drivers. @param taken addresses that the same run binds too */
function groupFindings(census: Census, device: PciDevice, taken: ReadonlySet<string>): Finding[] {
  if (device.group === undefined) return [];
  return readGroup(census.root, census.modules, device.group)
    .members.filter((member) => member.blocks && member.bdf !== device.bdf && !taken.has(member.bdf))
    .map((member) => ({
      check: 'group-member' as const,
      subject: member.bdf,
      brief: `group shared with ${member.bdf} (${member.driver})`,
      message: `${member.bdf} in the same IOMMU group ${device.group} is on driver ${member.driver}, so VFIO could not use the group`,
      fix: `vioctl vfio bind ${device.bdf} --group`,
    }));
}

/**
 * What uses the device now, as far as the host's own drivers are concerned.
 * @param options.claim also try exclusive opens (bind)
 * @param options.brief leave out which processes have it open if something else uses it (list)
 */
export function usesOf(census: Census, device: PciDevice, options: { claim?: boolean; brief?: boolean } = {}): Finding[] {
  const found: Finding[] = [];
  if (device.bridge)
    return [
      {
        check: 'bridge',
        subject: device.bdf,
        brief: 'PCI bridge',
        message: `${device.bdf} is a PCI bridge: VFIO takes endpoints only`,
        fix: undefined,
      },
    ];
  const role = chipsetRole(census, device);
  if (role !== undefined)
    return [
      {
        check: 'chipset',
        subject: device.bdf,
        brief: role,
        message: `${device.bdf} is part of the machine (${role})`,
        fix: undefined,
      },
    ];
  found.push(...blockFindings(census, device, options.claim ?? false), ...shareFindings(census, device));
  found.push(...netFindings(census, device), ...consoleFindings(census, device));
  if (device.vfs.length > 0)
    found.push({
      check: 'pf-with-vfs',
      subject: device.bdf,
      brief: counted(device.vfs.length, 'VF'),
      message: `${device.bdf} has ${counted(device.vfs.length, 'virtual function')} (${device.vfs.join(', ')}) that would vanish`,
      fix: `echo 0 > ${pciDevices}/${device.bdf}/sriov_numvfs`,
    });
  found.push(...attachedFindings(census, device), ...machineFindings(census, device), ...ownedFindings(census, device));
  const mediated = device.entries.filter((name) => /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(name));
  if (mediated.length > 0)
    found.push({
      check: 'holder',
      subject: mediated[0]!,
      brief: counted(mediated.length, 'mediated device'),
      message: `mediated devices are made of it (${mediated.slice(0, 3).join(', ')}${mediated.length > 3 ? ', …' : ''})`,
      fix: `mdevctl stop --uuid ${mediated[0]}`,
    });
  // last: it takes a look at every descriptor of the host
  if (!options.brief || found.length === 0) found.push(...openFindings(census, device));
  return found;
}

/** All findings that bind has to consider for a device. */
export function checkDevice(census: Census, device: PciDevice, taken: ReadonlySet<string>): Finding[] {
  return [...usesOf(census, device, { claim: true }), ...groupFindings(census, device, taken)];
}
