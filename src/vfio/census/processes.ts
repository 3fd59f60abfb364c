import fs from 'node:fs';
import type { Sysroot } from '../../common/sysroot.js';
import { native } from '../../native/index.js';

/** A descriptor of a running process that may matter to a device. */
export interface OpenFile {
  pid: number;
  fd: number;
  /** Target of the /proc link: `/dev/nvme0n1`, `anon_inode:[vfio-device]`. */
  path: string;
  /** `b259:0` or `c10:196` of a device node; undefined for others and where it cannot be read. */
  rdev: string | undefined;
}

/** Major and minor of a st_rdev as glibc encodes it (sysmacros.h). */
export function majorMinor(rdev: number): string {
  const value = BigInt(rdev);
  const major = ((value >> 8n) & 0xfffn) | ((value >> 32n) & ~0xfffn);
  const minor = (value & 0xffn) | ((value >> 12n) & ~0xffn);
  return `${major}:${minor}`;
}

/** One pass over /proc: open device nodes, VFIO descriptors, and the namespaces that processes live in. */
export class Processes {
  readonly #root: Sysroot;
  readonly pids: number[];
  #files: OpenFile[] | undefined;
  #nodes: { byNumber: Map<string, OpenFile[]>; byPath: Map<string, OpenFile[]> } | undefined;
  #hidden = 0;
  #resources: { pid: number; path: string }[] | undefined;

  constructor(root: Sysroot) {
    this.#root = root;
    this.pids = root
      .list('/proc')
      .filter((name) => /^\d+$/.test(name))
      .map(Number)
      .sort((a, b) => a - b);
  }

  /** Descriptors of device nodes and of VFIO's anonymous files, of all processes that may be read. */
  get files(): OpenFile[] {
    this.#files ??= this.#scan();
    return this.#files;
  }

  /** Open device nodes by number, and those whose number is not known by path. */
  get nodes(): { byNumber: ReadonlyMap<string, OpenFile[]>; byPath: ReadonlyMap<string, OpenFile[]> } {
    if (this.#nodes) return this.#nodes;
    const byNumber = new Map<string, OpenFile[]>();
    const byPath = new Map<string, OpenFile[]>();
    for (const file of this.files) {
      const [index, key] = file.rdev === undefined ? [byPath, file.path] : [byNumber, file.rdev];
      const held = index.get(key);
      if (held) held.push(file);
      else index.set(key, [file]);
    }
    return (this.#nodes = { byNumber, byPath });
  }

  /** Processes that have BARs mapped through sysfs, as DPDK does with UIO; by the path of the resource file. */
  get resources(): { pid: number; path: string }[] {
    this.#resources ??= this.pids.flatMap((pid) => {
      const maps = this.#root.attr(`/proc/${pid}/maps`) ?? '';
      if (!maps.includes('/resource')) return [];
      const paths = new Set([...maps.matchAll(/ (\/sys\/\S*\/resource\d(?:_wc)?)$/gm)].map((match) => match[1]!));
      return [...paths].map((path) => ({ pid, path }));
    });
    return this.#resources;
  }

  /** Number of processes whose descriptors may not be read (no privilege). */
  get hidden(): number {
    void this.files;
    return this.#hidden;
  }

  comm(pid: number): string {
    return this.#root.attr(`/proc/${pid}/comm`) ?? '?';
  }

  /** One process for each namespace of a type, other than `except`'s; the link's text identifies the namespace. */
  namespaces(type: 'mnt' | 'net', except?: string): { pid: number; ns: string }[] {
    const seen = new Set([except]);
    const found: { pid: number; ns: string }[] = [];
    for (const pid of this.pids) {
      const ns = this.#root.readlink(`/proc/${pid}/ns/${type}`);
      if (ns === undefined || seen.has(ns)) continue;
      seen.add(ns);
      found.push({ pid, ns });
    }
    return found;
  }

  /** One process for each pair of mount namespace and root folder other than the given one. */
  views(ns: string | undefined, folder: string | undefined): number[] {
    const seen = new Set([`${ns} ${folder}`]);
    return this.pids.filter((pid) => {
      const own = this.#root.readlink(`/proc/${pid}/ns/mnt`);
      if (own === undefined) return false;
      const key = `${own} ${this.#root.readlink(`/proc/${pid}/root`)}`;
      return !seen.has(key) && seen.add(key);
    });
  }

  #scan(): OpenFile[] {
    if (this.#root.root === '/') {
      const { found, hidden } = native().sysfs.descriptors();
      this.#hidden = hidden;
      return found;
    }
    return this.#scanTree();
  }

  /** The same in a tree of files that stands for /proc. */
  #scanTree(): OpenFile[] {
    const files: OpenFile[] = [];
    for (const pid of this.pids) {
      let fds: string[];
      try {
        fds = fs.readdirSync(this.#root.path(`/proc/${pid}/fd`));
      } catch (err) {
        if ((err as NodeJS.ErrnoException).code === 'EACCES') this.#hidden++;
        continue; // ended meanwhile, or not ours to read
      }
      for (const fd of fds) {
        const path = this.#root.readlink(`/proc/${pid}/fd/${fd}`);
        if (path === undefined || !(path.includes('/dev/') || path.includes('vfio'))) continue;
        files.push({ pid, fd: Number(fd), path, rdev: this.#rdev(pid, fd, path) });
      }
    }
    return files;
  }

  /** Only links into a /dev are followed: a stat of anything else could wait for a dead network file system. */
  #rdev(pid: number, fd: string, path: string): string | undefined {
    if (!path.includes('/dev/')) return undefined;
    try {
      const stat = fs.statSync(this.#root.path(`/proc/${pid}/fd/${fd}`));
      if (!stat.isBlockDevice() && !stat.isCharacterDevice()) return undefined;
      return `${stat.isBlockDevice() ? 'b' : 'c'}${majorMinor(stat.rdev)}`;
    } catch {
      return undefined; // gone meanwhile; the path still tells
    }
  }
}

/** Address of the peer of the ssh session that `pid` descends from: SSH_CONNECTION of the nearest ancestor that has it. */
export function sshPeer(root: Sysroot, pid: number): string | undefined {
  for (let at = pid, depth = 0; at > 1 && depth < 64; depth++) {
    const connection = /(?:^|\0)SSH_(?:CONNECTION|CLIENT)=(\S+) /.exec(root.attr(`/proc/${at}/environ`) ?? '');
    if (connection) return connection[1]!.replace(/%.*$/, '');
    // the command name in parentheses may hold anything: fields count from the last ')'
    const stat = root.attr(`/proc/${at}/stat`) ?? '';
    at = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1] ?? 0);
  }
  return undefined;
}
