import { existsSync, rmSync } from 'node:fs';
import path from 'node:path';
import { Modules } from '../../../../src/vfio/devices/modules.js';
import { linkName, readOverride } from '../../../../src/vfio/devices/pci.js';
import type { Host } from '../../../../src/vfio/transaction/move.js';
import { errnoError, StuckWrite, type Writer } from '../../../../src/vfio/transaction/writer.js';
import type { PciTree } from '../../../support/pci-tree.js';

/** One write as the double saw it: `unbind nvme 0000:01:00.0`. */
export type Seen = string;

/**
 * The kernel's side of driver_override, bind and unbind on a tree, for errors that a real one does not produce on demand.
 * `faults` holds what to do instead at the n-th write of a kind: an errno, `hang`, `ignore`, or a function.
 */
export class Kernel implements Writer {
  readonly seen: Seen[] = [];
  readonly faults = new Map<string, number | 'hang' | 'ignore' | (() => void)>();
  readonly #tree: PciTree;

  constructor(tree: PciTree) {
    this.#tree = tree;
  }

  /** Virtual functions at the addresses behind their physical one: they appear and vanish, by pci_iov.c's rules. */
  #setVfs(pf: string, file: string, count: number): void {
    const { root } = this.#tree;
    const dir = path.dirname(file);
    const at = (i: number) => pf.replace(/..\..$/, `1${i >> 3}.${i & 7}`);
    const now = root.list(dir).filter((name) => name.startsWith('virtfn')).length;
    if (now === 0 && root.attr(`${dir}/sriov_totalvfs`) === undefined) return;
    if (now > 0 && count > 0 && now !== count) throw errnoError(16, file);
    for (let i = 0; i < now; i++) {
      if (count > 0) break;
      rmSync(this.#tree.at(`${dir}/virtfn${i}`));
      rmSync(this.#tree.at(`/sys/bus/pci/devices/${at(i)}`));
      rmSync(this.#tree.at(`/sys/devices/pci0000:00/${at(i)}`), { recursive: true });
    }
    const probes = root.attr(`${dir}/sriov_drivers_autoprobe`) === '1';
    for (let i = now; i < count; i++) {
      const vf = this.#tree.device(at(i), {
        class: 0x020000,
        vendor: 0x8086,
        device: 0x10ca,
        group: 100 + i,
        ...(probes && { driver: 'igbvf' }),
      });
      this.#tree.link(`${vf}/physfn`, `/sys/devices/pci0000:00/${pf}`);
      this.#tree.link(`/sys/devices/pci0000:00/${pf}/virtfn${i}`, vf);
    }
  }

  async write(file: string, value: string): Promise<void> {
    const { root } = this.#tree;
    const [folder, name] = [path.basename(path.dirname(file)), path.basename(file)];
    const text = value.trim();
    const key = `${name} ${folder} ${text}`.trim();
    const fault = this.faults.get(key);
    this.faults.delete(key);
    this.seen.push(key);
    if (fault === 'hang') throw new StuckWrite(file, 4711);
    if (fault === 'ignore') return;
    if (typeof fault === 'number') throw errnoError(fault, file);
    fault?.();
    if (name === 'driver_override' || name === 'sriov_numvfs' || name === 'sriov_drivers_autoprobe') {
      if (name === 'sriov_numvfs') this.#setVfs(folder, file, Number(text));
      this.#tree.file(file, `${text === '' ? '(null)' : text}\n`);
      return;
    }
    const bound = linkName(root, `/sys/bus/pci/devices/${text}/driver`);
    if (!existsSync(this.#tree.at(path.dirname(file)))) throw errnoError(2, file);
    if (name === 'unbind') {
      if (bound !== folder) throw errnoError(19, file);
      rmSync(this.#tree.at(`/sys/bus/pci/devices/${text}/driver`));
    } else if (name === 'bind') {
      const override = readOverride(root, text);
      if (folder === 'vfio-pci' ? override !== folder : override !== undefined && override !== folder) throw errnoError(19, file);
      if (bound !== undefined) throw errnoError(16, file);
      this.#tree.bind(text, folder);
      const group = linkName(root, `/sys/bus/pci/devices/${text}/iommu_group`);
      if (folder === 'vfio-pci' && group !== undefined) this.#tree.file(`/dev/vfio/${group}`, '');
    }
  }
}

/** A host on a tree and its kernel. Our own process is 100. */
export function testHost(tree: PciTree): { host: Host; kernel: Kernel; loaded: string[] } {
  const kernel = new Kernel(tree);
  const loaded: string[] = [];
  tree.file('/proc/100/stat', `100 (vioctl) S ${'1 '.repeat(18)}777 0\n`);
  tree.file('/proc/sys/kernel/random/boot_id', 'boot-1\n');
  const host: Host = {
    root: tree.root,
    modules: new Modules(tree.root),
    writer: kernel,
    modprobe: async (module) => {
      loaded.push(module);
      tree.driver(module === 'vfio_pci' ? 'vfio-pci' : module, module);
    },
    ip: async () => '',
    kernelMessages: () => [],
    pid: 100,
  };
  return { host, kernel, loaded };
}
