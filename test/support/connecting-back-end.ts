import { TraceProxy } from '../../src/vhost-user/tools/proxy.js';
import { connect } from '../../src/vhost-user/wire/channel.js';

/**
 * Lets a back-end that serves `backEnd` connect to `to`, as one does that was started as a client, and again whenever a
 * connection has ended.
 */
export class ConnectingBackEnd {
  connections = 0;
  #over = false;
  #proxy: TraceProxy | undefined;
  readonly #done: Promise<void>;

  constructor(backEnd: string, to: string) {
    this.#done = this.#run(backEnd, to);
  }

  async #run(backEnd: string, to: string): Promise<void> {
    while (!this.#over) {
      try {
        const front = await connect(to, 1000);
        this.#proxy = new TraceProxy(front, await connect(backEnd), { connection: 1, since: 0, onRecord: () => {} });
        this.connections++;
        await this.#proxy.done;
      } catch {
        await new Promise((resolve) => setTimeout(resolve, 20)); // nobody listens yet, or any more
      }
    }
  }

  async stop(): Promise<void> {
    this.#over = true;
    this.#proxy?.close();
    await this.#done;
  }
}
