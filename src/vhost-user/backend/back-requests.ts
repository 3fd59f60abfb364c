import { Exit, VioError } from '../../common/errors.js';
import { closeAll, OwnedFd } from '../../native/owned-fd.js';
import { Channel, type Message, protocolError } from '../wire/channel.js';
import { encodeMessage, Flag, messageByName, none, number } from '../wire/messages.js';

interface Pending {
  name: string;
  id: number;
  payload: Uint8Array;
  fd: OwnedFd | undefined;
  resolve: (status: bigint) => void;
  reject: (error: Error) => void;
}

/**
 * The back-end's requests to the front-end: one at a time, in order. A request waits for its acknowledgement here and
 * nowhere else; the main channel goes on meanwhile, because the front-end may have to be answered there first.
 */
export class BackRequests {
  readonly #channel: Channel;
  readonly #ack: () => boolean;
  readonly #timeout: number;
  #queue: Pending[] = [];
  #current: Pending | undefined;
  #timer: NodeJS.Timeout | undefined;

  /** @param ack whether REPLY_ACK is negotiated: without it success is not known and assumed */
  constructor(fd: OwnedFd, ack: () => boolean, timeout = 5000) {
    this.#ack = ack;
    this.#timeout = timeout;
    this.#channel = new Channel(fd, { peer: 'front-end' });
    this.#channel.start(
      (message) => this.#answered(message),
      (error) => this.#fail(error ?? new VioError('the front-end closed the back-end channel', { code: 'ECONNRESET' })),
    );
  }

  get closed(): boolean {
    return this.#channel.closed;
  }

  /** Sends a request. @param fd becomes the channel's @returns the status: 0 is success @throws VioError without an answer */
  request(name: string, values: Record<string, unknown>, fd?: OwnedFd): Promise<bigint> {
    const def = messageByName('back', name);
    const payload = (def.request ?? none).encode(values as never);
    return new Promise((resolve, reject) => {
      this.#queue.push({ name, id: def.id, payload, fd, resolve, reject });
      this.#next();
    });
  }

  close(): void {
    this.#channel.close();
  }

  #next(): void {
    if (this.#current) return;
    const next = this.#queue.shift();
    if (!next) return;
    if (this.#channel.closed) {
      next.fd?.close();
      next.reject(new VioError(`${next.name}: the back-end channel is closed`, { code: 'ECONNRESET' }));
      this.#next();
      return;
    }
    const ack = this.#ack();
    this.#current = next;
    this.#channel.send(encodeMessage(next.id, Flag.version | (ack ? Flag.needReply : 0), next.payload), next.fd ? [next.fd] : []);
    if (!ack) {
      this.#done()?.resolve(0n);
      return;
    }
    this.#timer = setTimeout(() => {
      const error = new VioError(`${next.name}: no answer from the front-end within ${this.#timeout} ms`, {
        code: 'ETIMEDOUT',
        exit: Exit.timeout,
      });
      this.#channel.close(error); // a late answer would be taken for the next request's
    }, this.#timeout);
  }

  #done(): Pending | undefined {
    clearTimeout(this.#timer);
    const current = this.#current;
    this.#current = undefined;
    if (current) setImmediate(() => this.#next());
    return current;
  }

  #answered(message: Message): void {
    closeAll(message.fds);
    const { id, flags, payload } = message;
    const wanted = Flag.version | Flag.reply;
    if (this.#current?.id !== id || (flags & (Flag.versionMask | Flag.reply)) !== wanted || payload.length !== number.size) {
      this.#channel.close(protocolError(`the front-end answers request ${id} with flags 0x${flags.toString(16)}, ${payload.length} bytes`));
      return;
    }
    this.#done()!.resolve(number.decode(payload).value);
  }

  #fail(error: Error): void {
    this.#done()?.reject(error);
    for (const { fd, reject } of this.#queue) {
      fd?.close();
      reject(error);
    }
    this.#queue = [];
  }
}
