import net from 'node:net';
import { invalid } from './request.js';

/** Where a socket is: a host's port, or a path of the file system (a name that begins with NUL is abstract). */
export type Address = { address: string; port: number } | { path: string };

const AF_UNIX = 1;
const AF_INET = 2;
const AF_INET6 = 10;
/** sizeof(struct sockaddr_storage) */
export const addressSize = 128;

/** struct sockaddr of an address. @throws EINVAL */
export function encodeAddress(to: Address): Buffer {
  if ('path' in to) {
    const path = Buffer.from(to.path);
    if (path.length === 0 || path.length > 107) throw invalid('path of a socket', to.path, '1 to 107 bytes');
    const bytes = Buffer.alloc(2 + path.length + (path[0] === 0 ? 0 : 1));
    bytes.writeUInt16LE(AF_UNIX, 0);
    path.copy(bytes, 2);
    return bytes;
  }
  const { address, port } = to;
  if (!Number.isInteger(port) || port < 0 || port > 0xffff) throw invalid('port', port, 'a whole number from 0 to 65535');
  if (net.isIPv4(address)) {
    const bytes = Buffer.alloc(16);
    bytes.writeUInt16LE(AF_INET, 0);
    bytes.writeUInt16BE(port, 2);
    for (const [i, part] of address.split('.').entries()) bytes.writeUInt8(Number(part), 4 + i);
    return bytes;
  }
  if (!net.isIPv6(address)) throw invalid('address', address, 'an IPv4 or IPv6 address');
  const bytes = Buffer.alloc(28);
  bytes.writeUInt16LE(AF_INET6, 0);
  bytes.writeUInt16BE(port, 2);
  for (const [i, word] of words(address).entries()) bytes.writeUInt16BE(word, 8 + 2 * i);
  return bytes;
}

/** The eight words of an IPv6 address without a zone. */
function words(address: string): number[] {
  const mapped = /^(.*:)(\d+)\.(\d+)\.(\d+)\.(\d+)$/.exec(address);
  const hex = (high: string, low: string): string => ((Number(high) << 8) | Number(low)).toString(16);
  const text = mapped ? `${mapped[1]}${hex(mapped[2]!, mapped[3]!)}:${hex(mapped[4]!, mapped[5]!)}` : address.split('%')[0]!;
  const [before, behind] = text.split('::').map((part) => (part === '' ? [] : part.split(':').map((word) => Number.parseInt(word, 16))));
  if (behind === undefined) return before!;
  return [...before!, ...Array.from({ length: 8 - before!.length - behind.length }, () => 0), ...behind];
}

/** The address of a struct sockaddr; undefined if it has none (an unnamed socket) or is of another family. */
export function decodeAddress(bytes: Buffer): Address | undefined {
  if (bytes.length < 2) return undefined;
  const family = bytes.readUInt16LE(0);
  if (family === AF_UNIX) {
    const name = bytes.subarray(2);
    if (name.length === 0) return undefined;
    const end = name[0] === 0 ? name.length : name.indexOf(0);
    return { path: name.toString('utf8', 0, end < 0 ? name.length : end) };
  }
  if (family === AF_INET && bytes.length >= 16) return { address: [...bytes.subarray(4, 8)].join('.'), port: bytes.readUInt16BE(2) };
  if (family !== AF_INET6 || bytes.length < 28) return undefined;
  const address = Array.from({ length: 8 }, (_, i) => bytes.readUInt16BE(8 + 2 * i).toString(16)).join(':');
  return { address: new net.SocketAddress({ address, family: 'ipv6' }).address, port: bytes.readUInt16BE(2) };
}
