/**
 * Pre-shared keys of TLS and their identities (NVMe/TCP transport specification 1.0, 3.6.1.3 and 3.6.1.4): configured PSK ->
 * retained PSK -> identity and TLS PSK. The labels of HKDF-Expand-Label carry "tls13 " and length bytes, as RFC 8446 has them;
 * older versions of libnvme left both out, and their keys do not match ours.
 */
import { createHmac } from 'node:crypto';
import { hashes, type Key, noHash, protect } from './keys.js';
import { wipe } from './secret.js';

/** Hash identifiers of TLS cipher suites: TLS_AES_128_GCM_SHA256 and TLS_AES_256_GCM_SHA384. */
export type PskHash = 1 | 2;

/** What an identity says: `NVMe1R01 HOSTNQN SUBNQN DIGEST`, or `NVMe0R01 HOSTNQN SUBNQN`. */
export interface PskIdentity {
  version: 0 | 1;
  hash: PskHash;
  hostnqn: string;
  subnqn: string;
  /** Base64; of version 1. */
  digest: string | undefined;
}

/** A key as TLS takes it. Wipe `psk` after use. */
export interface TlsPsk {
  identity: string;
  hash: PskHash;
  psk: Buffer;
}

/**
 * HKDF-Extract without salt, then HKDF-Expand-Label (RFC 5869; RFC 8446, 7.1). Not by hkdfSync: its copy of the key stays in memory until
 * the garbage collector finds it.
 */
function expandLabel(hash: PskHash, key: Uint8Array, label: string, context: string): Buffer {
  const { name, size } = hashes.get(hash)!;
  const full = Buffer.from(`tls13 ${label}`);
  const about = Buffer.from(context);
  const info = Buffer.concat([Buffer.from([size >> 8, size & 0xff, full.length]), full, Buffer.from([about.length]), about]);
  const extracted = createHmac(name, Buffer.alloc(size)).update(key).digest();
  try {
    return createHmac(name, extracted).update(info).update(Buffer.of(1)).digest(); // one block is as long as a key
  } finally {
    wipe(extracted);
  }
}

/** The cipher's hash of a configured PSK: the one that it names, else by its length. */
const cipherHash = ({ hash, bytes }: Key): PskHash => (hash === noHash ? (bytes.length === 48 ? 2 : 1) : (hash as PskHash));

/** What a host and a controller keep of a configured PSK. */
function retainedPsk(key: Key, hostnqn: string): Buffer {
  if (key.hash === noHash) return Buffer.from(key.bytes);
  return expandLabel(key.hash as PskHash, key.bytes, 'HostNQN', hostnqn);
}

/**
 * The PSK and its identity for a host and a subsystem.
 * @param version 1, which current hosts use; 0 for SPDK and hosts before TP 8018
 */
export function tlsPsk(key: Key, hostnqn: string, subnqn: string, version: 0 | 1 = 1): TlsPsk {
  const hash = cipherHash(key);
  const retained = retainedPsk(key, hostnqn);
  try {
    const base = `NVMe${version}R0${hash} ${hostnqn} ${subnqn}`;
    if (version === 0) return { identity: base, hash, psk: expandLabel(hash, retained, 'nvme-tls-psk', base) };
    const digest = createHmac(hashes.get(hash)!.name, retained).update(`${hostnqn} ${subnqn} NVMe-over-Fabrics`).digest('base64');
    return { identity: `${base} ${digest}`, hash, psk: expandLabel(hash, retained, 'nvme-tls-psk', `0${hash} ${digest}`) };
  } finally {
    wipe(retained);
  }
}

/**
 * A key under each of its identities, newest first: SPDK knows version 0 alone. For whoever keeps them for long: in memory that core dumps
 * leave out.
 */
export function keptPsks(key: Key, hostnqn: string, subnqn: string): TlsPsk[] {
  return ([1, 0] as const)
    .map((version) => tlsPsk(key, hostnqn, subnqn, version))
    .filter(({ identity }) => !tooLong(identity))
    .map((made) => {
      try {
        return { ...made, psk: protect(made.psk) };
      } finally {
        wipe(made.psk);
      }
    });
}

/** Whether this is an identity of version 0 that is longer than the context of HKDF-Expand-Label can be: it has no PSK. */
const tooLong = (identity: string): boolean => identity.startsWith('NVMe0') && identity.length > 255;

/** Reads an identity; undefined if it is none of NVMe/TCP. */
export function parseIdentity(identity: string): PskIdentity | undefined {
  const match = /^NVMe([01])R0([12]) ([\x21-\x7e]{1,223}) ([\x21-\x7e]{1,223})(?: ([A-Za-z0-9+/]{42,64}={0,2}))?$/.exec(identity);
  if (!match) return undefined;
  const [, version, hash, hostnqn, subnqn, digest] = match;
  if ((version === '1') !== (digest !== undefined)) return undefined;
  return { version: Number(version) as 0 | 1, hash: Number(hash) as PskHash, hostnqn: hostnqn!, subnqn: subnqn!, digest };
}

/** The PSK of an identity that a host has sent, if one of the keys makes just this identity. */
export function pskOf(identity: string, keys: readonly Key[]): TlsPsk | undefined {
  const parsed = parseIdentity(identity);
  if (!parsed || tooLong(identity)) return undefined;
  for (const key of keys) {
    const made = tlsPsk(key, parsed.hostnqn, parsed.subnqn, parsed.version);
    if (made.identity === identity) return made;
    wipe(made.psk);
  }
  return undefined;
}
