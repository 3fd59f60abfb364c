import type { Sysroot } from '../../common/sysroot.js';
import { Modules } from '../devices/modules.js';
import { functionsIn } from '../devices/pci.js';
import { Blocks } from './blocks.js';
import { BootRules } from './boot-rules.js';
import { type Conversation, type LiveNetwork, ownersOf, readConversations } from './conversations.js';
import { readCrashTargets } from './crash.js';
import { type Domain, readDomains } from './domains.js';
import { addressesOf, procRoutes, type Route } from './interfaces.js';
import { type Mounts, parseSwaps, readMounts } from './mounts.js';
import { Processes, sshPeer } from './processes.js';

/** A link of sysfs. */
export interface SysfsLink {
  name: string;
  target: string;
}

/** The links of a folder by the addresses of all PCI functions on the way to their targets. */
function indexLinks(root: Sysroot, folder: string): Map<string, SysfsLink[]> {
  const index = new Map<string, SysfsLink[]>();
  for (const name of root.list(folder)) {
    const target = root.readlink(`${folder}/${name}`);
    for (const bdf of functionsIn(target ?? '')) {
      const links = index.get(bdf);
      if (links) links.push({ name, target: target! });
      else index.set(bdf, [{ name, target: target! }]);
    }
  }
  return index;
}

const edacFolders = ['/sys/devices/system/edac/mc', '/sys/devices/system/edac/pci', '/sys/bus/edac/devices'];

/** Terminals that the kernel prints on: /proc/consoles (`ttyS4 -W- (EC p) 4:68`) and the active ones of /dev/console. */
function readConsoles(root: Sysroot): string[] {
  const lines = (root.attr('/proc/consoles') ?? '').split('\n').flatMap((line) => line.split(/\s/, 1)[0] || []);
  const active = (root.attr('/sys/class/tty/console/active') ?? '').split(/\s+/).filter((name) => name !== '');
  return [...new Set([...lines, ...active])];
}

export interface CensusOptions {
  pid?: number;
  peer?: string | undefined;
  routes?: (() => Route[] | undefined) | undefined;
  live?: LiveNetwork | undefined;
}

/**
 * What is read once per command and asked of every device: processes, mounts, swap, routes, module files. Each part is read
 * at its first use.
 */
export class Census {
  readonly root: Sysroot;
  readonly modules: Modules;
  /** Address of the peer of the ssh session we run in. */
  readonly peer: string | undefined;
  readonly #routesNow: (() => Route[] | undefined) | undefined;
  readonly #live: LiveNetwork | undefined;
  readonly #pid: number | undefined;
  readonly #folders = new Map<string, Map<string, SysfsLink[]>>();
  readonly #vfioDrivers = new Map<string, boolean>();
  #watchdogs: (SysfsLink & { identity: string })[] | undefined;
  #edac: SysfsLink[] | undefined;
  #consoles: string[] | undefined;
  #routes: Route[] | undefined;
  #processes: Processes | undefined;
  #blocks: Blocks | undefined;
  #mounts: Mounts | undefined;
  #swaps: string[] | undefined;
  #iommus: string[] | undefined;
  #addresses: Map<string, string[]> | undefined;
  #owners: Map<string, string[]> | undefined;
  #conversations: Conversation[] | undefined;
  #domains: Map<string, Domain> | undefined;
  #bootRules: BootRules | undefined;
  #crash: { devices: string[]; hosts: string[] } | undefined;
  #namespaces: { foreign: { pid: number; ns: string }[]; named: string[] } | undefined;

  /**
   * @param options.pid our own process, whose ancestors tell the ssh session
   * @param options.live asked once for what neither sysfs nor /proc shows of the network
   * @param options.routes asked once, when routes are needed, for those of all tables; /proc tells (main table of IPv4 only) else
   */
  constructor(root: Sysroot, options: CensusOptions = {}) {
    this.root = root;
    this.modules = new Modules(root);
    this.peer = options.peer ?? (options.pid === undefined ? undefined : sshPeer(root, options.pid));
    this.#routesNow = options.routes;
    this.#live = options.live;
    this.#pid = options.pid;
  }

  /**
   * Links in a folder of sysfs that lead below a PCI function: its interfaces in /sys/class/net, its nodes in /sys/dev/char.
   * Each folder is read once for all devices.
   */
  below(folder: string, bdf: string): readonly SysfsLink[] {
    let index = this.#folders.get(folder);
    if (!index) this.#folders.set(folder, (index = indexLinks(this.root, folder)));
    return index.get(bdf) ?? [];
  }

  /** True for a driver that is one of VFIO. */
  isVfio(driver: string | undefined): boolean {
    if (driver === undefined) return false;
    let known = this.#vfioDrivers.get(driver);
    if (known === undefined) this.#vfioDrivers.set(driver, (known = this.modules.isVfio(driver)));
    return known;
  }

  /** Our own process, if it is known. */
  get pid(): number | undefined {
    return this.#pid;
  }

  /** A census of the same system that has read nothing yet. */
  fresh(): Census {
    return new Census(this.root, {
      ...(this.#pid !== undefined && { pid: this.#pid }),
      peer: this.peer,
      routes: this.#routesNow,
      live: this.#live,
    });
  }

  /** Processes as they were at the first use. */
  get processes(): Processes {
    return (this.#processes ??= new Processes(this.root));
  }

  get blocks(): Blocks {
    return (this.#blocks ??= new Blocks(this.root));
  }

  get mounts(): Mounts {
    return (this.#mounts ??= readMounts(this.root, this.processes));
  }

  get swaps(): string[] {
    return (this.#swaps ??= parseSwaps(this.root.attr('/proc/swaps') ?? ''));
  }

  /** Where the IOMMUs live in sysfs: `../../devices/pci0000:00/0000:00:00.2/iommu/ivhd0`. */
  get iommus(): string[] {
    const folder = '/sys/class/iommu';
    return (this.#iommus ??= this.root.list(folder).map((name) => this.root.readlink(`${folder}/${name}`) ?? ''));
  }

  /** Addresses by interface. */
  get addresses(): Map<string, string[]> {
    return (this.#addresses ??= addressesOf(this.root));
  }

  /** Interfaces by their addresses. */
  get owners(): Map<string, string[]> {
    return (this.#owners ??= ownersOf(this.addresses));
  }

  /** Connections, sessions and sockets of this network namespace. */
  get conversations(): Conversation[] {
    return (this.#conversations ??= readConversations(this.root, this.#live));
  }

  /** libvirt domains by the addresses of their host devices. */
  get domains(): Map<string, Domain> {
    return (this.#domains ??= readDomains(this.root));
  }

  /** What gives devices to drivers at boot, besides vioctl. */
  get bootRules(): BootRules {
    return (this.#bootRules ??= new BootRules(this.root));
  }

  /** Watchdogs that run, with what they call themselves. */
  get watchdogs(): readonly (SysfsLink & { identity: string })[] {
    const folder = '/sys/class/watchdog';
    return (this.#watchdogs ??= this.root.list(folder).flatMap((name) => {
      const attr = (key: string) => this.root.attr(`${folder}/${name}/${key}`) ?? '';
      const target = this.root.readlink(`${folder}/${name}`);
      return target === undefined || attr('state') !== 'active' ? [] : [{ name, target, identity: attr('identity') }];
    }));
  }

  /** Devices that EDAC watches memory errors with. */
  get edac(): readonly SysfsLink[] {
    return (this.#edac ??= edacFolders.flatMap((folder) =>
      this.root.list(folder).flatMap((name) => {
        const target = this.root.readlink(`${folder}/${name}/device`);
        return target === undefined ? [] : [{ name, target }];
      }),
    ));
  }

  /** Where a crash kernel writes its dumps. */
  get crash(): { devices: string[]; hosts: string[] } {
    return (this.#crash ??= readCrashTargets(this.root));
  }

  /** Terminals that the kernel prints on. */
  get consoles(): string[] {
    return (this.#consoles ??= readConsoles(this.root));
  }

  /** Network namespaces besides ours: one process in each that has any, and the names of those that ip(8) keeps. */
  get namespaces(): { foreign: { pid: number; ns: string }[]; named: string[] } {
    return (this.#namespaces ??= {
      foreign: this.processes.namespaces('net', this.root.readlink('/proc/self/ns/net')),
      named: this.root.list('/run/netns'),
    });
  }

  get routes(): Route[] {
    return (this.#routes ??= this.#routesNow?.() ?? procRoutes(this.root));
  }
}
