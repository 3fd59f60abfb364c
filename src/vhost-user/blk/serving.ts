import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import v8 from 'node:v8';
import { assert, Exit, VioError } from '../../common/errors.js';
import { printable } from '../../common/escape.js';
import type { ControlServer } from '../../control/server.js';
import type { BlkStats } from '../../native/vhost-user.js';
import { checkAllowed, gives } from '../../storage/config/sources.js';
import { checkEngine, tellRefusal } from '../../storage/engine.js';
import { sourcesGone } from '../../storage/open.js';
import type { SourceOptions } from '../../storage/source.js';
import { IdentityState } from '../../storage/state.js';
import type { BlkConfigFile } from './config/description.js';
import { checkForeign, fileOf } from './config/live.js';
import { serveBlkControl } from './control.js';
import { add, noStats } from './device.js';
import { Disk, tryDisk } from './disk.js';
import type { BlkConfig, BlkServing, DiskOptions, DiskSet, WantedDisks } from './model.js';
import { reload } from './reload.js';

/** What a back-end program says of itself (docs/interop/vhost-user.json). */
export const blkCapabilities = { type: 'block', features: ['read-only', 'blk-file'] } as const;

/** Disks that one process serves at most. */
export const maxDisks = 1024;
/** Milliseconds that another change waits for a reload: one whose source hangs must not keep all disks as they are. */
const idleTime = 5000;

/** A disk that is served, or is about to end. */
interface Served {
  disk: Disk;
  /** Ends this disk alone. */
  end: AbortController;
  /** The end of serving it. It never rejects: a failure is its value. */
  ended: Promise<Error | undefined>;
  /** The removal that has begun. */
  removal: Promise<void> | undefined;
}

const ending = (): VioError => new VioError('the server is about to end', { code: 'ESHUTDOWN' });
const samePath = (a: string | undefined, b: string): boolean => a !== undefined && path.resolve(a) === path.resolve(b);

/** The disks of one process. Each is served until it is removed or the process ends; one that fails by itself ends all of them. */
class BlkServer implements DiskSet {
  readonly #options: BlkServing;
  readonly #state: IdentityState | undefined;
  readonly #served: Served[] = [];
  readonly #end = new AbortController();
  readonly #totals = noStats();
  #sources: readonly string[] | undefined;
  #started = false;
  /** The end of the last reload. */
  #reloading: Promise<void> = Promise.resolve();
  /** When the sources of the disks that were removed can be used by others. */
  #letGo: Promise<unknown> = Promise.resolve();
  #failure: Error | undefined;

  constructor(options: BlkServing) {
    this.#options = options;
    this.#sources = options.sources;
    this.#state = options.stateDir === undefined ? undefined : new IdentityState(options.stateDir);
  }

  get disks(): readonly Disk[] {
    return this.#served.map(({ disk }) => disk);
  }

  allow(source: SourceOptions): SourceOptions {
    return checkAllowed(this.#sources, source);
  }

  find(socket: string): Disk | undefined {
    return this.disks.find((disk) => samePath(disk.socket, socket));
  }

  async try(options: DiskOptions): Promise<void> {
    this.#refuse(options);
    await tryDisk(this.complete(options), this.#state);
  }

  /** Opens a disk and listens. It is served once the server has started. @throws VioError */
  async add(options: DiskOptions): Promise<Disk> {
    this.#refuse(options);
    const named = this.#started || this.#options.disks.length > 1;
    const name = named ? `${options.socket}: ` : '';
    const log = (text: string): void => this.#options.onLog(`${name}${text}`, { event: 'disk', socket: options.socket });
    const disk = await Disk.open(this.complete(options), this.#options, log, this.#state, () => this.#refuse(options));
    const served: Served = { disk, end: new AbortController(), ended: Promise.resolve(undefined), removal: undefined };
    this.#served.push(served);
    if (this.#started) this.#serve(served);
    return disk;
  }

  remove(disk: Disk): Promise<void> {
    const served = this.#served.find((one) => one.disk === disk);
    if (!served) return Promise.resolve();
    served.removal ??= this.#remove(served);
    return served.removal;
  }

  complete<T extends DiskOptions>(options: T): T & { queues: number } {
    const { queues, access, engine } = this.#options;
    checkEngine(options.source, engine);
    return { ...access, ...options, queues: options.queues ?? queues };
  }

  save(): BlkConfigFile {
    return fileOf(this.disks, { ...this.#options, sources: this.#sources });
  }

  load(wanted: BlkConfig, dryRun: boolean): Promise<string[]> {
    // a reload that is under way may change what is allowed
    return this.#reload(async () => {
      checkForeign(wanted, { ...this.#options, sources: this.#sources });
      const served = this.disks.map(({ options }) => options.source);
      for (const { source } of wanted.disks) if (!gives(served, source)) this.allow(source);
      const disks = wanted.disks.map((disk) => this.complete(disk));
      return await reload(this, disks, dryRun);
    });
  }

  /** Serves what the server's own configuration says. @returns what was changed @throws VioError */
  reload({ disks, sources }: WantedDisks): Promise<string[]> {
    return this.#reload(async () => {
      const done = await reload(
        this,
        disks.map((disk) => this.complete(disk)),
      );
      this.#sources = sources;
      return done;
    });
  }

  async idle(): Promise<void> {
    const late = sleep(idleTime, true, { ref: false });
    for (let reloading: unknown; reloading !== this.#reloading; ) {
      reloading = this.#reloading;
      if (await Promise.race([this.#reloading.then(() => false), late]))
        throw new VioError('a reload is under way', { code: 'EBUSY', hint: 'try again later' });
    }
  }

  /** One reload at a time. */
  #reload(work: () => Promise<string[]>): Promise<string[]> {
    const next = this.#reloading.then(work);
    this.#reloading = next.then(
      () => {},
      () => {},
    );
    return next;
  }

  /** Serves all disks. Resolves when all have ended. @returns what all disks have done @throws what ended one of them */
  async serve(signal: AbortSignal): Promise<BlkStats> {
    const stop = (): void => this.#end.abort(signal.reason);
    if (signal.aborted) stop();
    else signal.addEventListener('abort', stop, { once: true });
    try {
      this.#started = true;
      for (const served of this.#served) this.#serve(served);
      if (!this.#end.signal.aborted)
        await new Promise<void>((resolve) => {
          const keep = setInterval(() => {}, 1 << 30); // with no disk left, nothing else keeps the loop alive
          const done = (): void => {
            clearInterval(keep);
            resolve();
          };
          this.#end.signal.addEventListener('abort', done, { once: true });
        });
      await Promise.all(this.#served.map(({ ended }) => ended));
      await Promise.allSettled(this.#served.map(({ removal }) => removal));
      await this.#letGo;
      if (this.#failure) throw this.#failure;
      const totals = { ...this.#totals };
      for (const disk of this.disks) add(totals, disk.stats());
      return totals;
    } finally {
      signal.removeEventListener('abort', stop);
    }
  }

  close(): void {
    for (const disk of this.disks) disk.close();
  }

  #refuse({ socket }: DiskOptions): void {
    if (this.#end.signal.aborted) throw ending();
    if (this.#served.length >= maxDisks)
      throw new VioError(`there are ${maxDisks} disks already`, { code: 'ENOSPC', hint: 'start another server' });
    if (socket === undefined || !this.find(socket)) return;
    throw new VioError(`${printable(socket)}: a disk is served there already`, { code: 'EEXIST', exit: Exit.refused });
  }

  #serve(served: Served): void {
    const signal = AbortSignal.any([this.#end.signal, served.end.signal]);
    served.ended = served.disk.serve(signal).then(
      () => {
        if (!served.removal) this.#end.abort(); // an inherited connection, or the end of all
        return undefined;
      },
      (err: Error) => {
        if (!served.removal) {
          this.#failure ??= err;
          this.#end.abort(err);
        }
        return err;
      },
    );
  }

  async #remove(served: Served): Promise<void> {
    served.end.abort();
    const failure = await served.ended;
    add(this.#totals, served.disk.stats());
    served.disk.close();
    // without a pause: nobody may ask a disk whose source is closed
    const at = this.#served.indexOf(served);
    assert(at >= 0, 'a disk is removed once');
    this.#served.splice(at, 1);
    this.#letGo = sourcesGone();
    await this.#letGo;
    if (failure) throw failure;
  }
}

/**
 * The whole of `serve blk`, until the signal. All disks are opened before the first is served; one that fails for good ends the others
 * in order. @returns totals of all connections @throws VioError
 */
export async function serveBlk(options: BlkServing, signal: AbortSignal): Promise<BlkStats> {
  // No data passes through JavaScript. A guest that makes its VMM connect again and again must not make the heap grow in the meantime.
  v8.setFlagsFromString('--optimize-for-size');
  const server = new BlkServer(options);
  let control: ControlServer | undefined;
  try {
    for (const disk of options.disks) await server.add(disk);
    if (options.control !== undefined) control = serveBlkControl(options.control, server);
    tellRefusal(options.engine, options.onLog);
    await options.onReload?.((wanted) => server.reload(wanted));
    await options.onReady(server.disks.map((d) => d.ready));
    return await server.serve(signal);
  } finally {
    control?.close();
    server.close();
  }
}
