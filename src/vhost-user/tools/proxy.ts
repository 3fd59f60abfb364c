import { native } from '../../native/index.js';
import { OwnedFd } from '../../native/owned-fd.js';
import { Channel, type Message } from '../wire/channel.js';
import { describe } from '../wire/describe.js';
import { describeFd, type FdInfo } from '../wire/fds.js';
import { type ChannelName, encodeMessage, Flag, messageById, messageByName } from '../wire/messages.js';

/** One message that passed the proxy, in the order of passing. */
export interface TraceRecord {
  /** Seconds since the proxy started. */
  t: number;
  /** Number of the connection, from 1. */
  connection: number;
  channel: ChannelName;
  from: 'front-end' | 'back-end';
  /** name of the message */
  op: string;
  kind: 'request' | 'reply';
  /** the sender asked for an acknowledgement */
  needReply: boolean;
  /** decoded payload */
  fields: Record<string, unknown>;
  /** descriptors that came with the message */
  fds: FdInfo[];
  /** of a reply: microseconds since its request */
  latencyUs?: number;
  /** what does not conform to the protocol */
  warnings: string[];
  /** header and payload in hexadecimal; `--read` decodes them again */
  bytes: string;
}

/** The end of a connection. */
export interface TraceEnd {
  /** seconds since the proxy started */
  t: number;
  /** number of the connection, from 1 */
  connection: number;
  op: 'disconnect';
  channel: ChannelName;
  from: 'front-end' | 'back-end';
  /** why it ended, if not in order */
  error?: string;
}

export interface ProxyOptions {
  connection: number;
  /** performance.now() that `t` counts from. */
  since: number;
  onRecord: (record: TraceRecord | TraceEnd) => void;
  /** Device type whose own feature bits are named. */
  device?: string | undefined;
}

const SET_BACKEND_REQ_FD = messageByName('main', 'SET_BACKEND_REQ_FD').id;
const mostPayload = 1 << 16;

/**
 * Stands between a front-end and a back-end: passes every message on as it is, with its descriptors, on the main channel and
 * on the back-end's own, whose socket it splices when SET_BACKEND_REQ_FD passes. The data path is not touched: rings and
 * buffers are shared memory between the two.
 */
export class TraceProxy {
  readonly #options: ProxyOptions;
  readonly #channels = new Set<Channel>();
  #ended: () => void = () => {};
  /** Resolves when the main connection is over. */
  readonly done: Promise<void>;

  /** Takes both sockets. The back-end may be a channel that was used before (hand-over). */
  constructor(front: OwnedFd, backEnd: Channel | OwnedFd, options: ProxyOptions) {
    this.#options = options;
    this.done = new Promise((resolve) => {
      this.#ended = resolve;
    });
    this.#splice(
      'main',
      this.#channel(front, 'front-end'),
      backEnd instanceof OwnedFd ? this.#channel(backEnd, 'back-end') : backEnd,
      () => {
        this.close();
        this.#ended();
      },
    );
  }

  close(): void {
    for (const channel of [...this.#channels]) channel.close();
  }

  #channel(fd: OwnedFd, peer: string): Channel {
    return new Channel(fd, { peer, maxPayload: mostPayload, stall: 60_000, sendTimeout: 60_000 });
  }

  #splice(name: ChannelName, front: Channel, backEnd: Channel, onEnd?: () => void): void {
    const pending: { id: number; at: number }[] = [];
    let over = false;
    const end = (from: TraceEnd['from'], other: Channel) => (error: Error | undefined) => {
      other.close();
      if (over) return;
      over = true;
      const { since, connection } = this.#options;
      const t = (performance.now() - since) / 1000;
      this.#options.onRecord({ t, connection, op: 'disconnect', channel: name, from, ...(error && { error: error.message }) });
      this.#channels.delete(front);
      this.#channels.delete(backEnd);
      onEnd?.();
    };
    const pass = (from: TraceRecord['from'], to: Channel) => (message: Message) => {
      this.#record(name, from, message, pending);
      if (name === 'main' && from === 'front-end' && message.id === SET_BACKEND_REQ_FD && message.fds.length > 0) this.#spliceBack(message);
      to.send(encodeMessage(message.id, message.flags, message.payload), message.fds);
    };
    this.#channels.add(front).add(backEnd);
    front.start(pass('front-end', backEnd), end('front-end', backEnd));
    backEnd.start(pass('back-end', front), end('back-end', front));
  }

  /** Keeps the front-end's socket and gives the back-end one of ours. */
  #spliceBack(message: Message): void {
    const [ours, theirs] = native().vhostUser.socketPair();
    const front = message.fds[0]!;
    message.fds[0] = new OwnedFd(theirs);
    this.#splice('back', this.#channel(front, 'front-end'), this.#channel(new OwnedFd(ours), 'back-end'));
  }

  #record(channel: ChannelName, from: TraceRecord['from'], message: Message, pending: { id: number; at: number }[]): void {
    const { since, connection, device } = this.#options;
    const described = describe(channel, message, message.fds.length, device);
    let latencyUs: number | undefined;
    if (described.kind === 'reply') {
      const index = pending.findIndex((p) => p.id === message.id);
      if (index < 0) described.warnings.push('a reply that no request waits for');
      else latencyUs = Math.round((message.at - pending.splice(index, 1)[0]!.at) * 1000);
    } else if (message.flags & Flag.needReply || messageById(channel, message.id)?.reply) {
      pending.push({ id: message.id, at: message.at });
      if (pending.length > 1024) pending.shift();
    }
    this.#options.onRecord({
      t: (message.at - since) / 1000,
      connection,
      channel,
      from,
      ...described,
      fds: message.fds.map((fd) => describeFd(fd.fd)),
      ...(latencyUs !== undefined && { latencyUs }),
      bytes: encodeMessage(message.id, message.flags, message.payload).toString('hex'),
    });
  }
}
