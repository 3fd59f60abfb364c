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
const mostWaiting = 1024;

/** Bytes of a private value: twice the strength of the largest group (RFC 7919, 5.2), rounded up. */
const privateBytes = 64;

/** One that waits; `false`: it has lost its place. */
type Turn = (mine: boolean) => void;

/**
 * Those who wait for a thread, by peer. Peers take turns, and when there is no more room, the peer that has most waiting loses its newest:
 * whoever floods a target waits for himself.
 */
export class Turns {
  readonly #most: number;
  readonly #waiting = new Map<string, Turn[]>();
  #free: number;
  #size = 0;

  /** @param running at a time @param most that may wait */
  constructor(running: number, most: number) {
    this.#free = running;
    this.#most = most;
  }

  /** Resolves when it is the peer's turn: call next() then. @throws VioError EBUSY */
  async wait(peer: string): Promise<void> {
    if (this.#free > 0) {
      this.#free--;
      return;
    }
    if (this.#size >= this.#most && !this.#displace(peer)) throw busy();
    const turn = new Promise<boolean>((resolve) => {
      const own = this.#waiting.get(peer);
      if (own) own.push(resolve);
      else this.#waiting.set(peer, [resolve]);
    });
    this.#size++;
    if (!(await turn)) throw busy();
  }

  /** Hands the place of one that has ended over. */
  next(): void {
    const [peer, own] = this.#waiting.entries().next().value ?? [];
    if (!own) {
      this.#free++;
      return;
    }
    this.#waiting.delete(peer!);
    const turn = own.shift()!;
    if (own.length > 0) this.#waiting.set(peer!, own); // behind all others
    this.#size--;
    turn(true);
  }

  /** Makes room for a peer at the cost of one that has more waiting. @returns whether there was one */
  #displace(peer: string): boolean {
    const [most, own] = [...this.#waiting].reduce((a, b) => (b[1].length > a[1].length ? b : a));
    if (most === peer || own.length <= (this.#waiting.get(peer)?.length ?? 0) + 1) return false;
    this.#size--;
    own.pop()!(false);
    return true;
  }
}

const busy = (): VioError => new VioError('too many authentications at a time', { code: 'EBUSY' });
const turns = new Turns(mostPowers, mostWaiting);

/** The power function of this Node's OpenSSL. @throws VioError EBUSY when too many are wanted, ENOTSUP without OpenSSL's functions */
export const powerFor =
  (peer: string): Power =>
  async (base, exponent, prime) => {
    await turns.wait(peer);
    try {
      return await awaitOpenssl(() => native().nvme.dhPower(base, exponent, prime));
    } finally {
      turns.next();
    }
  };

/** The same for this process itself. */
export const power: Power = powerFor('');

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
