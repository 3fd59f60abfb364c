import fs from 'node:fs';
import { codeOf, VioError, wrap } from '../common/errors.js';
import { Sysroot } from '../common/sysroot.js';
import { native } from '../native/index.js';
import type { ReadWatch, UnixSocket } from '../native/vhost-user.js';
import { OwnedFd } from './fds.js';
import { kernelSockets } from './list.js';

/** A listening UNIX socket; close() removes its file. */
export class Listener {
  readonly path: string | undefined;
  readonly #fd: OwnedFd;
  #watch: ReadWatch | undefined;

  private constructor(fd: OwnedFd, path: string | undefined) {
    this.#fd = fd;
    this.path = path;
  }

  /**
   * Listens at a path. A socket file that nobody serves is replaced.
   * @param mode permissions of the socket file @throws VioError (EADDRINUSE, …)
   */
  static at(path: string, mode = 0o600): Listener {
    const { vhostUser } = native();
    try {
      try {
        return new Listener(new OwnedFd(vhostUser.listen(path, 16, mode)), path);
      } catch (err) {
        if (codeOf(err) !== 'EADDRINUSE' || !abandoned(path)) throw err;
        fs.unlinkSync(path);
        return new Listener(new OwnedFd(vhostUser.listen(path, 16, mode)), path);
      }
    } catch (err) {
      throw wrap(`listen ${path}`, err, {
        hint: codeOf(err) === 'EADDRINUSE' ? 'another program serves this socket: end it, or choose another path' : undefined,
      });
    }
  }

  /** Takes a listening socket that was inherited (`--fd`). */
  static inherited(fd: number): Listener {
    return new Listener(new OwnedFd(fd), undefined);
  }

  /** Calls back with every connection; the callee owns it. */
  start(onConnect: (fd: OwnedFd) => void): void {
    this.#watch = native().vhostUser.watchReadable(this.#fd.fd, () => {
      for (let fd = native().vhostUser.accept(this.#fd.fd); fd >= 0; fd = native().vhostUser.accept(this.#fd.fd))
        onConnect(new OwnedFd(fd));
    });
  }

  /** The next connection, once; the listener goes on queueing others. */
  next(signal?: AbortSignal): Promise<OwnedFd> {
    return new Promise((resolve, reject) => {
      const stop = (): void => {
        this.#watch?.close();
        this.#watch = undefined;
      };
      const abort = (): void => {
        stop();
        reject(signal!.reason);
      };
      if (signal?.aborted) {
        reject(signal.reason);
        return;
      }
      this.#watch = native().vhostUser.watchReadable(this.#fd.fd, () => {
        const fd = native().vhostUser.accept(this.#fd.fd);
        if (fd < 0) return;
        stop();
        signal?.removeEventListener('abort', abort);
        resolve(new OwnedFd(fd));
      });
      signal?.addEventListener('abort', abort, { once: true });
    });
  }

  close(): void {
    this.#watch?.close();
    this.#watch = undefined;
    if (!this.#fd.open) return;
    this.#fd.close();
    if (this.path !== undefined) fs.rmSync(this.path, { force: true });
  }
}

const LISTENING = 10;

/** Whether a socket file is left over: nobody answers a connection. */
function abandoned(path: string): boolean {
  if (!fs.statSync(path, { throwIfNoEntry: false })?.isSocket())
    throw new VioError(`listen ${path}: a file that is no socket is there`, { code: 'EEXIST', exit: 3 });
  // Connecting can end a back-end, so the kernel's list of sockets is asked first; it does not show other namespaces.
  const { ino } = fs.statSync(path);
  const served = (s: UnixSocket): boolean => s.state === LISTENING && (s.fileInode === ino % 2 ** 32 || s.name === path);
  if (kernelSockets(new Sysroot()).some(served)) return false;
  try {
    fs.closeSync(native().vhostUser.connect(path));
    return false;
  } catch (err) {
    return codeOf(err) === 'ECONNREFUSED';
  }
}
