import type { Sysroot } from '../../common/sysroot.js';
import { Modules } from '../devices/modules.js';
import { Blocks } from './blocks.js';
import { BootRules } from './boot-rules.js';
import { type Conversation, type LiveNetwork, ownersOf, readConversations } from './conversations.js';
import { readCrashTargets } from './crash.js';
import { type Domain, readDomains } from './domains.js';
import { addressesOf, procRoutes, type Route } from './interfaces.js';
import { type Mounts, parseSwaps, readMounts } from './mounts.js';
import { Processes, sshPeer } from './processes.js';

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

  /** Where a crash kernel writes its dumps. */
  get crash(): { devices: string[]; hosts: string[] } {
    return (this.#crash ??= readCrashTargets(this.root));
  }

  get routes(): Route[] {
    return (this.#routes ??= this.#routesNow?.() ?? procRoutes(this.root));
  }
}
