import { shellFile } from '../common/escape.js';
import { native } from '../native/index.js';
import type { Part, Peeked, Store } from '../native/storage.js';
import { ask, type Steps } from './steps.js';

interface Signature {
  /** Name that people know the format by. */
  name: string;
  /** Where the bytes stand. */
  at: number;
  bytes: Buffer;
}

const text = (name: string, at: number, bytes: string): Signature => ({ name, at, bytes: Buffer.from(bytes, 'latin1') });

/**
 * What a file that is not a raw disk begins with. Each comes from the format's own specification or from the program that
 * writes it; signatures of file systems and partition tables are no reason: those are what a raw disk holds.
 */
const signatures: readonly Signature[] = [
  text('qcow2', 0, 'QFI\xfb'),
  text('qed', 0, 'QED\0'),
  text('vmdk', 0, 'KDMV'),
  text('vmdk', 0, 'COWD'),
  text('vmdk', 0, '\xbe\xba\xfe\xca\0\0\0\0'), // SESparse: 0xcafebabe, little-endian
  text('vhdx', 0, 'vhdxfile'),
  text('vhd', 0, 'conectix'), // dynamic and differencing disks begin with a copy of the footer
  text('vdi', 0x40, '\x7f\x10\xda\xbe'),
  text('parallels', 0, 'WithoutFreeSpace'),
  text('parallels', 0, 'WithouFreSpacExt'),
  text('bochs', 0, 'Bochs Virtual HD Image'),
  text('LUKS', 0, 'LUKS\xba\xbe'),
  text('EWF', 0, 'EVF\x09\x0d\x0a\xff\0'),
  text('gzip', 0, '\x1f\x8b\x08'),
  text('xz', 0, '\xfd7zXZ\0'),
  text('zstd', 0, '\x28\xb5\x2f\xfd'),
  text('bzip2', 0, 'BZh'),
  text('lz4', 0, '\x04\x22\x4d\x18'),
  text('lzop', 0, '\x89LZO\0\x0d\x0a\x1a\x0a'),
  text('7z', 0, '7z\xbc\xaf\x27\x1c'),
  text('zip', 0, 'PK\x03\x04'),
  text('tar (an OVA is one)', 257, 'ustar'),
  text('Android sparse image', 0, '\x3a\xff\x26\xed'),
  text('iso9660', 0x8001, 'CD001'),
];

const headSize = 4096;
const footerSize = 512;
/** Signatures that stand far behind the head. */
const far = signatures.filter(({ at, bytes }) => at + bytes.length > headSize);
/** What tells the format of a source: its head, its last sector, and where the far signatures would stand. */
export const telling: readonly Part[] = [[0, headSize], [-footerSize, footerSize], ...far.map(({ at, bytes }): Part => [at, bytes.length])];
/** A VMDK descriptor is text; comments and blank lines may come first. */
const descriptor = /^(?:\s*(?:#[^\n]*)?\n)*\s*# Disk DescriptorFile\b/i;

/** The footer of a fixed VHD (Virtual Hard Disk Image Format Specification, "Hard Disk Footer Format"): a raw disk before it. */
function isVhdFooter(footer: Buffer, fileSize: number): boolean {
  if (footer.length !== footerSize || footer.subarray(0, 8).toString('latin1') !== 'conectix') return false;
  let sum = 0;
  for (const [i, byte] of footer.entries()) if (i < 64 || i >= 68) sum += byte;
  return footer.readUInt32BE(64) === (~sum & 0xffff_ffff) >>> 0 && footer.readBigUInt64BE(48) === BigInt(fileSize - footerSize);
}

/**
 * The format of an image that is no raw disk, by the bytes at its begin (and end). An ISO 9660 image is a raw disk for those
 * who only read it.
 * @param parts what was read of the telling ones
 * @returns its name; undefined for everything else
 * @throws the system's error of a read
 */
export function* formatOf(store: Store, readonly: boolean, parts?: Peeked): Steps<string | undefined> {
  const { storage } = native();
  const look = { now: () => storage.peek(store, telling), later: () => storage.peekLater(store, telling) };
  const [head, footer, ...rest] = parts ?? (yield* ask<Peeked>(look));
  const found =
    (head && signatures.find(({ at, bytes }) => head[at] === bytes[0] && head.subarray(at, at + bytes.length).equals(bytes))) ??
    far.find(({ bytes }, i) => rest[i]?.equals(bytes));
  if (found) return readonly && found.name === 'iso9660' ? undefined : found.name;
  if (head && descriptor.test(head.toString('latin1'))) return 'vmdk';
  const size = storage.size(store);
  return footer && size > footerSize && isVhdFooter(footer, size) ? 'vhd' : undefined;
}

/** Programs that make a raw disk of a format; the file's name follows. */
const converters: Readonly<Record<string, string>> = {
  gzip: 'gunzip',
  xz: 'xz -d',
  zstd: 'zstd -d',
  bzip2: 'bunzip2',
  lz4: 'lz4 -d',
  lzop: 'lzop -d',
  '7z': '7z x',
  zip: 'unzip',
  'Android sparse image': 'simg2img',
};
const qemuFormats = ['qcow2', 'qed', 'vmdk', 'vhdx', 'vhd', 'vdi', 'parallels', 'bochs'];

/** The command that makes a raw disk of an image; undefined where there is none. */
export function toRaw(format: string, file: string): string | undefined {
  if (qemuFormats.includes(format)) return `qemu-img convert -O raw ${shellFile(file)} ${shellFile(`${file}.raw`)}`;
  if (format === 'LUKS') return `cryptsetup open ${shellFile(file)} disk`;
  return converters[format] && `${converters[format]} ${shellFile(file)}`;
}
