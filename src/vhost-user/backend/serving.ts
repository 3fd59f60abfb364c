import { reason, usage } from '../../common/errors.js';
import { bounded } from '../../common/text/log.js';
import { native } from '../../native/index.js';
import { OwnedFd } from '../../native/owned-fd.js';
import type { Listener } from '../wire/listener.js';
import type { DeviceModel } from './model.js';
import { BackEndSession, type SessionHooks } from './session.js';

/** After this time (ms) a drain says what it waits for. It has no limit: the disk decides, or a second signal. */
const slowDrain = 5000;

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
  const close = (): void => listener.close();
  const tell = bounded(options.onLog); // of all connections: who comes again has no new allowance
  signal.addEventListener('abort', close, { once: true }); // at once: who comes now must not wait for a drain
  try {
    while (!signal.aborted) {
      const fd = await listener.next(signal).catch((err) => {
        if (signal.aborted) return undefined;
        throw err;
      });
      if (!fd) continue;
      const waiting = listener.onWaiting(() => tell('another front-end waits until the one that is connected has gone'));
      await serveOne(fd, options, tell, signal);
      waiting.close();
    }
  } finally {
    signal.removeEventListener('abort', close);
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
export function serveConnection(fd: OwnedFd, options: ServeOptions, signal: AbortSignal): Promise<void> {
  return serveOne(fd, options, bounded(options.onLog), signal);
}

/** @param tell takes the lines that the front-end causes */
async function serveOne(fd: OwnedFd, options: ServeOptions, tell: (text: string) => void, signal: AbortSignal): Promise<void> {
  let hooks: SessionHooks = {};
  const session = new BackEndSession(fd, options.device, {
    onRunning: (running) => hooks.onRunning?.(running),
    onClose: (error) => {
      tell(error ? `connection ended: ${error.message}` : 'connection ended');
      hooks.onClose?.(error);
    },
    onLog: tell,
  });
  hooks = options.onSession?.(session) ?? {};
  let slow: NodeJS.Timeout | undefined;
  let drained: Promise<void> | undefined;
  const stop = (): void => {
    slow = setTimeout(() => options.onLog('finishing the requests under way; a second signal ends at once'), slowDrain);
    drained = session.drain();
    drained.catch(() => {}); // it is awaited below
  };
  if (signal.aborted) stop();
  else signal.addEventListener('abort', stop, { once: true });
  await session.done;
  clearTimeout(slow);
  signal.removeEventListener('abort', stop);
  await drained;
}
