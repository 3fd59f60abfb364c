import { now } from '../common/clock.js';
import { codeOf, Exit, VioError, wrap } from '../common/errors.js';
import { native } from '../native/index.js';
import { closeAll, OwnedFd } from '../native/owned-fd.js';
import {
  controlVersion,
  fromWire,
  helloLine,
  maxAnswer,
  maxAnswerFds,
  parseLine,
  protocolError,
  versionError,
  versionOf,
} from './protocol.js';
import { pause, Stream } from './stream.js';

export interface ClientOptions {
  /** The command that serves, as its Service names it. */
  service: string;
  /** Milliseconds for a connection, and for each answer. */
  timeout?: number;
  /** What to tell of a connection that cannot be made. */
  unreachable?: (err: unknown) => VioError;
}

/** What a server answered; the caller owns the descriptors. */
export interface Reply<T> {
  result: T;
  fds: OwnedFd[];
}

const defaultTimeout = 10_000;
/** How often a server that ends the connection before it knows what is asked of it is called again, and after how many milliseconds. */
const attempts = 5;
const attemptAfter = 20;

interface Line {
  text: string;
  fds: OwnedFd[];
}

/** A client of a control socket: asks, and waits for the answer. */
export class ControlClient {
  readonly #path: string;
  readonly #timeout: number;
  readonly #stream: Stream;
  #line: Line | undefined;
  #ended: { error: VioError | undefined } | undefined;
  #wake: () => void = () => {};

  private constructor(path: string, fd: OwnedFd, timeout: number) {
    this.#path = path;
    this.#timeout = timeout;
    this.#stream = new Stream(
      fd,
      { line: maxAnswer, fds: maxAnswerFds },
      {
        line: (text, fds) => {
          if (this.#line) closeAll(fds);
          else this.#line = { text, fds };
          // Why a server ends an idle connection comes unasked, and answers the next request.
          this.#stream.expect();
          this.#wake();
        },
        end: (error) => {
          this.#ended = { error };
          this.#wake();
        },
      },
    );
  }

  /** Connects and exchanges versions. @throws VioError */
  static async connect(path: string, options: ClientOptions): Promise<ControlClient> {
    const timeout = options.timeout ?? defaultTimeout;
    const until = now() + timeout;
    for (let attempt = 1; ; attempt++) {
      const client = new ControlClient(path, await open(path, until, options), timeout);
      try {
        await client.#greet(options.service, Math.max(0, until - now()));
        return client;
      } catch (err) {
        client.close();
        if (attempt >= attempts || !['ECONNRESET', 'EBUSY'].includes(codeOf(err) ?? '')) throw err;
      }
      await pause(attemptAfter);
    }
  }

  /**
   * Sends one request and waits for its answer.
   * @param fds travel with it and are closed here
   * @param timeout milliseconds
   * @throws VioError: what the server answered, or why it did not
   */
  async request<T>(op: string, args: object = {}, fds: readonly OwnedFd[] = [], timeout = this.#timeout): Promise<Reply<T>> {
    const line = await this.#exchange(
      JSON.stringify({ op, args, fds: fds.length }),
      fds.map(({ fd }) => fd),
      timeout,
    ).finally(() => closeAll(fds));
    try {
      const answer = this.#parse(line.text);
      if (answer.error !== undefined) throw fromWire(answer.error);
      if (answer.fds !== line.fds.length)
        throw new VioError(`${this.#path}: ${line.fds.length} of ${answer.fds} descriptors came`, {
          code: 'EPROTO',
          exit: Exit.damaged,
          hint: 'ulimit -n may be too low',
        });
      return { result: answer.result as T, fds: line.fds };
    } catch (err) {
      closeAll(line.fds);
      throw err;
    }
  }

  close(): void {
    this.#stream.close();
    closeAll(this.#line?.fds ?? []);
    this.#line = undefined;
    this.#ended ??= { error: undefined };
    this.#wake();
  }

  async #greet(service: string, timeout: number): Promise<void> {
    const { text, fds } = await this.#exchange(helloLine(service), [], timeout);
    closeAll(fds);
    const hello = this.#parse(text);
    if (versionOf(hello) !== controlVersion) {
      const { message, code, exit, hint } = versionError(versionOf(hello), controlVersion);
      throw new VioError(`${this.#path}: ${message}`, { code, exit, hint });
    }
    if (hello.error === undefined) return;
    const { message, code, exit, hint, details } = fromWire(hello.error);
    throw new VioError(`${this.#path}: ${message}`, { code, exit, hint, details });
  }

  #parse(text: string): Record<string, unknown> {
    try {
      return parseLine(text);
    } catch {
      throw protocolError(`${this.#path}: the answer is no JSON`);
    }
  }

  async #exchange(text: string, fds: readonly number[], timeout: number): Promise<Line> {
    try {
      await this.#stream.send(text, fds);
    } catch (err) {
      // A server that hung up may have said why: that is read below.
      if (codeOf(err) !== 'EPIPE' && codeOf(err) !== 'ECONNRESET') throw wrap(this.#path, err);
    }
    if (!this.#line && !this.#ended) await this.#woken(timeout);
    const line = this.#line;
    this.#line = undefined;
    if (line) return line;
    if (this.#ended?.error) throw protocolError(`${this.#path}: ${this.#ended.error.message}`);
    if (this.#ended) throw new VioError(`${this.#path}: the server ended the connection`, { code: 'ECONNRESET', exit: Exit.damaged });
    this.close(); // the answer may still come: the connection is of no use
    throw new VioError(`${this.#path}: no answer within ${Math.ceil(timeout)} ms`, { code: 'ETIMEDOUT', exit: Exit.timeout });
  }

  #woken(timeout: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, timeout);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}

/** Connects, also while the server's queue of callers is full. @throws VioError */
async function open(path: string, until: number, { unreachable }: ClientOptions): Promise<OwnedFd> {
  for (;;) {
    try {
      return new OwnedFd(native().vhostUser.connect(path));
    } catch (err) {
      if (codeOf(err) !== 'EAGAIN') throw unreachable?.(err) ?? wrap(`connect ${path}`, err);
      if (now() > until)
        throw new VioError(`connect ${path}: its queue of callers stays full`, { code: 'EBUSY', exit: Exit.timeout, cause: err });
    }
    await pause(attemptAfter);
  }
}

/** Connects for one request. @throws VioError */
export async function ask<T>(path: string, options: ClientOptions, op: string, args: object = {}): Promise<Reply<T>> {
  const client = await ControlClient.connect(path, options);
  try {
    return await client.request<T>(op, args);
  } finally {
    client.close();
  }
}
