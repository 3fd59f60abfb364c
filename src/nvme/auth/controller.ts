/**
 * The controller's side of DH-HMAC-CHAP on one queue (NVMe Base 2.0, 8.3.4.5): bytes in, bytes out. It knows no connection and no
 * clock: whoever owns the queue passes messages on, ends the queue after a failure, and limits the time.
 */
import { randomBytes, randomInt, timingSafeEqual } from 'node:crypto';
import {
  AuthFailureCode,
  AuthId,
  AuthType,
  authDescriptor,
  authFailed,
  authFailure,
  authFailureText,
  authHeader,
  authNegotiate,
  chapChallenge,
  chapReply,
  chapSuccess1,
  chapSuccess2,
  descriptorLists,
  dhchapProtocol,
} from '../wire/index.js';
import { type DhPair, makePair, type Power, sharedSecret, validValue } from './dh.js';
import { groupNames, nullGroup } from './groups.js';
import { copyKey, hashes, hashNames, type Key, sameKey } from './keys.js';
import { type Ends, response } from './response.js';
import { wipe } from './secret.js';

/** Hash functions and groups that a controller takes, the preferred one first. */
export interface ChapPolicy {
  readonly hashes: readonly number[];
  readonly groups: readonly number[];
}
/** Strong without costing hosts seconds: ffdhe3072 is as strong as the other algorithms here. */
export const defaultPolicy: ChapPolicy = { hashes: [3, 2, 1], groups: [2, 3, 4, 5, 1, 0] };

/** The secrets of a host: what it proves to know, and what proves the controller to it. */
export interface ChapKeys {
  readonly host: Key;
  readonly controller: Key | undefined;
}

const copyOf = ({ host, controller }: ChapKeys): ChapKeys => ({ host: copyKey(host), controller: controller && copyKey(controller) });
const sameKeys = (a: ChapKeys, b: ChapKeys | undefined): boolean =>
  b !== undefined && sameKey(a.host, b.host) && sameKey(a.controller, b.controller);

/** Where an exchange is. */
export type ChapState =
  | 'idle' // waits for AUTH_Negotiate
  | 'challenge' // the challenge waits to be fetched
  | 'reply' // waits for the reply
  | 'success1' // the success waits to be fetched
  | 'success2' // waits for the host's verdict about us
  | 'working' // computes
  | 'failure' // the failure waits to be fetched
  | 'over'; // told of a failure

/** The end of an exchange that the peer is to be told. */
class ChapFailure extends Error {
  readonly explanation: number;
  constructor(explanation: number, why: string) {
    super(why);
    this.explanation = explanation;
  }
}
const fail = (explanation: keyof typeof AuthFailureCode, why: string): never => {
  throw new ChapFailure(AuthFailureCode[explanation], why);
};

export interface ControllerExchangeOptions extends Ends {
  /** What is preferred now; undefined, or left out: defaultPolicy. */
  policy?: () => ChapPolicy | undefined;
  /** The keys of the host now; undefined if it has none any more. */
  keys: () => ChapKeys | undefined;
  power: Power;
  /** Told once for each exchange that succeeds: by which algorithms, and whether in both directions. */
  succeeded: (how: string) => void;
  /** Told once, with the reason for the log. The queue must end after the next message. */
  failed: (why: string) => void;
}

export class ControllerExchange {
  readonly #options: ControllerExchangeOptions;
  #state: ChapState = 'idle';
  #tid = 0;
  #hash = 0;
  #group = nullGroup;
  #seqnum = randomInt(1, 0xffff_ffff);
  #challenge: Buffer = Buffer.alloc(0);
  #pair: DhPair | undefined;
  #keys: ChapKeys | undefined;
  /** Our response to the host's challenge. */
  #proof: Buffer | undefined;
  #explanation = 0;

  constructor(options: ControllerExchangeOptions) {
    this.#options = options;
  }

  get state(): ChapState {
    return this.#state;
  }
  /** The host has been told of a failure, or has told us: the queue is to be ended. */
  get over(): boolean {
    return this.#state === 'over';
  }
  /** Whether an exchange has begun that has not ended yet. */
  get underWay(): boolean {
    return this.#state !== 'idle';
  }

  /** Takes a message of Authentication Send. A wrong one becomes a failure, which receive() tells. Never throws. */
  async send(message: Buffer): Promise<void> {
    const state = this.#state;
    if (state === 'over' || state === 'failure') return;
    // while another one is worked on: what comes of that does not count any more
    if (state === 'working') return this.#fail(AuthFailureCode.incorrectMessage, 'a message before the one ahead of it was answered');
    this.#state = 'working';
    try {
      const next = await this.#take(message, state);
      if (this.#state === 'working') this.#state = next;
      else this.#forget(); // failed or closed meanwhile
    } catch (err) {
      const known = err instanceof ChapFailure;
      // what went wrong here is no fault of the host, and not for it to know
      this.#fail(known ? err.explanation : AuthFailureCode.failed, known ? err.message : `internal: ${(err as Error).message}`);
    }
  }

  /** Bytes of the message that receive() would give. */
  get messageSize(): number {
    if (this.#state === 'challenge') return chapChallenge.size + this.#challenge.length + (this.#pair?.value.length ?? 0);
    return this.#state === 'success1' ? chapSuccess1.size + hashes.get(this.#hash)!.size : authFailure.size;
  }

  /** The next message for Authentication Receive. One that nobody has asked for yet is a failure. */
  receive(): Buffer {
    switch (this.#state) {
      case 'challenge':
        this.#state = 'reply';
        return this.#challengeMessage();
      case 'success1':
        return this.#success1Message();
      case 'failure':
        break;
      default:
        this.#fail(AuthFailureCode.incorrectMessage, `Authentication Receive in state ${this.#state}`);
    }
    this.#state = 'over';
    return this.#failureMessage();
  }

  /** Forgets everything. */
  close(): void {
    this.#forget();
    this.#state = 'over';
  }

  #fail(explanation: number, why: string): void {
    if (this.#state === 'over' || this.#state === 'failure') return;
    this.#forget();
    this.#explanation = explanation;
    this.#state = 'failure';
    this.#options.failed(why);
  }

  #forget(): void {
    wipe(this.#pair?.secret, this.#challenge, this.#proof, this.#keys?.host.bytes, this.#keys?.controller?.bytes);
    this.#pair = undefined;
    this.#keys = undefined;
    this.#proof = undefined;
  }

  async #take(message: Buffer, state: ChapState): Promise<ChapState> {
    if (message.length < authHeader.size) fail('incorrectPayload', `message of ${message.length} bytes`);
    const { type, id, tid } = authHeader.decode(message);
    if (type === AuthType.common && id === AuthId.negotiate && state === 'idle') return this.#negotiate(message);
    const ours = tid === this.#tid;
    if (type === AuthType.common && id === AuthId.failure2 && ours && (state === 'reply' || state === 'success2')) {
      const explanation = message.length >= authFailure.size ? authFailure.decode(message).explanation : 0;
      this.#fail(AuthFailureCode.failed, `the host gives up: ${authFailureText(explanation)}`);
      this.#state = 'over';
      return 'over';
    }
    if (type !== AuthType.dhchap || (id !== AuthId.reply && id !== AuthId.success2))
      return fail('incorrectMessage', `message ${type}/${id} in state ${state}`);
    if (id === AuthId.reply ? state !== 'reply' : state !== 'success2')
      return fail('incorrectMessage', `message ${type}/${id} in state ${state}`);
    if (!ours) return fail('incorrectPayload', `transaction ${tid} instead of ${this.#tid}`);
    if (id === AuthId.reply) return this.#reply(message);
    if (message.length !== chapSuccess2.size) fail('incorrectPayload', `Success2 of ${message.length} bytes`);
    return this.#done();
  }

  async #negotiate(message: Buffer): Promise<ChapState> {
    if (message.length < authNegotiate.size) fail('incorrectPayload', `AUTH_Negotiate of ${message.length} bytes`);
    const { tid, scc, napd } = authNegotiate.decode(message);
    this.#tid = tid;
    if (napd === 0 || message.length !== authNegotiate.size + napd * authDescriptor.size)
      fail('incorrectPayload', `AUTH_Negotiate of ${message.length} bytes with ${napd} protocols`);
    if (scc !== 0) fail('channelMismatch', `secure channel concatenation ${scc}`);
    const descriptor = this.#descriptor(message, napd);
    const { halen, dhlen } = authDescriptor.decode(descriptor);
    if (halen > descriptorLists.most || dhlen > descriptorLists.most || halen === 0 || dhlen === 0)
      fail('incorrectPayload', `${halen} hash functions and ${dhlen} groups`);
    const list = (at: number, count: number) => [...descriptor.subarray(at, at + count)];
    const policy = this.#options.policy?.() ?? defaultPolicy;
    const offered = { hashes: list(descriptorLists.hashes, halen), groups: list(descriptorLists.groups, dhlen) };
    this.#hash =
      policy.hashes.find((id) => offered.hashes.includes(id)) ?? fail('hashUnusable', `hash functions ${offered.hashes.join(', ')}`);
    this.#group = policy.groups.find((id) => offered.groups.includes(id)) ?? fail('groupUnusable', `groups ${offered.groups.join(', ')}`);
    // a copy: whoever has the keys may change them, and wipes those that go
    this.#keys = copyOf(this.#options.keys() ?? fail('failed', 'the host has no key here'));
    this.#challenge = randomBytes(hashes.get(this.#hash)!.size);
    this.#seqnum = this.#seqnum >= 0xffff_ffff ? 1 : this.#seqnum + 1;
    if (this.#group !== nullGroup) this.#pair = await makePair(this.#group, this.#options.power);
    return 'challenge';
  }

  #descriptor(message: Buffer, napd: number): Buffer {
    for (let i = 0; i < napd; i++) {
      const at = authNegotiate.size + i * authDescriptor.size;
      const one = message.subarray(at, at + authDescriptor.size);
      if (authDescriptor.get(one, 'authid') === dhchapProtocol) return one;
    }
    return fail('protocolUnusable', 'no DH-HMAC-CHAP among the protocols');
  }

  #challengeMessage(): Buffer {
    const value = this.#pair?.value ?? Buffer.alloc(0);
    const head = chapChallenge.encode({
      type: AuthType.dhchap,
      id: AuthId.challenge,
      tid: this.#tid,
      hl: this.#challenge.length,
      hashid: this.#hash,
      dhgid: this.#group,
      dhvlen: value.length,
      seqnum: this.#seqnum,
    });
    return Buffer.concat([head, this.#challenge, value]);
  }

  async #reply(message: Buffer): Promise<ChapState> {
    if (message.length < chapReply.size) fail('incorrectPayload', `reply of ${message.length} bytes`);
    const { hl, cvalid, dhvlen, seqnum } = chapReply.decode(message);
    const { size } = hashes.get(this.#hash)!;
    const valueSize = this.#pair?.value.length ?? 0;
    if (hl !== size || cvalid > 1 || dhvlen !== valueSize || message.length !== chapReply.size + 2 * size + valueSize)
      fail('incorrectPayload', `reply of ${message.length} bytes: HL ${hl}, DHVLEN ${dhvlen}, CVALID ${cvalid}`);
    const part = (at: number, count: number) => message.subarray(chapReply.size + at, chapReply.size + at + count);
    const [rval, theirs, value] = [part(0, size), part(size, size), part(2 * size, valueSize)];
    if (this.#pair && !validValue(this.#group, value)) fail('incorrectPayload', 'a DH value out of range');
    if (cvalid === 1 && (seqnum === 0 || theirs.equals(this.#challenge)))
      fail('incorrectPayload', 'a challenge of the host that proves nothing');
    const keys = this.#keys!;
    const shared = this.#pair && (await sharedSecret(this.#pair, value, this.#options.power));
    try {
      if (!sameKeys(keys, this.#options.keys())) fail('failed', 'the keys of the host were changed meanwhile');
      const { hostnqn, subnqn } = this.#options;
      const common = { hash: this.#hash, shared, tid: this.#tid, scc: 0, hostnqn, subnqn };
      const right = response({ ...common, side: 'host', key: keys.host, challenge: this.#challenge, seqnum: this.#seqnum });
      if (!timingSafeEqual(right, rval)) fail('failed', 'wrong response: the keys differ');
      if (cvalid === 1) {
        const key = keys.controller ?? fail('failed', 'the host wants us to authenticate too, and there is no key for that');
        this.#proof = response({ ...common, side: 'controller', key, challenge: Buffer.from(theirs), seqnum });
      }
    } finally {
      wipe(shared);
    }
    return 'success1';
  }

  #success1Message(): Buffer {
    const { size } = hashes.get(this.#hash)!;
    const proof = this.#proof;
    const message = Buffer.alloc(chapSuccess1.size + size);
    chapSuccess1.encode({ type: AuthType.dhchap, id: AuthId.success1, tid: this.#tid, hl: size, rvalid: proof ? 1 : 0 }, message);
    proof?.copy(message, chapSuccess1.size);
    // unless the host has a word about us too
    this.#state = proof ? 'success2' : this.#done();
    return message;
  }

  #done(): 'idle' {
    const both = this.#proof ? ', both ways' : '';
    this.#forget();
    this.#options.succeeded(`${hashNames.get(this.#hash)}, ${groupNames.get(this.#group)}${both}`);
    return 'idle';
  }

  #failureMessage(): Buffer {
    return authFailure.encode({
      type: AuthType.common,
      id: AuthId.failure1,
      tid: this.#tid,
      reason: authFailed,
      explanation: this.#explanation,
    });
  }
}
