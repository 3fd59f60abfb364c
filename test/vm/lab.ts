// The VM lab: boots a stock Debian kernel under an emulated machine with this machine's root file system (read-only,
// below a tmpfs overlay), runs a command there and returns its output and exit status.
import { spawn } from 'node:child_process';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { DeviceArgs, DeviceContext } from './devices.js';
import { Guest, type GuestOptions, type GuestResult, LabError } from './guest.js';
import { iommufdKernel } from './iommufd.js';
import { kernel } from './kernels.js';
import { bootstrap, job, type Machine, machineArgs } from './machine.js';
import { qemu } from './qemu.js';
import { guestSlot } from './slots.js';
import { snapshot } from './snapshot.js';

export * as devices from './devices.js';
export { Guest, type GuestOptions, type GuestResult, LabError, type LabFailure } from './guest.js';
export { KERNELS, type KernelName, kernelsFor } from './kernels.js';

/** Whether the guest may continue a saved machine instead of booting. */
function restorable(options: GuestOptions, devices: readonly DeviceArgs[]): boolean {
  return (
    process.env.VIOCTL_LAB_SNAPSHOT !== '0' && options.fresh !== true && !options.args?.length && devices.every((d) => d.saved === true)
  );
}

/** A saved machine that does not work costs time, not the test: the guest is booted, and this line tells why. */
function note(problem: unknown): undefined {
  process.stderr.write(`lab: booting instead of restoring: ${problem instanceof Error ? problem.message : String(problem)}\n`);
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
    const devices: DeviceArgs[] = [];
    for (const device of options.devices ?? []) devices.push(await device(context));
    const machine: Machine = { options, kernel: k, qemu: q, devices };
    const work = job(
      options,
      k.dir,
      devices.some((m) => m.net),
    );
    const saved = restorable(options, devices) ? await snapshot(machine).catch(note) : undefined;
    const base = readFileSync(k.initrd);
    // a restored machine still needs the same -initrd: its bytes lie in firmware tables whose sizes are checked
    writeFileSync(path.join(dir, 'initrd'), Buffer.concat(saved ? [base, bootstrap(true)] : [base, bootstrap(false), work]));
    const args = [...machineArgs(machine, dir), ...(saved ? ['-incoming', `file:${saved}`] : [])];
    // the guest dies with this process, however that ends
    const child = spawn('setpriv', ['--pdeathsig', 'KILL', ...q.argv('qemu-system-x86_64', args)], {
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { ...process.env, ...q.env },
    });
    const guest = new Guest(child, { dir, ports, restored: saved !== undefined }, options.timeout ?? 300, release);
    try {
      if (saved) (await guest.connect('job')).write(work);
      if (interactive) await guest.openInput();
    } catch {
      // QEMU is gone or never listened: wait() tells why
      await guest.stop();
    }
    return guest;
  } catch (e) {
    release();
    if (dir) rmSync(dir, { recursive: true, force: true });
    throw e;
  }
}

/** A guest whose command has started; one whose clock stops while it boots is replaced, twice at most. */
async function started(options: GuestOptions, interactive: boolean): Promise<Guest> {
  for (let again = 2; ; again--) {
    const guest = await start(options, interactive);
    if (await guest.booted(again > 0)) return guest;
    process.stderr.write("lab: booting once more: the guest's clock stood still\n");
  }
}

/** Runs something with a guest; once more if the emulator breaks (an assertion of its own), or its guest stands still. */
export async function onceMore<T>(run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (e) {
    if (!(e instanceof LabError) || !['qemu', 'stalled'].includes(e.kind)) throw e;
    process.stderr.write(`lab: once more: ${e.message.split('\n')[0]}\n`);
    return run();
  }
}

/** Boots a kernel, runs the command, returns its result. See GuestOptions; rejects with LabError. */
export async function boot(options: GuestOptions): Promise<GuestResult> {
  return onceMore(() => bootOnce(options));
}

async function bootOnce(options: GuestOptions): Promise<GuestResult> {
  const guest = await started(options, false);
  try {
    return await guest.wait();
  } catch (e) {
    if (!guest.restored || guest.up) throw e;
    note(e);
    return (await started({ ...options, fresh: true }, false)).wait();
  }
}

/** Starts a guest and returns when its command has started: wait for its lines, write to its command, talk to its ports and its QMP. */
export async function spawnGuest(options: GuestOptions): Promise<Guest> {
  return started(options, true);
}
