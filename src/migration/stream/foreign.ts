/** What people give by mistake instead of a migration stream, by what it begins with, and what to do with it. */
import type { StreamReader } from './reader.js';

export interface Foreign {
  what: string;
  advice: string;
}

const text = (s: string): Buffer => Buffer.from(s, 'latin1');
const core = 'it is memory already, not a stream: open it with gdb, crash or drgn';

/** Formats by their magic at offset 0, from their specifications or the headers of the programs that write them. */
const magics: [magic: Buffer, what: string, advice: string][] = [
  [Buffer.from([0x04, 0x22, 0x4d, 0x18]), 'an lz4 frame', 'lz4 -dc FILE | vioctl migration verify -'],
  [Buffer.from([0x02, 0x21, 0x4c, 0x18]), 'a legacy lz4 frame', 'lz4 -dc FILE | vioctl migration verify -'],
  [Buffer.from([0x28, 0xb5, 0x2f, 0xfd]), 'zstd data', 'zstd -dc FILE | vioctl migration verify -'],
  [text('\x7fELF'), 'an ELF file', core],
  [text('KDUMP   '), 'a kdump core', core],
  [text('DISKDUMP'), 'a diskdump core', core],
  [text('makedumpfile\0'), 'a flattened kdump core', `makedumpfile -R OUT < FILE; ${core}`],
  [text('EMiL'), 'a LiME memory image', core],
  [text('VMA\0'), 'a VMA backup of Proxmox', 'vma extract FILE DIR gives its disks; a VMA has no migration stream'],
  [text('PBSX'), 'a Proxmox backup archive', 'proxmox-backup-client restore'],
  [text('LinuxGuestRecord'), 'a Xen save file', 'xl restore loads it'],
  [text('XenSavedDomain'), 'a Xen save file', 'xl restore loads it'],
  [text('UUID'), 'a legacy Xen save file', 'xl restore loads it'],
  [text('KDMV'), 'a VMDK image', 'it is a disk image'],
  [text('<domain'), "libvirt's XML of a domain", 'the stream is in the save file: virsh save DOMAIN FILE'],
  [text('{"'), 'JSON', 'with verify, --against reads the output of -dump-vmstate'],
];

/** How far behind the start a stream is looked for, and a step of it. */
const search = 64 << 20;
const step = 64 << 10;
const stream = Buffer.from('QEVM\0\0\0\x03', 'latin1');
const saves = ['LibvirtQemudSave', 'LibvirtQemudPart'];

/** A TLS record: type, version 3.x, a length up to the largest (RFC 8446, 5.1). */
const isTls = (b: Buffer): boolean => b.length >= 5 && b[0]! >= 20 && b[0]! <= 23 && b[1] === 3 && b[2]! <= 4 && b.readUInt16BE(3) <= 16640;

/** A channel of multifd begins with its own magic and version (QEMU migration/multifd.h). */
const isMultifd = (b: Buffer): boolean => b.length >= 8 && b.readUInt32BE(0) === 0x11223344 && b.readUInt32BE(4) === 1;

/** A channel of postcopy-preempt has page records from its first byte: an aligned address with PAGE, and a block's name. */
function isPreempt(b: Buffer): boolean {
  if (b.length < 16 || (b.readUInt32BE(4) & 0xfff) !== 8) return false;
  const name = b.subarray(9, 9 + b[8]!);
  return b[8]! > 1 && name.length > 1 && name.every((c) => c > 0x20 && c < 0x7f);
}

/** The position of a stream behind what is not one, relative to the present position; the reader is moved. */
function streamBehind(reader: StreamReader): number | undefined {
  const from = reader.position;
  while (reader.position - from < search) {
    const bytes = reader.peek(step);
    const found = [stream, ...saves.map(text)].map((magic) => bytes.indexOf(magic)).filter((i) => i >= 0);
    if (found.length > 0) return reader.position - from + Math.min(...found);
    if (bytes.length < step) return undefined;
    reader.skipUpTo(step - stream.length - 16);
  }
  return undefined;
}

/** What the bytes at the present position are, which are no stream; undefined if nothing tells. The reader may be moved. */
export function foreign(reader: StreamReader): Foreign | undefined {
  const bytes = reader.peek(512);
  if (isMultifd(bytes)) {
    return {
      what: 'a channel of a multifd migration',
      advice: 'the devices are on the main channel, which begins with QEVM; pages on several are not joined',
    };
  }
  if (isTls(bytes))
    return {
      what: 'a TLS record',
      advice: 'the migration was encrypted: record it behind the TLS endpoint, or save it with exec: or file:',
    };
  const known = magics.find(([magic]) => bytes.subarray(0, magic.length).equals(magic));
  if (known) return { what: known[1], advice: known[2] };
  if (isPreempt(bytes))
    return { what: 'a channel of a postcopy migration', advice: 'the devices are on the main channel, which begins with QEVM' };
  const at = reader.position;
  const behind = streamBehind(reader);
  if (behind === undefined) return undefined;
  return { what: `${behind} bytes in front of a stream`, advice: `--offset ${at + behind}` };
}
