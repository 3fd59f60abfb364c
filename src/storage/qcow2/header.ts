import { Exit, VioError } from '../../common/errors.js';
import { printable } from '../../common/escape.js';

/**
 * What the header of a qcow2 image says of other files (QEMU's docs/interop/qcow2.txt). The image may come from anybody: every length
 * is checked against the bytes that are there.
 */
export interface Qcow2Header {
  /** Bytes of the disk. */
  size: number;
  backing: { file: string; format: string | undefined } | undefined;
  /** Name of the file that has the data; '' if the header asks for one and names none. */
  dataFile: string | undefined;
}

/** Bytes from the start of an image that parseHeader() looks at: the largest first cluster. */
export const headerBytes = 2 << 20;

const magic = 0x514649fb;
const sizeV2 = 72;
const maxName = 1023; // of a backing file
const maxExtensions = 64;
const extension = { backingFormat: 0xe2792aca, dataFile: 0x44415441 } as const;
const incompatible = { corrupt: 1n << 1n, dataFile: 1n << 2n, known: 0x1fn } as const;

/** @param head the first headerBytes of the image, fewer if it is shorter @throws VioError: 5 for a damaged header, 7 for what QEMU has not */
export function parseHeader(name: string, head: Buffer): Qcow2Header {
  const damaged = (why: string): VioError =>
    new VioError(`${printable(name)}: damaged qcow2 header: ${why}`, { code: 'QCOW2', exit: Exit.damaged });
  const unsupported = (what: string): VioError => new VioError(`${printable(name)}: ${what}`, { code: 'ENOTSUP', exit: Exit.unsupported });
  if (head.length < sizeV2 || head.readUInt32BE(0) !== magic) throw damaged('it is no qcow2 image');
  const version = head.readUInt32BE(4);
  if (version !== 2 && version !== 3) throw unsupported(`qcow2 version ${version}`);
  const clusterBits = head.readUInt32BE(20);
  if (clusterBits < 9 || clusterBits > 21) throw damaged(`clusters of 2^${clusterBits} bytes`);
  const cluster = Math.min(2 ** clusterBits, head.length);
  const size = head.readBigUInt64BE(24);
  if (size > BigInt(Number.MAX_SAFE_INTEGER)) throw damaged('the disk is too large');
  if (head.readUInt32BE(32) !== 0) throw unsupported('encrypted qcow2 images are not supported');
  let headerSize = sizeV2;
  let features = 0n;
  if (version === 3) {
    if (head.length < 104) throw damaged('it is cut off');
    features = head.readBigUInt64BE(72);
    headerSize = head.readUInt32BE(100);
    if (headerSize < 104 || headerSize % 8 !== 0 || headerSize > cluster) throw damaged(`a header of ${headerSize} bytes`);
    if ((features & ~incompatible.known) !== 0n) throw unsupported('qcow2 features that are not known here');
    if ((features & incompatible.corrupt) !== 0n) throw damaged('it is marked as corrupt: qemu-img check -r all');
  }
  const backingAt = head.readBigUInt64BE(8);
  const backingLength = head.readUInt32BE(16);
  const hasBacking = backingAt !== 0n;
  if (
    hasBacking &&
    (backingLength === 0 || backingLength > maxName || backingAt < headerSize || backingAt + BigInt(backingLength) > cluster)
  )
    throw damaged('the name of the backing file lies outside of it');
  const text = (bytes: Buffer): string => {
    const found = bytes.toString('utf8');
    if (found.includes('\0') || !Buffer.from(found).equals(bytes)) throw damaged('a name is no text');
    return found;
  };
  const found = extensions(head, headerSize, hasBacking ? Number(backingAt) : cluster, damaged);
  const format = found.get(extension.backingFormat);
  const data = found.get(extension.dataFile);
  return {
    size: Number(size),
    backing: hasBacking
      ? {
          file: text(head.subarray(Number(backingAt), Number(backingAt) + backingLength)),
          format: format && text(format),
        }
      : undefined,
    dataFile: (features & incompatible.dataFile) === 0n ? undefined : data ? text(data) : '',
  };
}

/** The extensions of a header by their types; of several of one type, QEMU and we take the last. */
function extensions(head: Buffer, from: number, end: number, damaged: (why: string) => VioError): Map<number, Buffer> {
  const found = new Map<number, Buffer>();
  for (let at = from, count = 0; at + 8 <= end; count++) {
    if (count === maxExtensions) throw damaged('it has too many extensions');
    const type = head.readUInt32BE(at);
    const length = head.readUInt32BE(at + 4);
    if (type === 0) break;
    if (length > end - at - 8) throw damaged('an extension is longer than the header');
    found.set(type, head.subarray(at + 8, at + 8 + length));
    at += 8 + Math.ceil(length / 8) * 8;
  }
  return found;
}
