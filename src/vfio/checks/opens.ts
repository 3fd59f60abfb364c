import { printable } from '../../common/escape.js';
import type { Census } from '../census/census.js';
import type { PciDevice } from '../devices/pci.js';
import type { Finding } from './finding.js';

/** Numbers and names of the device nodes below a PCI device: NVMe, DRM, sound, UIO, and its disks. */
function deviceNodes(census: Census, device: PciDevice): { rdevs: Set<string>; paths: Set<string> } {
  const { root } = census;
  const rdevs = new Set<string>();
  const paths = new Set<string>();
  const add = (kind: 'b' | 'c', number: string) => {
    const dir = `/sys/dev/${kind === 'b' ? 'block' : 'char'}/${number}`;
    rdevs.add(`${kind}${number}`);
    const name = /^DEVNAME=(\S+)$/m.exec(root.attr(`${dir}/uevent`) ?? '')?.[1];
    if (name !== undefined) paths.add(`/dev/${name}`);
  };
  for (const { name, target } of census.below('/sys/dev/char', device.bdf)) if (!target.includes('/vfio-dev/')) add('c', name);
  for (const block of census.blocks.tree(device.bdf)) {
    if (block.dev !== '') add('b', block.dev);
    paths.add(`/dev/${block.name}`);
    // the generic character device of an NVMe namespace under multipath hangs below the subsystem too
    const generic = root.attr(`/sys/class/nvme-generic/${block.name.replace(/^nvme/, 'ng')}/dev`);
    if (generic !== undefined) add('c', generic);
  }
  return { rdevs, paths };
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
  const { rdevs, paths } = deviceNodes(census, device);
  if (rdevs.size === 0 && paths.size === 0) return [];
  const seen = new Set<string>();
  return census.processes.files.flatMap((file): Finding[] => {
    // where the number of the node is known it decides: the path may be of another namespace
    const ours = file.rdev === undefined ? paths.has(file.path) : rdevs.has(file.rdev);
    const key = `${file.pid} ${file.path}`;
    if (!ours || seen.has(key)) return [];
    seen.add(key);
    const who = `${printable(census.processes.comm(file.pid))} (pid ${file.pid})`;
    const subject = printable(file.path);
    return [{ check: 'open', subject, brief: `open by ${who}`, message: `${subject} is open in ${who}`, fix: `end process ${file.pid}` }];
  });
}
