// A running guest of the lab: its output, its monitor, its end.
import type { ChildProcess } from 'node:child_process';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import type { Socket } from 'node:net';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Device } from './devices.js';
import type { KernelName } from './kernels.js';
import type { QemuName } from './qemu.js';
import { connectUnix, Qmp } from './qmp.js';

export interface GuestOptions {
  kernel: KernelName;
  /** Kernel 6.12 only: vfio modules rebuilt with iommufd, /dev/vfio/devices and no-IOMMU mode (iommufd.ts). */
  iommufd?: boolean;
  /** A shell script; it runs as root in the checkout's folder, with node in PATH. */
  cmd: string;
  /** Device presets (devices.ts). They get PCI addresses 00:01.0, 00:02.0, ... in the order given. */
  devices?: readonly Device[];
  /** More QEMU arguments as they are. */
  args?: readonly string[];
  /** MiB, 1024 unless told. */
  memory?: number;
  /** Virtual processors, one unless told: under emulation each costs a thread, and two cost more work than they share. */
  smp?: number;
  /** More kernel command line. */
  append?: string;
  /** Seconds from the start of QEMU to its end; 300 unless told (starved machines boot slowly). */
  timeout?: number;
  /** A host folder the guest sees, writable, at /share. */
  share?: string;
  /** Files to put into the guest, by absolute path. A `{ mode, data }` sets permissions. */
  files?: Readonly<Record<string, string | Buffer | { mode: number; data: string | Buffer }>>;
  /** Environment of the command. */
  env?: Readonly<Record<string, string>>;
  qemu?: QemuName;
  /** Boot in any case. Otherwise a machine whose devices allow it continues a saved one (snapshot.ts): much quicker. */
  fresh?: boolean;
}

export interface GuestResult {
  /** The command's exit status as its shell reports it. */
  status: number;
  stdout: string;
  stdoutBytes: Buffer;
  stderr: string;
  /** The kernel's messages (warnings and worse, unless `append` says `loglevel=7`). */
  console: string;
  /** Whether a saved machine was continued instead of booting one. */
  restored: boolean;
  /** Wall time of the whole cycle without the wait for a free slot. */
  seconds: number;
}

/** Why a guest gave no exit status. */
export type LabFailure = 'panic' | 'timeout' | 'stalled' | 'boot' | 'qemu' | 'stopped';

/** A guest that did not end by itself with a status. The message ends with the tail of its console. */
export class LabError extends Error {
  readonly kind: LabFailure;
  readonly console: string;
  readonly stdout: string;
  constructor(kind: LabFailure, what: string, console: string, stdout: string, stderr: string) {
    const tail = (title: string, s: string, n: number) =>
      s.trim() ? `\n--- ${title}\n${s.trimEnd().split('\n').slice(-n).join('\n')}` : '';
    super(`${what}${tail('console', console, 80)}${tail('stdout', stdout, 20)}${tail('stderr', stderr, 20)}`);
    this.name = 'LabError';
    this.kind = kind;
    this.console = console;
    this.stdout = stdout;
  }
}

/** How often a guest is looked at for a stall, in milliseconds. */
const stallLook = 5000;
/** The kernel's reports of a processor that gets no further (kernel/rcu/tree_stall.h): the first after 21 s, then one a minute. */
const stallReport = /rcu: INFO: rcu_\w+ (?:self-)?detected (?:expedited )?stalls?/g;

/** Whether a guest's clock stands still: it happens to an emulated second processor now and then, and hardly ever mends. */
export const clockStands = (console: string): boolean => console.includes("rcu_preempt kthread timer wakeup didn't happen");

/** Whether a guest gets no further: two such reports without a byte of its output before, between and after them. */
export class StallWatch {
  #output = -1;
  #reports = 0;

  /** @param output bytes of all its output so far */
  stalled(output: number, console: string): boolean {
    const reports = console.match(stallReport)?.length ?? 0;
    if (output !== this.#output) {
      this.#output = output;
      this.#reports = reports;
    }
    return reports - this.#reports >= 2;
  }
}

/** A running guest. Whoever starts one ends it: `wait` for its command, or `stop`. */
export class Guest {
  /** Host port of each forwarded guest port. */
  readonly ports: ReadonlyMap<number, number>;
  /** The guest's private folder on the host. */
  readonly dir: string;
  /** Whether it continues a saved machine. */
  readonly restored: boolean;
  private readonly child: ChildProcess;
  private readonly out: Buffer[] = [];
  private stderrText = '';
  private readonly begun = Date.now();
  private seconds = 0;
  private watchers = new Set<() => void>();
  private failure: { kind: LabFailure; what: string } | undefined;
  private readonly timer: NodeJS.Timeout;
  private readonly stallTimer: NodeJS.Timeout;
  private readonly ended: Promise<void>;
  private over = false;
  private input: Socket | undefined;
  private monitor: Qmp | undefined;
  private final: { console: string; ctl: string; err: string; qemuStatus: string } | undefined;

  constructor(
    child: ChildProcess,
    from: { dir: string; ports: Map<number, number>; restored: boolean },
    timeout: number,
    release: () => void,
  ) {
    this.child = child;
    this.dir = from.dir;
    this.ports = from.ports;
    this.restored = from.restored;
    child.stdout?.on('data', (b: Buffer) => {
      this.out.push(b);
      for (const w of this.watchers) w();
    });
    child.stderr?.on('data', (b: Buffer) => {
      this.stderrText += b.toString();
    });
    this.timer = setTimeout(() => this.kill('timeout', `guest did not end within ${timeout} s`), timeout * 1000);
    const watch = new StallWatch();
    this.stallTimer = setInterval(() => {
      const output = this.out.reduce((sum, part) => sum + part.length, 0) + this.stderr.length;
      if (this.up && watch.stalled(output, this.console())) this.kill('stalled', 'guest stood still (its kernel reports stalls)');
    }, stallLook);
    this.ended = new Promise((done) => {
      const finish = (qemuStatus: string) => {
        if (this.over) return;
        this.over = true;
        clearTimeout(this.timer);
        clearInterval(this.stallTimer);
        this.seconds = (Date.now() - this.begun) / 1000;
        this.monitor?.close();
        this.input?.destroy();
        this.final = { console: this.console(), ctl: this.read('ctl'), err: this.read('err'), qemuStatus };
        rmSync(this.dir, { recursive: true, force: true });
        release();
        for (const w of this.watchers) w();
        done();
      };
      child.once('error', (e) => finish(e.message));
      child.once('close', (code, signal) => finish(signal ?? `status ${code}`));
    });
  }

  /** Standard output so far. */
  get stdout(): string {
    return Buffer.concat(this.out).toString();
  }

  /** Standard error so far. */
  get stderr(): string {
    return this.final ? this.final.err : this.read('err');
  }

  /** Whether it got as far as starting the command. */
  get up(): boolean {
    return /^up$/m.test(this.final ? this.final.ctl : this.read('ctl'));
  }

  /**
   * Resolves when the command starts, true, or when the machine ends before: false if its clock stands still; true else, and wait()
   * tells why.
   * @param impatient whether to end such a machine
   */
  async booted(impatient: boolean): Promise<boolean> {
    while (!this.over && !this.up) {
      if (impatient && clockStands(this.console())) {
        this.kill('boot', "the guest's clock stands still");
      }
      await sleep(200);
    }
    return this.failure?.kind !== 'boot' || this.up;
  }

  /** The kernel's messages so far. */
  console(): string {
    return this.final ? this.final.console : this.read('console').replaceAll('\r\n', '\n');
  }

  /** Waits for a complete line of standard output, printed already or yet to come, that matches. Rejects when the guest ends first. */
  line(pattern: RegExp, seconds = 120): Promise<string> {
    return new Promise((resolve, reject) => {
      const settle = (act: () => void) => {
        clearTimeout(timer);
        this.watchers.delete(look);
        act();
      };
      const look = () => {
        const hit = this.stdout
          .split('\n')
          .slice(0, -1)
          .find((l) => pattern.test(l));
        if (hit !== undefined) settle(() => resolve(hit));
        else if (this.over) settle(() => reject(this.error('boot', `guest ended before it printed ${pattern}`)));
      };
      const late = () => settle(() => reject(this.error('timeout', `guest printed no ${pattern} within ${seconds} s`)));
      const timer = setTimeout(late, seconds * 1000);
      this.watchers.add(look);
      look();
    });
  }

  /** Sends bytes to the command's standard input (spawnGuest only). */
  write(data: string | Buffer): void {
    if (!this.input) throw new Error('this guest has no input');
    this.input.write(data);
  }

  /** Ends the command's standard input. */
  end(): void {
    this.input?.end();
  }

  /** Runs a QMP command on the machine. */
  async qmp(command: string, args?: Record<string, unknown>): Promise<unknown> {
    this.monitor ??= await Qmp.open(path.join(this.dir, 'qmp'));
    return this.monitor.run(command, args);
  }

  /** Ends the guest at once and waits until it is gone. Does not fail. */
  async stop(): Promise<void> {
    this.kill('stopped', 'guest was stopped');
    await this.ended;
  }

  /** Waits for the command's end. Rejects with LabError when there was none: panic, time-out, failed boot. */
  async wait(): Promise<GuestResult> {
    await this.ended;
    const { console, ctl, err, qemuStatus } = this.final ?? { console: '', ctl: '', err: '', qemuStatus: '' };
    const status = /^exit (\d+)$/m.exec(ctl)?.[1];
    if (status === undefined) {
      if (this.failure) throw this.error(this.failure.kind, this.failure.what);
      if (/Kernel panic|BUG: |Oops: /.test(console)) throw this.error('panic', 'guest kernel panicked');
      const failed = /^failed (.*)$/m.exec(ctl)?.[1];
      if (failed) throw this.error('boot', `guest did not boot: ${failed}`);
      const broken = qemuStatus.startsWith('SIG'); // QEMU itself; a status is what it says of a machine that it does not start
      if (!this.up) throw this.error(broken ? 'qemu' : 'boot', `guest did not boot (QEMU ended with ${qemuStatus})`);
      throw this.error('qemu', `guest ended without a status (QEMU ended with ${qemuStatus})`);
    }
    const stdoutBytes = Buffer.concat(this.out);
    return {
      status: Number(status),
      stdout: stdoutBytes.toString(),
      stdoutBytes,
      stderr: err,
      console,
      restored: this.restored,
      seconds: this.seconds,
    };
  }

  /** Connects the command's input; called once by spawnGuest. */
  async openInput(): Promise<void> {
    this.input = await this.connect('in');
  }

  /** Connects to one of the machine's sockets; rejects when the machine is gone. */
  async connect(name: string): Promise<Socket> {
    const socket = await connectUnix(path.join(this.dir, name), 60, () => !this.over);
    socket.on('error', () => socket.destroy());
    return socket;
  }

  private kill(kind: LabFailure, what: string): void {
    if (this.over) return;
    this.failure ??= { kind, what };
    this.child.kill('SIGKILL');
  }

  private read(name: string): string {
    const file = path.join(this.dir, name);
    return existsSync(file) ? readFileSync(file, 'utf8') : '';
  }

  private error(kind: LabFailure, what: string): LabError {
    return new LabError(kind, what, this.console(), this.stdout, `${this.stderr}${this.stderrText}`);
  }
}
