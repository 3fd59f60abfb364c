import { Exit, usage, VioError, wrap } from '../../common/errors.js';
import { native } from '../../native/index.js';
import type { BlkStats } from '../../native/vhost-user.js';
import { lostText, openSource } from '../../storage/open.js';
import type { SourceOptions } from '../../storage/source.js';
import { inheritedSocket, serveBackEnd, serveConnection } from '../backend/serving.js';
import { Listener } from '../wire/listener.js';
import { blkDevice, noStats, wholeBlocks } from './device.js';

/** What a back-end program says of itself (docs/interop/vhost-user.json). */
export const blkCapabilities = { type: 'block', features: ['read-only', 'blk-file'] } as const;

/** How often it is looked whether a sync has failed, in milliseconds. */
const syncCheck = 1000;

export interface BlkServing {
  socket: string | undefined;
  fd: number | undefined;
  source: SourceOptions;
  queues: number;
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
  const { queues, serial, ioUring } = options;
  const { source: file, readonly = false } = options.source;
  const blockSize = options.source.blockSize ?? 512;
  if (blockSize !== 512 && blockSize !== 4096) throw usage(`${file}: block size ${blockSize}: must be 512 or 4096`);
  const { storage } = native();
  const store = openSource(options.source);
  let told = false;
  const watch = setInterval(() => {
    const code = storage.syncError(store);
    if (code === undefined || told) return;
    told = true;
    options.onLog(lostText(file, code));
  }, syncCheck);
  watch.unref();
  const totals = noStats();
  let listener: Listener | undefined;
  try {
    if (!wholeBlocks(file, blockSize))
      throw new VioError(`${file}: its size is no multiple of ${blockSize} bytes`, {
        code: 'EINVAL',
        exit: Exit.failed,
        hint: `truncate -s %${blockSize} FILE rounds it up`,
      });
    const device = blkDevice({ store, name: file, readonly, queues, blockSize, serial, ioUring }, totals);
    const serve = { device, onLog: options.onLog };
    if (options.socket !== undefined) listener = Listener.at(options.socket);
    const inherited = listener ? undefined : inheritedSocket(options.fd!);
    await options.onReady({ socket: options.socket, file, size: storage.size(store), readonly, queues });
    if (listener) await serveBackEnd(listener, serve, signal);
    else await serveConnection(inherited!, serve, signal);
    await storage.flush(store).catch((err: unknown) => {
      throw wrap(`flush ${file}`, err);
    });
    return totals;
  } finally {
    clearInterval(watch);
    listener?.close();
    storage.close(store);
  }
}
