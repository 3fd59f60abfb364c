/** The configuration of a running target: saved, and changed as a whole. */
import { isDeepStrictEqual } from 'node:util';
import { VioError } from '../../../common/errors.js';
import type { LoadReport } from '../../../control/load-report.js';
import type { NvmeNative } from '../../../native/nvme.js';
import { checkAllowed, checkAllowedFile, checkPatterns, gives } from '../../../storage/config/sources.js';
import { checkEngine } from '../../../storage/engine.js';
import type { SourceOptions } from '../../../storage/source.js';
import { inNvmetcli } from '../../auth/secret.js';
import { keyFiles } from '../security/keyring.js';
import type { TargetConfig } from '../serve/config.js';
import type { Target, TargetLog } from '../target.js';
import type { ConfigFile } from './description.js';
import { fileOf, liveConfig } from './live.js';
import { ending, type Loading, planLoad } from './load.js';

export class Configuration {
  readonly #loading: Loading;
  readonly #options: Partial<TargetConfig>;
  /** The reload that runs; others, and other changes, come behind it. */
  #running: Promise<unknown> = Promise.resolve();
  /** Steps of a reload that change the target, while they run. */
  #applying: Promise<unknown> = Promise.resolve();

  /**
   * @param settings what the target was started with
   * @param options of its command line, for what a file that comes over the control socket does not say
   */
  constructor(native: NvmeNative, target: Target, settings: TargetConfig, log: TargetLog, options: Partial<TargetConfig> = {}) {
    this.#options = options;
    this.#loading = { native, target, settings, log, ended: false };
  }

  /** The configuration as it is now. */
  get live(): TargetConfig {
    return liveConfig(this.#loading.target, this.#loading.settings);
  }

  /** The same as a file that --config reads. */
  save(): ConfigFile {
    return fileOf(this.live);
  }

  /**
   * Resolves when no reload runs: whoever changes the target then does it without a pause.
   * @throws VioError (ECANCELED) when the target is about to stop
   */
  async idle(): Promise<void> {
    for (let running: unknown; running !== this.#running; ) {
      running = this.#running;
      await this.#running;
    }
    this.#checkEnded();
  }

  /**
   * Nothing changes the target any more, so that it can stop: a reload that still waits for a source gives it back, one that has
   * begun to change the target comes to its end first.
   */
  async end(): Promise<void> {
    this.#loading.ended = true;
    await this.#applying;
  }

  /** @throws VioError (ECANCELED) */
  #checkEnded(): void {
    if (this.#loading.ended) throw ending();
  }

  /** @returns what to open @throws VioError (3) for a source that the control socket may not open; (2) for an engine that is not there */
  checkSource<T extends SourceOptions>(options: T): T {
    const { engine, sources } = this.#loading.settings;
    checkEngine(options, engine);
    return checkAllowed(sources, options);
  }

  /**
   * Changes the target to what a configuration says, or nothing.
   * @param options.own it is the server's own file, which may name any source, and other patterns for `nvmf ctl`
   * @throws VioError
   */
  load(wanted: TargetConfig, options: { dryRun?: boolean; own?: boolean } = {}): Promise<LoadReport> {
    const work = this.#running.then(() => this.#load(wanted, options));
    this.#running = work.catch(() => {});
    return work;
  }

  async #load(file: TargetConfig, { dryRun = false, own = false }: { dryRun?: boolean; own?: boolean }): Promise<LoadReport> {
    const said = Object.fromEntries(Object.entries(file).filter(([, value]) => value !== undefined));
    const wanted: TargetConfig = own ? file : { ...file, ...this.#options, ...said };
    this.#checkEnded();
    for (const namespace of wanted.subsystems.flatMap(({ namespaces }) => namespaces))
      checkEngine(namespace, this.#loading.settings.engine);
    if (!own) this.#checkForeign(wanted);
    const before = this.live;
    const { todo, apply, abandon } = await planLoad(this.#loading, wanted);
    const notes = wanted.notes?.length ? { notes: wanted.notes } : {};
    if (dryRun) {
      abandon();
      return { changed: false, dryRun: true, changes: todo, ...notes };
    }
    if (this.#loading.ended || !isDeepStrictEqual(this.live, before)) {
      abandon();
      this.#checkEnded();
      throw new VioError('the target was changed meanwhile', { code: 'EBUSY', hint: 'load the configuration again' });
    }
    const applying = apply();
    this.#applying = applying.catch(() => {});
    await applying;
    return { changed: todo.length > 0, changes: todo, ...notes };
  }

  /** What comes over the control socket names only sources that it may open. @throws VioError (3) */
  #checkForeign(wanted: TargetConfig): void {
    const { target, settings } = this.#loading;
    checkPatterns(settings.sources, wanted.sources);
    const served = [...target.subsystems.values()].flatMap((one) => [...one.namespaces.values()].map(({ options }) => options));
    for (const { namespaces } of wanted.subsystems)
      for (const one of namespaces) if (!gives(served, one)) checkAllowed(settings.sources, one);
    const known = new Set(keyFiles(target.keys.sources));
    for (const file of keyFiles(wanted.keys ?? []))
      if (!known.has(file)) checkAllowedFile(settings.sources, inNvmetcli(file)?.file ?? file);
  }
}
