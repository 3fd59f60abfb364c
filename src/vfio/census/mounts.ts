import type { Sysroot } from '../../common/sysroot.js';
import type { Processes } from './processes.js';

/** A mounted file system as /proc/PID/mountinfo shows it. */
export interface Mount {
  /** `259:3`; an anonymous number (`0:44`) for file systems without a block device. */
  dev: string;
  source: string;
  target: string;
  fstype: string;
  /** Options of the file system, separated by commas. */
  options: string;
}

/** Undoes the octal escapes of /proc/…/mountinfo and /proc/swaps. */
const unescapeOctal = (text: string): string =>
  text.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));

/** Lines of /proc/PID/mountinfo (proc_pid_mountinfo(5)); lines of another shape are left out. */
export function parseMountinfo(text: string): Mount[] {
  return text.split('\n').flatMap((line): Mount[] => {
    const [left, right] = line.split(' - ');
    const [, , dev, , target] = left?.split(' ') ?? [];
    const [fstype, source, options = ''] = right?.split(' ') ?? [];
    if (dev === undefined || target === undefined || fstype === undefined || source === undefined) return [];
    return [{ dev, source: unescapeOctal(source), target: unescapeOctal(target), fstype, options: unescapeOctal(options) }];
  });
}

/** Device paths of /proc/swaps. */
export function parseSwaps(text: string): string[] {
  return text
    .split('\n')
    .slice(1)
    .flatMap((line) => (line.startsWith('/') ? [unescapeOctal(line.split(/\s/)[0]!)] : []));
}

/** Values of an option that may come more than once: `addr=10.0.0.1`. */
export const optionsOf = (mount: Pick<Mount, 'options'>, name: string): string[] =>
  mount.options.split(',').flatMap((option) => (option.startsWith(`${name}=`) ? [option.slice(name.length + 1)] : []));

/** Paths of the layers of an overlay (Documentation/filesystems/overlayfs.rst): `lowerdir=/a:/b`, `lowerdir+=/a`, upper, work. */
function layersOf(mount: Mount): string[] {
  const lower = optionsOf(mount, 'lowerdir').flatMap((text) => text.split(/(?<!\\):+/));
  const added = ['lowerdir+', 'datadir+', 'upperdir', 'workdir'].flatMap((name) => optionsOf(mount, name));
  return [...lower, ...added].filter((path) => path.startsWith('/'));
}

/** The mount of a view that a path lies on: the longest target, the last one where several are stacked. */
function mountOf(view: readonly Mount[], path: string, except: Mount): Mount | undefined {
  let best: Mount | undefined;
  for (const mount of view) {
    if (mount === except || !(path === mount.target || path.startsWith(mount.target === '/' ? '/' : `${mount.target}/`))) continue;
    if (mount.target.length >= (best?.target.length ?? 0)) best = mount;
  }
  return best;
}

/** Every mount that can be seen from any mount namespace or root folder, and the overlays that stand on each. */
export class Mounts {
  readonly all: readonly Mount[];
  /** Numbers of overlays, by the number of a file system that they have a layer on. */
  readonly #over = new Map<string, Set<string>>();

  /** @param texts of /proc/PID/mountinfo, one for each view */
  constructor(texts: readonly string[]) {
    const seen = new Set<string>();
    const all: Mount[] = [];
    for (const text of texts) {
      const view = parseMountinfo(text);
      for (const mount of view) {
        const key = `${mount.dev} ${mount.target} ${mount.source}`;
        if (!seen.has(key)) all.push(mount);
        seen.add(key);
        if (mount.fstype !== 'overlay') continue;
        for (const path of layersOf(mount)) {
          const below = mountOf(view, path, mount)?.dev;
          if (below !== undefined && below !== mount.dev) this.#over.set(below, (this.#over.get(below) ?? new Set()).add(mount.dev));
        }
      }
    }
    this.all = all;
  }

  /** Overlays with a layer on a file system, directly or through other overlays. */
  overlaysOn(dev: string): Mount[] {
    const devs = new Set<string>();
    const visit = (at: string) => {
      for (const over of this.#over.get(at) ?? []) {
        if (devs.has(over)) continue;
        devs.add(over);
        visit(over);
      }
    };
    visit(dev);
    return this.all.filter((mount) => devs.has(mount.dev));
  }
}

/**
 * The mounts of all views that can be read: our own, that of process 1 (which sees what lies outside a chroot), and those of
 * one process for each other mount namespace and root folder.
 */
export function readMounts(root: Sysroot, processes: Processes): Mounts {
  const texts = [root.attr('/proc/self/mountinfo') ?? ''];
  const pids = new Set([1, ...processes.views(root.readlink('/proc/self/ns/mnt'), root.readlink('/proc/self/root'))]);
  for (const pid of pids) texts.push(root.attr(`/proc/${pid}/mountinfo`) ?? '');
  return new Mounts(texts);
}
