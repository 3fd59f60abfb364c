import { native } from '../../native/index.js';
import { closeAll, OwnedFd } from '../../native/owned-fd.js';
import { keepSize } from '../shmem/regions.js';
import { looksLikeBlock } from '../tools/probe.js';
import { Channel } from '../wire/channel.js';
import { Exchange } from '../wire/exchange.js';
import { protocolMask, VirtioF } from '../wire/features.js';
import { encodeMessage, Flag, messageByName, none, number } from '../wire/messages.js';
import { statusText } from '../wire/status.js';

/** What a back-end did with a message. */
export type Reaction =
  | { kind: 'status'; status: bigint }
  | { kind: 'reply'; payload: Buffer; flags: number; id: number }
  | { kind: 'closed' }
  | { kind: 'silence' };

/** A reaction for reports. */
export function reactionText(r: Reaction): string {
  if (r.kind === 'status') return r.status === 0n ? 'accepted (reply 0)' : `refused (${statusText(r.status)})`;
  if (r.kind === 'reply') return `reply of ${r.payload.length} bytes`;
  return r.kind === 'closed' ? 'connection closed' : 'no answer';
}

const wantedFeatures = [
  ...['MQ', 'REPLY_ACK', 'BACKEND_REQ', 'CONFIG', 'BACKEND_SEND_FD', 'CONFIGURE_MEM_SLOTS', 'SHMEM', 'RESET_DEVICE'],
  ...['LOG_SHMFD', 'INFLIGHT_SHMFD'],
];
/** Bytes of a configuration space that every block back-end has (virtio 1.3, up to write zeroes). */
const blockConfig = 60;
export const memorySize = 1 << 21;
export const memoryUva = 0x7f0000000000n;

/** One connection of the conformance run: sends anything, well-formed or not, and sees every reaction. */
export class CheckSession {
  readonly #exchange: Exchange;
  /** How long an answer may take (ms). */
  readonly timeout: number;
  readonly #connect: () => Promise<OwnedFd>;
  #again: CheckSession | undefined;
  features = 0n;
  protocol = 0n;
  acked = 0n;
  readonly memory = new OwnedFd(native().vhostUser.memfd('vioctl-check', memorySize, keepSize));

  /** @param timeout how long an answer may take (ms) @param connect makes another connection to the same back-end */
  constructor(fd: OwnedFd, timeout: number, connect: () => Promise<OwnedFd>) {
    this.timeout = timeout;
    this.#connect = connect;
    this.#exchange = new Exchange(new Channel(fd, { peer: 'back-end', maxPayload: 65536 }));
  }

  get socket(): number {
    return this.#exchange.channel.fd;
  }

  has(feature: string): boolean {
    return (this.acked & protocolMask(feature)) !== 0n;
  }

  close(): void {
    this.#again?.close();
    this.#exchange.close();
    this.memory.close();
  }

  /** Ends this connection and makes another one, negotiated anew. The memory stays, as that of a VMM does. @throws VioError */
  async reconnect(): Promise<CheckSession> {
    this.#exchange.close();
    this.#again = new CheckSession(await this.#connect(), this.timeout, this.#connect);
    await this.#again.negotiate();
    return this.#again;
  }

  /** Virtio features that negotiate() has acknowledged. */
  get ackedFeatures(): bigint {
    return this.features & (VirtioF.version1 | VirtioF.protocolFeatures);
  }

  /** Whether it is a block device, by its features and its configuration space. */
  async isBlock(): Promise<boolean> {
    if (!this.has('CONFIG')) return false;
    const size = blockConfig;
    const r = await this.request('GET_CONFIG', { offset: 0, size, flags: 0, data: new Uint8Array(size) });
    return r.kind === 'reply' && r.payload.length === 12 + size && looksLikeBlock(this.features, r.payload.subarray(12));
  }

  /** A request whose reply brings descriptors, which the caller closes. */
  async withFds(id: number, payload: Uint8Array): Promise<{ reaction: Reaction; fds: OwnedFd[] }> {
    this.raw(id, Flag.version, payload);
    const answer = await this.#exchange.next(this.timeout);
    if (answer.kind !== 'message') return { reaction: { kind: answer.kind }, fds: [] };
    const { payload: reply, flags, id: of, fds } = answer.message;
    return { reaction: { kind: 'reply', payload: reply, flags, id: of }, fds };
  }

  /** A descriptor of its own for a message. */
  memfd(): OwnedFd {
    return new OwnedFd(native().vhostUser.dup(this.memory.fd));
  }
  event(): OwnedFd {
    return new OwnedFd(native().common.eventfd());
  }

  bytes(data: Uint8Array, fds: OwnedFd[] = []): void {
    this.#exchange.channel.send(Buffer.from(data), fds);
  }

  raw(id: number, flags: number, payload: Uint8Array, fds: OwnedFd[] = []): void {
    this.bytes(encodeMessage(id, flags, payload), fds);
  }

  /** The next thing that the back-end does. @param ack an eight-byte reply is an acknowledgement */
  async reaction(ack: boolean, timeout = this.timeout): Promise<Reaction> {
    const answer = await this.#exchange.next(timeout);
    if (answer.kind !== 'message') return { kind: answer.kind };
    const { payload, flags, id, fds } = answer.message;
    closeAll(fds);
    return ack && payload.length === number.size
      ? { kind: 'status', status: number.decode(payload).value }
      : { kind: 'reply', payload, flags, id };
  }

  /** A request of the table: with an acknowledgement where there is no reply of its own and one can be had. */
  async request(name: string, values: Record<string, unknown> = {}, fds: OwnedFd[] = []): Promise<Reaction> {
    const def = messageByName('main', name);
    const payload = (def.request ?? none).encode(values as never);
    const own = def.reply !== undefined && def.replyIf === undefined;
    return this.send(def.id, payload, fds, own);
  }

  /** Any payload under a request's number; without REPLY_ACK a following GET_FEATURES shows whether the peer went on. */
  async send(id: number, payload: Uint8Array, fds: OwnedFd[] = [], own = false, flags: number = Flag.version): Promise<Reaction> {
    const ack = !own && this.has('REPLY_ACK');
    this.raw(id, flags | (ack ? Flag.needReply : 0), payload, fds);
    if (own || ack) return this.reaction(ack);
    const condition = await this.condition();
    if (condition === 'stuck') throw new Error('no answer any more');
    return condition === 'alive' ? { kind: 'silence' } : { kind: 'closed' };
  }

  /** Whether the back-end still answers on this connection, has closed it, or does neither. */
  async condition(): Promise<'alive' | 'closed' | 'stuck'> {
    const reaction = await this.request('GET_FEATURES');
    if (reaction.kind === 'closed') return 'closed';
    return reaction.kind === 'reply' && reaction.id === 1 ? 'alive' : 'stuck';
  }

  async number(name: string): Promise<bigint> {
    const r = await this.request(name);
    if (r.kind !== 'reply') throw new Error(`${name}: ${reactionText(r)}`);
    return number.decode(r.payload).value;
  }

  /** Features, protocol features, owner: what every front-end does first. */
  async negotiate(): Promise<void> {
    this.features = await this.number('GET_FEATURES');
    if ((this.features & VirtioF.protocolFeatures) !== 0n) {
      this.protocol = await this.number('GET_PROTOCOL_FEATURES');
      const acked = this.protocol & protocolMask(...wantedFeatures);
      this.raw(16, Flag.version, number.encode({ value: acked }));
      this.acked = acked;
    }
    this.raw(3, Flag.version, new Uint8Array(0));
    await this.request('SET_FEATURES', { value: this.ackedFeatures });
  }

  region(over: Record<string, bigint> = {}): Record<string, bigint> {
    return { gpa: 0n, size: BigInt(memorySize), uva: memoryUva, offset: 0n, ...over };
  }

  /** SET_MEM_TABLE with one good region. */
  async giveMemory(): Promise<Reaction> {
    return this.request('SET_MEM_TABLE', { count: 1, regions: [this.region()] }, [this.memfd()]);
  }
}
