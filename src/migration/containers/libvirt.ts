/** libvirt's save image (virsh save): a header in the host's byte order, domain XML, then the stream, maybe compressed. */

export const headerSize = 92;
export const libvirtMagic = 'LibvirtQemudSave';
export const magicPartial = 'LibvirtQemudPart';

/** Compression by the header's number. */
const formats = ['raw', 'gzip', 'bzip2', 'xz', 'lzop', 'zstd', 'sparse'] as const;
export type Compression = (typeof formats)[number];

export interface LibvirtHeader {
  type: 'libvirt';
  version: number;
  bigEndian: boolean;
  /** false: "LibvirtQemudPart", a save that was never finished */
  finished: boolean;
  wasRunning: boolean;
  format: Compression;
  /** bytes of XML, cookie and padding behind the header */
  dataLength: number;
  cookieOffset: number;
}

/** Bytes of XML that are believed: libvirt's own are some 10 KB, padded to 64 KB. */
const maxData = 64 << 20;

/** The header, or why it is none. */
export function parseHeader(bytes: Buffer): LibvirtHeader | { error: string } {
  const magic = bytes.toString('latin1', 0, 16);
  if (magic !== libvirtMagic && magic !== magicPartial) return { error: 'no libvirt magic' };
  if (bytes.length < headerSize) return { error: `truncated libvirt header: ${bytes.length} of ${headerSize} bytes` };
  // The version tells the byte order: there are only 1 and 2.
  const bigEndian = bytes.readUInt32LE(16) > 2;
  const u32 = (at: number) => (bigEndian ? bytes.readUInt32BE(at) : bytes.readUInt32LE(at));
  const version = u32(16);
  if (version < 1 || version > 2) return { error: `libvirt header version ${version}` };
  const dataLength = u32(20);
  if (dataLength > maxData) return { error: `libvirt header asks for ${dataLength} bytes of XML` };
  // Version 1 always wrote raw streams; the field was not there.
  const format = formats[version === 1 ? 0 : u32(28)];
  if (format === undefined) return { error: `unknown libvirt compression ${u32(28)}` };
  return {
    type: 'libvirt',
    version,
    bigEndian,
    finished: magic === libvirtMagic,
    wasRunning: u32(24) !== 0,
    format,
    dataLength,
    cookieOffset: u32(32),
  };
}

/** The domain XML in the data behind the header: it ends with a NUL, and a cookie and padding may follow. */
export function domainXml(data: Buffer): Buffer {
  const end = data.indexOf(0);
  return data.subarray(0, end < 0 ? data.length : end);
}

/** Name and UUID of the domain in its XML. */
export function domain(bytes: Buffer): { name?: string; uuid?: string } {
  const xml = bytes.toString('utf8');
  const name = /<name>([^<]*)<\/name>/.exec(xml)?.[1];
  const uuid = /<uuid>([^<]*)<\/uuid>/.exec(xml)?.[1];
  return { ...(name !== undefined && { name }), ...(uuid !== undefined && { uuid }) };
}
