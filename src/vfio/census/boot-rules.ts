import type { Sysroot } from '../../common/sysroot.js';
import { kernelParameter } from '../devices/iommu.js';
import { idOf, type PciDevice } from '../devices/pci.js';

/** A place other than vioctl that binds a device to VFIO at the next boot. */
export interface Elsewhere {
  /** `driverctl`, `kernel command line`, `module options`, `udev rule`, `initramfs script` */
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

/** Lines of configuration files, with the place of each. */
function linesOf(root: Sysroot, folders: readonly string[], wanted: (name: string) => boolean): { where: string; line: string }[] {
  return folders.flatMap((folder) =>
    root
      .list(folder)
      .filter(wanted)
      .flatMap((name) =>
        (root.attr(`${folder}/${name}`) ?? '')
          .split('\n')
          .filter((line) => /vfio/.test(line) && !/^\s*#/.test(line))
          .map((line) => ({ where: `${folder}/${name}`, line })),
      ),
  );
}

const options = /^\s*options\s+vfio[-_]pci\s.*\bids=(\S+)/;
/** A module of initramfs-tools with its parameters (initramfs-tools(7)): `vfio-pci ids=8086:1521`. */
const early = /^\s*vfio[-_]pci\s.*\bids=(\S+)/;

/**
 * What besides vioctl gives devices to VFIO, or pins them to a driver, when the host boots: driverctl(8), `vfio-pci.ids=` on the
 * kernel command line, options of the module, other udev rules, modules and scripts of the initramfs. Read once for all devices.
 */
export class BootRules {
  readonly #root: Sysroot;
  readonly #parameters: { where: string; ids: string }[];
  readonly #options: { where: string; line: string }[];
  readonly #rules: { by: string; where: string; line: string }[];
  readonly #overrides: ReadonlySet<string>;

  constructor(root: Sysroot) {
    this.#root = root;
    const cmdline = root.attr('/proc/cmdline') ?? '';
    this.#parameters = ['vfio-pci.ids', 'vfio_pci.ids'].flatMap((where) => {
      const ids = kernelParameter(cmdline, where);
      return ids === undefined ? [] : [{ where, ids }];
    });
    const modprobe = ['/etc/modprobe.d', '/run/modprobe.d', '/usr/lib/modprobe.d', '/lib/modprobe.d'];
    this.#options = [
      ...linesOf(root, modprobe, (name) => name.endsWith('.conf')),
      ...linesOf(root, ['/etc/initramfs-tools'], (name) => name === 'modules'),
    ];
    const isRule = (name: string) => name.endsWith('.rules') && !own.test(name);
    const scripts = '/etc/initramfs-tools/scripts';
    const initramfs = [scripts, ...root.list(scripts).map((name) => `${scripts}/${name}`)];
    const dracut = root.list('/usr/lib/dracut/modules.d').map((name) => `/usr/lib/dracut/modules.d/${name}`);
    this.#rules = [
      ...linesOf(root, ['/etc/udev/rules.d', '/run/udev/rules.d', '/usr/lib/udev/rules.d'], isRule).map((l) => ({ by: 'udev rule', ...l })),
      ...linesOf(root, [...initramfs, ...dracut], () => true).map((l) => ({ by: 'initramfs script', ...l })),
    ];
    this.#overrides = new Set(root.list('/etc/driverctl.d'));
  }

  /** @param any also what pins the device to another driver than one of VFIO */
  of(device: Pick<PciDevice, 'bdf' | 'vendor' | 'device'>, any = false): Elsewhere[] {
    const found: Elsewhere[] = [];
    const add = (by: string, where: string, fix: string) => {
      if (!found.some((one) => one.where === where)) found.push({ by, where, fix });
    };
    for (const name of [device.bdf, `pci-${device.bdf}`].filter((one) => this.#overrides.has(one)))
      if ((any ? /\S/ : /vfio/).test(this.#root.attr(`/etc/driverctl.d/${name}`) ?? ''))
        add('driverctl', `/etc/driverctl.d/${name}`, `driverctl unset-override ${device.bdf}`);
    for (const { where, ids } of this.#parameters)
      if (listed(ids, device)) add('kernel command line', where, `remove ${idOf(device)} from ${where}= and reboot`);
    for (const { where, line } of this.#options)
      if (listed((options.exec(line) ?? early.exec(line))?.[1] ?? '', device))
        add('module options', where, `remove ${idOf(device)} from ${where}`);
    for (const { by, where, line } of this.#rules) if (line.includes(device.bdf)) add(by, where, `remove ${device.bdf} from ${where}`);
    return found;
  }
}

/** The same for one device. */
export const boundElsewhere = (root: Sysroot, device: Pick<PciDevice, 'bdf' | 'vendor' | 'device'>): Elsewhere[] =>
  new BootRules(root).of(device);
