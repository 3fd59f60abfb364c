/** PCI state: configuration space, interrupt lines, MSI-X tables (PCI Local Bus 3.0, 6.1 and 6.8; QEMU hw/pci). */
import type { Value } from '../stream/model.js';
import { type Cursor, hex, trimZeros } from './cursor.js';

const capabilityNames: Record<number, string> = {
  1: 'power-management',
  3: 'vpd',
  4: 'slot-id',
  5: 'msi',
  9: 'vendor',
  13: 'bridge-subsystem',
  16: 'express',
  17: 'msi-x',
  18: 'sata',
  19: 'advanced-features',
};

interface Capability {
  [name: string]: Value;
  offset: number;
  id: number;
}

/** The capabilities list of a configuration space; a list that loops or leaves the space ends there. */
export function capabilities(config: Buffer): Capability[] {
  const list: Capability[] = [];
  if (config.length < 64 || !(config.readUInt16LE(0x06) & 0x10)) return list;
  const seen = new Set<number>();
  for (let at = config[0x34]! & 0xfc; at >= 0x40 && at + 2 <= 256 && !seen.has(at); at = config[at + 1]! & 0xfc) {
    seen.add(at);
    const id = config[at]!;
    list.push({ offset: at, id, name: capabilityNames[id] ?? hex(id, 2) });
  }
  return list;
}

/** Entries of the MSI-X table, from the capability; 0 without one. */
export function msixEntries(config: Buffer): number {
  const msix = capabilities(config).find((c) => c.id === 0x11);
  return msix ? (config.readUInt16LE(msix.offset + 2) & 0x7ff) + 1 : 0;
}

/** Configuration space: what it names, and all of it as bytes. */
export function pciConfig(config: Buffer): Value {
  if (config.length < 64) return config;
  const header = config[0x0e]! & 0x7f;
  const bars = Array.from({ length: header === 1 ? 2 : 6 }, (_, i) => hex(config.readUInt32LE(0x10 + 4 * i), 8));
  return {
    vendor: hex(config.readUInt16LE(0), 4),
    device: hex(config.readUInt16LE(2), 4),
    command: hex(config.readUInt16LE(4), 4),
    status: hex(config.readUInt16LE(6), 4),
    revision: config[8]!,
    class: hex(config.readUIntLE(9, 3), 6),
    headerType: header,
    bars,
    ...(header === 1
      ? { buses: [config[0x18]!, config[0x19]!, config[0x1a]!] }
      : { subsystem: `${hex(config.readUInt16LE(0x2c), 4)}:${hex(config.readUInt16LE(0x2e), 4)}` }),
    interrupt: { line: config[0x3c]!, pin: config[0x3d]! },
    capabilities: capabilities(config),
    bytes: trimZeros(config),
  };
}

/** Levels of INTA-INTD. */
export const irqState = (c: Cursor): Value => [c.be32(), c.be32(), c.be32(), c.be32()];

/** MSI-X table (16 bytes per entry) and pending bits; entries that are as after reset are counted only. */
export function msix(c: Cursor, entries: number): Value {
  const table = c.take(entries * 16);
  const pending = c.take(Math.ceil(entries / 8));
  const used: Value[] = [];
  for (let i = 0; i < entries; i++) {
    const address = table.readBigUInt64LE(16 * i);
    const data = table.readUInt32LE(16 * i + 8);
    const masked = (table.readUInt32LE(16 * i + 12) & 1) === 1;
    const isPending = ((pending[i >> 3]! >> (i & 7)) & 1) === 1;
    if (address !== 0n || data !== 0 || !masked || isPending) used.push({ vector: i, address, data, masked, pending: isPending });
  }
  return { entries, used };
}

/** The entry count that a table of `size` bytes in all has. */
export function msixCount(size: number): number {
  for (let n = Math.floor((size * 8) / 129); n * 16 <= size; n++) if (n * 16 + Math.ceil(n / 8) === size) return n;
  return 0;
}
