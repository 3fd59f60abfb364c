/** Responses of DH-HMAC-CHAP (NVMe Base 2.0, 8.3.4.5.4 and 8.3.4.5.5). */
import { createHash, createHmac } from 'node:crypto';
import { hashes, type Key, transformedKey } from './keys.js';
import { wipe } from './secret.js';

/** The two ends of an association. */
export interface Ends {
  readonly hostnqn: string;
  readonly subnqn: string;
}

/** What a response is made of. */
export interface ResponseInput extends Ends {
  /** Who answers. */
  side: 'host' | 'controller';
  hash: number;
  key: Key;
  challenge: Buffer;
  /** g^xy mod p; undefined without a Diffie-Hellman group. */
  shared: Buffer | undefined;
  seqnum: number;
  tid: number;
  scc: number;
}

/** The response to a challenge. */
export function response({ side, hash, key, challenge, shared, seqnum, tid, scc, hostnqn, subnqn }: ResponseInput): Buffer {
  const { name } = hashes.get(hash)!;
  const [own, other] = side === 'host' ? [hostnqn, subnqn] : [subnqn, hostnqn];
  const secret = transformedKey(key, own);
  const sessionKey = shared && createHash(name).update(shared).digest();
  const augmented = sessionKey ? createHmac(name, sessionKey).update(challenge).digest() : challenge;
  const numbers = Buffer.alloc(7);
  numbers.writeUInt32LE(seqnum, 0);
  numbers.writeUInt16LE(tid, 4);
  numbers.writeUInt8(scc, 6);
  try {
    return createHmac(name, secret)
      .update(augmented)
      .update(numbers)
      .update(side === 'host' ? 'HostHost' : 'Controller')
      .update(own)
      .update(Buffer.alloc(1))
      .update(other)
      .digest();
  } finally {
    wipe(secret, sessionKey);
  }
}
