/**
 * A ClientHello of TLS 1.3 with a pre-shared key (RFC 8446, 4.1.2 and 4.2), as it should be or with anything in it wrong. Its
 * binder always fits its bytes, so that what is wrong is wrong alone.
 */
import { createHash, createHmac, hkdfSync, randomBytes } from 'node:crypto';
import type { TlsKey } from '../../native/nvme-host.js';

const Extension = { groups: 10, keyShare: 51, psk: 41, pskModes: 45, versions: 43 } as const;
export const Suite = { aes128: 0x1301, aes256: 0x1302, chacha: 0x1303 } as const;
const x25519 = 0x001d;

/** What may be wrong. */
export interface HelloFaults {
  /** `legacy_version` of the message. */
  legacy?: number;
  versions?: readonly number[];
  suites?: readonly number[];
  /** 0: psk_ke, 1: psk_dhe_ke; left out with `null`. */
  modes?: readonly number[] | null;
  /** Public value of X25519; left out with `null`. */
  share?: Buffer | null;
  shareGroup?: number;
  identities?: readonly (Buffer | string)[];
  /** Changes the binder after it was computed. */
  binder?: (binder: Buffer) => Buffer;
  /** The extension is left out. */
  noPsk?: boolean;
  /** The extension is not the last one. */
  pskFirst?: boolean;
  compression?: Buffer;
  session?: Buffer;
  /** Extensions more, as their bytes. */
  more?: Buffer;
}

const u16 = (value: number): Buffer => Buffer.from([value >> 8, value & 0xff]);
/** A vector with its length in front. */
const vector = (bytes: number, ...parts: Uint8Array[]): Buffer => {
  const body = Buffer.concat(parts);
  const length = Buffer.alloc(bytes);
  length.writeUIntBE(body.length, 0, bytes);
  return Buffer.concat([length, body]);
};
export const extension = (type: number, ...parts: Uint8Array[]): Buffer => Buffer.concat([u16(type), vector(2, ...parts)]);

/** A record, in the clear. */
export const record = (type: number, body: Uint8Array, version = 0x0301): Buffer =>
  Buffer.concat([Buffer.from([type]), u16(version), vector(2, body)]);
export const RecordType = { changeCipherSpec: 20, alert: 21, handshake: 22, data: 23 } as const;

/** The binder of an external PSK over what comes before it (RFC 8446, 4.2.11.2 and 7.1). */
function binderOf(hash: 'sha256' | 'sha384', psk: Uint8Array, before: Buffer): Buffer {
  const size = hash === 'sha256' ? 32 : 48;
  const none = createHash(hash).digest();
  const label = (text: string, context: Buffer) => Buffer.concat([u16(size), vector(1, Buffer.from(`tls13 ${text}`)), vector(1, context)]);
  // the early secret is HKDF-Extract without a salt, so that one call makes it and expands it
  const binderKey = Buffer.from(hkdfSync(hash, psk, Buffer.alloc(size), label('ext binder', none), size));
  const finished = createHmac(hash, binderKey)
    .update(label('finished', Buffer.alloc(0)))
    .update(Buffer.of(1))
    .digest();
  return createHmac(hash, finished).update(createHash(hash).update(before).digest()).digest();
}

/** Which hash function goes with a key: 1 is SHA-256, 2 is SHA-384. */
export const hashOf = ({ psk }: TlsKey): 1 | 2 => (psk.length === 48 ? 2 : 1);

/** The handshake message, without a record around it. */
export function clientHello(psk: TlsKey, faults: HelloFaults = {}): Buffer {
  const { legacy = 0x0303, versions = [0x0304], modes = [1], share = randomBytes(32), identities = [psk.identity] } = faults;
  const { suites = [hashOf(psk) === 2 ? Suite.aes256 : Suite.aes128], shareGroup = x25519, noPsk = false, pskFirst = false } = faults;
  const { compression = Buffer.of(0), session = Buffer.alloc(0), more = Buffer.alloc(0), binder = (right) => right } = faults;
  const hash = hashOf(psk) === 2 ? 'sha384' : 'sha256';
  const size = hash === 'sha384' ? 48 : 32;
  const named = vector(2, ...identities.map((one) => Buffer.concat([vector(2, Buffer.from(one)), Buffer.alloc(4)])));
  const bindersSize = identities.length * (size + 1);
  const pskHead = Buffer.concat([u16(Extension.psk), u16(named.length + 2 + bindersSize), named]);
  const others = [
    extension(Extension.versions, vector(1, ...versions.map(u16))),
    extension(Extension.groups, vector(2, u16(x25519))),
    share === null ? Buffer.alloc(0) : extension(Extension.keyShare, vector(2, u16(shareGroup), vector(2, share))),
    modes === null ? Buffer.alloc(0) : extension(Extension.pskModes, vector(1, Buffer.from(modes))),
    more,
  ];
  const fixed = [u16(legacy), randomBytes(32), vector(1, session), vector(2, ...suites.map(u16)), vector(1, compression)];
  const pskSize = noPsk ? 0 : pskHead.length + 2 + bindersSize;
  const extensionsSize = Buffer.concat(others).length + pskSize;
  const length = Buffer.concat(fixed).length + 2 + extensionsSize;
  const head = Buffer.concat([Buffer.of(1, length >> 16, (length >> 8) & 0xff, length & 0xff), ...fixed, u16(extensionsSize)]);
  if (noPsk) return Buffer.concat([head, ...others]);
  if (pskFirst) {
    const zeroes = identities.map(() => vector(1, Buffer.alloc(size)));
    return Buffer.concat([head, pskHead, vector(2, ...zeroes), ...others]);
  }
  const before = Buffer.concat([head, ...others, pskHead]);
  const right = binderOf(hash, psk.psk, before);
  const wrong = binder(right);
  if (wrong.length !== size) {
    // the lengths around it say so
    before.writeUInt16BE(extensionsSize + wrong.length - size, head.length - 2);
    before.writeUIntBE(length + wrong.length - size, 1, 3);
    before.writeUInt16BE(named.length + 2 + wrong.length + 1, before.length - named.length - 2);
  }
  return Buffer.concat([before, vector(2, ...identities.map((_, i) => vector(1, i === 0 ? wrong : right)))]);
}
