/** The host's side of DH-HMAC-CHAP on one queue (NVMe Base 2.0, 8.3.4.5), over whatever carries its messages. */
import { randomBytes, randomInt, timingSafeEqual } from 'node:crypto';
import { codeOf, Exit, VioError } from '../../common/errors.js';
import {
  AuthFailureCode,
  AuthId,
  AuthReq,
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
import { makePair, type Power, sharedSecret, validValue } from './dh.js';
import { groupNames, nullGroup } from './groups.js';
import { hashes, type Key } from './keys.js';
import { type Ends, response } from './response.js';
import { wipe } from './secret.js';

/** Carries messages: Authentication Send and Receive. */
export interface AuthTransport {
  send(message: Buffer): Promise<void>;
  /** @param size bytes of the buffer; shorter messages may be padded */
  receive(size: number): Promise<Buffer>;
}

export interface HostExchangeOptions extends Ends {
  /** The host's key; undefined if it has none. */
  key: Key | undefined;
  /** The controller's key: with it, the controller must prove itself. */
  controllerKey?: Key | undefined;
  /** Hash functions and groups to offer. */
  hashes?: readonly number[] | undefined;
  groups?: readonly number[] | undefined;
  power: Power;
}

/** Room for the largest message: a challenge of SHA-512 and ffdhe8192. */
const messageRoom = 4096;

/** There is no key for a target that asks for authentication. */
export const noKey = (): VioError =>
  new VioError('the target asks for authentication', {
    code: 'ENOKEY',
    exit: Exit.permission,
    hint: '--dhchap-secret-file FILE gives the key of this host',
  });

/** What a wrong key of this host looks like. */
const keyHint = 'the key of this host is another one at the target, or it has none there';

/** One side does not accept the other. */
export const rejected = (why: string, hint?: string) =>
  new VioError(`authentication: ${why}`, { code: 'EKEYREJECTED', exit: Exit.permission, hint });
/** A target may close the connection as soon as it has found a wrong key: its message does not always arrive before the end (Linux). */
const closedWithoutVerdict = (cause: unknown) =>
  new VioError('authentication: the target closed the connection instead of accepting this host', {
    code: 'EKEYREJECTED',
    exit: Exit.permission,
    hint: keyHint,
    cause,
  });
const broken = (why: string) => new VioError(`authentication: ${why}`, { code: 'EPROTO', exit: Exit.damaged });

/**
 * Whether a queue has to be authenticated. A target may ask for that on the admin queue alone, as newer Linux targets do.
 * @param authreq AUTHREQ of Connect @param mutual the controller must prove itself
 * @throws VioError if the target asks for what we cannot do, or for too little
 */
export function mustAuthenticate(qid: number, authreq: number, mutual: boolean): boolean {
  if (authreq & AuthReq.secureChannel)
    throw new VioError('the target asks for secure channel concatenation', { code: 'ENOTSUP', exit: Exit.unsupported });
  if (authreq & AuthReq.required) return true;
  if (mutual && qid === 0)
    throw new VioError('the target does not authenticate itself: it asks for no authentication', {
      code: 'EKEYREJECTED',
      exit: Exit.permission,
      hint: 'without --dhchap-ctrl-secret-file',
    });
  return false;
}

/**
 * Authenticates a queue, and if there is a key for it, the controller.
 * @throws VioError ENOKEY, EKEYREJECTED (exit 6; also for a connection that ends instead of a verdict), EPROTO (exit 5), or what the
 *   transport throws
 */
export async function authenticate(transport: AuthTransport, options: HostExchangeOptions): Promise<void> {
  if (!options.key) throw noKey();
  const exchange = new HostExchange(options, options.key);
  try {
    await transport.send(exchange.negotiate());
    await transport.send(await exchange.reply(await transport.receive(messageRoom)));
    const verdict = await transport.receive(messageRoom).catch((err) => {
      throw codeOf(err) === 'ECONNRESET' ? closedWithoutVerdict(err) : err;
    });
    const last = exchange.success(verdict);
    if (last) await transport.send(last);
  } catch (err) {
    // tells the controller, which may be gone already; what counts is the first error
    const last = err instanceof Disbelief ? err.last : undefined;
    if (last) await transport.send(last).catch(() => {});
    throw err instanceof Disbelief ? err.error : err;
  } finally {
    exchange.close();
  }
}

/** The controller is to be told that it has failed. */
class Disbelief extends Error {
  readonly error: VioError;
  readonly last: Buffer;
  constructor(error: VioError, last: Buffer) {
    super(error.message);
    this.error = error;
    this.last = last;
  }
}

export class HostExchange {
  readonly #options: HostExchangeOptions;
  readonly #key: Key;
  readonly #tid = randomInt(0x10000);
  readonly #hashes: readonly number[];
  readonly #groups: readonly number[];
  /** What the controller must answer. */
  #expected: Buffer | undefined;

  constructor(options: HostExchangeOptions, key: Key) {
    this.#options = options;
    this.#key = key;
    this.#hashes = options.hashes ?? [...hashes.keys()];
    this.#groups = options.groups ?? [...groupNames.keys()];
  }

  /** AUTH_Negotiate. */
  negotiate(): Buffer {
    const message = Buffer.alloc(authNegotiate.size + authDescriptor.size);
    authNegotiate.encode({ type: AuthType.common, id: AuthId.negotiate, tid: this.#tid, scc: 0, napd: 1 }, message);
    const descriptor = message.subarray(authNegotiate.size);
    authDescriptor.encode({ authid: dhchapProtocol, halen: this.#hashes.length, dhlen: this.#groups.length }, descriptor);
    descriptor.set(this.#hashes, descriptorLists.hashes);
    descriptor.set(this.#groups, descriptorLists.groups);
    return message;
  }

  /** The reply to a challenge. @throws VioError, Disbelief */
  async reply(message: Buffer): Promise<Buffer> {
    this.#expect(message, AuthId.challenge, chapChallenge.size);
    const { hl, hashid, dhgid, dhvlen, seqnum } = chapChallenge.decode(message);
    if (!this.#hashes.includes(hashid))
      throw this.#disbelieve('hashUnusable', `the target chose hash function ${hashid}, which was not offered`);
    if (!this.#groups.includes(dhgid)) throw this.#disbelieve('groupUnusable', `the target chose group ${dhgid}, which was not offered`);
    const { size } = hashes.get(hashid)!;
    if (hl !== size || message.length < chapChallenge.size + hl + dhvlen || (dhgid === nullGroup && dhvlen !== 0))
      throw this.#disbelieve('incorrectPayload', `a challenge of ${message.length} bytes with HL ${hl} and DHVLEN ${dhvlen}`);
    const challenge = message.subarray(chapChallenge.size, chapChallenge.size + hl);
    const value = message.subarray(chapChallenge.size + hl, chapChallenge.size + hl + dhvlen);
    if (dhgid !== nullGroup && !validValue(dhgid, value)) throw this.#disbelieve('incorrectPayload', 'a DH value out of range');
    const { power, hostnqn, subnqn, controllerKey } = this.#options;
    const pair = dhgid === nullGroup ? undefined : await makePair(dhgid, power);
    const shared = pair && (await sharedSecret(pair, value, power));
    try {
      const common = { hash: hashid, shared, tid: this.#tid, scc: 0, hostnqn, subnqn };
      const rval = response({ ...common, side: 'host', key: this.#key, challenge, seqnum });
      const ours = controllerKey ? randomBytes(size) : Buffer.alloc(size);
      const ourNumber = controllerKey ? randomInt(1, 0xffff_ffff) : 0;
      if (controllerKey)
        this.#expected = response({ ...common, side: 'controller', key: controllerKey, challenge: ours, seqnum: ourNumber });
      const head = chapReply.encode({
        type: AuthType.dhchap,
        id: AuthId.reply,
        tid: this.#tid,
        hl: size,
        cvalid: controllerKey ? 1 : 0,
        dhvlen: pair?.value.length ?? 0,
        seqnum: ourNumber,
      });
      return Buffer.concat([head, rval, ours, pair?.value ?? Buffer.alloc(0)]);
    } finally {
      wipe(pair?.secret, shared);
    }
  }

  /** Takes the controller's verdict. @returns DH-HMAC-CHAP_Success2, if it has one to get @throws VioError, Disbelief */
  success(message: Buffer): Buffer | undefined {
    this.#expect(message, AuthId.success1, chapSuccess1.size);
    const expected = this.#expected;
    if (!expected) return undefined;
    const { hl, rvalid } = chapSuccess1.decode(message);
    const rval = message.subarray(chapSuccess1.size, chapSuccess1.size + expected.length);
    if (rvalid !== 1 || hl !== expected.length || rval.length !== expected.length)
      throw this.#disbelieve('failed', 'the target does not authenticate itself', '--dhchap-ctrl-secret-file asks for it');
    if (!timingSafeEqual(expected, rval))
      throw this.#disbelieve('failed', 'the target does not know the key of the controller (--dhchap-ctrl-secret-file)');
    return chapSuccess2.encode({ type: AuthType.dhchap, id: AuthId.success2, tid: this.#tid });
  }

  /** Forgets what is secret. */
  close(): void {
    wipe(this.#expected);
  }

  /** Checks what a message is. @throws VioError, Disbelief */
  #expect(message: Buffer, id: number, size: number): void {
    const header = message.length < authHeader.size ? undefined : authHeader.decode(message);
    if (header?.type === AuthType.common && header.id === AuthId.failure1 && message.length >= authFailure.size) {
      const { explanation } = authFailure.decode(message);
      throw rejected(`the target says: ${authFailureText(explanation)}`, explanation === AuthFailureCode.failed ? keyHint : undefined);
    }
    if (!header || header.type !== AuthType.dhchap || header.id !== id || message.length < size)
      throw this.#disbelieve(
        'incorrectMessage',
        `message ${header ? `${header.type}/${header.id}` : ''} of ${message.length} bytes out of turn`,
      );
    if (header.tid !== this.#tid) throw this.#disbelieve('incorrectPayload', `transaction ${header.tid} instead of ${this.#tid}`);
  }

  #disbelieve(explanation: keyof typeof AuthFailureCode, why: string, hint?: string): Disbelief {
    const code = AuthFailureCode[explanation];
    const last = authFailure.encode({ type: AuthType.common, id: AuthId.failure2, tid: this.#tid, reason: authFailed, explanation: code });
    return new Disbelief(explanation === 'failed' ? rejected(why, hint) : broken(why), last);
  }
}
