import fs from 'node:fs';
import { dirname } from 'node:path';
import { codeOf, Exit, VioError, wrap } from '../common/errors.js';
import { native } from './index.js';
import { OwnedFd } from './owned-fd.js';

/** How to listen. */
export interface ListenOptions {
  /** Permissions of the socket file. */
  mode?: number | undefined;
  /** User and group of the socket file; those of the process unless given. */
  uid?: number | undefined;
  gid?: number | undefined;
  /** Whether somebody serves the socket file, where that can be known without connecting, which is an event for a server. */
  served?: (path: string, stat: fs.Stats) => boolean;
}

/** Callers that wait to be taken. */
const backlog = 16;
/** chown(2): leave a user or group as it is. */
const keepId = 2 ** 32 - 1;

/** A listening UNIX socket and its file. */
export class ListeningSocket extends OwnedFd {
  readonly #path: string;
  readonly #file: fs.BigIntStats | undefined;

  constructor(fd: number, path: string) {
    super(fd);
    this.#path = path;
    this.#file = fs.lstatSync(path, { bigint: true, throwIfNoEntry: false });
  }

  /** Closes it and removes its file. Idempotent. */
  override close(): void {
    if (!this.open) return;
    this.removeFile();
    super.close();
  }

  /**
   * Removes its file, before the socket is closed by whoever has taken it: its inode cannot be another file's then. What is there by now may be
   * another server's: that stays.
   */
  removeFile(): void {
    const there = fs.lstatSync(this.#path, { bigint: true, throwIfNoEntry: false });
    if (there && there.ino === this.#file?.ino && there.dev === this.#file.dev) fs.rmSync(this.#path, { force: true });
  }
}

/**
 * Listens at a path. A socket file that nobody serves is replaced.
 * @returns the listening socket, which the caller closes
 * @throws VioError (EADDRINUSE, …); EEXIST (3) where a file is that is no socket
 */
export function listenAt(path: string, options: ListenOptions = {}): ListeningSocket {
  const { mode = 0o600, uid = keepId, gid = keepId } = options;
  const listen = (): ListeningSocket => new ListeningSocket(native().vhostUser.listen(path, backlog, mode, uid, gid), path);
  try {
    try {
      return listen();
    } catch (err) {
      if (codeOf(err) !== 'EADDRINUSE' || !abandoned(path, options)) throw err;
      fs.unlinkSync(path);
      return listen();
    }
  } catch (err) {
    throw cannotListen(path, err);
  }
}

const cannotListen = (path: string, err: unknown): VioError =>
  wrap(`listen ${path}`, err, {
    hint: codeOf(err) === 'EADDRINUSE' ? 'another program serves this socket: end it, or choose another path' : undefined,
  });

/** Whether listenAt() can be expected to succeed; nothing is changed. @throws VioError as listenAt() does */
export function checkListen(path: string, options: ListenOptions = {}): void {
  if (fs.lstatSync(path, { throwIfNoEntry: false }) && !abandoned(path, options))
    throw cannotListen(path, Object.assign(new Error(), { code: 'EADDRINUSE' }));
  try {
    fs.accessSync(dirname(path), fs.constants.W_OK | fs.constants.X_OK);
  } catch (err) {
    throw cannotListen(path, err);
  }
}

/** Whether a socket file is left over: nobody answers a connection. */
function abandoned(path: string, { served }: ListenOptions): boolean {
  const stat = fs.statSync(path, { throwIfNoEntry: false });
  if (!stat) return true;
  if (!stat.isSocket()) throw new VioError(`listen ${path}: the file exists and is not a socket`, { code: 'EEXIST', exit: Exit.refused });
  if (served?.(path, stat)) return false;
  try {
    fs.closeSync(native().vhostUser.connect(path));
    return false;
  } catch (err) {
    return codeOf(err) === 'ECONNREFUSED';
  }
}

/** Connections taken in a row: who connects without end does not keep the loop for itself. */
const acceptsPerTurn = 64;
/** What an accept can fail with while the listening socket is as good as before: want of descriptors or memory. */
const passing = new Set(['EMFILE', 'ENFILE', 'ENOBUFS', 'ENOMEM']);
/** Callers then stay in the socket's queue for so long (ms). */
const acceptAgain = 100;

/**
 * Takes the connections of a listening descriptor, a fair share at a time, until the watch is closed. Where descriptors or memory
 * run out, callers wait in the socket's queue.
 * @param connected takes each connection and owns it
 * @param failed is told of another error, which ends the watch; without it, every error is waited out
 */
export function watchConnections(listener: number, connected: (fd: number) => void, failed?: (err: unknown) => void): { close(): void } {
  const { vhostUser } = native();
  let watch: { close(): void } | undefined;
  let rest: NodeJS.Timeout | undefined;
  let closed = false;
  const stop = (): void => {
    watch?.close();
    watch = undefined;
  };
  const close = (): void => {
    closed = true;
    clearTimeout(rest);
    stop();
  };
  const take = (): void => {
    try {
      for (let count = 0; count < acceptsPerTurn && !closed; count++) {
        const fd = vhostUser.accept(listener);
        if (fd < 0) return;
        connected(fd);
      }
    } catch (err) {
      if (closed) throw err;
      if (!failed || passing.has(codeOf(err) ?? '')) {
        stop(); // it is level-triggered, and would call without end
        rest = setTimeout(start, acceptAgain);
        return;
      }
      close();
      failed(err);
    }
  };
  const start = (): void => {
    watch = vhostUser.watchReadable(listener, take);
  };
  start();
  return { close };
}
