/** DH-HMAC-CHAP on the queues of a target: Authentication Send and Receive, their limits of time and size, and the end after a failure. */

import { type About, type Log, nameText } from '../../../common/text/log.js';
import type { ChapPolicy } from '../../auth/controller.js';
import { ControllerExchange } from '../../auth/controller.js';
import { powerFor } from '../../auth/dh.js';
import { authCmd, authProtocol, Fctype, psdtSgl, Sgl, Status, sqe } from '../../wire/index.js';
import type { Answer } from '../model.js';
import { invalidField, Refusal } from '../refusal.js';
import type { KeyRing } from './keyring.js';

/** Time for a host to authenticate a queue, in milliseconds. Slow machines take seconds for the largest group. */
export const authTime = 30_000;
/** Largest message that a host may send: no valid one is half as long. */
const maxMessage = 16_384;
/** Largest buffer of Authentication Receive; messages are padded to it. */
const maxBuffer = 65_536;

/** What authentication needs of the target around it. */
export interface AuthSurroundings {
  /** Answers a command that waited; data of Authentication Receive. */
  answer(connection: number, tag: number, status: number, data?: Buffer): void;
  /** Lets all commands of a connection pass, unless its host has all that it may have. @returns whether it does */
  unlock(connection: number): boolean;
  /** Ends a connection once what was answered has left, and with an admin queue its association. */
  end(connection: number): void;
  readonly log: Log;
}

/** One queue whose host must prove who it is. */
interface Guarded {
  exchange: ControllerExchange;
  /** By performance.now(); Infinity while nothing is under way. */
  deadline: number;
  trusted: boolean;
  /** Its host and peer, for messages. */
  who: string;
  about: Omit<About, 'event'>;
}

/** All queues that have to be, or have been, authenticated. */
export class Authentication {
  readonly #keys: KeyRing;
  readonly #policy: () => ChapPolicy | undefined;
  readonly #around: AuthSurroundings;
  readonly #queues = new Map<number, Guarded>();

  constructor(keys: KeyRing, policy: () => ChapPolicy | undefined, around: AuthSurroundings) {
    this.#keys = keys;
    this.#policy = policy;
    this.#around = around;
  }

  /** Whether hosts have to authenticate. */
  get required(): boolean {
    return this.#keys.chap;
  }

  /** Whether the host of a connection has proved who it is. */
  trusts(connection: number): boolean {
    return this.#queues.get(connection)?.trusted ?? false;
  }

  /** A queue that was connected and has to be authenticated now. */
  guard(connection: number, ends: { hostnqn: string; subnqn: string }, admin: boolean, peer: string): void {
    const who = `${peer}: host ${nameText(ends.hostnqn)}`;
    const about = { peer, host: ends.hostnqn, subsystem: ends.subnqn };
    const guarded: Guarded = {
      exchange: new ControllerExchange({
        hostnqn: ends.hostnqn,
        subnqn: ends.subnqn,
        policy: this.#policy,
        keys: () => this.#keys.chapKeys(ends.hostnqn),
        power: powerFor(peer.replace(/ port .*/, '')), // by address
        succeeded: (how) => {
          guarded.deadline = Infinity;
          if (!guarded.trusted && !this.#around.unlock(connection)) return queueMicrotask(() => this.#around.end(connection)); // behind the answer
          guarded.trusted = true;
          if (admin) this.#around.log(`${who} is authenticated (${how})`, { event: 'authenticated', ...about });
        },
        failed: (why) =>
          this.#around.log(`${who} is not authenticated for ${nameText(ends.subnqn)}: ${why}`, { event: 'not-authenticated', ...about }),
      }),
      deadline: performance.now() + authTime,
      trusted: false,
      who,
      about,
    };
    this.#queues.set(connection, guarded);
  }

  /** Authentication Send or Receive. @throws Refusal */
  command(connection: number, command: Buffer, data: Buffer, tag: number): Answer {
    const guarded = this.#queues.get(connection);
    if (!guarded) throw invalidField(4); // nobody asked for it
    const { secp, spsp0, spsp1, length } = authCmd.decode(command);
    if (secp !== authProtocol.secp) throw invalidField(43);
    if (spsp0 !== authProtocol.spsp0) throw invalidField(41);
    if (spsp1 !== authProtocol.spsp1) throw invalidField(42);
    if (sqe.get(command, 'psdt') !== psdtSgl) throw invalidField(1);
    if (sqe.get(command, 'fctype') === Fctype.authSend) return this.#send(connection, guarded, data, length, tag);
    return this.#receive(connection, guarded, command, length);
  }

  #send(connection: number, guarded: Guarded, data: Buffer, length: number, tag: number): Answer {
    if (length === 0 || length > maxMessage) throw invalidField(44);
    if (data.length !== length) throw new Refusal(Status.sglLengthInvalid, { location: 32 });
    // an authentication that is repeated has its own time
    if (guarded.deadline === Infinity) guarded.deadline = performance.now() + authTime;
    guarded.exchange.send(data).then(() => {
      if (this.#queues.get(connection) !== guarded) return; // it has ended meanwhile
      this.#around.answer(connection, tag, 0);
      if (guarded.exchange.over) queueMicrotask(() => this.#around.end(connection)); // behind the answer
    });
    return undefined;
  }

  #receive(connection: number, guarded: Guarded, command: Buffer, length: number): Answer {
    const { sglId, sglAddress, sglLength } = sqe.decode(command);
    if (sglId === Sgl.inCapsule) throw invalidField(39);
    if (sglId !== Sgl.commandBuffer) throw new Refusal(Status.sglTypeInvalid, { location: 39 });
    if (sglAddress !== 0n) throw new Refusal(Status.sglOffsetInvalid, { location: 24 });
    if (length === 0 || length > maxBuffer) throw invalidField(44);
    if (sglLength !== length) throw new Refusal(Status.sglLengthInvalid, { location: 32 });
    if (guarded.exchange.messageSize > length) throw invalidField(44);
    const message = guarded.exchange.receive();
    if (guarded.exchange.over) queueMicrotask(() => this.#around.end(connection));
    return { data: Buffer.concat([message], length) };
  }

  /** A connection has ended. */
  closed(connection: number): void {
    this.#queues.get(connection)?.exchange.close();
    this.#queues.delete(connection);
  }

  /** Ends the queues whose host took too long. */
  tick(): void {
    const now = performance.now();
    for (const [connection, { deadline, who, about }] of this.#queues) {
      if (now < deadline) continue;
      this.#around.log(`${who}: not authenticated within ${authTime / 1000} s`, { event: 'not-authenticated', ...about });
      this.#around.end(connection);
      this.#queues.get(connection)!.deadline = Infinity;
    }
  }
}
