import type { Sysroot } from '../../common/sysroot.js';
import { type Names, Store } from '../transaction/journal.js';
import { idOf, type PciDevice, pciDevices } from './pci.js';
import { liveBlocks, liveMacs, liveSerials, select, slotsOf } from './select.js';

/** How a device is recognised after it moved. */
export const identityKinds = ['serial', 'mac', 'slot', 'address'] as const;
export type IdentityKind = (typeof identityKinds)[number];

/** A device as a declaration names it: the selector together with id and function number is of this device alone. */
export interface Identity {
  kind: IdentityKind;
  /** `serial:…`, `mac:…`, `slot:…`, or the address. */
  selector: string;
  /** `vendor:device` */
  expect: string;
  /** Function number: the ports of a card may share their serial number. */
  function: number;
}

/** What a device is called as long as a driver of the host has it; kept with a bind, as VFIO shows none of it. */
export function namesOf(root: Sysroot, bdf: string): Names {
  const serials = liveSerials(root, bdf);
  const macs = liveMacs(root, bdf);
  return { serials, macs, nets: root.list(`${pciDevices}/${bdf}/net`), blocks: liveBlocks(root, bdf) };
}

/** The names that a device has, or had before vioctl bound it. */
function knownNames(root: Sysroot, device: Pick<PciDevice, 'bdf' | 'vendor' | 'device'>): Names {
  const now = namesOf(root, device.bdf);
  const record = new Store(root).record(device.bdf);
  const kept = record && record.vendor === device.vendor && record.device === device.device ? record.names : undefined;
  return { ...now, serials: [...now.serials, ...(kept?.serials ?? [])], macs: [...now.macs, ...(kept?.macs ?? [])] };
}

const functionOf = (bdf: string): number => Number(bdf.at(-1));

/** True if id and function number are those of an identity. */
export const fits = (device: PciDevice, wanted: { expect?: string | undefined; function?: number | undefined }): boolean =>
  (wanted.expect === undefined || idOf(device) === wanted.expect) &&
  (wanted.function === undefined || functionOf(device.bdf) === wanted.function);

/**
 * The best identity of a device: serial number, MAC address, slot; address and id if it has none of them, or shares it with
 * another device. Virtual functions have their addresses from their physical one.
 * @param wanted only this kind
 * @returns undefined if it has no identity of the kind
 */
export function identityOf(root: Sysroot, device: PciDevice, wanted?: IdentityKind): Identity | undefined {
  const address = { kind: 'address' as const, selector: device.bdf, expect: idOf(device), function: functionOf(device.bdf) };
  if (wanted === 'address' || (wanted === undefined && device.physfn !== undefined)) return address;
  const names = knownNames(root, device);
  const candidates: [IdentityKind, string[]][] = [
    ['serial', names.serials],
    ['mac', names.macs],
    ['slot', slotsOf(root, device.bdf)],
  ];
  for (const [kind, values] of candidates.filter(([kind]) => wanted === undefined || kind === wanted))
    for (const value of values) {
      const found: Identity = { ...address, kind, selector: `${kind}:${value}` };
      const same = select(root, found.selector).filter((other) => fits(other, found));
      if (same.length === 1 && same[0]!.bdf === device.bdf) return found;
    }
  return wanted === undefined ? address : undefined;
}
