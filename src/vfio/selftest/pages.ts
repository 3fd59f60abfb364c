import fs from 'node:fs';
import { Exit, VioError, wrap } from '../../common/errors.js';
import { Mapper } from '../../dma/mapper.js';
import { parseSpec } from '../../dma/spec.js';
import { native } from '../../native/index.js';
import type { NativeMemory } from '../../native/vfio.js';
import type { Session } from '../session/session.js';

const pageSize = 4096;
/** Pages that are tried for one below a device's limit. */
const mostTries = 16384;

/** A page that the device reaches. */
export interface DmaPage {
  /** The device's address: an IOVA, or a physical address without an IOMMU. */
  address: bigint;
  memory: NativeMemory;
}

/** Single pages for a small driver. */
export interface DmaPages {
  /** A zeroed page below the limit. @throws VioError */
  page(name: string, limit?: bigint): DmaPage;
  /** Takes all pages from the device. */
  close(): void;
}

/** Pages through the IOMMU, or physical ones in no-IOMMU mode. */
export const pagesFor = (session: Session): DmaPages => (session.api === 'noiommu' ? new PhysicalPages(session) : new MappedPages(session));

class MappedPages implements DmaPages {
  readonly #mapper: Mapper;
  readonly #bdf: string;

  constructor(session: Session) {
    this.#bdf = session.bdf;
    this.#mapper = new Mapper(session.handle, session.aperture());
  }

  page(name: string, limit?: bigint): DmaPage {
    const [mapping] = this.#mapper.map([parseSpec(`${name}=4K`)]);
    const { iova, memory } = mapping!;
    if (limit !== undefined && iova + BigInt(pageSize) > limit)
      throw new VioError(`${this.#bdf}: no free address below 0x${limit.toString(16)}`, { code: 'ENOSPC' });
    return { address: iova, memory };
  }

  close(): void {
    this.#mapper.close();
  }
}

/** Pages by their physical addresses (/proc/self/pagemap, Documentation/admin-guide/mm/pagemap.rst): for no-IOMMU mode. */
class PhysicalPages implements DmaPages {
  readonly #bdf: string;
  readonly #memories: NativeMemory[] = [];

  constructor(session: Session) {
    this.#bdf = session.bdf;
  }

  page(name: string, limit?: bigint): DmaPage {
    const { vfio } = native();
    for (let i = 0; i < mostTries; i++) {
      // A page that does not fit is kept until the end: given back, it would only come again.
      const memory = vfio.newMemory(name, BigInt(pageSize), 0n, 0n, 0n);
      this.#memories.push(memory);
      vfio.writeMemory(memory, 0, Buffer.alloc(pageSize)); // now it has a page
      const address = this.#physical(vfio.memoryInfo(memory).va);
      if (limit === undefined || address + BigInt(pageSize) <= limit) return { address, memory };
    }
    throw new VioError(`${this.#bdf}: no page below 0x${limit!.toString(16)} is free`, { code: 'ENOMEM' });
  }

  #physical(va: bigint): bigint {
    // The table has an entry for each page of the kernel, which may be larger than one of the device.
    const size = BigInt(native().common.pageSize());
    const entry = Buffer.alloc(8);
    try {
      const fd = fs.openSync('/proc/self/pagemap', 'r');
      try {
        fs.readSync(fd, entry, 0, 8, Number(va / size) * 8);
      } finally {
        fs.closeSync(fd);
      }
    } catch (err) {
      throw wrap('read /proc/self/pagemap', err);
    }
    const word = entry.readBigUInt64LE(0);
    const frame = word & ((1n << 55n) - 1n);
    if (word >> 63n === 0n || frame === 0n)
      throw new VioError('physical addresses are not shown', {
        code: 'EPERM',
        exit: Exit.permission,
        hint: 'no-IOMMU mode takes CAP_SYS_ADMIN (root)',
      });
    return frame * size + (va % size);
  }

  close(): void {
    for (const memory of this.#memories.splice(0)) native().vfio.closeMemory(memory);
  }
}
