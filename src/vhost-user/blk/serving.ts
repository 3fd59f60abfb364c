import { Exit, VioError, wrap } from '../../common/errors.js';
import { native } from '../../native/index.js';
import type { BlkStats, NativeStore } from '../../native/vhost-user.js';
import { inheritedSocket, serveBackEnd, serveConnection } from '../backend/serving.js';
import { Listener } from '../wire/listener.js';
import { blkDevice, noStats, wholeBlocks } from './device.js';

/** What a back-end program says of itself (docs/interop/vhost-user.json). */
export const blkCapabilities = { type: 'block', features: ['read-only', 'blk-file'] } as const;

export interface BlkServing {
  socket: string | undefined;
  fd: number | undefined;
  file: string;
  readonly: boolean;
  queues: number;
  blockSize: 512 | 4096;
  serial: string;
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
  const { file, readonly, queues, blockSize, serial, ioUring } = options;
  let store: NativeStore;
  try {
    store = native().vhostUser.openStore(file, readonly);
  } catch (err) {
    throw wrap(`open ${file}`, err);
  }
  const totals = noStats();
  let listener: Listener | undefined;
  try {
    if (!wholeBlocks(file, blockSize))
      throw new VioError(`${file}: its size is no multiple of ${blockSize} bytes`, {
        code: 'EINVAL',
        exit: Exit.failed,
        hint: `truncate -s %${blockSize} FILE rounds it up`,
      });
    const device = blkDevice({ store, readonly, queues, blockSize, serial, ioUring }, totals);
    const serve = { device, onLog: options.onLog };
    if (options.socket !== undefined) listener = Listener.at(options.socket);
    const inherited = listener ? undefined : inheritedSocket(options.fd!);
    await options.onReady({ socket: options.socket, file, size: store.size(), readonly, queues });
    if (listener) await serveBackEnd(listener, serve, signal);
    else await serveConnection(inherited!, serve, signal);
    if (!readonly) store.flush();
    return totals;
  } finally {
    listener?.close();
    store.close();
  }
}
