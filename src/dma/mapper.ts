import { codeOf, Exit, VioError, wrap } from '../common/errors.js';
import { shellWord } from '../common/escape.js';
import type { Sysroot } from '../common/sysroot.js';
import { exact, formatSize, hex64 } from '../common/units.js';
import { native } from '../native/index.js';
import { DmaAccess, type NativeMemory, type NativeSession } from '../native/vfio.js';
import type { Aperture } from './aperture.js';
import { requireFeasible } from './forecast.js';
import { Layout, type Placement } from './layout.js';
import { type LockLimit, lockHint, lockText, requireLockable } from './lock-limit.js';
import { requireMemory } from './memory.js';
import { pinHint, writeBackOf } from './pinning.js';
import type { MapSpec } from './spec.js';

/** A mapping that is there. */
export interface Mapping extends Placement {
  readOnly: boolean;
  file: string | undefined;
  /** Address in this process. */
  va: bigint;
  /** Descriptor of the memory; stays the mapping's. */
  fd: number;
  memory: NativeMemory;
}

/** A mapping, live or gone, that an address belongs to. */
export interface Named {
  name: string;
  offset: bigint;
  live: boolean;
  readOnly: boolean;
}

/** Gone mappings that are remembered, for faults that arrive late. */
const remembered = 1024;

/** Bytes that are populated before memory is looked at again. */
const populateStep = 64n << 20n;

/** Memory mapped for one open device, by name. */
export class Mapper {
  readonly layout: Layout;
  readonly #session: NativeSession;
  readonly #maps = new Map<string, Mapping>();
  readonly #gone: { name: string; start: bigint; end: bigint; readOnly: boolean }[] = [];

  readonly #root: Sysroot | undefined;

  /** @param root where to read how much memory is left; undefined: take it without asking (single pages) */
  constructor(session: NativeSession, aperture: Aperture, root?: Sysroot) {
    this.#session = session;
    this.#root = root;
    this.layout = new Layout(aperture);
  }

  get #lockedBytes(): bigint {
    return [...this.#maps.values()].reduce((sum, map) => sum + map.size, 0n);
  }

  /** Bytes that count against RLIMIT_MEMLOCK now. */
  get locked(): number | bigint {
    return exact(this.#lockedBytes);
  }

  /** The mappings, in the order in which they were made. */
  list(): Mapping[] {
    return [...this.#maps.values()];
  }

  get(name: string): Mapping | undefined {
    return this.#maps.get(name);
  }

  /**
   * Maps all or nothing: addresses first, then memory, then one crossing for the kernel.
   * @param limit forecast before anything is pinned; undefined: leave it to the kernel
   * @throws VioError that names the mapping; what this call did is undone
   */
  map(specs: readonly MapSpec[], limit?: LockLimit): Mapping[] {
    const done: Mapping[] = [];
    let placed: Placement[] = [];
    try {
      for (const spec of specs)
        if (this.#maps.has(spec.name)) throw new VioError(`mapping ${spec.name} is there already`, { code: 'EEXIST', exit: Exit.refused });
      placed = this.layout.placeAll(specs);
      const locked = placed.reduce((sum, { size }) => sum + size, this.#lockedBytes);
      if (this.#root) requireFeasible(this.#root, specs, locked, this.layout.aperture.pages[0]!, limit);
      else if (limit) requireLockable(locked, limit);
      for (const [i, spec] of specs.entries()) done.push(this.#memory(spec, placed[i]!));
      for (const [i, spec] of specs.entries()) this.#populate(spec, done[i]!);
      this.#commit(done);
    } catch (err) {
      for (const { memory } of done) native().vfio.closeMemory(memory);
      for (const { iova } of placed) this.layout.release(iova);
      throw err;
    }
    for (const mapping of done) this.#maps.set(mapping.name, mapping);
    return done;
  }

  #memory(spec: MapSpec, place: Placement): Mapping {
    const { vfio } = native();
    const { size } = place;
    // The processor's address shares the huge-page phase, so that both sides can use hugepages.
    const align = BigInt(Math.min(place.pageSize, 1 << 30));
    const phase = place.iova % align;
    try {
      const memory =
        spec.file === undefined
          ? vfio.newMemory(spec.name, size, spec.huge ?? 0n, align, phase)
          : vfio.fileMemory(spec.file, size, !spec.readOnly, align, phase);
      const { va, fd } = vfio.memoryInfo(memory);
      return { ...place, readOnly: spec.readOnly, file: spec.file, va, fd, memory };
    } catch (err) {
      throw this.#noMemory(spec, err);
    }
  }

  /**
   * Takes the pages of a mapping before the kernel pins them, in pieces, so that memory which runs short meanwhile is an
   * error here and not a reason to kill a process.
   */
  #populate(spec: MapSpec, mapping: Mapping): void {
    const { size } = mapping;
    for (let at = 0n; at < size; at += populateStep) {
      const left = size - at;
      if (at > 0n && this.#root && spec.file === undefined && spec.huge === undefined)
        requireMemory(this.#root, { ordinary: left < populateStep ? left : populateStep, huge: new Map() });
      try {
        native().vfio.populate(mapping.memory, at, left < populateStep ? left : populateStep, spec.file === undefined);
      } catch (err) {
        if (codeOf(err) === 'EINVAL') return; // before Linux 5.14; pinning takes the pages then
        if (codeOf(err) === 'EFAULT' && spec.file !== undefined) throw this.#explain(mapping, err as Error);
        const what = `mapping ${spec.name}: its memory cannot be had (${formatSize(at)} of ${formatSize(size)} were)`;
        throw wrap(what, err, { hint: 'free -h; map less' });
      }
    }
  }

  #noMemory(spec: MapSpec, err: unknown): VioError {
    const code = codeOf(err);
    if (spec.file !== undefined && (code === 'EACCES' || code === 'EROFS') && !spec.readOnly)
      return wrap(`mapping ${spec.name}: ${spec.file}`, err, {
        hint: `the device may only read it: ${shellWord(`${spec.name}=${spec.file},ro`)}`,
      });
    if (spec.huge !== undefined && (code === 'ENOMEM' || code === 'ENOENT' || code === 'EINVAL'))
      return wrap(`mapping ${spec.name}: no hugepages of ${formatSize(spec.huge)}`, err, {
        hint: `reserve them in /sys/kernel/mm/hugepages/hugepages-${Number(spec.huge) / 1024}kB/nr_hugepages`,
      });
    return wrap(`mapping ${spec.name}: ${spec.file ?? 'new memory'}`, err);
  }

  #commit(mappings: readonly Mapping[]): void {
    const { vfio } = native();
    const words = BigUint64Array.from(
      mappings.flatMap((m) => [m.va, m.iova, m.size, m.readOnly ? DmaAccess.deviceReads : DmaAccess.deviceReads | DmaAccess.deviceWrites]),
    );
    const { done, error } = vfio.mapDma(this.#session, words);
    if (!error) return;
    const left: string[] = [];
    for (const mapping of mappings.slice(0, done)) {
      try {
        vfio.unmapDma(this.#session, mapping.iova, mapping.size);
      } catch {
        left.push(mapping.name);
      }
    }
    const failure = this.#explain(mappings[done]!, error);
    if (left.length === 0) throw failure;
    throw new VioError(`${failure.message}; and ${left.join(', ')} could not be unmapped`, {
      code: failure.code,
      exit: Exit.notRestored,
      cause: error,
    });
  }

  #explain(mapping: Mapping, err: Error): VioError {
    const range = `${hex64(mapping.iova)}-${hex64(mapping.iova + mapping.size - 1n)}`;
    const what = `mapping ${mapping.name} at ${range}`;
    switch (codeOf(err)) {
      case 'EEXIST':
        return wrap(`${what}: something is mapped there already`, err, {
          exit: Exit.refused,
          hint: 'who else shares this container? vioctl vfio show',
        });
      case 'EINVAL':
      case 'EADDRINUSE':
        return wrap(`${what}: the IOMMU does not map these addresses`, err, { hint: 'vioctl dma plan shows its ranges' });
      case 'EFAULT':
        if (writeBackOf(mapping) !== undefined)
          return wrap(`${what}: the kernel pins no writable mapping of this file`, err, { exit: Exit.refused, hint: pinHint(mapping) });
        return wrap(`${what}: its memory has a hole`, err, {
          hint: mapping.file === undefined ? undefined : `is ${mapping.file} shorter than it was? A mapping with ,ro is only read`,
        });
      case 'ENOMEM': {
        const { soft } = native().vfio.memlock();
        return wrap(`${what}: ${formatSize(this.#lockedBytes + mapping.size)} would be locked, the limit is ${lockText(soft)}`, err, {
          exit: Exit.permission,
          hint: lockHint,
        });
      }
      case 'ENOSPC':
        return wrap(`${what}: the container's entries are used up`, err, {
          exit: Exit.refused,
          hint: 'fewer and larger mappings, or the parameter dma_entry_limit of vfio_iommu_type1',
        });
      default:
        return wrap(what, err);
    }
  }

  /** Whether a mapping of that name was there and has been unmapped (of the last ones that are remembered). */
  wasUnmapped(name: string): boolean {
    return !this.#maps.has(name) && this.#gone.some((gone) => gone.name === name);
  }

  /** The mapping of that name. @throws VioError ENOENT */
  find(name: string): Mapping {
    const mapping = this.#maps.get(name);
    if (!mapping)
      throw new VioError(`no mapping ${name}`, { code: 'ENOENT', hint: `mapped are ${[...this.#maps.keys()].join(', ') || 'none'}` });
    return mapping;
  }

  /** Unmaps one. A failure leaves it in the table. @throws VioError; 8 where the kernel kept it */
  unmap(name: string): Mapping {
    const mapping = this.find(name);
    try {
      native().vfio.unmapDma(this.#session, mapping.iova, mapping.size);
    } catch (err) {
      throw wrap(`unmap ${name} at ${hex64(mapping.iova)}: it stays mapped`, err, { exit: Exit.notRestored });
    }
    this.#forget(mapping);
    return mapping;
  }

  #forget(mapping: Mapping): void {
    this.#maps.delete(mapping.name);
    this.layout.release(mapping.iova);
    native().vfio.closeMemory(mapping.memory);
    const { name, iova, size, readOnly } = mapping;
    this.#gone.push({ name, start: iova, end: iova + size - 1n, readOnly });
    if (this.#gone.length > remembered) this.#gone.shift();
  }

  /** The mapping that an address of the device belongs to, or did until it was unmapped. */
  nameOf(address: bigint): Named | undefined {
    for (const { name, iova, size, readOnly } of this.#maps.values())
      if (iova <= address && address < iova + size) return { name, offset: address - iova, live: true, readOnly };
    const past = this.#gone.findLast(({ start, end }) => start <= address && address <= end);
    return past && { name: past.name, offset: address - past.start, live: false, readOnly: past.readOnly };
  }

  /** Unmaps everything, latest first. The first failure is thrown when all have been tried. */
  close(): void {
    let failure: unknown;
    for (const { name } of this.list().reverse()) {
      try {
        this.unmap(name);
      } catch (err) {
        failure ??= err;
      }
    }
    if (failure !== undefined) throw failure;
  }
}
