import { printable } from '../../common/escape.js';
import type { Census } from '../census/census.js';
import type { PciDevice } from '../devices/pci.js';
import type { Finding } from './finding.js';

/** Numbers of the device nodes below a PCI device: NVMe, DRM, sound, UIO, and its disks; `b259:0`, `c10:196`. */
function nodesOf(census: Census, device: PciDevice): Set<string> {
  const rdevs = new Set<string>();
  for (const { name, target } of census.below('/sys/dev/char', device.bdf)) if (!target.includes('/vfio-dev/')) rdevs.add(`c${name}`);
  for (const block of census.blocks.tree(device.bdf)) {
    if (block.dev !== '') rdevs.add(`b${block.dev}`);
    // the generic character device of an NVMe namespace under multipath hangs below the subsystem too
    const generic = census.blocks.generic(block.name);
    if (generic !== undefined) rdevs.add(`c${generic}`);
  }
  return rdevs;
}

/** Paths of the same nodes, as devtmpfs has them. */
function pathsOf(census: Census, device: PciDevice, rdevs: ReadonlySet<string>): Set<string> {
  const paths = new Set(census.blocks.tree(device.bdf).map(({ name }) => `/dev/${name}`));
  for (const rdev of rdevs) {
    const folder = `/sys/dev/${rdev.startsWith('b') ? 'block' : 'char'}/${rdev.slice(1)}`;
    const name = /^DEVNAME=(\S+)$/m.exec(census.root.attr(`${folder}/uevent`) ?? '')?.[1];
    if (name !== undefined) paths.add(`/dev/${name}`);
  }
  return paths;
}

/** Processes that drive the device through the resource files of sysfs. */
function mappedFindings(census: Census, device: PciDevice): Finding[] {
  const mine = census.processes.resources.filter(({ path }) => path.includes(`/${device.bdf}/`));
  return [...new Map(mine.map(({ pid, path }) => [pid, path]))].map(([pid, path]) => {
    const who = `${printable(census.processes.comm(pid))} (pid ${pid})`;
    const file = path.split('/').pop()!;
    return { check: 'open', subject: file, brief: `mapped by ${who}`, message: `${who} has its ${file} mapped`, fix: `end process ${pid}` };
  });
}

/** Processes that have a node of the device open, or its registers mapped. */
export const openFindings = (census: Census, device: PciDevice): Finding[] => [
  ...nodeFindings(census, device),
  ...mappedFindings(census, device),
];

function nodeFindings(census: Census, device: PciDevice): Finding[] {
  const { byNumber, byPath } = census.processes.nodes;
  if (byNumber.size === 0 && byPath.size === 0) return [];
  const rdevs = nodesOf(census, device);
  const files = [...rdevs].flatMap((rdev) => byNumber.get(rdev) ?? []);
  // where the number of a node is known it decides: the path may be of another namespace
  if (byPath.size > 0) for (const path of pathsOf(census, device, rdevs)) files.push(...(byPath.get(path) ?? []));
  // descriptors that we inherited are not a use of ours
  const once = new Map(files.filter(({ pid }) => pid !== census.pid).map((file) => [`${file.pid} ${file.path}`, file]));
  const sorted = [...once.values()].sort((a, b) => a.pid - b.pid || a.fd - b.fd);
  return sorted.map((file) => {
    const who = `${printable(census.processes.comm(file.pid))} (pid ${file.pid})`;
    const subject = printable(file.path);
    return { check: 'open', subject, brief: `open by ${who}`, message: `${subject} is open in ${who}`, fix: `end process ${file.pid}` };
  });
}
