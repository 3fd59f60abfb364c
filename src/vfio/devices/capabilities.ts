import fs from 'node:fs';
import type { Sysroot } from '../../common/sysroot.js';
import { pciDevices } from './pci.js';

/** A capability in a device's config space. */
export interface Capability {
  /** Byte offset of its header. */
  offset: number;
  id: number;
  extended: boolean;
  name: string;
  /** What matters to VFIO users: number of vectors, function-level reset, number of VFs. */
  detail: string | undefined;
}

/** Capability ids (pci_regs.h PCI_CAP_ID_*). */
const capabilityNames: Record<number, string> = {
  1: 'power management',
  2: 'AGP',
  3: 'VPD',
  5: 'MSI',
  7: 'PCI-X',
  8: 'HyperTransport',
  9: 'vendor specific',
  13: 'bridge subsystem id',
  16: 'PCI Express',
  17: 'MSI-X',
  18: 'SATA',
  19: 'advanced features',
  20: 'enhanced allocation',
};

/** Extended capability ids (pci_regs.h PCI_EXT_CAP_ID_*). */
const extendedNames: Record<number, string> = {
  1: 'advanced error reporting',
  2: 'virtual channel',
  3: 'device serial number',
  4: 'power budgeting',
  11: 'vendor specific',
  13: 'access control services',
  14: 'alternative routing id',
  15: 'address translation service',
  16: 'SR-IOV',
  19: 'page request interface',
  21: 'resizable BAR',
  23: 'TPH requester',
  24: 'latency tolerance reporting',
  25: 'secondary PCI Express',
  27: 'PASID',
  30: 'L1 PM substates',
  31: 'precision time measurement',
  35: 'designated vendor specific',
  37: 'data link feature',
  38: 'physical layer 16 GT/s',
  39: 'lane margining',
};

function detailOf(config: Buffer, at: number, id: number): string | undefined {
  const word = (offset: number) => (at + offset + 2 <= config.length ? config.readUInt16LE(at + offset) : 0);
  const dword = (offset: number) => (at + offset + 4 <= config.length ? config.readUInt32LE(at + offset) : 0);
  if (id === 0x05) return `${1 << ((word(2) >> 1) & 7)} vectors${word(2) & 1 ? ', enabled' : ''}`;
  if (id === 0x11) return `${(word(2) & 0x7ff) + 1} vectors${word(2) & 0x8000 ? ', enabled' : ''}`;
  if (id === 0x10) return dword(4) & (1 << 28) ? 'function-level reset' : undefined;
  if (id === 0x13) return config[at + 3]! & 2 ? 'function-level reset' : undefined;
  return undefined;
}

/**
 * Walks both capability lists of a config space. A list that leaves the space or runs in a circle ends there.
 * @param config 64, 256 or 4096 bytes; unprivileged readers get 64, which hold no list
 */
export function parseCapabilities(config: Buffer): Capability[] {
  const found: Capability[] = [];
  const PCI_STATUS_CAP_LIST = 0x10;
  if (config.length < 256 || !(config.readUInt16LE(6) & PCI_STATUS_CAP_LIST)) return found;
  const seen = new Set<number>();
  for (let at = config[0x34]! & 0xfc; at >= 0x40 && at + 4 <= 256 && !seen.has(at); at = config[at + 1]! & 0xfc) {
    seen.add(at);
    const id = config[at]!;
    found.push({
      offset: at,
      id,
      extended: false,
      name: capabilityNames[id] ?? `capability 0x${id.toString(16)}`,
      detail: detailOf(config, at, id),
    });
  }
  for (let at = 0x100; at >= 0x100 && at + 4 <= config.length && !seen.has(at); ) {
    seen.add(at);
    const header = config.readUInt32LE(at);
    const id = header & 0xffff;
    if (header === 0 || header === 0xffff_ffff) break;
    const detail = id === 0x10 && at + 0x10 <= config.length ? `${config.readUInt16LE(at + 0x0e)} VFs` : undefined;
    found.push({ offset: at, id, extended: true, name: extendedNames[id] ?? `extended capability 0x${id.toString(16)}`, detail });
    at = (header >>> 20) & 0xffc;
  }
  return found;
}

/** Config space of a device as far as we may read it; empty where there is none. */
export function readConfig(root: Sysroot, bdf: string): Buffer {
  try {
    return fs.readFileSync(root.path(`${pciDevices}/${bdf}/config`));
  } catch {
    return Buffer.alloc(0); // small trees have none; a device that vanished has none either
  }
}
