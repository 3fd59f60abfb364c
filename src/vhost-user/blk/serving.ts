import { Exit, VioError, wrap } from '../../common/errors.js';
import { native } from '../../native/index.js';
import type { BlkStats } from '../../native/vhost-user.js';
import { serialFor } from '../../storage/identity.js';
import { openSource } from '../../storage/open.js';
import type { SourceOptions } from '../../storage/source.js';
import { inheritedSocket, serveBackEnd, serveConnection } from '../backend/serving.js';
import type { BackEndSession } from '../backend/session.js';
import { Listener } from '../wire/listener.js';
import { blkDevice, noStats } from './device.js';
import { SourceWatch } from './watch.js';

/** What a back-end program says of itself (docs/interop/vhost-user.json). */
export const blkCapabilities = { type: 'block', features: ['read-only', 'blk-file'] } as const;

export interface BlkServing {
  socket: string | undefined;
  fd: number | undefined;
  source: SourceOptions;
  queues: number;
  /** At most 20 bytes; made from the source unless given. */
  serial: string | undefined;
  ioUring: boolean;
  onReady: (ready: BlkReady) => Promise<void>;
  onLog: (text: string) => void;
}

/** Printed when the socket listens. */
export interface BlkReady {
  socket: string | undefined;
  file: string;
  size: number;
  readonly: boolean;
  queues: number;
}

/** The whole of `serve blk`, until the signal. @returns totals of all connections @throws VioError */
export async function serveBlk(options: BlkServing, signal: AbortSignal): Promise<BlkStats> {
  const { queues, serial, ioUring } = options;
  const { source: file, readonly = false } = options.source;
  const { storage } = native();
  const source = openSource(options.source);
  const { store, blockSize, geometry } = source;
  const watch = new SourceWatch(source, options.onLog);
  const totals = noStats();
  let listener: Listener | undefined;
  try {
    const size = storage.size(store);
    if (!geometry.device && (size === 0 || size % blockSize !== 0))
      throw new VioError(`${file}: its size is no multiple of ${blockSize} bytes`, {
        code: 'EINVAL',
        exit: Exit.failed,
        hint: `truncate -s %${blockSize} FILE rounds it up`,
      });
    const device = blkDevice({ ...source, queues, serial: serial ?? serialFor(source.identity), ioUring }, totals);
    const serve = { device, onLog: options.onLog, onSession: (session: BackEndSession) => watch.join(session) };
    if (options.socket !== undefined) listener = Listener.at(options.socket);
    const inherited = listener ? undefined : inheritedSocket(options.fd!);
    await options.onReady({ socket: options.socket, file, size, readonly, queues });
    if (listener) await serveBackEnd(listener, serve, signal);
    else await serveConnection(inherited!, serve, signal);
    await storage.flush(store).catch((err: unknown) => {
      throw wrap(`flush ${file}`, err);
    });
    return totals;
  } finally {
    watch.look(); // what has happened since the last look is told too
    watch.close();
    listener?.close();
    storage.close(store);
  }
}
