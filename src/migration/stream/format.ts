/** Numbers of QEMU's migration stream, version 3 (QEMU docs/devel/migration; checked on files of 7.2 to 11.1). */

export const streamMagic = 0x5145564d;
export const streamVersion = 3;
/** Before 2009; QEMU refuses it. */
export const versionObsolete = 2;

/** Record types by number. */
export const recordTypes = {
  0: 'eof',
  1: 'start',
  2: 'part',
  3: 'end',
  4: 'full',
  5: 'subsection',
  6: 'vmdescription',
  7: 'configuration',
  8: 'command',
  126: 'footer',
} as const;
export const Type = {
  eof: 0x00,
  start: 0x01,
  part: 0x02,
  end: 0x03,
  full: 0x04,
  subsection: 0x05,
  vmdescription: 0x06,
  configuration: 0x07,
  command: 0x08,
  footer: 0x7e,
} as const;
export type SectionRecord = 'start' | 'part' | 'end' | 'full';

/** A command: its name, the length of its data (undefined: varies), and the meaning of the data. */
export interface CommandFormat {
  name: string;
  length?: readonly number[];
}
export const commands: Readonly<Record<number, CommandFormat>> = {
  1: { name: 'OPEN_RETURN_PATH', length: [0] },
  2: { name: 'PING', length: [4] },
  3: { name: 'POSTCOPY_ADVISE', length: [0, 16] },
  4: { name: 'POSTCOPY_LISTEN', length: [0] },
  5: { name: 'POSTCOPY_RUN', length: [0] },
  6: { name: 'POSTCOPY_RAM_DISCARD' },
  7: { name: 'PACKAGED', length: [4] },
  8: { name: 'ENABLE_COLO' },
  9: { name: 'POSTCOPY_RESUME', length: [0] },
  10: { name: 'RECV_BITMAP' },
  11: { name: 'SWITCHOVER_START', length: [0] },
};

/** Bounds on what a length field may ask for. All are far above what QEMU writes. */
export const limits = {
  /** bytes of a machine name */
  machineName: 4096,
  /** capabilities in the configuration */
  capabilities: 256,
  /** log2 of the target page: the smallest (AVR, whose records have flags of eight bits) and the largest of any target */
  pageBits: [8, 16],
  /** nesting of PACKAGED */
  packaged: 2,
  /** RAM blocks */
  blocks: 65536,
  /** bytes of a section that are held to decode its fields */
  body: 16 << 20,
  /** dirty bitmaps that one part of their section begins */
  bitmaps: 65536,
  /** values without bytes that are made of all devices' fields */
  empty: 1 << 18,
  /** bytes of a section before RAM that are held until the description comes (pipe) */
  earlyBody: 1 << 20,
  /** bytes of a VM description */
  description: 32 << 20,
  /** bytes behind the RAM sections that are kept in a temporary file (pipe) */
  spool: 4 * 2 ** 30,
  /** issues of each severity that are reported one by one */
  issues: 1000,
} as const;

/** Flags of a `ram` record, for messages. */
export const ramFlags: readonly [bit: number, name: string][] = [
  [0x001, 'FULL'],
  [0x002, 'ZERO'],
  [0x004, 'MEM_SIZE'],
  [0x008, 'PAGE'],
  [0x010, 'EOS'],
  [0x020, 'CONTINUE'],
  [0x040, 'XBZRLE'],
  [0x080, 'HOOK'],
  [0x100, 'COMPRESS_PAGE'],
  [0x200, 'MULTIFD_FLUSH'],
];

/** `PAGE|ZERO` for 0x0a. */
export function ramFlagNames(flags: number): string {
  const names = ramFlags.filter(([bit]) => flags & bit).map(([, name]) => name);
  const rest = flags & ~ramFlags.reduce((all, [bit]) => all | bit, 0);
  return [...names, ...(rest ? [`0x${rest.toString(16)}`] : [])].join('|') || '0';
}
