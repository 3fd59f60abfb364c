import type { Sysroot } from '../../common/sysroot.js';
import { kernelParameter } from '../devices/iommu.js';
import { idOf, type PciDevice } from '../devices/pci.js';

/** A place other than vioctl that binds a device to VFIO at the next boot. */
export interface Elsewhere {
  /** `driverctl`, `kernel command line`, `module options`, `udev rule` */
  by: string;
  /** File, or parameter, that has it. */
  where: string;
  /** The command or change that ends it. */
  fix: string;
}

/** True if a list of `ids=` of vfio-pci has the device: `vendor:device[:subvendor[:subdevice[:class[:mask]]]]`. */
function listed(ids: string, device: Pick<PciDevice, 'vendor' | 'device'>): boolean {
  return ids.split(',').some((id) => id.toLowerCase().split(':').slice(0, 2).join(':') === idOf(device));
}

/** Our own rules. */
const own = /^20-vioctl-vfio-/;

/**
 * What besides vioctl gives a device to VFIO when the host boots: driverctl(8), `vfio-pci.ids=` on the kernel command line,
 * options of the module, other udev rules.
 */
export function boundElsewhere(root: Sysroot, device: Pick<PciDevice, 'bdf' | 'vendor' | 'device'>): Elsewhere[] {
  const found: Elsewhere[] = [];
  for (const name of [device.bdf, `pci-${device.bdf}`]) {
    const where = `/etc/driverctl.d/${name}`;
    if (/vfio/.test(root.attr(where) ?? '')) found.push({ by: 'driverctl', where, fix: `driverctl unset-override ${device.bdf}` });
  }
  const parameter = ['vfio-pci.ids', 'vfio_pci.ids'].find((name) =>
    listed(kernelParameter(root.attr('/proc/cmdline') ?? '', name) ?? '', device),
  );
  if (parameter !== undefined)
    found.push({ by: 'kernel command line', where: parameter, fix: `remove ${idOf(device)} from ${parameter}= and reboot` });
  for (const folder of ['/etc/modprobe.d', '/run/modprobe.d', '/usr/lib/modprobe.d', '/lib/modprobe.d'])
    for (const name of root.list(folder).filter((file) => file.endsWith('.conf'))) {
      const lines = (root.attr(`${folder}/${name}`) ?? '').split('\n');
      const has = lines.some((line) => listed(/^\s*options\s+vfio[-_]pci\s.*\bids=(\S+)/.exec(line)?.[1] ?? '', device));
      if (has) found.push({ by: 'module options', where: `${folder}/${name}`, fix: `remove ${idOf(device)} from ${folder}/${name}` });
    }
  for (const folder of ['/etc/udev/rules.d', '/run/udev/rules.d', '/usr/lib/udev/rules.d'])
    for (const name of root.list(folder).filter((file) => file.endsWith('.rules') && !own.test(file))) {
      const lines = (root.attr(`${folder}/${name}`) ?? '').split('\n');
      const has = lines.some((line) => !/^\s*#/.test(line) && line.includes(device.bdf) && /vfio/.test(line));
      if (has) found.push({ by: 'udev rule', where: `${folder}/${name}`, fix: `remove ${device.bdf} from ${folder}/${name}` });
    }
  return found;
}
