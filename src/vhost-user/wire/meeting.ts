import { Exit, VioError } from '../../common/errors.js';
import { formatDuration } from '../../common/units.js';
import type { OwnedFd } from '../../native/owned-fd.js';
import { connect } from './channel.js';
import { Listener } from './listener.js';

/** How the connections to a back-end come about: we go to the socket that it serves, or it comes to ours. */
export interface Meeting {
  /**
   * The next connection.
   * @param timeout ms; undefined: as long as it takes
   * @throws VioError (exit 124 where nobody comes in time); the signal's reason
   */
  next(timeout: number | undefined, signal?: AbortSignal): Promise<OwnedFd>;
  close(): void;
}

/** Goes to the socket that a back-end serves. */
export const visit = (path: string): Meeting => ({
  next: (timeout, signal) => connect(path, timeout, signal),
  close: () => {},
});

/** Listens for a back-end that connects. @throws VioError (EADDRINUSE, …) */
export function receive(path: string): Meeting {
  const listener = Listener.at(path);
  return {
    async next(timeout, signal) {
      const late = timeout === undefined ? undefined : AbortSignal.timeout(timeout);
      const ends = [signal, late].filter((end) => end !== undefined);
      try {
        return await listener.next(AbortSignal.any(ends));
      } catch (err) {
        if (signal?.aborted || !late?.aborted) throw err;
        throw new VioError(`no back-end has connected to ${path} within ${formatDuration(timeout!)}`, {
          code: 'ETIMEDOUT',
          exit: Exit.timeout,
        });
      }
    },
    close: () => listener.close(),
  };
}
