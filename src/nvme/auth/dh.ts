/** Diffie-Hellman for DH-HMAC-CHAP. The powers are computed on threads of libuv's pool; how many may be wanted is bounded. */
import { randomBytes } from 'node:crypto';
import { VioError } from '../../common/errors.js';
import { native } from '../../native/index.js';
import { groupPrime } from './groups.js';
import { awaitOpenssl } from './openssl.js';

/** `base` to the power of `exponent` modulo `prime`, all big-endian; as long as the prime. */
export type Power = (base: Uint8Array, exponent: Uint8Array, prime: Uint8Array) => Promise<Buffer>;

/** Powers under way at a time: half of libuv's threads, so that files have the others. */
const mostPowers = 2;
/** Powers that may wait for their turn; an exchange that finds no place fails and may try again. */
const mostWaiting = 256;
/** Bytes of a private value: twice the strength of the largest group (RFC 7919, 5.2), rounded up. */
const privateBytes = 64;

let running = 0;
const waiting: (() => void)[] = [];

/** The power function of this Node's OpenSSL. @throws VioError EBUSY when too many are wanted, ENOTSUP without OpenSSL's functions */
export const power: Power = async (base, exponent, prime) => {
  if (running >= mostPowers) {
    if (waiting.length >= mostWaiting) throw new VioError('too many authentications at a time', { code: 'EBUSY' });
    await new Promise<void>((resolve) => waiting.push(resolve)); // whoever ends hands its place over
  } else {
    running++;
  }
  try {
    return await awaitOpenssl(() => native().nvme.dhPower(base, exponent, prime));
  } finally {
    const next = waiting.shift();
    if (next) next();
    else running--;
  }
};

/** A private value and the public one that goes with it. */
export interface DhPair {
  readonly group: number;
  readonly secret: Buffer;
  readonly value: Buffer;
}

/** A fresh pair. Wipe `secret` after use. */
export async function makePair(group: number, raise: Power): Promise<DhPair> {
  const secret = randomBytes(privateBytes);
  return { group, secret, value: await raise(Buffer.from([2]), secret, groupPrime(group)) };
}

/** Whether a public value of a peer has the length of the prime and lies from 2 to p - 2: others give the secret away. */
export function validValue(group: number, value: Buffer): boolean {
  const prime = groupPrime(group);
  if (value.length !== prime.length) return false;
  const last = Buffer.from(prime);
  last[last.length - 1]! -= 1; // p - 1: p is odd
  if (value.compare(last) >= 0) return false;
  return value.subarray(0, -1).some((byte) => byte !== 0) || value.at(-1)! > 1;
}

/** What both sides know in the end. Wipe it after use. */
export const sharedSecret = (pair: DhPair, peer: Buffer, raise: Power): Promise<Buffer> => raise(peer, pair.secret, groupPrime(pair.group));
