import fs from 'node:fs';
import { Exit, VioError } from '../common/errors.js';
import { printable } from '../common/escape.js';
import type { Sysroot } from '../common/sysroot.js';
import { exact, formatSize } from '../common/units.js';
import { sizeOf } from './layout.js';
import type { MapSpec } from './spec.js';

/** Memory that new mappings will take, by where it comes from. */
export interface MemoryNeed {
  /** Ordinary pages, in bytes: new memory, what a file in tmpfs has not allocated, the page cache of other files. */
  ordinary: bigint;
  /** Bytes of hugepages by their size. */
  huge: Map<bigint, bigint>;
  /** Files in tmpfs that have to grow, and the room that their file system has. */
  files?: { path: string; missing: bigint; room: bigint }[];
}

/** A bound on the memory that can be taken now without the kernel killing a process. */
export interface MemoryBound {
  bytes: bigint;
  /** What sets it: `MemAvailable`, `the limit of cgroup /app`. */
  by: string;
}

/** Types of file systems that statfs(2) tells (linux/magic.h). */
const tmpfs = 0x01021994;
const hugetlbfs = 0x958458f6;

/** Share of page tables (processor and IOMMU) and per-page records in what a mapping takes: below 1/256 with 4 KiB pages. */
const overhead = 256n;
/** Bytes left for the programs that run, ours among them. */
const reserve = 16n << 20n;

/** What a file takes when its pages are pinned. */
function fileNeed(spec: MapSpec, size: bigint, need: MemoryNeed): void {
  const stat = fs.statSync(spec.file!, { bigint: true });
  const { type, bsize, bavail, blocks } = fs.statfsSync(spec.file!, { bigint: true });
  const allocated = stat.blocks * 512n;
  const missing = size > allocated ? size - allocated : 0n;
  if (Number(BigInt.asUintN(32, type)) === hugetlbfs) need.huge.set(BigInt(bsize), (need.huge.get(BigInt(bsize)) ?? 0n) + missing);
  // pages of tmpfs are counted as used already; clean page cache of other files counts as available until it is pinned
  else {
    const memory = Number(BigInt.asUintN(32, type)) === tmpfs;
    need.ordinary += memory ? missing : size;
    // a tmpfs without a limit says that it has no blocks
    if (memory && missing > 0n && blocks > 0n) (need.files ??= []).push({ path: spec.file!, missing, room: bavail * bsize });
  }
}

/** Sums up what mappings will take. @param page the IOMMU's smallest page @throws VioError for a size or file that cannot be mapped */
export function memoryNeed(specs: readonly MapSpec[], page: bigint): MemoryNeed {
  const need: MemoryNeed = { ordinary: 0n, huge: new Map() };
  for (const spec of specs) {
    const size = sizeOf(spec, page);
    if (spec.file !== undefined) fileNeed(spec, size, need);
    else if (spec.huge !== undefined) need.huge.set(spec.huge, (need.huge.get(spec.huge) ?? 0n) + size);
    else need.ordinary += size;
  }
  return need;
}

/** The folder of our cgroup in a controller's hierarchy, and that of the hierarchy. */
function cgroupFolder(root: Sysroot, controller: string | undefined): { top: string; path: string } | undefined {
  const own = (root.attr('/proc/self/cgroup') ?? '')
    .split('\n')
    .map((line) => /^(\d+):([^:]*):(\/.*)$/.exec(line) ?? ['', '', '', ''])
    .find(([, id, names]) => (controller === undefined ? id === '0' : names!.split(',').includes(controller)))?.[3];
  if (own === undefined) return undefined;
  for (const line of (root.attr('/proc/self/mountinfo') ?? '').split('\n')) {
    const [left, right] = line.split(' - ');
    const [, , , base = '', top = ''] = left?.split(' ') ?? [];
    const [fstype, , options = ''] = right?.split(' ') ?? [];
    const fits = controller === undefined ? fstype === 'cgroup2' : fstype === 'cgroup' && options.split(',').includes(controller);
    if (!fits) continue;
    // in a container the mount may show a part of the hierarchy only
    const inside = base === '/' ? own : own === base || own.startsWith(`${base}/`) ? own.slice(base.length) : '/';
    return { top, path: inside === '/' ? '' : inside };
  }
  return undefined;
}

/** Paths of our cgroup and those above it, relative to the hierarchy; `''` is its root. */
function lineage(path: string): string[] {
  const parts = path.split('/').filter((part) => part !== '' && part !== '..');
  return parts.map((_, i) => `/${parts.slice(0, parts.length - i).join('/')}`).concat('');
}

const number = (text: string | undefined): bigint | undefined => (text !== undefined && /^\d+$/.test(text) ? BigInt(text) : undefined);

/** Page cache that the kernel takes back before it kills: `inactive_file` and `active_file` of memory.stat. */
function reclaimable(text: string, prefix: string): bigint {
  const value = (name: string) => number(new RegExp(`^${prefix}${name} (\\d+)$`, 'm').exec(text)?.[1]) ?? 0n;
  return value('inactive_file') + value('active_file');
}

/** A limit that means none in version 1: the largest multiple of a page that a signed word holds. */
const unlimited = 1n << 62n;

/** Bounds of the memory cgroups (version 2 and 1) that we are in, from the innermost outwards. */
function cgroupBounds(root: Sysroot): MemoryBound[] {
  const bounds: MemoryBound[] = [];
  const add = (path: string, limit: bigint | undefined, used: bigint | undefined, back: bigint) => {
    if (limit === undefined || used === undefined || limit >= unlimited) return;
    const left = limit - used + back;
    bounds.push({ bytes: left > 0n ? left : 0n, by: `the limit of ${formatSize(limit)} of memory cgroup ${path || '/'}` });
  };
  const two = cgroupFolder(root, undefined);
  for (const path of two ? lineage(two.path) : []) {
    const at = (name: string) => root.attr(`${two!.top}${path}/${name}`);
    add(path, number(at('memory.max')), number(at('memory.current')), reclaimable(at('memory.stat') ?? '', ''));
  }
  const one = cgroupFolder(root, 'memory');
  for (const path of one ? lineage(one.path) : []) {
    const at = (name: string) => root.attr(`${one!.top}${path}/${name}`);
    const limit = number(at('memory.limit_in_bytes'));
    add(path, limit, number(at('memory.usage_in_bytes')), reclaimable(at('memory.stat') ?? '', 'total_'));
  }
  return bounds;
}

/** The tightest bound on ordinary pages; undefined where the kernel tells none. */
export function ordinaryBound(root: Sysroot): MemoryBound | undefined {
  const meminfo = root.attr('/proc/meminfo') ?? '';
  const field = (name: string) => number(new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(meminfo)?.[1]);
  const bounds = cgroupBounds(root);
  const [most, promised] = [field('CommitLimit'), field('Committed_AS')];
  // vm.overcommit_memory=2: the kernel counts what it has promised, whether it is used or not
  if (root.attr('/proc/sys/vm/overcommit_memory') === '2' && most !== undefined && promised !== undefined)
    bounds.push({ bytes: most > promised ? (most - promised) << 10n : 0n, by: 'CommitLimit, as overcommitting is off' });
  const kib = field('MemAvailable');
  if (kib !== undefined) bounds.push({ bytes: kib << 10n, by: 'MemAvailable' });
  return bounds.reduce<MemoryBound | undefined>((least, bound) => (!least || bound.bytes < least.bytes ? bound : least), undefined);
}

/** As the kernel names a hugepage size in files of the hugetlb controller (mm/hugetlb_cgroup.c): `2MB`. */
const hugeName = (size: bigint): string =>
  size >= 1n << 30n ? `${size >> 30n}GB` : size >= 1n << 20n ? `${size >> 20n}MB` : `${size >> 10n}KB`;

/** Bounds on hugepages of a size: the pool with what it may grow by, and the hugetlb cgroups. */
function hugeBounds(root: Sysroot, size: bigint): MemoryBound[] {
  const pool = `/sys/kernel/mm/hugepages/hugepages-${size >> 10n}kB`;
  const count = (name: string) => number(root.attr(`${pool}/${name}`)) ?? 0n;
  const bounds: MemoryBound[] = [];
  if (root.exists(pool)) {
    const more = count('nr_overcommit_hugepages') - count('surplus_hugepages');
    const pages = count('free_hugepages') - count('resv_hugepages') + (more > 0n ? more : 0n);
    bounds.push({ bytes: (pages > 0n ? pages : 0n) * size, by: `free hugepages of ${formatSize(size)}` });
  } else if (root.exists('/sys/kernel/mm')) {
    bounds.push({ bytes: 0n, by: `hugepages of ${formatSize(size)}, a size that this kernel does not have` });
  }
  const name = hugeName(size);
  const two = cgroupFolder(root, undefined);
  const one = cgroupFolder(root, 'hugetlb');
  const add = (dir: string, limit: string, used: string) => {
    const [most, now] = [number(root.attr(`${dir}/hugetlb.${name}.${limit}`)), number(root.attr(`${dir}/hugetlb.${name}.${used}`))];
    if (most === undefined || now === undefined || most >= unlimited) return;
    bounds.push({ bytes: most > now ? most - now : 0n, by: `the limit of ${formatSize(most)} of hugetlb cgroup ${dir}` });
  };
  for (const path of two ? lineage(two.path) : [])
    for (const kind of ['', 'rsvd.']) add(`${two!.top}${path}`, `${kind}max`, `${kind}current`);
  for (const path of one ? lineage(one.path) : [])
    for (const kind of ['', 'rsvd.']) add(`${one!.top}${path}`, `${kind}limit_in_bytes`, `${kind}usage_in_bytes`);
  return bounds;
}

const shortage = (wanted: bigint, bound: MemoryBound, what: string, hint: string): VioError =>
  new VioError(`${formatSize(wanted)} of ${what} are needed, ${formatSize(bound.bytes)} are left (${bound.by}): ENOMEM`, {
    code: 'ENOMEM',
    exit: Exit.refused,
    hint,
    details: { wanted: exact(wanted), available: exact(bound.bytes), by: bound.by },
  });

/** Refuses what would make the kernel kill processes for memory. @throws VioError ENOMEM (3); nothing has been taken then */
export function requireMemory(root: Sysroot, need: MemoryNeed): void {
  const bound = need.ordinary > 0n ? ordinaryBound(root) : undefined;
  if (bound && need.ordinary + need.ordinary / overhead + reserve > bound.bytes)
    throw shortage(need.ordinary, bound, 'memory', 'map less, stop what uses memory, or map hugepages that are reserved (huge=2M)');
  for (const { path, missing, room } of need.files ?? [])
    if (missing > room)
      throw shortage(missing, { bytes: room, by: `the tmpfs of ${printable(path)}` }, 'memory', 'mount -o remount,size=… gives it more');
  for (const [size, bytes] of need.huge) {
    if (bytes === 0n) continue;
    for (const limit of hugeBounds(root, size))
      if (bytes > limit.bytes) throw shortage(bytes, limit, `memory in hugepages of ${formatSize(size)}`, reserveHint(size, bytes));
  }
}

/** The command that reserves hugepages. */
const reserveHint = (size: bigint, bytes: bigint): string =>
  `echo ${(bytes + size - 1n) / size} > /sys/kernel/mm/hugepages/hugepages-${size >> 10n}kB/nr_hugepages`;
