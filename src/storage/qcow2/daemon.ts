import { type ChildProcess, spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Exit, VioError } from '../../common/errors.js';
import { printable } from '../../common/escape.js';
import { native } from '../../native/index.js';
import type { Store } from '../../native/storage.js';
import { note } from '../remote/news.js';
import { closeChain, type Layer } from './chain.js';

const program = 'qemu-storage-daemon';
/** Name of the export. */
export const exportName = 'disk';
const startTime = 20_000;
const pollTime = 20;
/** Milliseconds from an end that nobody asked for to the next start. */
const pauses = { first: 100, most: 5_000 };
/** How often it is looked whether the disk is served still, in milliseconds. */
const lookTime = 500;
const maxLine = 500;

/** The node graph. Each file is named by a descriptor that is open already: no name of a header is ever opened. */
function nodes(layers: readonly Layer[], { readonly, direct, force }: DaemonOptions): string[] {
  const args: string[] = [];
  let fd = 3;
  const file = (name: string, ro: boolean): string => {
    const node = {
      driver: 'file',
      'node-name': name,
      filename: `/proc/self/fd/${fd++}`,
      'read-only': ro,
      discard: 'unmap',
      locking: force ? 'off' : 'on',
      cache: { direct, 'no-flush': false },
    };
    args.push('--blockdev', JSON.stringify(node));
    return name;
  };
  // from the bottom: a node must be there before it is named
  const names = layers.map((layer, i) => ({ layer, i })).reverse();
  for (const { layer, i } of names) {
    const ro = readonly || i > 0;
    const node = {
      driver: layer.format,
      'node-name': `layer${i}`,
      'read-only': ro,
      file: file(`file${i}`, ro),
      ...(layer.format === 'qcow2' && { backing: i + 1 < layers.length ? `layer${i + 1}` : null, discard: 'unmap' }),
      ...(layer.data && { 'data-file': file(`data${i}`, ro) }),
    };
    args.push('--blockdev', JSON.stringify(node));
  }
  return args;
}

/** Descriptors in the order in which nodes() numbers them. */
const descriptors = (layers: readonly Layer[]): number[] => [...layers].reverse().flatMap(({ fd, data }) => (data ? [fd, data.fd] : [fd]));

export interface DaemonOptions {
  readonly: boolean;
  direct: boolean;
  force: boolean;
}

/** Daemons that run: they are to be gone before the process is. */
const running = new Set<Daemon>();
process.on('exit', () => {
  for (const daemon of running) daemon.abandon();
});

/** A qemu-storage-daemon that serves one image at a socket of its own, and is started again when it dies. */
export class Daemon {
  readonly socket: string;
  readonly #dir: string;
  readonly #image: string;
  #layers: readonly Layer[];
  readonly #options: DaemonOptions;
  #child: ChildProcess | undefined;
  #store: Store | undefined;
  #timer: NodeJS.Timeout | undefined;
  #restart: NodeJS.Timeout | undefined;
  #renewing = false;
  #said = '';
  #pause = pauses.first;
  #stopped: Promise<void> | undefined;

  private constructor(image: string, layers: readonly Layer[], options: DaemonOptions) {
    this.#image = image;
    this.#layers = layers;
    this.#options = options;
    this.#dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-qcow2-')); // mode 0700
    this.socket = path.join(this.#dir, 'nbd');
    running.add(this);
  }

  /** Starts one and waits until it listens. The layers belong to it. @throws VioError */
  static async start(image: string, layers: readonly Layer[], options: DaemonOptions): Promise<Daemon> {
    // one whose disk was closed a moment ago may have the image still
    await Promise.all([...running].filter((one) => one.#image === image && one.#closed()).map((one) => one.stop()));
    const daemon = new Daemon(image, layers, options);
    try {
      daemon.#spawn();
      await daemon.#listens();
      return daemon;
    } catch (err) {
      await daemon.stop();
      throw err;
    }
  }

  /** From now on it runs as long as the store is open. */
  serves(store: Store): void {
    this.#store = store;
    this.#timer = setInterval(() => {
      if (this.#closed()) void this.stop();
    }, lookTime);
    this.#timer.unref();
    if (!this.#child) this.#again();
  }

  /**
   * Starts it anew with these files, which belong to it from now on. Requests wait meanwhile.
   * @throws VioError if it does not start; it is tried again later then
   */
  async renew(layers: readonly Layer[]): Promise<void> {
    this.#renewing = true;
    clearTimeout(this.#restart);
    await this.#end();
    closeChain(this.#layers);
    this.#layers = layers;
    try {
      if (this.#stopped) return; // which closes them
      this.#spawn();
      await this.#listens();
    } catch (err) {
      this.#again();
      throw err;
    } finally {
      this.#renewing = false;
    }
  }

  /** Ends it in order. */
  stop(): Promise<void> {
    this.#stopped ??= this.#stop();
    return this.#stopped;
  }

  /** The process ends: there is no time to wait. */
  abandon(): void {
    this.#child?.kill('SIGTERM');
    fs.rmSync(this.#dir, { recursive: true, force: true });
  }

  async #stop(): Promise<void> {
    clearInterval(this.#timer);
    clearTimeout(this.#restart);
    await this.#end();
    running.delete(this);
    closeChain(this.#layers);
    fs.rmSync(this.#dir, { recursive: true, force: true });
  }

  async #end(): Promise<void> {
    const child = this.#child;
    if (child) {
      const ended = new Promise((resolve) => child.once('exit', resolve));
      child.ref(); // whoever waits for this may have nothing else to live for
      child.kill('SIGTERM');
      await Promise.race([ended, sleep(startTime, undefined, { ref: false })]);
      child.kill('SIGKILL');
    }
  }

  #closed(): boolean {
    if (!this.#store) return false;
    try {
      native().storage.size(this.#store);
      return false;
    } catch {
      return true;
    }
  }

  #spawn(): void {
    fs.rmSync(this.socket, { force: true });
    this.#said = '';
    // without a network, and ended by the kernel when this process ends
    const confine = process.getuid?.() === 0 ? ['unshare', '--net', '--'] : ['unshare', '--user', '--map-current-user', '--net', '--'];
    const child = spawn(
      'setpriv',
      [
        ...['--pdeathsig', 'TERM', '--no-new-privs', '--', ...confine, program],
        ...nodes(this.#layers, this.#options),
        ...['--nbd-server', `addr.type=unix,addr.path=${this.socket},max-connections=16`],
        ...[
          '--export',
          JSON.stringify({ type: 'nbd', id: 'disk', 'node-name': 'layer0', name: exportName, writable: !this.#options.readonly }),
        ],
      ],
      { stdio: ['ignore', 'ignore', 'pipe', ...descriptors(this.#layers)], env: { PATH: process.env.PATH ?? '', LC_ALL: 'C' } },
    );
    this.#child = child;
    child.stderr?.setEncoding('utf8').on('data', (text: string) => this.#says(text));
    (child.stderr as { unref?: () => void } | null)?.unref?.();
    child.on('error', (err) => this.#says(`${err.message}\n`));
    child.once('exit', (status, signal) => {
      if (this.#child !== child) return;
      this.#child = undefined;
      if (this.#stopped || this.#renewing || !this.#store) return;
      note(this.#store, `${program} has ended (${signal ?? `status ${status}`}); it is started again`);
      this.#again();
    });
    child.unref();
  }

  #again(): void {
    clearTimeout(this.#restart);
    this.#restart = setTimeout(() => {
      if (!this.#stopped && !this.#closed()) this.#spawn();
    }, this.#pause);
    this.#restart.unref();
    this.#pause = Math.min(this.#pause * 2, pauses.most);
  }

  #says(text: string): void {
    this.#said = (this.#said + text).slice(-4 * maxLine);
    if (!this.#store) return;
    for (const line of text.split('\n').filter((one) => one !== '')) note(this.#store, printable(line.slice(0, maxLine)));
  }

  /** @throws VioError: what it said when it ended */
  async #listens(): Promise<void> {
    const until = performance.now() + startTime;
    while (!fs.existsSync(this.socket)) {
      if (!this.#child) throw this.#failure();
      if (performance.now() > until) throw new VioError(`${printable(this.#image)}: ${program} does not start`, { code: 'ETIMEDOUT' });
      await sleep(pollTime);
    }
  }

  #failure(): VioError {
    const said = this.#said.trim();
    if (/Failed to get|Failed to lock|another process/i.test(said))
      return new VioError(`${printable(this.#image)}: already in use by another process`, { code: 'IN_USE', exit: Exit.refused });
    if (said === '' || /setpriv: failed to execute|unshare: failed to execute|ENOENT/.test(said))
      return new VioError(`${printable(this.#image)}: ${program} is not installed`, {
        code: 'ENOENT',
        exit: Exit.unsupported,
        hint: 'apt install qemu-utils',
      });
    const last = said
      .split('\n')
      .at(-1)!
      .replace(/^qemu-storage-daemon: (--\S+ .*?: )?/, '');
    return new VioError(`${printable(this.#image)}: ${program} cannot open it: ${printable(last)}`, { code: 'QCOW2' });
  }
}
