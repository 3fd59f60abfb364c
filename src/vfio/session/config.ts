import { usage } from '../../common/errors.js';
import { printable } from '../../common/escape.js';
import { parseCapabilities } from '../devices/capabilities.js';
import { CONFIG, type Session } from './session.js';

/** Registers of the type 0 header with their offsets and widths (pci_regs.h). */
export const REGISTERS: readonly [name: string, offset: number, width: 1 | 2 | 4][] = [
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

const WIDTHS = { b: 1, w: 2, l: 4, q: 8 } as const;

/** One access: where, how wide, and the value to write. */
export interface Access {
  offset: number;
  width: number;
  value: bigint | undefined;
}

/**
 * Parses `OFFSET[.b|.w|.l|.q][=VALUE]` (setpci's notation; offsets and values in hexadecimal, 0x may be left out), or a
 * register's name such as `COMMAND`.
 * @throws VioError (usage)
 */
export function parseAccess(text: string, width: number): Access {
  const match = /^(?:([A-Z][A-Z0-9_]*)|(?:0x)?([0-9a-f]{1,8}))(?:\.([bwlq]))?(?:=(?:0x)?([0-9a-f]{1,16}))?$/i.exec(text);
  const known = match?.[1] === undefined ? undefined : REGISTERS.find(([name]) => name === match[1]!.toUpperCase());
  const hex = match?.[2] ?? (match?.[1] !== undefined && known === undefined && /^[0-9a-f]+$/i.test(match[1]) ? match[1] : undefined);
  if (!match || (known === undefined && hex === undefined))
    throw usage(
      `not a register: "${printable(text)}"`,
      'registers are OFFSET[.b|.w|.l][=VALUE] in hexadecimal, such as 04.w=6, or COMMAND',
    );
  const asked = match[3] === undefined ? undefined : WIDTHS[match[3].toLowerCase() as keyof typeof WIDTHS];
  const bytes = asked ?? known?.[2] ?? width;
  const value = match[4] === undefined ? undefined : BigInt(`0x${match[4]}`);
  if (value !== undefined && value >> BigInt(8 * bytes) !== 0n) throw usage(`0x${value.toString(16)} does not fit ${bytes} bytes`);
  return { offset: known?.[1] ?? Number.parseInt(hex!, 16), width: bytes, value };
}

/** Reads or writes one register; a write returns what the register holds afterwards. */
export function access(session: Session, region: number, { offset, width, value }: Access): bigint {
  if (value !== undefined) session.store(region, offset, width, value);
  return session.load(region, offset, width);
}

/** The whole config space: its bytes, the header's registers and the capabilities. */
export function readConfigSpace(session: Session) {
  const size = Number(session.region(CONFIG)?.size ?? 256n);
  const bytes = session.read(CONFIG, 0, size);
  return {
    bytes,
    registers: REGISTERS.map(([name, offset, width]) => ({ name, offset, width, value: bytes.readUIntLE(offset, width) })),
    capabilities: parseCapabilities(bytes),
  };
}
