/**
 * A capture of proxied connections for Wireshark: pcapng (draft-ietf-opsawg-pcapng) with raw IP packets. The proxy sees
 * streams, not packets, so the IP and TCP headers are made here, as if nothing was lost or came twice.
 */
import fs from 'node:fs';
import net from 'node:net';
import { wrap } from '../../common/errors.js';

/** One end of a connection. */
export interface End {
  address: string;
  port: number;
}

const sectionHeaderBlock = 0x0a0d0d0a;
const interfaceBlock = 1;
const packetBlock = 6;
const byteOrderMagic = 0x1a2b3c4d;
/** LINKTYPE_RAW: packets begin with their IP header. */
const rawIp = 101;
const nanoseconds = 9; // if_tsresol: 10^-9 s
const comment = 1;
const application = 4;
const resolution = 9;

const fin = 0x01;
const syn = 0x02;
const push = 0x08;
const ack = 0x10;
/** Bytes of data in one packet: with both headers below the 65,535 of an IPv4 packet. */
const longestSegment = 61_440;
/** Wireshark takes this port for NVMe/TCP. */
const nvmePort = 4420;

/** Of the monotonic clock, in ns since 1970: times of a capture never go back. */
const epoch = BigInt(Date.now()) * 1_000_000n - process.hrtime.bigint();

const padded = (bytes: Buffer): Buffer => Buffer.concat([bytes, Buffer.alloc(-bytes.length & 3)]);

function optionOf(code: number, value: Buffer): Buffer {
  const head = Buffer.alloc(4);
  head.writeUInt16LE(code, 0);
  head.writeUInt16LE(value.length, 2);
  return Buffer.concat([head, padded(value)]);
}

/** A block: its length stands in front of its body and behind it. */
function block(type: number, body: Buffer, options: Buffer[] = []): Buffer {
  const end = options.length > 0 ? [Buffer.alloc(4)] : [];
  const whole = Buffer.concat([Buffer.alloc(8), padded(body), ...options, ...end, Buffer.alloc(4)]);
  whole.writeUInt32LE(type, 0);
  whole.writeUInt32LE(whole.length, 4);
  whole.writeUInt32LE(whole.length, whole.length - 4);
  return whole;
}

function fileHead(): Buffer {
  const section = Buffer.alloc(16);
  section.writeUInt32LE(byteOrderMagic, 0);
  section.writeUInt16LE(1, 4); // version 1.0
  section.writeBigInt64LE(-1n, 8); // a section of unknown length
  const device = Buffer.alloc(8);
  device.writeUInt16LE(rawIp, 0);
  return Buffer.concat([
    block(sectionHeaderBlock, section, [optionOf(application, Buffer.from('vioctl nvmf proxy'))]),
    block(interfaceBlock, device, [optionOf(resolution, Buffer.of(nanoseconds))]),
  ]);
}

/** The 16 bytes of an IPv6 address, or the 4 of an IPv4 address. */
function addressBytes(address: string): Buffer {
  const plain = address.replace(/%.*$/, '');
  if (net.isIPv4(plain)) return Buffer.from(plain.split('.').map(Number));
  const words = (text: string): number[] =>
    text === '' ? [] : text.split(':').flatMap((part) => (part.includes('.') ? pairs(part) : [Number.parseInt(part, 16)]));
  const pairs = (dotted: string): number[] => {
    const b = addressBytes(dotted);
    return [b.readUInt16BE(0), b.readUInt16BE(2)];
  };
  const [head, tail] = plain.split('::').map(words);
  const all = tail === undefined ? head! : [...head!, ...new Array<number>(8 - head!.length - tail.length).fill(0), ...tail];
  const bytes = Buffer.alloc(16);
  all.forEach((word, i) => void bytes.writeUInt16BE(word, 2 * i));
  return bytes;
}

/** The Internet checksum (RFC 1071) over several parts, each but the last of even length. */
function checksum(...parts: Buffer[]): number {
  let sum = 0;
  for (const part of parts) {
    let at = 0;
    for (; at + 1 < part.length; at += 2) sum += (part[at]! << 8) | part[at + 1]!;
    if (at < part.length) sum += part[at]! << 8;
  }
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 0x10000);
  return ~sum & 0xffff;
}

/** Puts an IP header and a TCP header in front of data. */
function packet(from: End, to: End, seq: number, acknowledged: number, flags: number, data: Buffer): Buffer {
  const [source, destination] = [addressBytes(from.address), addressBytes(to.address)];
  const segment = Buffer.alloc(20);
  segment.writeUInt16BE(from.port, 0);
  segment.writeUInt16BE(to.port, 2);
  segment.writeUInt32BE(seq >>> 0, 4);
  segment.writeUInt32BE(acknowledged >>> 0, 8);
  segment.writeUInt8(5 << 4, 12); // header of five words
  segment.writeUInt8(flags, 13);
  segment.writeUInt16BE(0xffff, 14); // window
  const size = segment.length + data.length;
  const pseudo = Buffer.alloc(8);
  pseudo.writeUInt32BE(size, 0);
  pseudo.writeUInt32BE(6, 4); // TCP
  segment.writeUInt16BE(checksum(source, destination, pseudo, segment, data), 16);
  if (source.length === 16) {
    const head = Buffer.alloc(8);
    head.writeUInt8(6 << 4, 0);
    head.writeUInt16BE(size, 4);
    head.writeUInt8(6, 6); // TCP
    head.writeUInt8(64, 7); // hop limit
    return Buffer.concat([head, source, destination, segment, data]);
  }
  const head = Buffer.alloc(12);
  head.writeUInt8(0x45, 0);
  head.writeUInt16BE(20 + size, 2);
  head.writeUInt16BE(0x4000, 6); // do not fragment
  head.writeUInt8(64, 8);
  head.writeUInt8(6, 9); // TCP
  head.writeUInt16BE(checksum(head, source, destination), 10);
  return Buffer.concat([head, source, destination, segment, data]);
}

/** An address as the other family would write it, so that both ends of a packet have one. */
const plain = (address: string): string => (address.startsWith('::ffff:') && net.isIPv4(address.slice(7)) ? address.slice(7) : address);

/** One connection in a capture. */
export class CapturedConnection {
  readonly #write: (packets: Buffer) => Promise<void>;
  readonly #ends: { h2c: [End, End]; c2h: [End, End] };
  /** The next byte of each direction. */
  readonly #next = { h2c: 0, c2h: 0 };

  constructor(host: End, target: End, write: (packets: Buffer) => Promise<void>) {
    this.#write = write;
    const [from, to] = [
      { ...host, address: plain(host.address) },
      { address: plain(target.address), port: nvmePort },
    ];
    this.#ends = { h2c: [from, to], c2h: [to, from] };
  }

  #packet(dir: 'h2c' | 'c2h', flags: number, data: Buffer, note?: string): Buffer {
    const [from, to] = this.#ends[dir];
    const bytes = packet(from, to, this.#next[dir], flags === syn ? 0 : this.#next[dir === 'h2c' ? 'c2h' : 'h2c'], flags, data);
    this.#next[dir] += data.length + (flags & (syn | fin) ? 1 : 0);
    const body = Buffer.alloc(20);
    const time = epoch + process.hrtime.bigint();
    body.writeUInt32LE(Number(time >> 32n), 4);
    body.writeUInt32LE(Number(time & 0xffff_ffffn), 8);
    body.writeUInt32LE(bytes.length, 12);
    body.writeUInt32LE(bytes.length, 16);
    return block(packetBlock, Buffer.concat([body, bytes]), note === undefined ? [] : [optionOf(comment, Buffer.from(note))]);
  }

  /** The three packets that open a connection. */
  opened(): Promise<void> {
    const none = Buffer.alloc(0);
    return this.#write(
      Buffer.concat([this.#packet('h2c', syn, none), this.#packet('c2h', syn | ack, none), this.#packet('h2c', ack, none)]),
    );
  }

  /** Bytes that were passed on. @param note is shown as the comment of the first packet */
  passed(dir: 'h2c' | 'c2h', bytes: Buffer, note?: string): Promise<void> {
    const packets: Buffer[] = [];
    for (let at = 0; at < bytes.length; at += longestSegment)
      packets.push(this.#packet(dir, push | ack, bytes.subarray(at, at + longestSegment), at === 0 ? note : undefined));
    return this.#write(Buffer.concat(packets));
  }

  /** The packets that end it. */
  closed(): Promise<void> {
    const none = Buffer.alloc(0);
    return this.#write(
      Buffer.concat([this.#packet('h2c', fin | ack, none), this.#packet('c2h', fin | ack, none), this.#packet('h2c', ack, none)]),
    );
  }
}

/** A capture file. */
export class Capture {
  readonly #file: fs.promises.FileHandle;
  readonly #path: string;
  #last: Promise<void> = Promise.resolve();

  /** What writing has failed with: nothing is written after it. */
  failure: unknown;
  readonly #onFailure: (err: unknown) => void;

  private constructor(file: fs.promises.FileHandle, path: string, onFailure: (err: unknown) => void) {
    this.#file = file;
    this.#path = path;
    this.#onFailure = onFailure;
  }

  async #append(bytes: Buffer): Promise<void> {
    if (this.failure !== undefined) return;
    try {
      await this.#file.appendFile(bytes);
    } catch (err) {
      this.failure = wrap(`write ${this.#path}`, err);
      this.#onFailure(this.failure);
    }
  }

  /**
   * Creates the file, or empties it; a FIFO waits for its reader. Only its owner may read it: it holds the data of disks.
   * @param onFailure is called once, when writing fails later; connections go on without the capture @throws VioError
   */
  static async create(path: string, onFailure: (err: unknown) => void): Promise<Capture> {
    const file = await fs.promises.open(path, 'w', 0o600).catch((err) => {
      throw wrap(`open ${path}`, err);
    });
    try {
      await file.appendFile(fileHead());
    } catch (err) {
      await file.close();
      throw wrap(`write ${path}`, err);
    }
    return new Capture(file, path, onFailure);
  }

  connection(host: End, target: End): CapturedConnection {
    return new CapturedConnection(host, target, (packets) => {
      this.#last = this.#last.then(() => this.#append(packets));
      return this.#last;
    });
  }

  async close(): Promise<void> {
    await this.#last;
    await this.#file.close();
  }
}
