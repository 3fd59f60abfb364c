import { codeOf, Exit, VioError, wrap } from '../../common/errors.js';
import { type Aperture, entryLimit, pagesOf, type Reserved } from '../../dma/aperture.js';
import { native } from '../../native/index.js';
import type { NativeInfo, NativeRegion, NativeSession } from '../../native/vfio.js';

/** Regions of a PCI device (VFIO_PCI_*_REGION_INDEX). */
export const regionNames = ['BAR0', 'BAR1', 'BAR2', 'BAR3', 'BAR4', 'BAR5', 'ROM', 'CONFIG', 'VGA'] as const;
export const configRegion = 7;
/** Interrupts of a PCI device (VFIO_PCI_*_IRQ_INDEX). */
export const irqNames = ['INTX', 'MSI', 'MSIX', 'ERR', 'REQ'] as const;
export const Irq = { INTX: 0, MSI: 1, MSIX: 2, ERR: 3, REQ: 4 } as const;

/** Bits of the PCI command register (pci_regs.h). */
const commandRegister = 4;
const memoryEnable = 2;
const masterEnable = 4;
/** Bits that no device sets: all ones come back where none answers. (VFIO makes up bit 10, so 0xffff does not.) */
const reservedBits = 0xf800;

/** VFIO_PCI_DEVID_NOT_OWNED: a device that a hot reset reaches and that is not bound to our iommufd. */
const notOwned = 0xffffffff;

/** A region as commands show it. */
export interface Region {
  index: number;
  name: string;
  size: number;
  flags: ('read' | 'write' | 'mmap')[];
  /** Parts that may be mapped. */
  areas: { offset: number; size: number }[];
  sparse: boolean;
  /** The kernel lets the MSI-X table be mapped with the rest. */
  msixMappable: boolean;
}

/** An interrupt type as commands show it. */
export interface IrqType {
  /** number of the type in VFIO */
  index: number;
  /** intx, msi, msix, err or req */
  name: string;
  /** vectors */
  count: number;
  /** eventfd, maskable, automasked, noresize (VFIO_IRQ_INFO_*) */
  flags: string[];
}

const names = <T extends string>(bits: number, table: readonly T[]): T[] => table.filter((_, i) => bits & (1 << i));

/** A device that is open through VFIO: registers, config space, interrupts, reset. Mappings are in src/dma. */
export class Session {
  readonly bdf: string;
  readonly handle: NativeSession;
  readonly info: NativeInfo;
  /** IOMMU group, where it is known. */
  readonly group: number | undefined;
  #master = false;

  constructor(bdf: string, handle: NativeSession, group?: number) {
    this.bdf = bdf;
    this.group = group;
    this.handle = handle;
    this.info = native().vfio.info(handle);
  }

  get api(): NativeInfo['api'] {
    return this.info.api;
  }

  /** Takes the device off the bus, then closes everything in order. Closing again does nothing. */
  close(): void {
    if (this.#master) {
      this.#master = false;
      try {
        this.busMaster(false);
      } catch {
        // a device that is gone cannot master the bus either
      }
    }
    native().vfio.close(this.handle);
  }

  /**
   * What may be mapped.
   * @param reserved the group's reserved regions, so that errors name them; the kernel's ranges leave them out anyway
   * @throws VioError (7) without an IOMMU
   */
  aperture(reserved: Reserved[] = []): Aperture {
    if (this.api === 'noiommu')
      throw new VioError(`${this.bdf}: noiommu: without an IOMMU nothing maps device addresses`, {
        code: 'NO_IOMMU',
        exit: Exit.unsupported,
        hint: 'a device in this mode takes physical addresses',
      });
    const { ranges, pages } = this.info;
    return {
      ranges: Array.from({ length: ranges.length / 2 }, (_, i) => ({ start: ranges[2 * i]!, end: ranges[2 * i + 1]! })),
      reserved,
      pages: pagesOf(pages),
      limit: this.api === 'cdev' ? Number.MAX_SAFE_INTEGER : this.available() || entryLimit,
    };
  }

  /** DMA entries that the container has left; -1 where there is no limit. */
  available(): number {
    return native().vfio.available(this.handle);
  }

  /** All regions that the device has. */
  regions(): Region[] {
    return regionNames.slice(0, this.info.regions).flatMap((name, index): Region[] => {
      const region = this.region(index);
      if (!region || region.size === 0n) return [];
      return [
        {
          index,
          name,
          size: Number(region.size),
          flags: names(region.flags, ['read', 'write', 'mmap']),
          areas: Array.from({ length: region.areas.length / 2 }, (_, i) => ({
            offset: Number(region.areas[2 * i]),
            size: Number(region.areas[2 * i + 1]),
          })),
          sparse: region.sparse,
          msixMappable: region.msixMappable,
        },
      ];
    });
  }

  /** A region, undefined where the device has none of that index. */
  region(index: number): NativeRegion | undefined {
    try {
      return native().vfio.region(this.handle, index);
    } catch (err) {
      if (codeOf(err) === 'EINVAL') return undefined;
      throw wrap(`${this.bdf}: region ${index}`, err);
    }
  }

  irqs(): IrqType[] {
    return irqNames.slice(0, this.info.irqs).flatMap((name, index): IrqType[] => {
      try {
        const { count, flags } = native().vfio.irq(this.handle, index);
        return count === 0 ? [] : [{ index, name, count, flags: names(flags, ['eventfd', 'maskable', 'automasked', 'noresize']) }];
      } catch (err) {
        if (codeOf(err) === 'EINVAL') return []; // the kernel says so for types that the device lacks
        throw wrap(`${this.bdf}: interrupt ${name}`, err);
      }
    });
  }

  /** Bytes of a region. @throws VioError; EIO for a device that is gone */
  read(region: number, offset: number, size: number): Buffer {
    try {
      return native().vfio.read(this.handle, region, offset, Buffer.alloc(size));
    } catch (err) {
      throw this.#failed(region, offset, err);
    }
  }

  write(region: number, offset: number, bytes: Uint8Array): void {
    try {
      native().vfio.write(this.handle, region, offset, bytes);
    } catch (err) {
      throw this.#failed(region, offset, err);
    }
  }

  /** One register access. @param width 1, 2, 4 or 8 bytes */
  load(region: number, offset: number, width: number): bigint {
    try {
      return native().vfio.load(this.handle, region, offset, width);
    } catch (err) {
      throw this.#failed(region, offset, err);
    }
  }

  store(region: number, offset: number, width: number, value: number | bigint): void {
    try {
      native().vfio.store(this.handle, region, offset, width, value);
    } catch (err) {
      throw this.#failed(region, offset, err);
    }
  }

  /** Maps a BAR as far as the kernel lets it be mapped; accesses go there from now on. @returns bytes */
  mapBar(index: number): number {
    try {
      return native().vfio.mapRegion(this.handle, index);
    } catch (err) {
      throw this.#failed(index, 0, err);
    }
  }

  #failed(region: number, offset: number, err: unknown): VioError {
    const where = `${this.bdf}: ${regionNames[region] ?? `region ${region}`} at 0x${offset.toString(16)}`;
    const code = codeOf(err);
    if (code === 'ERANGE')
      return new VioError(`${where}: beyond its end 0x${(this.region(region)?.size ?? 0n).toString(16)}`, {
        code: 'ERANGE',
        exit: Exit.usage,
        cause: err,
      });
    if (code === 'ENXIO')
      return new VioError(`${where}: the device has no such region`, {
        code,
        exit: Exit.usage,
        hint: `vioctl vfio show ${this.bdf}`,
        cause: err,
      });
    return wrap(where, err, { hint: code === 'EIO' ? 'was the device removed, or is its memory space disabled?' : undefined });
  }

  /** Lets the device reach memory, or not. Memory space stays enabled. The register is little-endian. */
  busMaster(on: boolean): void {
    const bytes = this.read(configRegion, commandRegister, 2);
    const now = bytes.readUInt16LE(0);
    if ((now & reservedBits) === reservedBits)
      throw new VioError(`${this.bdf}: the device does not answer`, { code: 'EIO', hint: 'it was removed, or sleeps in D3cold' });
    bytes.writeUInt16LE(on ? now | memoryEnable | masterEnable : now & ~masterEnable, 0);
    this.write(configRegion, commandRegister, bytes);
    this.#master = on;
  }

  /** Sets the token that the virtual functions of this physical function open with. @throws VioError (7) without SR-IOV */
  setVfToken(token: Uint8Array): void {
    try {
      native().vfio.setVfToken(this.handle, token);
    } catch (err) {
      throw wrap(`${this.bdf}: set the VF token`, err, codeOf(err) === 'ENOTTY' ? { exit: Exit.unsupported } : {});
    }
  }

  /** Whether the device can be reset alone (VFIO_DEVICE_FLAGS_RESET). */
  get canReset(): boolean {
    return (this.info.flags & 1) !== 0;
  }

  /** Function-level reset. @throws VioError (7) where the device has none */
  reset(): void {
    if (!this.canReset)
      throw new VioError(`${this.bdf}: the device cannot be reset alone`, {
        code: 'NO_RESET',
        exit: Exit.unsupported,
        hint: `--hot resets its slot or bus with all devices on it`,
      });
    try {
      native().vfio.reset(this.handle);
    } catch (err) {
      throw wrap(`${this.bdf}: reset`, err);
    }
  }

  /**
   * Devices that a hot reset of this one resets too, itself included. `id` is the group; with cdev the device's number in our
   * iommufd, 0 for one that is ours by its group, notOwned for one that is not ours.
   * @throws VioError (7) without a slot or bus to reset
   */
  resetPeers(): { bdf: string; id: number }[] {
    try {
      return native()
        .vfio.resetPeers(this.handle)
        .map(({ segment, bus, devfn, group }) => ({ bdf: address(segment, bus, devfn), id: group }));
    } catch (err) {
      if (codeOf(err) === 'ENODEV')
        throw new VioError(`${this.bdf}: neither its slot nor its bus can be reset`, {
          code: 'NO_RESET',
          exit: Exit.unsupported,
          cause: err,
        });
      throw wrap(`${this.bdf}: devices of the hot reset`, err);
    }
  }

  /**
   * Resets the slot or bus. The kernel wants proof that all devices there are ours: descriptors of all groups concerned, or
   * with cdev none, as it sees itself what is bound to our iommufd.
   * @param others further open devices, whose groups are given too
   * @throws VioError (3) that names the devices that are not ours
   */
  hotReset(others: readonly Session[] = []): void {
    const peers = this.resetPeers();
    const idOf = (bdf: string) => peers.find((peer) => peer.bdf === bdf)?.id;
    // one descriptor per group: a second one of a group is refused
    const groups = new Map([this, ...others].map((session) => [idOf(session.bdf), session.info.group]));
    const cdev = this.api === 'cdev';
    try {
      native().vfio.hotReset(this.handle, cdev ? [] : [...groups.values()]);
    } catch (err) {
      const foreign = peers.filter(({ id }) => (cdev ? id === notOwned : !groups.has(id)));
      const names = foreign.map(({ bdf, id }) => (cdev ? bdf : `${bdf} (group ${id})`));
      const code = codeOf(err);
      if ((code === 'EINVAL' || code === 'EPERM') && names.length > 0)
        throw new VioError(`${this.bdf}: hot reset refused: it would reset ${names.join(', ')} too, not open here`, {
          code: 'NOT_ALL_OWNED',
          exit: Exit.refused,
          hint: 'all of them must be bound to VFIO and held by the same program',
          details: { others: foreign.map(({ bdf }) => bdf) },
          cause: err,
        });
      throw wrap(`${this.bdf}: hot reset`, err, { hint: code === 'ENOTTY' ? 'the bridge above has no reset that works' : undefined });
    }
  }

  /** Enables interrupts and calls back with the vector; close() of the result disables them again. */
  listen(index: number, count: number, fired: (vector: number, times: number) => void): { close(): void } {
    const { vfio, common } = native();
    let fds: number[];
    try {
      fds = vfio.enableIrq(this.handle, index, 0, count);
    } catch (err) {
      throw wrap(`${this.bdf}: enable ${count} ${irqNames[index] ?? index}`, err, {
        hint: codeOf(err) === 'EINVAL' ? 'only one of INTX, MSI and MSIX can be on, and no more vectors than the device has' : undefined,
      });
    }
    const watches = fds.map((fd, vector) =>
      common.watchEventfd(fd, (times) => {
        fired(vector, times);
        // A level-triggered interrupt masks itself when it fires.
        if (index === Irq.INTX) vfio.maskIrq(this.handle, index, false);
      }),
    );
    let open = true;
    return {
      close: () => {
        if (!open) return;
        open = false;
        for (const watch of watches) watch.close();
        vfio.disableIrq(this.handle, index);
      },
    };
  }
}

/** PCI address of a bus and device number. */
const address = (segment: number, bus: number, devfn: number): string => {
  const hex = (value: number, digits: number) => value.toString(16).padStart(digits, '0');
  return `${hex(segment, 4)}:${hex(bus, 2)}:${hex(devfn >> 3, 2)}.${devfn & 7}`;
};
