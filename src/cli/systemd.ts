import { native } from '../native/index.js';

/** Sends a state to the service manager (sd_notify(3)): `READY=1`, `STATUS=…`, `STOPPING=1`. Nothing where none listens. */
export function notify(env: NodeJS.ProcessEnv, ...lines: string[]): void {
  const socket = env.NOTIFY_SOCKET;
  if (socket) native().common.sdNotify(socket, lines.join('\n'));
}

/** A descriptor that the service manager keeps while the service restarts. Names have no colons and no control characters. */
export interface Kept {
  name: string;
  fd: number;
}

/** Milliseconds between two looks at what the status line says. */
const statusPeriod = 2000;

/** What a server tells the service manager all its life. A manager that cannot be reached later on changes nothing. */
export class ServiceManager {
  readonly #env: NodeJS.ProcessEnv;
  readonly #timers: NodeJS.Timeout[] = [];
  #status: string | undefined;
  readonly #kept = new Map<string, number>();

  constructor(env: NodeJS.ProcessEnv) {
    this.#env = env;
  }

  /**
   * Says that the server is ready, and from now on that it is alive (watchdog), what it does, and which descriptors to keep.
   * @param status one line
   * @param had names of descriptors that it has kept from an earlier run
   * @throws the system's error where the manager cannot be reached
   */
  ready(status: () => string, keep: () => Kept[] = () => [], had: readonly string[] = []): void {
    if (!this.#env.NOTIFY_SOCKET) return;
    this.#status = status();
    notify(this.#env, 'READY=1', `STATUS=${this.#status}`);
    const wanted = keep();
    for (const name of had) if (!wanted.some((one) => one.name === name)) this.#tell('FDSTOREREMOVE=1', `FDNAME=${name}`);
    const look = () => {
      this.#quietly(() => this.#keep(keep()));
      const now = status();
      if (now === this.#status) return;
      this.#status = now;
      this.#tell(`STATUS=${now}`);
    };
    look();
    this.#timers.push(setInterval(look, statusPeriod).unref());
    const pid = this.#env.WATCHDOG_PID;
    const watchdog = Number(this.#env.WATCHDOG_USEC);
    if (!Number.isFinite(watchdog) || watchdog <= 0 || (pid !== undefined && pid !== String(process.pid))) return;
    this.#tell('WATCHDOG=1');
    this.#timers.push(setInterval(() => this.#tell('WATCHDOG=1'), Math.max(1, watchdog / 1000 / 2)).unref());
  }

  /** Says that the configuration is being read again; reloaded() ends that (Type=notify-reload). */
  reloading(): void {
    this.#tell('RELOADING=1', `MONOTONIC_USEC=${process.hrtime.bigint() / 1000n}`);
  }

  /** @param status of the reload, or of the server again after a while */
  reloaded(status: string): void {
    this.#status = status;
    this.#tell('READY=1', `STATUS=${status}`);
  }

  stopping(): void {
    for (const timer of this.#timers) clearInterval(timer);
    this.#tell('STOPPING=1', 'STATUS=ending connections');
  }

  /** Has the manager keep these descriptors, and no others of earlier calls. */
  #keep(wanted: readonly Kept[]): void {
    const socket = this.#env.NOTIFY_SOCKET;
    if (!socket) return;
    for (const [name, fd] of this.#kept) {
      if (wanted.some((one) => one.name === name && one.fd === fd)) continue;
      native().common.sdNotify(socket, `FDSTOREREMOVE=1\nFDNAME=${name}`);
      this.#kept.delete(name);
    }
    for (const { name, fd } of wanted) {
      if (this.#kept.has(name)) continue;
      native().common.sdNotify(socket, `FDSTORE=1\nFDNAME=${name}`, [fd]);
      this.#kept.set(name, fd);
    }
  }

  #tell(...lines: string[]): void {
    this.#quietly(() => notify(this.#env, ...lines));
  }

  #quietly(tell: () => void): void {
    try {
      tell();
    } catch {
      // the manager restarts, or its socket is full: it asks for nothing that the next call does not say again
    }
  }
}
