// The VM lab: boots a stock Debian kernel under an emulated machine with this machine's root file system (read-only,
// below a tmpfs overlay), runs a command there and returns its output and exit status.
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { mkdtemp } from 'node:fs/promises';
import type { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { checkoutRoot } from './cache.js';
import { type CpioEntry, cpio } from './cpio.js';
import type { Device, DeviceArgs, DeviceContext } from './devices.js';
import { iommufdKernel } from './iommufd.js';
import { type KernelName, kernel } from './kernels.js';
import { type QemuName, qemu } from './qemu.js';
import { connectUnix, Qmp } from './qmp.js';
import { guestSlot } from './slots.js';

export * as devices from './devices.js';
export { KERNELS, type KernelName } from './kernels.js';

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
}

export interface GuestResult {
  /** The command's exit status as its shell reports it. */
  status: number;
  stdout: string;
  stdoutBytes: Buffer;
  stderr: string;
  /** The kernel's messages (warnings and worse, unless `append` says `loglevel=7`). */
  console: string;
  /** Wall time of the whole cycle without the wait for a free slot. */
  seconds: number;
}

/** Why a guest gave no exit status. */
export type LabFailure = 'panic' | 'timeout' | 'boot' | 'qemu' | 'stopped';

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

const quote = (s: string) => `'${s.replaceAll("'", "'\\''")}'`;

/** The part of the initramfs that differs from boot to boot. */
function job(options: GuestOptions, kernelDir: string, net: boolean): Buffer {
  const root = checkoutRoot();
  const env: Record<string, string> = {
    HOME: '/root',
    PATH: `${path.dirname(process.execPath)}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin`,
    LANG: 'C.UTF-8',
    ...options.env,
    LAB_CWD: root,
  };
  const flags = { KERNEL_DIR: kernelDir, SHARE: options.share ? '1' : '', NET: net ? '1' : '' };
  const assign = (o: Record<string, string>, prefix = '') =>
    Object.entries(o)
      .map(([k, v]) => `${prefix}${k}=${quote(v)}\n`)
      .join('');
  const wrapper = '#!/bin/sh\nexec chroot /root2 /sbin/modprobe "$@"\n';
  const entries: CpioEntry[] = [
    { name: 'init', type: 'file', data: readFileSync(path.join(root, 'test/vm/init.sh')), mode: 0o755 },
    // the kernel's own module requests run here, outside the overlay root
    { name: 'sbin/modprobe', type: 'file', data: wrapper, mode: 0o755 },
    { name: 'job/cmd', type: 'file', data: options.cmd },
    { name: 'job/env', type: 'file', data: assign(env, 'export ') },
    { name: 'job/flags', type: 'file', data: assign(flags) },
  ];
  const made = new Set<string>();
  for (const [name, content] of Object.entries(options.files ?? {})) {
    const parts = `job/files/${name.replace(/^\/+/, '')}`.split('/');
    for (let i = 2; i < parts.length; i++) {
      const dir = parts.slice(0, i).join('/');
      if (!made.has(dir)) entries.push({ name: dir, type: 'dir' });
      made.add(dir);
    }
    const file = typeof content === 'string' || Buffer.isBuffer(content) ? { data: content, mode: 0o644 } : content;
    entries.push({ name: parts.join('/'), type: 'file', ...file });
  }
  return cpio(entries);
}

/** A running guest. Whoever starts one ends it: `wait` for its command, or `stop`. */
export class Guest {
  /** Host port of each forwarded guest port. */
  readonly ports: ReadonlyMap<number, number>;
  /** The guest's private folder on the host. */
  readonly dir: string;
  private readonly child: ChildProcess;
  private readonly out: Buffer[] = [];
  private stderrText = '';
  private readonly begun = Date.now();
  private seconds = 0;
  private watchers = new Set<() => void>();
  private failure: { kind: LabFailure; what: string } | undefined;
  private readonly timer: NodeJS.Timeout;
  private readonly ended: Promise<void>;
  private over = false;
  private input: Socket | undefined;
  private monitor: Qmp | undefined;
  private final: { console: string; ctl: string; err: string; qemuStatus: string } | undefined;

  constructor(child: ChildProcess, dir: string, ports: Map<number, number>, timeout: number, release: () => void) {
    this.child = child;
    this.dir = dir;
    this.ports = ports;
    child.stdout?.on('data', (b: Buffer) => {
      this.out.push(b);
      for (const w of this.watchers) w();
    });
    child.stderr?.on('data', (b: Buffer) => {
      this.stderrText += b.toString();
    });
    this.timer = setTimeout(() => this.kill('timeout', `guest did not end within ${timeout} s`), timeout * 1000);
    this.ended = new Promise((done) => {
      const finish = (qemuStatus: string) => {
        if (this.over) return;
        this.over = true;
        clearTimeout(this.timer);
        this.seconds = (Date.now() - this.begun) / 1000;
        this.monitor?.close();
        this.input?.destroy();
        this.final = { console: this.console(), ctl: this.read('ctl'), err: this.read('err'), qemuStatus };
        rmSync(dir, { recursive: true, force: true });
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
      if (!/^up$/m.test(ctl)) throw this.error('boot', `guest did not boot (QEMU ended with ${qemuStatus})`);
      throw this.error('qemu', `guest ended without a status (QEMU ended with ${qemuStatus})`);
    }
    const stdoutBytes = Buffer.concat(this.out);
    return { status: Number(status), stdout: stdoutBytes.toString(), stdoutBytes, stderr: err, console, seconds: this.seconds };
  }

  /** Connects the command's input; called once by spawnGuest. */
  async openInput(): Promise<void> {
    const socket = await connectUnix(path.join(this.dir, 'in'), 60);
    socket.on('error', () => socket.destroy());
    this.input = socket;
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

async function start(options: GuestOptions, interactive: boolean): Promise<Guest> {
  if (options.iommufd && options.kernel !== '6.12') throw new Error(`iommufd is built for 6.12, not ${options.kernel}`);
  const [k, q] = await Promise.all([options.iommufd ? iommufdKernel() : kernel(options.kernel), qemu(options.qemu)]);
  const release = await guestSlot();
  let dir: string | undefined;
  try {
    dir = await mkdtemp(path.join(tmpdir(), 'vm-'));
    const ports = new Map<number, number>();
    let counter = 1;
    const context: DeviceContext = { dir, ports, next: () => counter++ };
    const made: DeviceArgs[] = [];
    for (const device of options.devices ?? []) made.push(await device(context));
    const net = made.some((m) => m.net);
    writeFileSync(path.join(dir, 'initrd'), Buffer.concat([readFileSync(k.initrd), job(options, k.dir, net)]));
    const memory = options.memory ?? 1024;
    const append = [
      ...['console=ttyS0', 'panic=-1', 'oops=panic', 'quiet', 'loglevel=4', 'no_timer_check', 'tsc=reliable'],
      ...made.flatMap((m) => m.append ?? []),
      ...(options.append ? [options.append] : []),
    ];
    const port = (name: string, chardev: string) => [
      ...['-chardev', `${chardev.replace('ID', `c${name}`)}`],
      ...['-device', `virtserialport,bus=labser.0,chardev=c${name},name=lab.${name}`],
    ];
    const args = [
      ...['-M', 'q35', '-accel', 'tcg,thread=multi', '-cpu', 'max', '-m', `${memory}`, '-smp', `${options.smp ?? 2}`],
      ...['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot'],
      ...['-kernel', k.vmlinuz, '-initrd', path.join(dir, 'initrd'), '-append', append.join(' ')],
      ...['-chardev', `file,id=con,path=${path.join(dir, 'console')}`, '-serial', 'chardev:con'],
      ...['-qmp', `unix:${path.join(dir, 'qmp')},server=on,wait=off`],
      ...(made.some((m) => m.sharedMemory)
        ? ['-object', `memory-backend-memfd,id=labmem,size=${memory}M,share=on`, '-machine', 'memory-backend=labmem']
        : []),
      ...made.flatMap((m) => m.args),
      ...(options.args ?? []),
      // the lab's own devices stay at the end of the bus, so that tests find theirs at 00:01.0, 00:02.0, ...
      ...['-device', 'isa-debug-exit,iobase=0xf4,iosize=0x04', '-device', 'virtio-rng-pci,addr=0x1b'],
      ...['-device', 'virtio-serial-pci,id=labser,addr=0x1c'],
      ...port('out', 'stdio,id=ID,signal=off'),
      ...port('err', `file,id=ID,path=${path.join(dir, 'err')}`),
      ...(interactive ? port('in', `socket,id=ID,path=${path.join(dir, 'in')},server=on,wait=off`) : []),
      ...port('ctl', `file,id=ID,path=${path.join(dir, 'ctl')}`),
      ...['-fsdev', `local,id=root,path=${q.hostRoot},security_model=none,readonly=on,multidevs=remap`],
      ...['-device', 'virtio-9p-pci,fsdev=root,mount_tag=rootfs,addr=0x1d'],
      ...(options.share
        ? [
            ...['-fsdev', `local,id=share,path=${path.join(q.hostRoot, path.resolve(options.share))},security_model=none,multidevs=remap`],
            ...['-device', 'virtio-9p-pci,fsdev=share,mount_tag=share,addr=0x1e'],
          ]
        : []),
    ];
    // the guest dies with this process, however that ends
    const child = spawn('setpriv', ['--pdeathsig', 'KILL', ...q.argv('qemu-system-x86_64', args)], {
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { ...process.env, ...q.env },
    });
    const guest = new Guest(child, dir, ports, options.timeout ?? 300, release);
    if (interactive) {
      try {
        await guest.openInput();
      } catch {
        // QEMU is gone or never listened: wait() tells why
        await guest.stop();
        await guest.wait();
      }
    }
    return guest;
  } catch (e) {
    release();
    if (dir) rmSync(dir, { recursive: true, force: true });
    throw e;
  }
}

/** Boots a kernel, runs the command, returns its result. See GuestOptions; rejects with LabError. */
export async function boot(options: GuestOptions): Promise<GuestResult> {
  return (await start(options, false)).wait();
}

/** Starts a guest and returns at once: wait for its lines, write to its command, talk to its ports and its QMP. */
export async function spawnGuest(options: GuestOptions): Promise<Guest> {
  return start(options, true);
}
