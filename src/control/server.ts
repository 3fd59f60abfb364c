import { Exit, VioError } from '../common/errors.js';
import { native } from '../native/index.js';
import { type ListenOptions, listenAt, watchConnections } from '../native/listen.js';
import { closeAll, OwnedFd } from '../native/owned-fd.js';
import {
  checkHello,
  errorLine,
  helloLine,
  idleTime,
  maxAnswerFds,
  maxClients,
  maxRequest,
  parseRequest,
  protocolError,
} from './protocol.js';
import { Stream } from './stream.js';

/** A process at the other end, as the kernel knows it (SO_PEERCRED). */
export interface Peer {
  pid: number;
  uid: number;
  gid: number;
}

/** A request for a handler. Descriptors that it does not take are closed after it. */
export interface Asked {
  op: string;
  args: Record<string, unknown>;
  fds: OwnedFd[];
  peer: Peer;
}

/** What a handler answers; its descriptors stay its own. */
export interface Answer {
  result: unknown;
  fds?: readonly number[];
}

/** What is served. */
export interface Service {
  /** The command that serves, without `vioctl`: both ends must name the same one. */
  name: string;
  /** Descriptors that a request may bring. */
  requestFds?: number;
  /** Longest request, in bytes with its newline; maxRequest unless given. */
  request?: number;
  /** @throws VioError, which the client gets whole */
  handle(asked: Asked): Answer | Promise<Answer>;
}

export interface ServerOptions {
  listen?: Omit<ListenOptions, 'mode'>;
  /** Clients at a time. */
  clients?: number;
  /** Milliseconds until a whole request must be there. */
  idle?: number;
  /** The user who may use the socket, besides root. */
  uid?: number;
}

/** Whether a process may give orders: it could do the same to the server with signals and ptrace. */
export const mayUse = (peer: Peer, uid: number): boolean => peer.uid === uid || peer.uid === 0;

const busy = (clients: number): VioError =>
  new VioError(`the server has ${clients} other clients`, { code: 'EBUSY', hint: 'try again in a moment' });

/** Serves a control socket that only its user and root can use. */
export class ControlServer {
  readonly path: string;
  readonly #service: Service;
  readonly #options: Required<Omit<ServerOptions, 'listen'>>;
  readonly #listener: OwnedFd;
  readonly #watch: { close(): void };
  /** In the order in which they came. */
  readonly #clients = new Set<Connection>();

  /** Listens at `path`; a socket that nobody serves is replaced. @throws VioError (EADDRINUSE; EEXIST for a file that is no socket) */
  constructor(path: string, service: Service, { listen, ...options }: ServerOptions = {}) {
    this.path = path;
    this.#service = service;
    this.#options = { clients: maxClients, idle: idleTime, uid: process.geteuid!(), ...options };
    this.#listener = listenAt(path, { ...listen, mode: 0o600 });
    this.#watch = watchConnections(this.#listener.fd, (fd) => this.#connected(new OwnedFd(fd)));
  }

  /** Ends all connections and removes the socket. */
  close(): void {
    this.#watch.close();
    for (const client of [...this.#clients]) client.close();
    this.#listener.close();
  }

  #connected(fd: OwnedFd): void {
    const { clients, idle, uid } = this.#options;
    let peer: Peer;
    let client: Connection;
    try {
      peer = native().vhostUser.peer(fd.fd);
      client = new Connection(fd, peer, this.#service, idle, () => this.#clients.delete(client));
    } catch (err) {
      fd.close();
      throw err;
    }
    if (!mayUse(peer, uid)) {
      const message = `user ${peer.uid} may not use this socket: it is for user ${uid} and root`;
      client.refuse(new VioError(message, { code: 'EACCES', exit: Exit.permission }));
    } else if (this.#clients.size >= clients && !this.#makeRoom()) client.refuse(busy(clients));
    else this.#clients.add(client);
  }

  /** Ends the connection that has asked for nothing for the longest time, first of all one that has not said hello. */
  #makeRoom(): boolean {
    const all = [...this.#clients];
    const idle = all.find(({ state }) => state === 'new') ?? all.find(({ state }) => state === 'idle');
    idle?.refuse(busy(this.#options.clients));
    return idle !== undefined;
  }
}

/** One client. */
class Connection {
  state: 'new' | 'idle' | 'busy' = 'new';
  readonly #stream: Stream;
  readonly #peer: Peer;
  readonly #service: Service;
  readonly #idle: number;
  readonly #onClose: () => void;
  #timer: NodeJS.Timeout | undefined;

  constructor(fd: OwnedFd, peer: Peer, service: Service, idle: number, onClose: () => void) {
    this.#peer = peer;
    this.#service = service;
    this.#idle = idle;
    this.#onClose = onClose;
    this.#stream = new Stream(
      fd,
      { line: service.request ?? maxRequest, fds: service.requestFds ?? 0 },
      {
        line: (text, fds) => void this.#line(text, fds),
        end: (error) => {
          if (error) this.refuse(error);
          // A client may end its half after a request and still read the answer.
          else if (this.state !== 'busy') this.close();
        },
      },
    );
    this.#wait();
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#stream.close();
    this.#onClose();
  }

  /** Tells why, and ends the connection. */
  refuse(error: VioError): void {
    this.#stream.last(errorLine(error));
    this.close();
  }

  #wait(): void {
    this.#timer = setTimeout(() => this.refuse(new VioError(`no request within ${this.#idle} ms`, { code: 'ETIMEDOUT' })), this.#idle);
  }

  async #line(text: string, fds: OwnedFd[]): Promise<void> {
    clearTimeout(this.#timer);
    const first = this.state === 'new';
    this.state = 'busy';
    try {
      if (first) await this.#greet(text, fds);
      else await this.#answer(text, fds);
    } catch {
      this.close(); // the client is gone, or takes nothing
    }
    if (this.#stream.closed) return;
    if (this.#stream.ended) {
      this.close();
      return;
    }
    this.state = 'idle';
    this.#wait();
    this.#stream.expect();
  }

  async #greet(text: string, fds: OwnedFd[]): Promise<void> {
    try {
      if (fds.length > 0) throw protocolError('descriptors came that nobody asked for');
      checkHello(text, this.#service.name);
    } catch (err) {
      this.refuse(err as VioError);
      return;
    } finally {
      closeAll(fds);
    }
    await this.#stream.send(helloLine(this.#service.name));
  }

  async #answer(text: string, fds: OwnedFd[]): Promise<void> {
    let line: string;
    let given: readonly number[] = [];
    try {
      const { op, args, fds: announced } = parseRequest(text);
      if (announced !== fds.length) throw protocolError(`${fds.length} descriptors came, ${announced} were announced`);
      const answer = await this.#service.handle({ op, args, fds, peer: this.#peer });
      given = answer.fds ?? [];
      if (given.length > maxAnswerFds) throw new VioError(`${given.length} descriptors are too many for one answer`, { code: 'E2BIG' });
      line = JSON.stringify({ result: answer.result ?? null, fds: given.length });
    } catch (err) {
      line = errorLine(err);
      given = [];
    } finally {
      closeAll(fds);
    }
    await this.#stream.send(line, given);
  }
}
