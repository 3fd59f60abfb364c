import fs from 'node:fs';
import { codeOf, Exit, VioError, wrap } from '../../common/errors.js';
import type { Sysroot } from '../../common/sysroot.js';
import { counted } from '../../common/units.js';
import { native } from '../../native/index.js';
import type { NativeMemory } from '../../native/vfio.js';
import type { Census } from '../census/census.js';
import { resourceSizes } from '../census/holders.js';
import { type PciDevice, pciDevices } from '../devices/pci.js';
import { findDevice } from '../devices/select.js';
import { type Api, openSession, requireBound } from './open.js';
import { configRegion, regionNames } from './session.js';

/** Registers of a device: an open Session, or what sysfs shows of a device that is not on VFIO. */
export interface Space {
  readonly bdf: string;
  /** undefined if the device has no such region. */
  region(index: number): { size: bigint } | undefined;
  read(region: number, offset: number, size: number): Buffer;
  load(region: number, offset: number, width: number): bigint;
  store(region: number, offset: number, width: number, value: number | bigint): void;
  mapBar(index: number): number;
  close(): void;
}

/** Bit of the PCI command register: the device answers in memory space. */
const memoryEnable = 2;
const command = 4;

/**
 * The config space of a device, and the memory BARs of one that has no driver, read through sysfs (Documentation/PCI/sysfs-pci.rst).
 * Nothing is written to the device. While it is open the device is kept from sleeping, as far as that is permitted.
 */
export class SysfsSpace implements Space {
  readonly bdf: string;
  readonly #root: Sysroot;
  readonly #device: PciDevice;
  readonly #config: number;
  readonly #sizes: number[];
  readonly #bars = new Map<number, NativeMemory>();
  /** Content of power/control to put back. */
  #power: string | undefined;

  /** @throws VioError: no permission, or no config space */
  constructor(root: Sysroot, device: PciDevice) {
    this.bdf = device.bdf;
    this.#root = root;
    this.#device = device;
    const dir = `${pciDevices}/${device.bdf}`;
    try {
      this.#config = fs.openSync(root.path(`${dir}/config`), 'r');
    } catch (err) {
      throw wrap(`${device.bdf}: open ${dir}/config`, err);
    }
    this.#sizes = resourceSizes(root.attr(`${dir}/resource`) ?? '');
  }

  get #powerFile(): string {
    return `${pciDevices}/${this.bdf}/power/control`;
  }

  /** A device that sleeps does not answer in memory space. */
  #wake(): void {
    const now = this.#root.attr(this.#powerFile);
    if (this.#power !== undefined || now !== 'auto') return;
    try {
      fs.writeFileSync(this.#root.path(this.#powerFile), 'on\n');
      this.#power = now;
    } catch (err) {
      throw wrap(`${this.bdf}: keep the device awake (${this.#powerFile})`, err);
    }
  }

  region(index: number): { size: bigint } | undefined {
    if (index === configRegion) return { size: BigInt(fs.fstatSync(this.#config).size) };
    const size = this.#sizes[index];
    return size === undefined || size === 0 ? undefined : { size: BigInt(size) };
  }

  read(region: number, offset: number, size: number): Buffer {
    if (region !== configRegion) {
      const bytes = Buffer.alloc(size);
      for (let at = 0; at < size; at += 4) bytes.writeUInt32LE(Number(this.load(region, offset + at, 4)), at);
      return bytes;
    }
    const bytes = Buffer.alloc(size);
    const got = fs.readSync(this.#config, bytes, 0, size, offset);
    if (got === size) return bytes;
    const privileged = got > 0 || offset < 64 ? 'root' : 'CAP_SYS_ADMIN';
    throw new VioError(
      `${this.bdf}: CONFIG at 0x${(offset + got).toString(16)}: it cannot be read (${got} of ${counted(size, 'byte')}): EACCES`,
      {
        code: 'EACCES',
        exit: Exit.permission,
        hint: `without privileges the kernel shows the first 64 bytes: run it as ${privileged}`,
      },
    );
  }

  load(region: number, offset: number, width: number): bigint {
    const size = Number(this.region(region)?.size ?? 0n);
    const where = `${this.bdf}: ${regionNames[region] ?? `region ${region}`} at 0x${offset.toString(16)}`;
    if (offset + width > size) throw new VioError(`${where}: beyond its end 0x${size.toString(16)}`, { code: 'ERANGE', exit: Exit.usage });
    if (region === configRegion) {
      const bytes = this.read(region, offset, width);
      return width === 8 ? bytes.readBigUInt64LE(0) : BigInt(bytes.readUIntLE(0, width));
    }
    const memory = this.#bars.get(region);
    if (!memory) throw new Error('mapBar comes first');
    return native().vfio.loadMemory(memory, offset, width);
  }

  store(): never {
    throw new VioError(`${this.bdf}: sysfs is read only here`, { code: 'NOT_BOUND', hint: `vioctl vfio bind ${this.bdf}` });
  }

  mapBar(index: number): number {
    const size = Number(this.region(index)?.size ?? 0n);
    const name = regionNames[index] ?? `region ${index}`;
    const hint = `vioctl vfio bind ${this.bdf}`;
    if (size === 0)
      throw new VioError(`${this.bdf}: no ${name}`, { code: 'ENXIO', exit: Exit.usage, hint: `vioctl vfio show ${this.bdf}` });
    if (this.#device.driver !== undefined)
      throw new VioError(`${this.bdf}: not bound to VFIO, and driver ${this.#device.driver} works with its registers`, {
        code: 'NOT_BOUND',
        hint,
      });
    this.#wake();
    if (!(this.read(configRegion, command, 2).readUInt16LE(0) & memoryEnable))
      throw new VioError(`${this.bdf}: ${name}: its memory space is disabled, as it has no driver`, { code: 'EIO', hint });
    const file = `${pciDevices}/${this.bdf}/resource${index}`;
    try {
      const page = 4096n;
      this.#bars.set(index, native().vfio.fileMemory(this.#root.path(file), ((BigInt(size) + page - 1n) / page) * page, false, page, 0n));
    } catch (err) {
      throw wrap(`${this.bdf}: map ${file}`, err, { hint: codeOf(err) === 'EINVAL' ? hint : undefined });
    }
    return size;
  }

  close(): void {
    for (const memory of this.#bars.values()) native().vfio.closeMemory(memory);
    this.#bars.clear();
    fs.closeSync(this.#config);
    if (this.#power === undefined) return;
    const power = this.#power;
    this.#power = undefined;
    fs.writeFileSync(this.#root.path(this.#powerFile), `${power}\n`);
  }
}

/**
 * Opens the registers of a device to read them: through VFIO if it is bound to that, else through sysfs. The caller closes it.
 * @throws VioError of openSession or SysfsSpace
 */
export function openSpace(census: Census, text: string, api: Api, token: string | undefined): Space {
  const device = findDevice(census.root, text);
  if (api === 'auto' && token === undefined && !census.modules.isVfio(device.driver)) return new SysfsSpace(census.root, device);
  requireBound(census, device);
  return openSession(census, text, api, [], token);
}
