import { Exit, usage, VioError } from '../../common/errors.js';
import { printable } from '../../common/escape.js';
import { counted } from '../../common/units.js';
import { parseCapabilities } from '../devices/capabilities.js';
import { configRegion } from './session.js';
import type { Space } from './space.js';

/** Registers of the type 0 header with their offsets and widths (pci_regs.h). */
export const namedRegisters: readonly [name: string, offset: number, width: 1 | 2 | 4][] = [
  ['VENDOR_ID', 0x00, 2],
  ['DEVICE_ID', 0x02, 2],
  ['COMMAND', 0x04, 2],
  ['STATUS', 0x06, 2],
  ['REVISION', 0x08, 1],
  ['CLASS_PROG', 0x09, 1],
  ['CLASS_DEVICE', 0x0a, 2],
  ['CACHE_LINE_SIZE', 0x0c, 1],
  ['LATENCY_TIMER', 0x0d, 1],
  ['HEADER_TYPE', 0x0e, 1],
  ['BIST', 0x0f, 1],
  ['BASE_ADDRESS_0', 0x10, 4],
  ['BASE_ADDRESS_1', 0x14, 4],
  ['BASE_ADDRESS_2', 0x18, 4],
  ['BASE_ADDRESS_3', 0x1c, 4],
  ['BASE_ADDRESS_4', 0x20, 4],
  ['BASE_ADDRESS_5', 0x24, 4],
  ['CARDBUS_CIS', 0x28, 4],
  ['SUBSYSTEM_VENDOR_ID', 0x2c, 2],
  ['SUBSYSTEM_ID', 0x2e, 2],
  ['ROM_ADDRESS', 0x30, 4],
  ['CAPABILITY_LIST', 0x34, 1],
  ['INTERRUPT_LINE', 0x3c, 1],
  ['INTERRUPT_PIN', 0x3d, 1],
  ['MIN_GNT', 0x3e, 1],
  ['MAX_LAT', 0x3f, 1],
];

const widths = { b: 1, w: 2, l: 4, q: 8 } as const;

/** Capabilities by setpci's names (pci_regs.h PCI_CAP_ID_*, PCI_EXT_CAP_ID_*). */
const capabilityIds: Readonly<Record<string, number>> = {
  PM: 0x01,
  AGP: 0x02,
  VPD: 0x03,
  SLOTID: 0x04,
  MSI: 0x05,
  CHSWP: 0x06,
  PCIX: 0x07,
  HT: 0x08,
  VNDR: 0x09,
  DBG: 0x0a,
  CCRC: 0x0b,
  HOTPLUG: 0x0c,
  SSVID: 0x0d,
  AGP3: 0x0e,
  SECURE: 0x0f,
  EXP: 0x10,
  MSIX: 0x11,
  SATA: 0x12,
  AF: 0x13,
};
const extendedCapabilityIds: Readonly<Record<string, number>> = {
  AER: 0x01,
  VC: 0x02,
  DSN: 0x03,
  PB: 0x04,
  RCLINK: 0x05,
  RCILINK: 0x06,
  RCECOLL: 0x07,
  MFVC: 0x08,
  VNDR: 0x0b,
  ACS: 0x0d,
  ARI: 0x0e,
  ATS: 0x0f,
  SRIOV: 0x10,
  PRI: 0x13,
  REBAR: 0x15,
  TPH: 0x17,
  LTR: 0x18,
  SECPCI: 0x19,
  PASID: 0x1b,
  L1PM: 0x1e,
  PTM: 0x1f,
};

/** A capability that an offset counts from. */
export interface Base {
  /** As it was written: `CAP_PM`. */
  name: string;
  id: number;
  extended: boolean;
}

/** `CAP_PM`, `ECAP_AER`, or by number: `CAP01`, `ECAP0001`. @throws VioError (usage) */
function parseBase(text: string): Base {
  const name = text.toUpperCase();
  const extended = name.startsWith('E');
  const word = name.slice(extended ? 4 : 3);
  const table = extended ? extendedCapabilityIds : capabilityIds;
  const id = word.startsWith('_') ? table[word.slice(1)] : Number.parseInt(word, 16);
  if (id === undefined)
    throw usage(
      `no such capability: "${printable(text)}"`,
      `there are ${Object.keys(table)
        .map((key) => `${extended ? 'ECAP' : 'CAP'}_${key}`)
        .join(', ')}`,
    );
  return { name, id, extended };
}

/** One access: where, how wide, and the value to write. */
export interface Access {
  /** The capability that the offset counts from; undefined for the start of the space. */
  base: Base | undefined;
  offset: number;
  width: number;
  value: bigint | undefined;
}

/**
 * Parses `OFFSET[.b|.w|.l|.q][=VALUE]` (setpci's notation; offsets and values in hexadecimal, 0x may be left out), or a
 * register's name such as `COMMAND`; behind `CAP_PM+` or `ECAP_AER+` the offset counts from that capability.
 * @throws VioError (usage), also for an offset that is no multiple of the width
 */
export function parseAccess(text: string, width: number): Access {
  const based = /^(E?CAP(?:_[A-Z0-9]+|[0-9a-f]{1,4}))\+(.+)$/i.exec(text);
  if (based) {
    const inner = parseAccess(based[2]!, width);
    if (inner.base !== undefined || !/^(?:0x)?[0-9a-f]+(?:[.=]|$)/i.test(based[2]!))
      throw usage(`not a register: "${printable(text)}"`, 'such as CAP_PM+4.w');
    return { ...inner, base: parseBase(based[1]!) };
  }
  const match = /^(?:([A-Z][A-Z0-9_]*)|(?:0x)?([0-9a-f]{1,8}))(?:\.([bwlq]))?(?:=(?:0x)?([0-9a-f]{1,16}))?$/i.exec(text);
  const known = match?.[1] === undefined ? undefined : namedRegisters.find(([name]) => name === match[1]!.toUpperCase());
  const hex = match?.[2] ?? (match?.[1] !== undefined && known === undefined && /^[0-9a-f]+$/i.test(match[1]) ? match[1] : undefined);
  if (!match || (known === undefined && hex === undefined))
    throw usage(
      `not a register: "${printable(text)}"`,
      'registers are OFFSET[.b|.w|.l|.q][=VALUE] in hexadecimal, such as 04.w=6; config also takes names such as COMMAND',
    );
  const asked = match[3] === undefined ? undefined : widths[match[3].toLowerCase() as keyof typeof widths];
  const bytes = asked ?? known?.[2] ?? width;
  const value = match[4] === undefined ? undefined : BigInt(`0x${match[4]}`);
  if (value !== undefined && value >> BigInt(8 * bytes) !== 0n)
    throw usage(`0x${value.toString(16)} does not fit ${counted(bytes, 'byte')}`);
  const offset = known?.[1] ?? Number.parseInt(hex!, 16);
  if (offset % bytes !== 0)
    throw usage(`0x${offset.toString(16)} is no multiple of ${counted(bytes, 'byte')}`, `accesses are aligned: ${text.split(/[.=]/)[0]}.b`);
  return { base: undefined, offset, width: bytes, value };
}

/** The access in the whole config space. @throws VioError NO_CAPABILITY (7) if the device lacks the capability */
export function resolveAccess(session: Space, asked: Access): Access {
  const { base } = asked;
  if (base === undefined) return asked;
  const found = readConfigSpace(session).capabilities.find(({ id, extended }) => id === base.id && extended === base.extended);
  if (!found)
    throw new VioError(`${session.bdf}: the device has no capability ${base.name}`, {
      code: 'NO_CAPABILITY',
      exit: Exit.unsupported,
      hint: `vioctl vfio show ${session.bdf}`,
    });
  return { ...asked, base: undefined, offset: found.offset + asked.offset };
}

/** Reads or writes one register; a write returns what the register holds afterwards. */
export function access(session: Space, region: number, { offset, width, value }: Omit<Access, 'base'>): bigint {
  if (value !== undefined) session.store(region, offset, width, value);
  return session.load(region, offset, width);
}

/** The whole config space: its bytes, the header's registers and the capabilities. */
export function readConfigSpace(session: Space) {
  const size = Number(session.region(configRegion)?.size ?? 256n);
  const bytes = session.read(configRegion, 0, size);
  return {
    bytes,
    registers: namedRegisters.map(([name, offset, width]) => ({ name, offset, width, value: bytes.readUIntLE(offset, width) })),
    capabilities: parseCapabilities(bytes),
  };
}
