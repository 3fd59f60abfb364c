/** DH-HMAC-CHAP for the native host, which connects in threads of its own: the keys and the exchange are here. */
import { native } from '../../native/index.js';
import type { AuthenticatorHandle, ExchangeHandle } from '../../native/nvme-host.js';
import { power } from '../auth/dh.js';
import { authenticate, mustAuthenticate } from '../auth/host.js';
import { AdminOpcode, authCmd, authProtocol, decodeStatus, Fctype, sqe as sqeTable } from '../wire/index.js';
import type { ControllerOptions } from './controller.js';
import { NvmeError } from './errors.js';

/** Errno of EACCES: what a connection fails with whose authentication did. */
const accessDenied = 13;

/** Authenticates every queue that a native host connects, until it is closed. */
export class NativeAuthenticator {
  readonly handle: AuthenticatorHandle;
  readonly #options: ControllerOptions;
  /** Why the last exchange failed: what the native host tells has only an errno. */
  failure: Error | undefined;

  constructor(options: ControllerOptions) {
    this.#options = options;
    this.handle = native().nvmeHost.authenticatorNew();
    void this.#serve();
  }

  close(): void {
    native().nvmeHost.authenticatorClose(this.handle);
  }

  async #serve(): Promise<void> {
    for (;;) {
      const exchange = await native().nvmeHost.authenticatorNext(this.handle);
      if (!exchange) return;
      void this.#run(exchange);
    }
  }

  async #run(exchange: ExchangeHandle): Promise<void> {
    try {
      await this.#authenticate(exchange);
      this.failure = undefined;
      exchange.end(0);
    } catch (err) {
      // what happened to the connection, the native host tells itself
      if ((err as NodeJS.ErrnoException).syscall !== 'authenticate') this.failure = err as Error;
      exchange.end(accessDenied);
    }
  }

  async #authenticate(exchange: ExchangeHandle): Promise<void> {
    const { hostnqn, subnqn, chap } = this.#options;
    if (!mustAuthenticate(exchange.qid, exchange.authreq, chap?.controllerKey !== undefined)) return;
    const run = async (fctype: number, data: Buffer, toHost: boolean): Promise<Buffer> => {
      const sqe = sqeTable.encode({ opcode: AdminOpcode.fabrics, fctype });
      const { status, data: answer } = await exchange.run(authCmd.encode({ ...authProtocol, length: data.length }, sqe), data, toHost);
      if (status !== 0) throw new NvmeError('authentication', decodeStatus(status << 1), 0, 'admin');
      return answer;
    };
    const transport = {
      send: async (message: Buffer) => void (await run(Fctype.authSend, message, false)),
      receive: (size: number) => run(Fctype.authReceive, Buffer.alloc(size), true),
    };
    await authenticate(transport, { ...chap, hostnqn, subnqn, key: chap?.key, power });
  }
}
