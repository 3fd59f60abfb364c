import { Exit, VioError } from '../../common/errors.js';
import { closeAll } from '../../native/owned-fd.js';
import type { Channel, Message } from './channel.js';

/** What one wait for the peer ended with. */
export type Answer = { kind: 'message'; message: Message } | { kind: 'closed'; error: Error | undefined } | { kind: 'silence' };

/** A channel with the messages that came and were not asked for yet: for one side that asks and waits. */
export class Exchange {
  readonly channel: Channel;
  #arrived: Message[] = [];
  #waiting: ((answer: Answer) => void) | undefined;
  /** Resolves when the channel has ended. */
  readonly ended: Promise<void>;

  constructor(channel: Channel) {
    this.channel = channel;
    let over: () => void = () => {};
    this.ended = new Promise((resolve) => {
      over = resolve;
    });
    channel.start(
      (message) => {
        const waiting = this.#waiting;
        if (waiting) waiting({ kind: 'message', message });
        else this.#arrived.push(message);
      },
      (error) => {
        this.#waiting?.({ kind: 'closed', error });
        over();
      },
    );
  }

  /** The next message, the end of the channel, or silence for `timeout` ms. Who takes a message owns its descriptors. */
  next(timeout: number): Promise<Answer> {
    const message = this.#arrived.shift();
    if (message) return Promise.resolve({ kind: 'message', message });
    if (this.channel.closed) return Promise.resolve({ kind: 'closed', error: this.channel.error });
    return new Promise((resolve) => {
      const done = (answer: Answer): void => {
        clearTimeout(timer);
        this.#waiting = undefined;
        resolve(answer);
      };
      const timer = setTimeout(() => done({ kind: 'silence' }), timeout);
      this.#waiting = done;
    });
  }

  /**
   * As next(), for those who can do nothing without an answer.
   * @param signal ends the wait: the channel is of no use then, since the answer may still come
   * @throws VioError (EPROTO, ECONNRESET, ETIMEDOUT); the signal's reason
   */
  async expect(what: string, timeout: number, signal?: AbortSignal): Promise<Message> {
    const stop = (): void => this.channel.close(signal!.reason as Error);
    signal?.addEventListener('abort', stop, { once: true });
    const answer = await this.next(timeout).finally(() => signal?.removeEventListener('abort', stop));
    if (answer.kind === 'message') return answer.message;
    if (answer.kind === 'silence')
      throw new VioError(`${what}: the ${this.channel.peer} has not answered within ${timeout} ms`, {
        code: 'ETIMEDOUT',
        exit: Exit.timeout,
        hint: 'a back-end that serves one client at a time keeps others waiting',
      });
    throw (
      answer.error ?? new VioError(`${what}: the ${this.channel.peer} closed the connection`, { code: 'ECONNRESET', exit: Exit.damaged })
    );
  }

  close(): void {
    for (const message of this.#arrived) closeAll(message.fds);
    this.#arrived = [];
    this.channel.close();
  }
}
