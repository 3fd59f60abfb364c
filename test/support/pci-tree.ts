import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Sysroot } from '../../src/common/sysroot.js';

/** What a made-up PCI device has; everything else takes a plain default. */
export interface TreeDevice {
  vendor?: number;
  device?: number;
  class?: number;
  driver?: string;
  override?: string;
  group?: number;
  modalias?: string;
  /** Folder of its parent below /sys/devices. */
  parent?: string;
  attrs?: Record<string, string>;
}

const hex = (value: number, digits: number) => value.toString(16).padStart(digits, '0');

/** A small /sys, /proc and /dev in a temporary folder, shaped as the kernel's. Remove it with `remove()`. */
export class PciTree {
  readonly dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-pci-'));
  readonly root = new Sysroot(this.dir);

  constructor() {
    this.file('/proc/sys/kernel/osrelease', '6.12.0-test\n');
    this.file('/proc/cmdline', 'root=/dev/sda1 intel_iommu=on\n');
    this.file('/proc/swaps', 'Filename\tType\tSize\tUsed\tPriority\n');
    this.file('/proc/self/mountinfo', '');
    this.folder('/sys/bus/pci/devices');
    this.file('/lib/modules/6.12.0-test/modules.alias', '');
    this.file('/lib/modules/6.12.0-test/modules.dep', '');
  }

  remove(): void {
    fs.rmSync(this.dir, { recursive: true, force: true });
  }

  at(absolute: string): string {
    return path.join(this.dir, absolute);
  }

  folder(absolute: string): void {
    fs.mkdirSync(this.at(absolute), { recursive: true });
  }

  file(absolute: string, data: string | Buffer): void {
    this.folder(path.dirname(absolute));
    fs.writeFileSync(this.at(absolute), data);
  }

  /** A link whose target is relative, as in sysfs, when it is an absolute path of the tree. */
  link(absolute: string, target: string): void {
    this.folder(path.dirname(absolute));
    fs.rmSync(this.at(absolute), { force: true });
    fs.symlinkSync(target.startsWith('/sys/') ? path.relative(path.dirname(absolute), target) : target, this.at(absolute));
  }

  /** Registers a PCI driver. */
  driver(name: string, module = name.replaceAll('-', '_')): void {
    this.folder(`/sys/bus/pci/drivers/${name}`);
    this.file(`/sys/bus/pci/drivers/${name}/bind`, '');
    this.file(`/sys/bus/pci/drivers/${name}/unbind`, '');
    this.folder(`/sys/module/${module}/drivers`);
    this.link(`/sys/bus/pci/drivers/${name}/module`, `/sys/module/${module}`);
    this.link(`/sys/module/${module}/drivers/pci:${name}`, `/sys/bus/pci/drivers/${name}`);
  }

  /** Adds lines to modules.alias. */
  aliases(...lines: string[]): void {
    fs.appendFileSync(this.at('/lib/modules/6.12.0-test/modules.alias'), lines.map((line) => `alias ${line}\n`).join(''));
  }

  /** Binds a device by its link, as the kernel would show it. */
  bind(bdf: string, driver: string | undefined): void {
    const dir = `/sys/bus/pci/devices/${bdf}`;
    fs.rmSync(this.at(`${dir}/driver`), { force: true });
    if (driver !== undefined)
      this.link(`${fs.readlinkSync(this.at(dir)).replace(/^(\.\.\/)+/, '/sys/')}/driver`, `/sys/bus/pci/drivers/${driver}`);
  }

  /** A device; returns its folder below /sys/devices. */
  device(bdf: string, options: TreeDevice = {}): string {
    const { vendor = 0x1b36, device = 0x0010, group } = options;
    const cls = options.class ?? 0x010802;
    const real = `${options.parent ?? '/sys/devices/pci0000:00'}/${bdf}`;
    this.link(`/sys/bus/pci/devices/${bdf}`, real);
    const id = (value: number, digits: number) => hex(value, digits).toUpperCase();
    const modalias = `pci:v${id(vendor, 8)}d${id(device, 8)}sv00001AF4sd00001100bc${id(cls >> 16, 2)}sc${id((cls >> 8) & 255, 2)}i${id(cls & 255, 2)}`;
    const attrs: Record<string, string> = {
      vendor: `0x${hex(vendor, 4)}`,
      device: `0x${hex(device, 4)}`,
      subsystem_vendor: '0x1af4',
      subsystem_device: '0x1100',
      revision: '0x02',
      class: `0x${hex(cls, 6)}`,
      modalias: options.modalias ?? modalias,
      driver_override: options.override ?? '(null)',
      numa_node: '-1',
      ...options.attrs,
    };
    for (const [name, value] of Object.entries(attrs)) this.file(`${real}/${name}`, `${value}\n`);
    if (options.driver !== undefined) {
      this.folder(`/sys/bus/pci/drivers/${options.driver}`);
      this.link(`${real}/driver`, `/sys/bus/pci/drivers/${options.driver}`);
    }
    if (group !== undefined) {
      this.link(`${real}/iommu_group`, `/sys/kernel/iommu_groups/${group}`);
      this.link(`/sys/kernel/iommu_groups/${group}/devices/${bdf}`, real);
      this.file(`/sys/kernel/iommu_groups/${group}/type`, 'DMA-FQ\n');
      this.file(`/sys/kernel/iommu_groups/${group}/reserved_regions`, '0x00000000fee00000 0x00000000feefffff msi\n');
    }
    return real;
  }

  /** An igb port, eth0, that can have seven virtual functions. */
  igb(bdf: string): void {
    const port = this.device(bdf, {
      driver: 'igb',
      class: 0x020000,
      vendor: 0x8086,
      device: 0x10c9,
      group: 9,
      attrs: { sriov_totalvfs: '7', sriov_numvfs: '0', sriov_drivers_autoprobe: '1' },
    });
    this.net(port, 'eth0');
  }

  /** A block device in a folder of a device, with its number. */
  block(parent: string, name: string, dev: string, options: { partition?: number; holders?: string[] } = {}): string {
    const dir = `${parent}/${name}`;
    this.file(`${dir}/dev`, `${dev}\n`);
    this.file(`${dir}/uevent`, `DEVNAME=${name}\n`);
    if (options.partition !== undefined) this.file(`${dir}/partition`, `${options.partition}\n`);
    for (const holder of options.holders ?? []) this.link(`${dir}/holders/${holder}`, `/sys/devices/virtual/block/${holder}`);
    this.link(`/sys/class/block/${name}`, dir);
    this.link(`/sys/dev/block/${dev}`, dir);
    return dir;
  }

  /** A network interface of a device, or a virtual one. */
  net(parent: string | undefined, name: string, options: { uppers?: string[]; uevent?: string } = {}): void {
    const dir = parent === undefined ? `/sys/devices/virtual/net/${name}` : `${parent}/net/${name}`;
    this.file(`${dir}/uevent`, options.uevent ?? `INTERFACE=${name}\n`);
    for (const upper of options.uppers ?? []) this.link(`${dir}/upper_${upper}`, `/sys/devices/virtual/net/${upper}`);
    this.link(`/sys/class/net/${name}`, dir);
  }

  /** A process with descriptors (links as /proc shows them) and the text of its files. */
  process(pid: number, comm: string, fds: Record<number, string>, files: Record<string, string> = {}): void {
    this.file(`/proc/${pid}/comm`, `${comm}\n`);
    this.folder(`/proc/${pid}/fd`);
    for (const [fd, target] of Object.entries(fds)) this.link(`/proc/${pid}/fd/${fd}`, target);
    for (const [name, text] of Object.entries(files)) this.file(`/proc/${pid}/${name}`, text);
  }
}
