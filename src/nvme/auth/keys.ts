/**
 * Keys in their text forms: `DHHC-1:HH:BASE64:` of DH-HMAC-CHAP (NVMe Base 2.0, 8.3.4.5.7) and `NVMeTLSkey-1:HH:BASE64:` of TLS
 * (NVMe/TCP transport specification 1.0, 3.6.1.5). The base64 part is the key with its CRC-32 behind it, little-endian.
 */
import { createHmac } from 'node:crypto';
import { crc32 } from 'node:zlib';
import { Exit, VioError } from '../../common/errors.js';
import { native } from '../../native/index.js';
import { wipe } from './secret.js';

/** Hash functions by the identifiers that keys and messages use. */
export const hashes = new Map<number, { readonly name: 'sha256' | 'sha384' | 'sha512'; readonly size: number }>([
  [1, { name: 'sha256', size: 32 }],
  [2, { name: 'sha384', size: 48 }],
  [3, { name: 'sha512', size: 64 }],
]);

/** Names of hash functions, for options and configuration. */
export const hashNames = new Map([...hashes].map(([id, { name }]) => [id, name as string]));

/** Hash identifier of a key without one: it is used as it is. */
export const noHash = 0;

/** A key and the hash function that goes with it; 0 is none. */
export interface Key {
  readonly hash: number;
  readonly bytes: Buffer;
}

interface KeyForm {
  readonly prefix: string;
  /** Largest hash identifier. */
  readonly hashes: number;
  /** Possible lengths of a key in bytes. */
  readonly sizes: readonly number[];
}

const chapForm: KeyForm = { prefix: 'DHHC-1', hashes: 3, sizes: [32, 48, 64] };
const tlsForm: KeyForm = { prefix: 'NVMeTLSkey-1', hashes: 2, sizes: [32, 48] };

/** Largest key with its checksum in base64 has no more bytes than this. */
const maxDecoded = 128;

/** A copy in memory that core dumps leave out, as a key is kept for long. */
export function protect(secret: Uint8Array): Buffer {
  const copy = native().common.secret(secret.length);
  copy.set(secret);
  return copy;
}

/** A key of its own, for whoever must not lose it when another one wipes it. */
export const copyKey = ({ hash, bytes }: Key): Key => ({ hash, bytes: protect(bytes) });

/** Whether two keys are the same, or both are none. */
export const sameKey = (a: Key | undefined, b: Key | undefined): boolean =>
  a === b || (a !== undefined && b !== undefined && a.hash === b.hash && a.bytes.equals(b.bytes));

/** Never tells a byte of what it was given. */
const bad = (form: KeyForm, why: string): VioError =>
  new VioError(`not a ${form.prefix} key: ${why}`, {
    code: 'BAD_KEY',
    exit: Exit.usage,
    hint: form === chapForm ? 'nvme gen-dhchap-key makes one' : 'nvme gen-tls-key makes one',
  });

function parse(text: Uint8Array, form: KeyForm): Key {
  const bytes = Buffer.from(text.buffer, text.byteOffset, text.byteLength);
  const head = form.prefix.length + 4;
  if (bytes.subarray(0, form.prefix.length + 1).toString('latin1') !== `${form.prefix}:`)
    throw bad(form, `it does not begin with ${form.prefix}:`);
  const digits = bytes.subarray(form.prefix.length + 1, head - 1).toString('latin1');
  if (!/^0[0-9]$/.test(digits) || bytes[head - 1] !== 0x3a) throw bad(form, 'two digits and a colon must follow the prefix');
  const hash = Number(digits);
  if (hash > form.hashes) throw bad(form, `there is no hash function ${digits}`);
  if (bytes.at(-1) !== 0x3a || bytes.length === head) throw bad(form, 'it does not end with a colon');
  const raw = decodeBase64(bytes.subarray(head, -1));
  if (!raw) throw bad(form, 'its middle part is not base64');
  try {
    const size = raw.length - 4;
    if (!form.sizes.includes(size)) throw bad(form, `${Math.max(0, size)} bytes; ${form.sizes.join(', ')} are possible`);
    if (crc32(raw.subarray(0, size)) !== raw.readUInt32LE(size)) throw bad(form, 'its checksum is wrong (a typing error?)');
    return { hash, bytes: protect(raw.subarray(0, size)) };
  } finally {
    wipe(raw);
  }
}

/**
 * Strict base64, without a string in between, which could not be wiped, and not into a small Buffer: V8 keeps those in its heap and copies them.
 */
function decodeBase64(text: Buffer): Buffer | undefined {
  if (text.length === 0 || text.length % 4 !== 0) return undefined;
  const pad = text.at(-1) !== 0x3d ? 0 : text.at(-2) === 0x3d ? 2 : 1;
  const size = (text.length / 4) * 3;
  if (size > maxDecoded) return undefined;
  const out = Buffer.from(new ArrayBuffer(maxDecoded), 0, size);
  let value = 0;
  for (let i = 0; i < text.length; i++) {
    const digit = i >= text.length - pad ? 0 : base64Digit(text[i]!);
    if (digit < 0) return undefined;
    value = ((value << 6) | digit) & 0xffffff;
    if (i % 4 === 3) out.writeUIntBE(value, (i >> 2) * 3, 3);
  }
  for (let i = 0; i < pad; i++) if (out[out.length - 1 - i] !== 0) return undefined; // bits behind the end
  return out.subarray(0, out.length - pad);
}

function base64Digit(code: number): number {
  if (code >= 0x41 && code <= 0x5a) return code - 0x41;
  if (code >= 0x61 && code <= 0x7a) return code - 0x61 + 26;
  if (code >= 0x30 && code <= 0x39) return code - 0x30 + 52;
  return code === 0x2b ? 62 : code === 0x2f ? 63 : -1;
}

function format({ hash, bytes }: Key, form: KeyForm): string {
  const crc = Buffer.alloc(4);
  crc.writeUInt32LE(crc32(bytes));
  return `${form.prefix}:0${hash}:${Buffer.concat([bytes, crc]).toString('base64')}:`;
}

/** A DH-HMAC-CHAP key (`DHHC-1:…:`). @throws VioError that shows no part of it */
export const parseChapKey = (text: Uint8Array): Key => parse(text, chapForm);
export const formatChapKey = (key: Key): string => format(key, chapForm);

/** A TLS key (`NVMeTLSkey-1:…:`), the configured PSK. @throws VioError that shows no part of it */
export const parseTlsKey = (text: Uint8Array): Key => parse(text, tlsForm);
export const formatTlsKey = (key: Key): string => format(key, tlsForm);

/** What goes into responses: the key, or if it says so, its HMAC with the NQN of whoever has it (NVMe Base 2.0, 8.3.4.5.7). */
export function transformedKey({ hash, bytes }: Key, nqn: string): Buffer {
  const how = hashes.get(hash);
  if (!how) return Buffer.from(bytes);
  return createHmac(how.name, bytes).update(nqn).update('NVMe-over-Fabrics').digest();
}
