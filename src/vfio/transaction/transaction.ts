import { randomBytes } from 'node:crypto';
import { assert, Exit, reason, VioError } from '../../common/errors.js';
import { counted } from '../../common/units.js';
import { namesOf } from '../devices/identity.js';
import { idOf, type PciDevice, readDevice, readDevices } from '../devices/pci.js';
import { type BoundRecord, type DeviceState, type Journal, type JournalDevice, Store, startTime } from './journal.js';
import { checkSignal, type Host, macCommand, moveTo, type Step, stateOf } from './move.js';

/** A device and the state it is to have. */
export interface Move {
  device: PciDevice;
  to: DeviceState;
  /** MAC addresses to put back. */
  macs?: JournalDevice['macs'];
}

/** Milliseconds for one write to sysfs: a driver that flushes a large cache may take long, one that hangs must not hold us. */
export const writeTimeout = 20_000;

/** What could not be put back. */
export interface Leftover {
  bdf: string;
  want: DeviceState;
  why: string;
}

const stateText = ({ driver, override, numVfs }: DeviceState): string =>
  `${driver === undefined ? 'no driver' : `driver ${driver}`}${override === undefined ? '' : `, driver_override ${override}`}${numVfs > 0 ? `, ${counted(numVfs, 'VF')}` : ''}`;

const differs = (a: DeviceState, b: DeviceState): boolean =>
  a.driver !== b.driver || a.override !== b.override || a.numVfs !== b.numVfs || a.autoprobe !== b.autoprobe;

/** Takes a device to a state it had, with its driver's module. */
async function back(host: Host, bdf: string, state: DeviceState, mark: (step: Step) => void): Promise<void> {
  if (state.driver !== undefined && !host.modules.registered(state.driver)) await host.modprobe(state.driver);
  await moveTo(host, bdf, state, { mark, timeout: writeTimeout });
}

/**
 * Takes a device to its earlier state. Virtual functions that the change took away come back without being offered to drivers, and
 * get the addresses and drivers that they had; those that it made leave no record. @param vfs those that are there now
 */
async function putBack(host: Host, entry: JournalDevice, vfs: readonly string[], mark: (step: Step) => void): Promise<void> {
  const { bdf, before, macs } = entry;
  const store = new Store(host.root);
  const lost = entry.vfs ?? [];
  if (lost.length > 0) await back(host, bdf, { ...before, ...(before.autoprobe !== undefined && { autoprobe: false }) }, mark);
  else await back(host, bdf, before, mark);
  for (const [vf, mac] of macs?.before ?? []) await host.ip(macCommand(macs!.link, vf, mac));
  for (const vf of lost) {
    await back(host, vf.bdf, vf.state, () => mark('vfs'));
    if (vf.record) store.keep(vf.record);
  }
  if (lost.length > 0) await back(host, bdf, before, mark);
  for (const vf of vfs) if (!lost.some((one) => one.bdf === vf) && readDevice(host.root, vf) === undefined) store.forget(vf);
}

/** The virtual functions that a change takes away, as they are. */
function lostVfs(host: Host, store: Store, device: PciDevice, to: DeviceState): JournalDevice['vfs'] {
  if (device.numVfs === 0 || (device.numVfs === to.numVfs && device.driver === to.driver)) return undefined;
  return readDevices(host.root, device.vfs).map((vf) => ({ bdf: vf.bdf, state: stateOf(vf), record: store.record(vf.bdf) }));
}

/** Takes devices to their earlier states, last first; every one is tried. @returns what could not be put back */
export async function rollBack(
  host: Host,
  devices: readonly JournalDevice[],
  mark: (device: JournalDevice, step: Step) => void,
): Promise<Leftover[]> {
  const left: Leftover[] = [];
  for (const entry of [...devices].reverse()) {
    const device = readDevice(host.root, entry.bdf);
    try {
      if (device && (device.vendor !== entry.vendor || device.device !== entry.device))
        throw new VioError(`another device (${idOf(device)}) is at this address now`, { code: 'RENUMBERED' });
      await putBack(host, entry, device?.vfs ?? [], (step) => mark(entry, step));
    } catch (err) {
      left.push({ bdf: entry.bdf, want: entry.before, why: err instanceof Error && !('syscall' in err) ? err.message : reason(err) });
    }
  }
  return left;
}

/** The error of a change that could not be undone (exit 8). */
export function notRestored(what: string, left: Leftover[], cause: unknown): VioError {
  const list = left.map(({ bdf, want, why }) => `${bdf} should have ${stateText(want)}: ${why.replace(`${bdf}: `, '')}`).join('; ');
  return new VioError(`${what}; NOT restored: ${list}`, {
    code: 'NOT_RESTORED',
    exit: Exit.notRestored,
    hint: 'when the cause is gone: vioctl vfio restore',
    details: { left: left.map(({ bdf, want, why }) => ({ bdf, want, why })) },
    cause,
  });
}

/**
 * Changes the drivers of devices, all or none. The journal is on disk before the first write and names each step before it
 * is done, so that `vfio restore` can undo what a killed run left.
 */
export class Transaction {
  readonly #host: Host;
  readonly #store: Store;
  readonly #journal: Journal;
  readonly #moves: readonly Move[];

  private constructor(host: Host, store: Store, journal: Journal, moves: readonly Move[]) {
    this.#host = host;
    this.#store = store;
    this.#journal = journal;
    this.#moves = moves;
  }

  /** Claims the devices and writes the journal. Nothing is changed yet. @throws VioError BUSY, INTERRUPTED, or that of the journal */
  static begin(host: Host, operation: Journal['operation'], moves: readonly Move[]): Transaction {
    const store = new Store(host.root);
    const devices = moves.map(({ device, to, macs }): JournalDevice => {
      const vfs = lostVfs(host, store, device, to);
      return {
        bdf: device.bdf,
        vendor: device.vendor,
        device: device.device,
        before: stateOf(device),
        after: to,
        step: 'none',
        ...(macs && { macs }),
        ...(vfs && { vfs }),
        ...(device.driver !== undefined && !host.modules.isVfio(device.driver) && { names: namesOf(host.root, device.bdf) }),
      };
    });
    const started = startTime(host.root, host.pid) ?? '';
    // random: in a container every run may have the same pid
    const id = `${operation}-${moves[0]!.device.bdf}-${host.pid}-${randomBytes(4).toString('hex')}`;
    const journal: Journal = { version: 1, id, operation, pid: host.pid, started, boot: store.boot, devices };
    const claimed: JournalDevice[] = [];
    let saving = false;
    try {
      for (const device of devices) {
        store.claim(device.bdf, journal);
        claimed.push(device);
        const now = readDevice(host.root, device.bdf);
        if (now && differs(stateOf(now), device.before))
          throw new VioError(`${device.bdf}: another program has just changed this device: EBUSY`, { code: 'BUSY' });
      }
      saving = true;
      store.save(journal);
    } catch (err) {
      if (saving) store.end(journal);
      else store.release(claimed);
      throw err;
    }
    return new Transaction(host, store, journal, moves);
  }

  /** The journal is gone: the transaction is complete or undone. */
  ended = false;

  get devices(): readonly JournalDevice[] {
    return this.#journal.devices;
  }

  #mark(device: JournalDevice, step: string): void {
    device.step = step;
    this.#store.save(this.#journal);
  }

  /** Notes a step outside the moves (owner). */
  mark(step: Step): void {
    for (const device of this.#journal.devices) device.step = step;
    this.#store.save(this.#journal);
  }

  /** Makes the moves. On any failure everything is put back. @throws the failure, or NOT_RESTORED (8) */
  async run(options: { signal?: AbortSignal | undefined; timeout?: number; afterwards?: () => Promise<void> } = {}): Promise<void> {
    const { signal, timeout = writeTimeout } = options;
    assert(!this.ended, 'nothing follows the end of a transaction');
    try {
      for (const [i, move] of this.#moves.entries()) {
        const entry = this.#journal.devices[i]!;
        await moveTo(this.#host, move.device.bdf, move.to, { mark: (step) => this.#mark(entry, step), signal, timeout });
      }
      await options.afterwards?.();
      await checkSignal(signal);
    } catch (err) {
      await this.undo(err);
      throw err;
    }
  }

  /** Puts every device back and ends the journal. @throws NOT_RESTORED (8); the journal stays for `vfio restore` then */
  async undo(cause?: unknown): Promise<void> {
    const text = cause instanceof Error ? cause.message : 'undo';
    const stuck = cause instanceof VioError && cause.code === 'STUCK' ? (cause.details?.bdf as string) : undefined;
    // a device whose driver still holds it in the kernel cannot be moved: any write to it would hang as well
    const movable = this.#journal.devices.filter((device) => device.bdf !== stuck);
    const left = await rollBack(this.#host, movable, (device, step) => {
      try {
        this.#mark(device, step);
      } catch {
        // A full disk must not keep devices from going back. The journal that is there tells their earlier states.
      }
    });
    for (const device of this.#journal.devices.filter((d) => d.bdf === stuck))
      left.push({ bdf: device.bdf, want: device.before, why: 'the kernel is still busy with it' });
    this.ended = true; // a journal that stays is for `vfio restore`
    if (left.length > 0) throw notRestored(text, left, cause);
    this.#store.end(this.#journal);
  }

  /**
   * Ends the transaction as done. The order matters: records are written before the journal goes, so that a run that is
   * killed in between is undone as a whole. If a write fails, devices and records go back.
   * @throws VioError of the write, or NOT_RESTORED (8)
   */
  async commit(): Promise<void> {
    assert(!this.ended, 'nothing follows the end of a transaction');
    const store = this.#store;
    const earlier: { bdf: string; record: BoundRecord | undefined }[] = [];
    try {
      for (const device of this.#journal.devices) {
        if (this.#journal.operation === 'sriov') break; // virtual functions are there or not: nothing to give back later
        const record = store.record(device.bdf);
        earlier.push({ bdf: device.bdf, record });
        if (this.#journal.operation === 'unbind') store.forget(device.bdf);
        else store.keep(this.#recordOf(device, record));
      }
      store.end(this.#journal);
    } catch (err) {
      await this.undo(err);
      for (const { bdf, record } of earlier) {
        if (record) store.keep(record);
        else store.forget(bdf);
      }
      throw err;
    }
  }

  /** What is kept about a bound device. A second bind to another VFIO driver keeps the state of the first. */
  #recordOf({ bdf, vendor, device, before, after, names }: JournalDevice, earlier: BoundRecord | undefined): BoundRecord {
    const first = earlier?.vendor === vendor && earlier.device === device && earlier.after.driver === before.driver;
    return {
      version: 1,
      boot: this.#journal.boot,
      bdf,
      vendor,
      device,
      before: first ? earlier.before : before,
      after,
      names: first ? earlier.names : names,
    };
  }
}
