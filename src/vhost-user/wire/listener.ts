import type fs from 'node:fs';
import { Sysroot } from '../../common/sysroot.js';
import { native } from '../../native/index.js';
import { checkListen, type ListenOptions, listenAt, watchConnections } from '../../native/listen.js';
import { OwnedFd } from '../../native/owned-fd.js';
import type { UnixSocket } from '../../native/vhost-user.js';
import { kernelSockets, stateListening } from './sockets.js';

/** Who may connect to a socket: mode, user and group of its file. */
export type SocketAccess = Pick<ListenOptions, 'mode' | 'uid' | 'gid'>;

/** A listening UNIX socket; close() removes its file. */
export class Listener {
  readonly path: string | undefined;
  readonly #fd: OwnedFd;
  #watch: { close(): void } | undefined;
  /** Of onWaiting(). */
  #waiting: { close(): void } | undefined;

  private constructor(fd: OwnedFd, path: string | undefined) {
    this.#fd = fd;
    this.path = path;
  }

  /**
   * Listens at a path. A socket file that nobody serves is replaced.
   * @param access of the socket file: only its user unless given @throws VioError (EADDRINUSE, …)
   */
  static at(path: string, { mode, uid, gid }: SocketAccess = {}): Listener {
    return new Listener(listenAt(path, { ...(mode !== undefined && { mode }), uid, gid, served }), path);
  }

  /** Whether at() can be expected to succeed; nothing is changed. @throws VioError as at() does */
  static check(path: string): void {
    checkListen(path, { served });
  }

  /** Takes a listening socket that was inherited. Its file stays. */
  static inherited(fd: OwnedFd): Listener {
    return new Listener(fd, undefined);
  }

  /** Calls back with every connection; the callee owns it. */
  start(onConnect: (fd: OwnedFd) => void): void {
    this.#watch = watchConnections(this.#fd.fd, (fd) => onConnect(new OwnedFd(fd)));
  }

  /** The next connection, once; the listener goes on queueing others. @throws what accept fails with; the signal's reason */
  next(signal?: AbortSignal): Promise<OwnedFd> {
    return new Promise((resolve, reject) => {
      const stop = (): void => {
        this.#watch?.close();
        this.#watch = undefined;
        signal?.removeEventListener('abort', abort);
      };
      const abort = (): void => {
        stop();
        reject(signal!.reason);
      };
      if (signal?.aborted) {
        reject(signal.reason);
        return;
      }
      const connected = (fd: number): void => {
        stop();
        resolve(new OwnedFd(fd));
      };
      const failed = (err: unknown): void => {
        stop();
        reject(err);
      };
      this.#watch = watchConnections(this.#fd.fd, connected, failed);
      signal?.addEventListener('abort', abort, { once: true });
    });
  }

  /** Calls back once, as soon as somebody waits to be taken. */
  onWaiting(callback: () => void): { close(): void } {
    const watch = native().vhostUser.watchReadable(this.#fd.fd, () => {
      this.#stopWaiting();
      callback();
    });
    this.#waiting = watch;
    return { close: () => this.#stopWaiting() };
  }

  #stopWaiting(): void {
    this.#waiting?.close();
    this.#waiting = undefined;
  }

  close(): void {
    this.#stopWaiting();
    this.#watch?.close();
    this.#watch = undefined;
    this.#fd.close();
  }
}

/** Whether the kernel lists a listener for a socket file: connecting could end a back-end. Other namespaces do not show. */
export function served(path: string, { ino }: fs.Stats): boolean {
  const serves = (s: UnixSocket): boolean => s.state === stateListening && (s.fileInode === ino % 2 ** 32 || s.name === path);
  return kernelSockets(new Sysroot()).some(serves);
}
