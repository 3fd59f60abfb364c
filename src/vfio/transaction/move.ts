import { codeOf, Exit, reason, VioError } from '../../common/errors.js';
import { printable } from '../../common/escape.js';
import type { Sysroot } from '../../common/sysroot.js';
import type { Modules } from '../devices/modules.js';
import { linkName, type PciDevice, pciDevices, pciDrivers, readDevice, readOverride } from '../devices/pci.js';
import type { DeviceState } from './journal.js';
import { StuckWrite, type Writer, waitingIn } from './writer.js';

/** Steps of taking a device from one driver to another, in their order; each begins with its name in the journal. */
export type Step = 'override' | 'unbind' | 'bind' | 'settle' | 'vfs' | 'macs' | 'verify' | 'owner';

/** One write to sysfs. */
export interface SysfsWrite {
  step: Step;
  path: string;
  /** Without the newline. */
  value: string;
}

/** What a move needs of the system. */
export interface Host {
  root: Sysroot;
  modules: Modules;
  writer: Writer;
  /** Loads a kernel module. @throws VioError */
  modprobe(module: string): Promise<void>;
  /** Runs ip(8). @returns its output @throws VioError */
  ip(args: readonly string[]): Promise<string>;
  /** Kernel messages about a device since a time (performance clock, ms). */
  kernelMessages(bdf: string, since: number): string[];
  /** Our own process. */
  pid: number;
}

/** The words of ip(8) that set the MAC address of a virtual function. */
export const macCommand = (link: string, vf: number, mac: string): string[] => ['link', 'set', 'dev', link, 'vf', String(vf), 'mac', mac];

/** The state of a device as it was read. */
export const stateOf = ({ driver, override, numVfs, autoprobe }: PciDevice): DeviceState => ({
  driver,
  override,
  numVfs,
  ...(autoprobe !== undefined && { autoprobe }),
});

/** The error for a device that the kernel holds locked. */
export const lockedError = (bdf: string): VioError =>
  new VioError(`${bdf}: the kernel is still busy with the device: a driver is being unbound or probed and does not come back`, {
    code: 'STUCK',
    hint: 'end what uses the device (vioctl vfio show); dmesg tells what hangs',
    details: { bdf },
  });

/**
 * The writes that take a device from one state to another. The override is set before the old driver lets go, so that
 * nothing else can take the device in between; `new_id` is never used: it would bind every device of the same id.
 */
export function planMove(bdf: string, from: DeviceState, to: DeviceState): SysfsWrite[] {
  const writes: SysfsWrite[] = [];
  const overrideFile = `${pciDevices}/${bdf}/driver_override`;
  let override = from.override;
  const setOverride = (value: string | undefined, step: Step) => {
    if (override !== value) writes.push({ step, path: overrideFile, value: value ?? '' });
    override = value;
  };
  if (from.driver !== to.driver) {
    // a driver that matches by its id table needs no override of its own, but one that names another driver is in its way
    if (to.driver !== undefined) setOverride(to.override === undefined || to.override === to.driver ? to.override : to.driver, 'override');
    if (from.driver !== undefined) writes.push({ step: 'unbind', path: `${pciDrivers}/${from.driver}/unbind`, value: bdf });
    if (to.driver !== undefined) writes.push({ step: 'bind', path: `${pciDrivers}/${to.driver}/bind`, value: bdf });
  }
  setOverride(to.override, 'settle');
  const vfs = from.driver === to.driver ? from.numVfs : 0; // a driver that lets go takes its virtual functions along
  const setVfs = (file: string, value: string) => writes.push({ step: 'vfs', path: `${pciDevices}/${bdf}/${file}`, value });
  if (to.autoprobe !== undefined && from.autoprobe !== undefined && to.autoprobe !== from.autoprobe)
    setVfs('sriov_drivers_autoprobe', to.autoprobe ? '1' : '0');
  if (to.numVfs !== vfs && to.driver !== undefined) {
    if (vfs > 0 && to.numVfs > 0) setVfs('sriov_numvfs', '0'); // the kernel changes the number from and to 0 only
    setVfs('sriov_numvfs', String(to.numVfs));
  }
  return writes;
}

export interface MoveOptions {
  /** Told before each step; writes the journal. */
  mark: (step: Step) => void;
  /** Stops before the next write. */
  signal?: AbortSignal | undefined;
  /** Milliseconds for one write. */
  timeout: number;
}

/** Lets a signal that has come in be seen, and stops for it. @throws the signal's reason */
export async function checkSignal(signal: AbortSignal | undefined): Promise<void> {
  if (!signal) return;
  // signals are seen when the event loop polls: after the first immediate it has polled once more
  for (let turn = 0; turn < 2; turn++) await new Promise((resolve) => setImmediate(resolve));
  signal.throwIfAborted();
}

/** Why a driver would not take a device, and what helps. */
function explainBind(host: Host, bdf: string, driver: string, err: unknown, since: number): VioError {
  const code = codeOf(err);
  const kernel = host.kernelMessages(bdf, since);
  const quoted = kernel.length ? `; kernel: ${printable(kernel.at(-1)!)}` : '';
  const device = readDevice(host.root, bdf);
  const vfio = host.modules.isVfio(driver);
  let hint: string | undefined;
  if (code === 'EINVAL' && vfio && device?.group === undefined) hint = 'the device is behind no IOMMU: vioctl vfio doctor';
  else if (code === 'EINVAL' && device?.bridge) hint = 'VFIO takes endpoints only, never bridges';
  else if (code === 'EINVAL' && vfio)
    hint = 'the device may be on the deny list of vfio-pci (module parameter disable_denylist lifts it, at a risk)';
  else if (code === 'EBUSY') hint = 'a member of its IOMMU group is held through VFIO, or another driver took it: vioctl vfio show';
  else if (code === 'ENODEV') hint = `driver ${driver} does not take this device`;
  else if (code === 'ENOENT') hint = `driver ${driver} is not registered: modprobe ${driver}`;
  else if (code === 'EROFS') hint = '/sys is read-only here (a container?): run on the host, or with a writable /sys';
  return new VioError(`${bdf}: driver ${driver} did not take the device: ${reason(err)}${quoted}`, {
    code: code ?? 'FAILED',
    hint,
    details: { bdf, driver, step: 'bind', ...(kernel.length > 0 && { kernel }) },
    cause: err,
  });
}

/** Runs one write of a move. */
async function runWrite(host: Host, bdf: string, write: SysfsWrite, options: MoveOptions): Promise<void> {
  const { root, writer } = host;
  const driverNow = () => linkName(root, `${pciDevices}/${bdf}/driver`);
  const since = performance.now();
  try {
    await writer.write(write.path, `${write.value}\n`, { timeout: options.timeout, signal: options.signal });
  } catch (err) {
    const driver = write.path.split('/').at(-2)!;
    if (err instanceof StuckWrite) {
      throw new VioError(
        `${bdf}: driver ${driver} does not let go: the kernel still works on ${write.step} (${waitingIn(root, err.pid)})`,
        {
          code: 'STUCK',
          exit: Exit.notRestored,
          hint: 'end what uses the device (vioctl vfio show), then: vioctl vfio restore',
          details: { bdf, step: write.step, pid: err.pid },
          cause: err,
        },
      );
    }
    if (write.step === 'bind') {
      if (driverNow() === driver) return; // somebody else bound it, to the driver we want
      throw explainBind(host, bdf, driver, err, since);
    }
    if (write.step === 'unbind' && driverNow() !== driver) return; // it has let go already
    const code = codeOf(err);
    throw new VioError(`${bdf}: write ${write.path}: ${reason(err)}`, {
      code: code ?? 'FAILED',
      hint: code === 'EROFS' ? '/sys is read-only here (a container?): run on the host, or with a writable /sys' : undefined,
      details: { bdf, step: write.step, path: write.path },
      ...(code === 'EROFS' && { exit: Exit.permission }),
      cause: err,
    });
  }
}

/**
 * Takes a device to a state, whatever state it is in now, and verifies it. Rolling back and replaying a journal are the same
 * call with the earlier state.
 * @throws VioError with the errno as code; STUCK (8) when a driver never lets go; the signal's reason when aborted
 */
export async function moveTo(host: Host, bdf: string, to: DeviceState, options: MoveOptions): Promise<void> {
  const { root } = host;
  for (let attempt = 0; ; attempt++) {
    const device = readDevice(root, bdf);
    if (!device) throw new VioError(`${bdf}: the device is gone: ENODEV (No such device)`, { code: 'ENODEV', details: { bdf } });
    if (device.busy) throw lockedError(bdf);
    try {
      for (const write of planMove(bdf, stateOf(device), to)) {
        await checkSignal(options.signal);
        options.mark(write.step);
        await runWrite(host, bdf, write, options);
      }
      options.mark('verify');
      verify(root, bdf, to);
      return;
    } catch (err) {
      // Between unbind and bind another driver was quicker (hot plug, rescan; ENODEV: its program has set the override too): take
      // the device away once.
      const taken = linkName(root, `${pciDevices}/${bdf}/driver`);
      const lost =
        ['EBUSY', 'ENODEV'].includes(codeOf(err) ?? '') &&
        err instanceof VioError &&
        err.details?.step === 'bind' &&
        to.driver !== undefined &&
        taken !== undefined &&
        taken !== to.driver;
      if (!lost || attempt > 0) throw err;
    }
  }
}

/** @throws VioError NOT_APPLIED when the device is not in the state */
function verify(root: Sysroot, bdf: string, to: DeviceState): void {
  const driver = linkName(root, `${pciDevices}/${bdf}/driver`);
  const override = readOverride(root, bdf);
  const wrong: string[] = [];
  if (driver !== to.driver)
    wrong.push(`it is on ${driver === undefined ? 'no driver' : `driver ${driver}`}, not on ${to.driver ?? 'none'}`);
  if (override !== to.override) wrong.push(`its driver_override is ${printable(override ?? 'unset')}, not ${to.override ?? 'unset'}`);
  if (wrong.length > 0)
    throw new VioError(`${bdf}: the kernel took the writes, but ${wrong.join(' and ')}`, {
      code: 'NOT_APPLIED',
      details: { bdf, driver, override },
    });
}
