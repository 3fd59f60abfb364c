import { randomUUID } from 'node:crypto';
import { Exit, VioError } from '../../common/errors.js';
import { printable, shellFile } from '../../common/escape.js';
import { native } from '../../native/index.js';
import type { NativeController, NvmeNative, QueueCounters } from '../../native/nvme.js';
import { rateText } from '../../storage/limits.js';
import { openSource, type Source } from '../../storage/open.js';
import type { IdentityState } from '../../storage/state.js';
import { isFile, type RemoteOptions } from '../../storage/uri.js';
import { AccessList } from './admission/access.js';
import { AnaStates } from './ana.js';
import { idsOf, type NamespaceIds, parseId, serialOf } from './identity.js';
import { type ControllerState, maxGroups, maxNamespaces, type Namespace, type NamespaceOptions, type SubsystemState } from './model.js';
import { type CntlidRange, checkAscii, checkHostNqn, checkSubsystemNqn, lastCntlid, modelSize, serialSize } from './names.js';

/** Ended controllers that are kept until their counters are folded; more only while commands of theirs hang. */
const mostEnded = 64;

/** Names of the options that are asked for and that a namespace does not have. Those that only skip checks are no difference. */
function differences(namespace: Namespace, asked: NamespaceOptions): string[] {
  const { nsid, blockSize, readonly, group, ids, store, options } = namespace;
  const { direct = false, shared = false, zero, engine } = options;
  const has = { nsid, blockSize, readonly, group, direct, shared, zero, engine };
  const now = native().storage.limits(store);
  return [
    ...(Object.keys(has) as (keyof typeof has)[]).filter((name) => asked[name] !== undefined && asked[name] !== has[name]),
    ...(['iops', 'bps'] as const).filter(
      (name) => asked[name] !== undefined && rateText(name, asked[name] ?? undefined) !== rateText(name, now[name]),
    ),
    ...(['uuid', 'nguid', 'eui64'] as const).filter((kind) => {
      const id = asked.ids?.[kind];
      return id !== undefined && parseId(kind, id) !== ids[kind].toString('hex');
    }),
    ...Object.entries(asked.remote ?? {}).flatMap(([name, value]) =>
      value === options.remote?.[name as keyof RemoteOptions] ? [] : [name],
    ),
  ];
}

/** Identifiers with their kinds, for a map. */
const idNames = (ids: NamespaceIds): string[] =>
  (['uuid', 'nguid', 'eui64'] as const).map((kind) => `${kind} ${ids[kind].toString('hex')}`);

/** Model of a subsystem that was given none. */
export const defaultModel = 'vioctl NVMe/TCP target';

/** How a subsystem presents itself. */
export interface SubsystemOptions {
  nqn: string;
  /** 1 to 20 printable ASCII characters. */
  serial?: string;
  /** 1 to 40 printable ASCII characters. */
  model?: string;
  /** Host NQNs; every host when left out. */
  allowed?: Iterable<string> | undefined;
  /** Every host, whatever the list says. */
  anyHost?: boolean | undefined;
  /** Identifiers for its controllers: processes that serve one subsystem need ranges that do not meet. */
  cntlids?: CntlidRange;
  /** What its sources were called before. */
  state?: IdentityState | undefined;
}

/** One subsystem: its namespaces, who may use it, and the controllers of those who do. */
export class Subsystem implements SubsystemState {
  readonly nqn: string;
  readonly serial: string;
  readonly model: string;
  /** When it began to be served, by performance.now(): SMART's power-on hours count from here. */
  readonly started = performance.now();
  readonly #namespaces = new Map<number, Namespace>();
  /** By kind and digits: hosts take two namespaces with one identifier for one disk. More than one only where that was forced. */
  readonly #named = new Map<string, Namespace[]>();
  readonly controllers = new Map<number, ControllerState>();
  readonly access: AccessList;
  readonly cntlids: CntlidRange;
  readonly ana = new AnaStates();
  readonly #native: NvmeNative;
  /** Controllers whose association has ended: their counters count on, their last queues may not be closed yet. */
  #ended: NativeController[] = [];
  #foldAt = mostEnded;
  readonly #totals: QueueCounters = {
    ...{ queues: 0, reads: 0, writes: 0, readBytes: 0, writtenBytes: 0, flushes: 0, others: 0, errors: 0, outstanding: 0 },
  };
  readonly #state: IdentityState | undefined;
  #nextCntlid: number;
  /** No namespace below has a free NSID. */
  #firstFree = 1;

  /** @throws usage error for names and texts that hosts would not take as they are */
  constructor(native: NvmeNative, options: SubsystemOptions) {
    this.#native = native;
    this.nqn = checkSubsystemNqn(options.nqn);
    this.serial = checkAscii(options.serial ?? serialOf(options.nqn), 'serial number', serialSize);
    this.model = checkAscii(options.model ?? defaultModel, 'model', modelSize);
    this.access = new AccessList(options.allowed, options.anyHost);
    this.#state = options.state;
    this.cntlids = options.cntlids ?? [1, lastCntlid];
    this.#nextCntlid = this.cntlids[0];
  }

  get namespaces(): ReadonlyMap<number, Namespace> {
    return this.#namespaces;
  }

  /** A controller identifier that is not in use; undefined when all are. */
  takeCntlid(): number | undefined {
    const [first, last] = this.cntlids;
    for (let tries = first; tries <= last; tries++) {
      const id = this.#nextCntlid;
      this.#nextCntlid = id >= last ? first : id + 1;
      if (!this.controllers.has(id)) return id;
    }
    return undefined;
  }

  /** Takes a controller whose association has ended out of the table; what it did stays counted. */
  retire(controller: ControllerState): void {
    if (!this.controllers.delete(controller.cntlid)) return;
    if (this.#ended.push(controller.handle) < this.#foldAt) return;
    this.#fold({ ...this.#totals });
    // those whose commands hang stay: they are not asked again for every controller that ends
    this.#foldAt = Math.max(mostEnded, 2 * this.#ended.length);
  }

  /** What all controllers have done since the subsystem is served: what SMART counts lasts longer than an association. */
  counters(): QueueCounters {
    const sum = { ...this.#totals };
    this.#fold(sum);
    for (const { handle } of this.controllers.values()) this.#count(handle, sum);
    return sum;
  }

  /** Adds what ended controllers have done to `sum`. Those whose last queue is closed go into the totals for good. */
  #fold(sum: QueueCounters): void {
    this.#ended = this.#ended.filter((handle) => {
      const { queues } = this.#count(handle, sum);
      if (queues === 0) this.#count(handle, this.#totals);
      return queues > 0;
    });
  }

  #count(handle: NativeController, to: QueueCounters): QueueCounters {
    const more = this.#native.controllerStats(handle);
    for (const key of Object.keys(to) as (keyof QueueCounters)[]) to[key] += more[key];
    return more;
  }

  /** Adds a namespace; hosts see it when their controllers are told (see Target.add). @throws VioError */
  add(options: NamespaceOptions): Namespace {
    return this.adopt(this.prepare(options));
  }

  /** Adds a namespace that prepare() has made. */
  adopt(namespace: Namespace): Namespace {
    this.#namespaces.set(namespace.nsid, namespace);
    for (const name of idNames(namespace.ids)) {
      const same = this.#named.get(name);
      if (same) same.push(namespace);
      else this.#named.set(name, [namespace]);
    }
    return namespace;
  }

  /** Takes a namespace out of the table. Whoever does so releases it. */
  take(nsid: number): Namespace | undefined {
    const namespace = this.#namespaces.get(nsid);
    if (!namespace) return undefined;
    this.#namespaces.delete(nsid);
    for (const name of idNames(namespace.ids)) {
      const others = this.#named.get(name)?.filter((one) => one !== namespace) ?? [];
      if (others.length > 0) this.#named.set(name, others);
      else this.#named.delete(name);
    }
    return namespace;
  }

  /** The number, the group and the mask of a namespace that could be added. @throws VioError */
  place(options: NamespaceOptions): Pick<Namespace, 'nsid' | 'group' | 'hosts'> {
    let nsid = options.nsid;
    if (nsid === undefined) {
      while (this.namespaces.has(this.#firstFree)) this.#firstFree++;
      nsid = this.#firstFree;
    }
    if (!Number.isInteger(nsid) || nsid < 1 || nsid > maxNamespaces)
      throw new VioError(`namespace ${nsid}: must be 1 to ${maxNamespaces}`, { code: 'BAD_NSID', exit: Exit.usage });
    if (this.namespaces.has(nsid)) throw new VioError(`${this.nqn} has a namespace ${nsid} already`, { code: 'EEXIST' });
    const group = options.group ?? 1;
    if (!Number.isInteger(group) || group < 1 || group > maxGroups)
      throw new VioError(`ANA group ${group}: must be 1 to ${maxGroups}`, { code: 'BAD_GROUP', exit: Exit.usage });
    return { nsid, group, hosts: options.hosts && new Set(options.hosts.map(checkHostNqn)) };
  }

  /**
   * Makes what would become a namespace, all checks included, without adding it.
   * @param opened its source, where that is open already: closed if it cannot become a namespace
   * @throws VioError
   */
  prepare(options: NamespaceOptions, opened?: Source): Namespace {
    let place: ReturnType<Subsystem['place']>;
    try {
      place = this.place(options);
    } catch (err) {
      if (opened) native().storage.close(opened.store);
      throw err;
    }
    const { nsid, group, hosts } = place;
    const source = opened ?? openSource(options, undefined, this.#state);
    const { name, store, blockSize, readonly, geometry, atomicWrite, limits, identity } = source;
    const size = Math.floor(native().storage.size(store) / blockSize) * blockSize;
    if (size === 0) {
      native().storage.close(store);
      throw new VioError(`${printable(options.source)}: smaller than one block of ${blockSize} bytes`, {
        code: 'EMPTY',
        hint: isFile(options.source)
          ? `make it larger: truncate -s 1G ${shellFile(options.source)}`
          : options.source.startsWith('ram:')
            ? 'ram:1G'
            : undefined,
      });
    }
    let ids: NamespaceIds;
    try {
      // memory has no name of its own
      ids = idsOf(this.nqn, /^ram:/.test(options.source) ? `${identity}\0${nsid}` : identity, options.ids);
      if (!options.force || options.ids) this.#checkUnique(ids, options.source);
    } catch (err) {
      native().storage.close(store);
      throw err;
    }
    // key by key: V8 takes several times as long to add as many behind a spread, and there may be thousands of namespaces
    return {
      name,
      store,
      readonly,
      blockSize,
      geometry,
      atomicWrite,
      limits,
      identity,
      nsid,
      source: options.source,
      group,
      ids,
      hosts,
      handle: this.#native.namespaceNew(store, Math.log2(blockSize), readonly),
      options,
      size,
    };
  }

  /** @throws VioError for identifiers that another namespace has */
  #checkUnique(ids: NamespaceIds, source: string): void {
    for (const name of idNames(ids)) {
      const [other] = this.#named.get(name) ?? [];
      if (!other) continue;
      const kind = name.split(' ')[0]!.toUpperCase();
      throw new VioError(`${printable(source)}: namespace ${other.nsid} of ${this.nqn} has this ${kind} already`, {
        code: 'EEXIST',
        exit: Exit.refused,
        hint: `append ,uuid=${randomUUID()} to one of them`,
      });
    }
  }

  /** Lets go of a namespace that is not served (any more): its file is closed after the last command. */
  release(namespace: Namespace): void {
    this.#firstFree = Math.min(this.#firstFree, namespace.nsid);
    this.#native.namespaceRelease(namespace.handle);
    native().storage.close(namespace.store);
  }

  /** Lets go of all namespaces. */
  close(): void {
    for (const nsid of [...this.#namespaces.keys()]) this.release(this.take(nsid)!);
  }

  /** The namespace that has all that is asked for already. A `ram:` without a number is always a new one. */
  same(options: NamespaceOptions): Namespace | undefined {
    return this.#served(options).find((ns) => differences(ns, options).length === 0);
  }

  /** What to do instead about a source that is served with other options; undefined if it is not served here. */
  otherwise(options: NamespaceOptions): string | undefined {
    const [namespace] = this.#served(options);
    if (!namespace) return undefined;
    const limits = (['iops', 'bps'] as const).flatMap((name) =>
      options[name] === undefined ? [] : [`${name}=${rateText(name, options[name] ?? undefined)}`],
    );
    return differences(namespace, options).every((name) => name === 'iops' || name === 'bps')
      ? `namespace ${namespace.nsid} serves it: vioctl nvmf ctl SOCK limits ${namespace.nsid} ${limits.join(' ')}`
      : `namespace ${namespace.nsid} serves it with other options: vioctl nvmf ctl SOCK remove ${namespace.nsid}, then add it`;
  }

  /** Namespaces of a source. Two `ram:` of one size are two sources, unless the number says which is meant. */
  #served({ source, nsid }: NamespaceOptions): Namespace[] {
    const found = [...this.namespaces.values()].filter((ns) => ns.source === source);
    return source.startsWith('ram:') ? found.filter((ns) => ns.nsid === nsid) : found;
  }

  /** Errno name of the sync of a namespace's source that has failed: its flushes fail until it is opened anew. */
  syncError(namespace: Namespace): string | undefined {
    return native().storage.syncError(namespace.store);
  }

  /** The size of a namespace whose source has `bytes`: whole blocks. */
  sizeOf(namespace: Namespace, bytes: number): number {
    return Math.floor(bytes / namespace.blockSize) * namespace.blockSize;
  }

  /** Takes the size of a namespace's source over, in bytes. @returns whether it has changed */
  resize(namespace: Namespace, bytes: number): boolean {
    const size = this.sizeOf(namespace, bytes);
    if (size === namespace.size) return false;
    this.#native.namespaceResize(namespace.handle, size / namespace.blockSize);
    namespace.size = size;
    return true;
  }

  /** NSIDs in order. */
  nsids(): number[] {
    return [...this.namespaces.keys()].sort((a, b) => a - b);
  }
}
