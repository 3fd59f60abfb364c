/** A queue whose host has still to prove who it is, and the exchange that would do that, one message at a time. */
import { power } from '../auth/dh.js';
import { HostExchange } from '../auth/host.js';
import {
  AdminOpcode,
  AuthId,
  AuthReq,
  AuthType,
  authCmd,
  authFailure,
  authFailureText,
  authHeader,
  authProtocol,
  Fctype,
} from '../wire/index.js';
import { type Bench, expectSetup, SetupError } from './bench.js';
import { anyError, describeOutcome, ok } from './expect.js';
import { finding, type Outcome, type RawConnection } from './raw.js';

/** Room for the largest message. */
const room = 4096;
/** What a host meets that is not let in. */
export const keptOut = 'refused, and nothing passes';
const csts = 0x1c;

/** Whether the connection is gone. */
const gone = ({ kind }: Outcome): boolean => kind === 'closed' || kind === 'term';

/** A message in words. */
function describeMessage(message: Buffer): string {
  if (message.length < authHeader.size) return `${message.length} bytes`;
  const { type, id } = authHeader.decode(message);
  if (type === AuthType.common && id === AuthId.failure1 && message.length >= authFailure.size)
    return `AUTH_Failure1: ${authFailureText(authFailure.get(message, 'explanation'))}`;
  const names = new Map<number, string>([
    [AuthId.challenge, 'a challenge'],
    [AuthId.success1, 'Success1'],
  ]);
  return names.get(id) ?? `message ${type}/${id}`;
}
const isFailure = (message: Buffer): boolean =>
  message.length >= authFailure.size && message[0] === AuthType.common && message[1] === AuthId.failure1;

export class Locked {
  readonly bench: Bench;
  readonly queue: RawConnection;
  readonly host: HostExchange;
  /** Of the association. */
  readonly cntlid: number;

  private constructor(bench: Bench, queue: RawConnection, cntlid: number) {
    this.bench = bench;
    this.queue = queue;
    this.cntlid = cntlid;
    const { hostnqn, subnqn, chap } = bench.facts;
    const { key, controllerKey, chosen } = chap!;
    const offered = chosen && { hashes: [chosen.hash], groups: [chosen.group] };
    this.host = new HostExchange({ hostnqn, subnqn, key, controllerKey, ...offered, power }, key);
  }

  /** Connects an admin queue; undefined if the target does not ask to authenticate it. @throws SetupError */
  static async find(bench: Bench): Promise<Locked | undefined> {
    const queue = await bench.initialised();
    const { dw0 } = await expectSetup('Connect', bench.connect(queue), 'cqe');
    return (dw0 >> 16) & AuthReq.required ? new Locked(bench, queue, dw0 & 0xffff) : undefined;
  }

  /** The same where the target has asked before. @throws SetupError */
  static async open(bench: Bench): Promise<Locked> {
    const locked = await Locked.find(bench);
    if (!locked) throw new SetupError('the target asks for no authentication', { code: 'EPROTO' });
    return locked;
  }

  /** Authentication Receive. */
  fetch(): Promise<Outcome> {
    return this.bench.authReceive(this.queue, room);
  }

  /** Authentication Send as a PDU, for what is to leave at once. */
  authSend(message: Buffer): { pdu: Buffer; cid: number } {
    const command = { ...authProtocol, length: message.length };
    return this.queue.capsule(
      { opcode: AdminOpcode.fabrics, fctype: Fctype.authSend },
      { data: message, inCapsule: true, tweak: (sqe) => void authCmd.encode(command, sqe) },
    );
  }

  /** A good AUTH_Negotiate. @returns the challenge @throws SetupError */
  async challenge(): Promise<Buffer> {
    await expectSetup('AUTH_Negotiate', this.bench.authSend(this.queue, this.host.negotiate()), 'cqe');
    return (await expectSetup('the challenge', this.fetch(), 'cqe')).data;
  }

  /** A good reply, not sent yet. @throws SetupError */
  async reply(): Promise<Buffer> {
    return this.host.reply(await this.challenge());
  }

  /** A good Success2, not sent yet. @throws SetupError when the target has not to prove itself */
  async success2(): Promise<Buffer> {
    await expectSetup('the reply', this.bench.authSend(this.queue, await this.reply()), 'cqe');
    const verdict = await expectSetup('Success1', this.fetch(), 'cqe');
    const last = this.host.success(verdict.data);
    if (!last) throw new SetupError('no Success2 to send: --dhchap-ctrl-secret-file asks for one', { code: 'EPROTO' });
    return last;
  }

  /**
   * Judges what a target did with a command or message that must not let the host in.
   * @param fetch whether the answer to the message has to be fetched; else `outcome` may be that answer
   */
  async judge(outcome: Outcome, fetch = true): Promise<Outcome> {
    const answer = fetch && ok().match(outcome) ? await this.fetch() : outcome;
    if (!ok().match(answer)) {
      if (gone(answer) || anyError.match(answer)) return this.locked(describeOutcome(answer));
      return finding(false, describeOutcome(answer));
    }
    const { data } = answer as Extract<Outcome, { kind: 'cqe' }>;
    return isFailure(data) ? this.locked(describeMessage(data)) : finding(false, `answered with ${describeMessage(data)}`);
  }

  /** Looks whether anything passes by now. @param note what the target did before */
  async locked(note: string): Promise<Outcome> {
    const after = await this.bench.getProperty(this.queue, csts);
    if (gone(after) || anyError.match(after)) return finding(true, keptOut, note);
    return finding(false, `${note}; then Property Get: ${describeOutcome(after)}`);
  }
}
