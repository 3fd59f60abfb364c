import { Exit, VioError } from '../../common/errors.js';
import { printable } from '../../common/escape.js';
import type { Sysroot } from '../../common/sysroot.js';
import { type PciDevice, pciDrivers } from './pci.js';

/** The driver a device is to be bound to, and the module that brings it. */
export interface DriverChoice {
  driver: string;
  /** Module to load when the driver is not registered; undefined when it is built in or registered already. */
  module: string | undefined;
  vfio: boolean;
}

interface Alias {
  pattern: string;
  module: string;
}

/** Kernel module names have `_` where users may write `-`. */
const moduleName = (name: string): string => name.replaceAll('-', '_');

/** A modules.alias pattern (fnmatch with `*`, `?`, `[…]`) as a regular expression. */
export function aliasPattern(pattern: string): RegExp {
  return new RegExp(
    `^${pattern
      .replace(/[.+^${}()|\\]/g, '\\$&')
      .replaceAll('*', '.*')
      .replaceAll('?', '.')}$`,
    's',
  );
}

/** What the running kernel's module files say: which drivers claim a device, and which VFIO driver suits it best. */
export class Modules {
  readonly release: string;
  readonly #root: Sysroot;
  readonly #files = new Map<string, string>();
  #vfio: string[] | undefined;

  constructor(root: Sysroot) {
    this.#root = root;
    this.release = root.attr('/proc/sys/kernel/osrelease') ?? '';
  }

  get #dir(): string {
    return `/lib/modules/${this.release}`;
  }

  /** False where the module files are missing (containers, kernels without modules). */
  get present(): boolean {
    return this.#root.exists(`${this.#dir}/modules.alias`);
  }

  /** Text of a file of the module folder, read once. */
  #file(name: string): string {
    let text = this.#files.get(name);
    if (text === undefined) this.#files.set(name, (text = this.#root.attr(`${this.#dir}/${name}`) ?? ''));
    return text;
  }

  /**
   * Aliases whose pattern starts with `prefix`, of loadable modules (modules.alias: `alias PATTERN MODULE` lines) and of
   * built-in ones (modules.builtin.modinfo: `MODULE.alias=PATTERN`, separated by NUL). The files have tens of thousands of
   * entries: they are searched, not split.
   */
  #find(prefix: string): Alias[] {
    const found: Alias[] = [];
    const loadable = this.#file('modules.alias');
    const line = `alias ${prefix}`;
    for (let at = loadable.indexOf(line); at >= 0; at = loadable.indexOf(line, at + 1)) {
      if (at > 0 && loadable[at - 1] !== '\n') continue;
      const end = loadable.indexOf('\n', at);
      const [, pattern, module] = loadable.slice(at, end < 0 ? undefined : end).split(' ');
      if (pattern !== undefined && module !== undefined) found.push({ pattern, module });
    }
    const builtin = this.#file('modules.builtin.modinfo');
    const key = `.alias=${prefix}`;
    for (let at = builtin.indexOf(key); at >= 0; at = builtin.indexOf(key, at + 1)) {
      const end = builtin.indexOf('\0', at);
      const module = builtin.slice(builtin.lastIndexOf('\0', at) + 1, at);
      found.push({ pattern: builtin.slice(at + '.alias='.length, end < 0 ? undefined : end), module });
    }
    return found;
  }

  /** Modules that are VFIO drivers (`alias vfio_pci:…`), vfio_pci among them. */
  vfioModules(): string[] {
    return (this.#vfio ??= [...new Set(['vfio_pci', ...this.#find('vfio_pci:').map((alias) => moduleName(alias.module))])]);
  }

  /**
   * The VFIO module for a device: of the `vfio_pci:` aliases that match, the one with the fewest wildcards, as the kernel's
   * vfio documentation asks of user space. vfio_pci where nothing matches better.
   */
  bestVfio(modalias: string): string {
    const wanted = modalias.replace(/^pci:/, 'vfio_pci:');
    let best: { module: string; wild: number } | undefined;
    for (const { pattern, module } of this.#find('vfio_pci:')) {
      const wild = pattern.split('*').length;
      if ((!best || wild < best.wild) && aliasPattern(pattern).test(wanted)) best = { module: moduleName(module), wild };
    }
    return best?.module ?? 'vfio_pci';
  }

  /** True if a VFIO module's aliases match the device. */
  vfioSuits(module: string, modalias: string): boolean {
    const wanted = modalias.replace(/^pci:/, 'vfio_pci:');
    if (moduleName(module) === 'vfio_pci') return true;
    return this.#find('vfio_pci:').some((a) => moduleName(a.module) === moduleName(module) && aliasPattern(a.pattern).test(wanted));
  }

  /** Modules whose own id table claims the device. */
  claimants(modalias: string): string[] {
    // patterns name a vendor or none: the others need not be looked at
    const vendor = /^pci:v[0-9A-F]{8}/.exec(modalias)?.[0];
    const candidates = [...(vendor === undefined ? [] : this.#find(vendor)), ...this.#find('pci:v*')];
    return [...new Set(candidates.filter(({ pattern }) => aliasPattern(pattern).test(modalias)).map(({ module }) => moduleName(module)))];
  }

  /** The module behind a registered PCI driver; undefined for a built-in one without parameters. */
  moduleOf(driver: string): string | undefined {
    return this.#root.readlink(`${pciDrivers}/${driver}/module`)?.split('/').pop();
  }

  /** The PCI driver that a loaded module registered (its name differs from the module's: vfio_pci, vfio-pci). */
  driverOf(module: string): string | undefined {
    const links = this.#root.list(`/sys/module/${module}/drivers`).filter((name) => name.startsWith('pci:'));
    if (links[0] !== undefined) return links[0].slice(4);
    return [module, module.replaceAll('_', '-')].find((name) => this.#root.exists(`${pciDrivers}/${name}`));
  }

  registered(driver: string): boolean {
    return this.#root.exists(`${pciDrivers}/${driver}`);
  }

  /** True for vfio-pci and its variants, which all stand on the module vfio_pci_core. */
  isVfio(driver: string | undefined): boolean {
    if (driver === undefined) return false;
    if (driver === 'vfio-pci' || /[-_]vfio[-_]pci$/.test(driver)) return true;
    const core = '/sys/module/vfio_pci_core';
    if (!this.#root.exists(core)) return false;
    const module = this.moduleOf(driver);
    if (module === undefined) return false;
    // a core that is built in has no list of its users: the aliases tell then
    return this.#root.exists(`${core}/holders`)
      ? this.#root.exists(`${core}/holders/${module}`)
      : this.vfioModules().includes(moduleName(module));
  }

  /**
   * The driver to bind: the best VFIO driver, or the one asked for, if it is a VFIO driver or itself claims the device's
   * id. Any other is refused: driver_override makes the kernel probe it with a made-up id entry, which can crash it.
   * @throws VioError FOREIGN_DRIVER (3), ENOENT (7) when the kernel has no such driver
   */
  choose(device: PciDevice, wanted: string | undefined): DriverChoice {
    if (wanted === undefined) return this.#choice(this.bestVfio(device.modalias), true);
    if (!/^[\w.-]{1,64}$/.test(wanted))
      throw new VioError(`not a driver name: "${printable(wanted)}"`, { code: 'USAGE', exit: Exit.usage });
    const module = moduleName(this.registered(wanted) ? (this.moduleOf(wanted) ?? wanted) : wanted);
    if (this.isVfio(wanted) || this.vfioModules().includes(module)) {
      if (!this.vfioSuits(module, device.modalias)) throw this.#foreign(device, wanted, `the VFIO driver ${wanted} is for other devices`);
      return this.#choice(module, true, wanted);
    }
    const claimants = this.claimants(device.modalias);
    if (claimants.includes(module)) return this.#choice(module, false, wanted);
    if (!this.registered(wanted) && !this.#known(module)) {
      throw new VioError(`no driver "${wanted}": ENOENT (not registered, and no such module for kernel ${this.release || '?'})`, {
        code: 'ENOENT',
        exit: Exit.unsupported,
        hint: `VFIO drivers of this kernel: ${this.vfioModules().join(', ')}${claimants.length ? `; drivers for this device: ${claimants.join(', ')}` : ''}`,
      });
    }
    throw this.#foreign(device, wanted, `${wanted} does not list the id of this device and is no VFIO driver`);
  }

  #choice(module: string, vfio: boolean, asked?: string): DriverChoice {
    const registered = asked !== undefined && this.registered(asked) ? asked : this.driverOf(module);
    if (registered !== undefined) return { driver: registered, module: undefined, vfio };
    return { driver: module === 'vfio_pci' ? 'vfio-pci' : (asked ?? module), module, vfio };
  }

  /** A module of that name is installed for this kernel. */
  #known(module: string): boolean {
    const dep = this.#file('modules.dep');
    const builtin = this.#file('modules.builtin');
    return `${dep}\n${builtin}`.split('\n').some((line) => {
      const file = /([^/]+)\.ko(?:\.\w+)?(?::|$)/.exec(line)?.[1];
      return file !== undefined && moduleName(file) === module;
    });
  }

  #foreign(device: PciDevice, wanted: string, why: string): VioError {
    return new VioError(`${device.bdf}: refused: ${why}; binding it by force can crash the kernel`, {
      code: 'FOREIGN_DRIVER',
      exit: Exit.refused,
      hint: `VFIO driver for this device: ${this.bestVfio(device.modalias)}; drivers that list its id: ${this.claimants(device.modalias).join(', ') || 'none'}`,
      details: { bdf: device.bdf, driver: wanted },
    });
  }
}
