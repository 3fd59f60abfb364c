import path from 'node:path';
import { Exit, VioError, wrap } from '../../common/errors.js';
import { printable, shellFile } from '../../common/escape.js';
import { native } from '../../native/index.js';
import type { OwnedFd } from '../../native/owned-fd.js';
import type { BlkStats } from '../../native/vhost-user.js';
import { tellRefusal, tellWithoutRing } from '../../storage/engine.js';
import { serialFor } from '../../storage/identity.js';
import { openSourceLater, type Source } from '../../storage/open.js';
import type { SourceOptions } from '../../storage/source.js';
import type { IdentityState } from '../../storage/state.js';
import { isFile } from '../../storage/uri.js';
import { SourceWatch, watchPeriod } from '../../storage/watch.js';
import { inheritedSocket, serveBackEnd, serveConnection } from '../backend/serving.js';
import type { BackEndSession, SessionHooks } from '../backend/session.js';
import { Listener } from '../wire/listener.js';
import { type BlkDevice, blkDevice, noStats } from './device.js';
import type { BlkReady, BlkServing, ControlledDisk, DiskOptions } from './model.js';
import { SizeNews } from './size-news.js';

/** The serial number of a disk that was given none. Memory has no name of its own: its socket tells it from others. */
const serialOf = ({ source }: SourceOptions, identity: string, socket: string | undefined): string =>
  serialFor(source.startsWith('ram:') ? `${identity}\0${socket === undefined ? '' : path.resolve(socket)}` : identity);

/** How to make a source whose size is no whole number of blocks, or nothing, fit. */
function roundUp(file: string, size: number, blockSize: number): string | undefined {
  const rounded = Math.max(1, Math.ceil(size / blockSize)) * blockSize;
  if (file.startsWith('ram:')) return `ram:${rounded}`;
  return isFile(file) ? `truncate -s ${rounded} ${shellFile(file)}` : undefined;
}

/** Opens the source of a disk. @throws VioError, also if its size is no whole number of blocks */
async function openDisk(options: SourceOptions, state: IdentityState | undefined): Promise<Source> {
  const source = await openSourceLater(options, undefined, state);
  const { store, blockSize, geometry, name } = source;
  const size = native().storage.size(store);
  if (geometry.device || (size > 0 && size % blockSize === 0)) return source;
  native().storage.close(store);
  throw new VioError(`${printable(name)}: its size is no multiple of ${blockSize} bytes`, {
    code: 'EINVAL',
    exit: Exit.failed,
    hint: roundUp(name, size, blockSize),
  });
}

/** Makes all checks of a disk that is to be served, without serving it. @throws VioError */
export async function tryDisk({ socket, source }: DiskOptions, state: IdentityState | undefined): Promise<void> {
  if (socket !== undefined) Listener.check(socket);
  native().storage.close((await openDisk(source, state)).store);
}

type DiskServing = Pick<BlkServing, 'engine' | 'spinMicroseconds' | 'onLog'>;
/** Options that say everything (DiskSet.complete()). */
export type CompleteOptions = DiskOptions & { queues: number };

/** A disk that is open and listens. */
export class Disk implements ControlledDisk {
  readonly options: CompleteOptions;
  readonly ready: BlkReady;
  readonly source: Source;
  readonly watch: SourceWatch;
  readonly #news: SizeNews;
  readonly #timer: NodeJS.Timeout;
  readonly #device: BlkDevice;
  readonly #onLog: (text: string) => void;
  readonly #listener: Listener | undefined;
  readonly #inherited: OwnedFd | undefined;
  /** The front-end that is connected. */
  #session: BackEndSession | undefined;

  /**
   * @param check what may have come in the way while the source was opened
   * @throws VioError; then nothing is open
   */
  static async open(
    options: CompleteOptions,
    serving: DiskServing,
    onLog: (text: string) => void,
    state: IdentityState | undefined,
    check: () => void,
  ): Promise<Disk> {
    const source = await openDisk(options.source, state);
    try {
      check();
    } catch (err) {
      native().storage.close(source.store);
      throw err;
    }
    return new Disk(options, serving, onLog, source);
  }

  private constructor(options: CompleteOptions, serving: DiskServing, onLog: (text: string) => void, source: Source) {
    const { engine, spinMicroseconds } = serving;
    const { socket, fd, serial, queues } = options;
    this.options = options;
    this.#onLog = onLog;
    this.source = source;
    const { store, identity, name: file, readonly } = this.source;
    tellWithoutRing(this.source, options.source.engine ?? engine, onLog);
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
      this.#device = blkDevice(
        {
          ...this.source,
          queues,
          serial: serial ?? serialOf(options.source, identity, socket),
          ioUring: engine !== 'sync',
          spinMicroseconds,
        },
        noStats(),
        onLog,
      );
      if (options.listener) this.#listener = Listener.inherited(options.listener);
      else if (socket !== undefined) this.#listener = Listener.at(socket, options);
      else this.#inherited = inheritedSocket(fd!);
      this.ready = { socket, file, size: native().storage.size(store), readonly, queues };
    } catch (err) {
      this.close();
      throw err;
    }
  }

  /** Until the signal, or the end of an inherited connection. What was written is durable then. @throws VioError */
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
