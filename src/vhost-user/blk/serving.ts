import path from 'node:path';
import type { Engine } from '../../common/engines.js';
import { Exit, VioError, wrap } from '../../common/errors.js';
import { printable, shellFile } from '../../common/escape.js';
import type { ControlServer } from '../../control/server.js';
import { native } from '../../native/index.js';
import type { OwnedFd } from '../../native/owned-fd.js';
import type { BlkStats } from '../../native/vhost-user.js';
import { tellRefusal } from '../../storage/engine.js';
import { serialFor } from '../../storage/identity.js';
import { openSource, type Source } from '../../storage/open.js';
import type { SourceOptions } from '../../storage/source.js';
import { IdentityState } from '../../storage/state.js';
import { SourceWatch, watchPeriod } from '../../storage/watch.js';
import { inheritedSocket, serveBackEnd, serveConnection } from '../backend/serving.js';
import type { BackEndSession, SessionHooks } from '../backend/session.js';
import { Listener } from '../wire/listener.js';
import { type ControlledDisk, serveBlkControl } from './control.js';
import { add, type BlkDevice, blkDevice, noStats } from './device.js';
import { SizeNews } from './size-news.js';

/** What a back-end program says of itself (docs/interop/vhost-user.json). */
export const blkCapabilities = { type: 'block', features: ['read-only', 'blk-file'] } as const;

/** One disk: where it is served, and what from. */
export interface DiskOptions {
  socket: string | undefined;
  fd: number | undefined;
  source: SourceOptions;
}

export interface BlkServing {
  disks: DiskOptions[];
  queues: number;
  /** Path of the control socket. */
  control?: string | undefined;
  /** Where the names of sources are kept. */
  stateDir?: string | undefined;
  /** At most 20 bytes; made from the source unless given. */
  serial: string | undefined;
  engine: Engine;
  onReady: (ready: BlkReady[]) => Promise<void>;
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

/** The serial number of a disk that was given none. Memory has no name of its own: its socket tells it from others. */
const serialOf = ({ source }: SourceOptions, identity: string, socket: string | undefined): string =>
  serialFor(source.startsWith('ram:') ? `${identity}\0${socket === undefined ? '' : path.resolve(socket)}` : identity);

/** How to make a source whose size is no whole number of blocks, or nothing, fit. */
function roundUp(file: string, size: number, blockSize: number): string {
  const rounded = Math.max(1, Math.ceil(size / blockSize)) * blockSize;
  return file.startsWith('ram:') ? `ram:${rounded}` : `truncate -s ${rounded} ${shellFile(file)}`;
}

/** A disk that is open and listens. */
class Disk implements ControlledDisk {
  readonly ready: BlkReady;
  readonly source: Source;
  readonly #news: SizeNews;
  readonly watch: SourceWatch;
  readonly #timer: NodeJS.Timeout;
  readonly #device: BlkDevice;
  readonly #onLog: (text: string) => void;
  readonly #listener: Listener | undefined;
  readonly #inherited: OwnedFd | undefined;
  /** The front-end that is connected. */
  #session: BackEndSession | undefined;

  /** @throws VioError; then nothing is open */
  constructor(
    { socket, fd, source: options }: DiskOptions,
    serving: BlkServing,
    onLog: (text: string) => void,
    state: IdentityState | undefined,
  ) {
    const { queues, serial, engine } = serving;
    const ioUring = engine !== 'sync';
    const { source: file, readonly = false } = options;
    const { storage } = native();
    this.#onLog = onLog;
    this.source = openSource(options, undefined, state);
    this.#news = new SizeNews(onLog);
    this.watch = new SourceWatch(this.source, {
      log: onLog,
      resized: (bytes) => {
        this.#news.tell();
        return bytes;
      },
      otherwise: 'put the first one back, or end the server and start it again',
    });
    this.#timer = setInterval(() => {
      this.watch.tick();
      tellRefusal(engine, serving.onLog); // a limit that later rings met
    }, watchPeriod);
    this.#timer.unref();
    try {
      const { store, blockSize, geometry, identity } = this.source;
      const size = storage.size(store);
      if (!geometry.device && (size === 0 || size % blockSize !== 0))
        throw new VioError(`${printable(file)}: its size is no multiple of ${blockSize} bytes`, {
          code: 'EINVAL',
          exit: Exit.failed,
          hint: roundUp(file, size, blockSize),
        });
      this.#device = blkDevice(
        { ...this.source, queues, serial: serial ?? serialOf(options, identity, socket), ioUring },
        noStats(),
        onLog,
      );
      if (socket !== undefined) this.#listener = Listener.at(socket);
      else this.#inherited = inheritedSocket(fd!);
      this.ready = { socket, file, size, readonly, queues };
    } catch (err) {
      this.close();
      throw err;
    }
  }

  /** Until the signal, or the end of an inherited connection. @throws VioError */
  async serve(signal: AbortSignal): Promise<void> {
    const options = { device: this.#device, onLog: this.#onLog, onSession: (session: BackEndSession) => this.#join(session) };
    if (this.#listener) await serveBackEnd(this.#listener, options, signal);
    else await serveConnection(this.#inherited!, options, signal);
    await native()
      .storage.flush(this.source.store)
      .catch((err: unknown) => {
        throw wrap(`flush ${this.ready.file}`, err);
      });
  }

  get socket(): string | undefined {
    return this.ready.socket;
  }

  get queues(): number {
    return this.ready.queues;
  }

  state(): { connected: boolean; running: boolean } {
    return { connected: this.#session !== undefined, running: this.#session?.running ?? false };
  }

  stats(): BlkStats {
    return this.#device.stats();
  }

  #join(session: BackEndSession): SessionHooks {
    this.#session = session;
    const hooks = this.#news.join(session);
    return {
      ...hooks,
      onClose: (error) => {
        this.#session = undefined;
        hooks.onClose?.(error);
      },
    };
  }

  close(): void {
    this.watch.close();
    clearInterval(this.#timer);
    this.#listener?.close();
    native().storage.close(this.source.store);
  }
}

/**
 * The whole of `serve blk`, until the signal. All disks are opened before the first is served; one that fails for good ends the others
 * in order. @returns totals of all connections @throws VioError
 */
export async function serveBlk(options: BlkServing, signal: AbortSignal): Promise<BlkStats> {
  const state = options.stateDir === undefined ? undefined : new IdentityState(options.stateDir);
  const disks: Disk[] = [];
  let control: ControlServer | undefined;
  const end = new AbortController();
  const stop = (): void => end.abort(signal.reason);
  if (signal.aborted) stop();
  else signal.addEventListener('abort', stop, { once: true });
  try {
    for (const disk of options.disks) {
      const name = options.disks.length > 1 ? `${disk.socket}: ` : '';
      disks.push(new Disk(disk, options, (text) => options.onLog(`${name}${text}`), state));
    }
    if (options.control !== undefined) control = serveBlkControl(options.control, disks);
    tellRefusal(options.engine, options.onLog);
    await options.onReady(disks.map((d) => d.ready));
    const results = await Promise.allSettled(
      disks.map((d) =>
        d.serve(end.signal).catch((err) => {
          end.abort(err);
          throw err;
        }),
      ),
    );
    const failed = results.find((r) => r.status === 'rejected');
    if (failed) throw failed.reason;
    const totals = noStats();
    for (const disk of disks) add(totals, disk.stats());
    return totals;
  } finally {
    signal.removeEventListener('abort', stop);
    control?.close();
    for (const disk of disks) disk.close();
  }
}
