import fs from 'node:fs';
import { codeOf } from '../common/errors.js';
import type { Sysroot } from '../common/sysroot.js';
import { hex64 } from '../common/units.js';
import { native } from '../native/index.js';
import type { Named } from './mapper.js';

/** A DMA access that the IOMMU blocked. */
export interface Fault {
  /** PCI address of the device, with domain. */
  device: string;
  address: bigint;
  write: boolean;
}

/**
 * Reads a fault from a line of the kernel's log: VT-d (`DMAR: [DMA Write NO_PASID] Request device [00:05.0] fault addr
 * 0x10002000 …`, drivers/iommu/intel/dmar.c) or AMD-Vi (`Event logged [IO_PAGE_FAULT device=0000:01:00.0 domain=0x000e
 * address=0x10002000 flags=0x0020]`, drivers/iommu/amd/iommu.c; bit 5 of the flags is a write).
 */
export function parseFault(line: string): Fault | undefined {
  const vtd =
    /\[DMA (Read|Write)[^\]]*\] Request device \[(?:([0-9a-f]{4}):)?([0-9a-f]{2}:[0-9a-f]{2}\.[0-7])\].* fault addr (?:0x)?([0-9a-f]{1,16})\b/i.exec(
      line,
    );
  if (vtd)
    return {
      device: `${vtd[2] ?? '0000'}:${vtd[3]}`.toLowerCase(),
      address: BigInt(`0x${vtd[4]}`),
      write: vtd[1]!.toLowerCase() === 'write',
    };
  const amd =
    /IO_PAGE_FAULT device=(?:([0-9a-f]{4}):)?([0-9a-f]{2}:[0-9a-f]{2}\.[0-7]) .*address=0x([0-9a-f]{1,16}) flags=0x([0-9a-f]{1,8})/i.exec(
      line,
    );
  if (amd)
    return {
      device: `${amd[1] ?? '0000'}:${amd[2]}`.toLowerCase(),
      address: BigInt(`0x${amd[3]}`),
      write: (Number.parseInt(amd[4]!, 16) & 0x20) !== 0,
    };
  return undefined;
}

/** `0000:00:05.0 was kept from writing to 0x10002000: buf + 0x2000, unmapped` */
export function describeFault(fault: Fault, named: Named | undefined): string {
  const what = `${fault.device} was kept from ${fault.write ? 'writing to' : 'reading'} ${hex64(fault.address)}`;
  if (!named) return `${what}: no mapping of this command`;
  const why = named.live ? (named.readOnly && fault.write ? ', which is read-only' : '') : ', which is not mapped any more';
  return `${what}: ${named.name} + ${hex64(named.offset)}${why}`;
}

/**
 * Follows the kernel's log (Documentation/ABI/testing/dev-kmsg) from now on and reports faults of the given devices.
 * @returns undefined where the log may not be read (kernel.dmesg_restrict without CAP_SYSLOG)
 */
export function watchFaults(root: Sysroot, devices: ReadonlySet<string>, report: (fault: Fault) => void): { close(): void } | undefined {
  let fd: number;
  try {
    fd = fs.openSync(root.path('/dev/kmsg'), fs.constants.O_RDONLY | fs.constants.O_NONBLOCK);
  } catch {
    return undefined; // the caller tells that faults will not be named
  }
  const record = Buffer.alloc(8192);
  /** One read(2) is one record; false when there is none. */
  const next = (): string | undefined | false => {
    try {
      const size = fs.readSync(fd, record, 0, record.length, null);
      return size === 0 ? false : record.toString('utf8', 0, size);
    } catch (err) {
      if (codeOf(err) === 'EPIPE') return undefined; // records were overwritten before we read them
      if (codeOf(err) === 'EAGAIN') return false;
      throw err;
    }
  };
  while (next() !== false); // what was logged before us
  const drain = (): void => {
    for (let text = next(); text !== false; text = next()) {
      const fault = text === undefined ? undefined : parseFault(text);
      if (fault && devices.has(fault.device)) report(fault);
    }
  };
  const watch = native().vhostUser.watchReadable(fd, drain);
  watch.ref(false);
  return {
    close: () => {
      watch.close();
      drain(); // what came since the event loop last looked
      fs.closeSync(fd);
    },
  };
}
