import { reason, usage } from '../common/errors.js';
import { native } from '../native/index.js';
import { BackEndSession, type SessionHooks } from './backend.js';
import { OwnedFd } from './fds.js';
import type { Listener } from './listener.js';
import type { DeviceModel } from './model.js';

export interface ServeOptions {
  device: DeviceModel;
  /** Called with each session before its first message. */
  onSession?: (session: BackEndSession) => SessionHooks;
  onLog: (text: string) => void;
}

/**
 * Serves one front-end at a time on a listening socket; the next one waits in the socket's queue until the first has gone, as
 * the rings can belong to one only. Ends with the signal.
 */
export async function serveBackEnd(listener: Listener, options: ServeOptions, signal: AbortSignal): Promise<void> {
  try {
    while (!signal.aborted) {
      const fd = await listener.next(signal).catch((err) => {
        if (signal.aborted) return undefined;
        throw err;
      });
      if (fd) await serveConnection(fd, options, signal);
    }
  } finally {
    listener.close();
  }
}

/** The connected socket that a parent has left open for us. @throws usage: another descriptor would be closed under its owner */
export function inheritedSocket(fd: number): OwnedFd {
  try {
    native().vhostUser.peer(fd);
  } catch (err) {
    throw usage(`descriptor ${fd} is no connected socket: ${reason(err)}`);
  }
  return new OwnedFd(fd);
}

/** One connection from its first message to its end. */
export async function serveConnection(fd: OwnedFd, options: ServeOptions, signal: AbortSignal): Promise<void> {
  let hooks: SessionHooks = {};
  const session = new BackEndSession(fd, options.device, {
    onRunning: (running) => hooks.onRunning?.(running),
    onClose: (error) => {
      options.onLog(error ? `connection ended: ${error.message}` : 'connection ended');
      hooks.onClose?.(error);
    },
    onLog: options.onLog,
  });
  hooks = options.onSession?.(session) ?? {};
  const stop = (): void => session.close();
  signal.addEventListener('abort', stop, { once: true });
  await session.done;
  signal.removeEventListener('abort', stop);
}
