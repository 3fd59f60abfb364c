import type { VioError } from '../../common/errors.js';
import type { Census } from '../census/census.js';
import { readDevice } from '../devices/pci.js';
import { type Journal, Store } from '../transaction/journal.js';
import type { Host } from '../transaction/move.js';
import { type Leftover, notRestored, rollBack } from '../transaction/transaction.js';
import { batchError, type Failure, oneByOne } from './batch.js';
import { unbind } from './unbind.js';

/** What restore did with one device. */
export interface Restored {
  bdf: string;
  /** The journal's operation, or `bound` for a completed bind that --all gave back. */
  operation: 'bind' | 'unbind' | 'sriov' | 'bound';
  /** The step that the interrupted run had begun. */
  step: string;
  driver: string | undefined;
  /** `gone`: no such device is at the address any more (removed, renumbered or replaced); what was kept about it went. */
  outcome: 'restored' | 'running' | 'other boot' | 'gone';
}

/** The journals that a restore would replay, and those it leaves alone. */
export function pending(host: Host): { replay: Journal[]; running: Journal[]; stale: Journal[] } {
  const store = new Store(host.root);
  const all = store.journals();
  const stale = all.filter((journal) => journal.boot !== store.boot);
  const current = all.filter((journal) => journal.boot === store.boot);
  return { replay: current.filter((journal) => !store.alive(journal)), running: current.filter((journal) => store.alive(journal)), stale };
}

/** What a restore came to: items are independent, so that one that fails keeps no other from going back. */
export interface Restoration {
  devices: Restored[];
  /** changes that could not be undone, and stay in the journal */
  left: Leftover[];
  /** Devices of completed binds that could not be given back, with the state they are in unchanged. */
  failed: Failure[];
}

/** True if no device is at the address of a journal or record any more. */
const isGone = (host: Host, kept: { bdf: string }): boolean => readDevice(host.root, kept.bdf) === undefined;

/** True if the device that a record is about is not at its address any more: unplugged, renumbered or replaced. */
function isLost(host: Host, kept: { bdf: string; vendor: number; device: number }): boolean {
  const now = readDevice(host.root, kept.bdf);
  return now === undefined || now.vendor !== kept.vendor || now.device !== kept.device;
}

/** Replays a journal. @returns what could not be put back */
async function replayOne(host: Host, store: Store, journal: Journal): Promise<Leftover[]> {
  const present = journal.devices.filter((device) => !isGone(host, device));
  const left = await rollBack(host, present, () => {});
  if (left.length > 0) return left;
  // a bind that was killed while it committed may have left records of what is now undone
  if (journal.operation === 'bind')
    for (const { bdf, before } of journal.devices) if (!host.modules.isVfio(before.driver)) store.forget(bdf);
  store.endKilled(journal);
  return [];
}

/**
 * Undoes what interrupted runs left, newest journal first. A journal of a run that is still alive is left alone; one of an
 * earlier boot only goes away, since the kernel probed all devices anew.
 * @param options.only only what is of these devices
 * @param options.all also give back every device that a completed bind holds, one by one
 */
export async function restore(
  host: Host,
  census: Census,
  options: { all: boolean; only?: ReadonlySet<string>; wait: number; signal?: AbortSignal | undefined },
): Promise<Restoration> {
  const store = new Store(host.root);
  const { only } = options;
  const about = (journal: Journal): boolean => only === undefined || journal.devices.some(({ bdf }) => only.has(bdf));
  const { replay, running, stale } = pending(host);
  const devices: Restored[] = [];
  const left: Leftover[] = [];
  const result = (journal: Journal, outcome: Restored['outcome'], lost: ReadonlySet<string> = new Set()) => {
    for (const { bdf, step, before } of journal.devices)
      devices.push({ bdf, operation: journal.operation, step, driver: before.driver, outcome: lost.has(bdf) ? 'gone' : outcome });
  };
  for (const journal of running.filter(about)) result(journal, 'running');
  for (const journal of stale.filter(about)) {
    store.endKilled(journal);
    result(journal, 'other boot');
  }
  for (const journal of replay.filter(about)) {
    const lost = new Set(journal.devices.filter((device) => isGone(host, device)).map(({ bdf }) => bdf));
    const failed = await replayOne(host, store, journal);
    if (failed.length > 0) left.push(...failed);
    else result(journal, 'restored', lost);
  }
  store.sweep();
  if (!options.all) return { devices, left, failed: [] };
  const records = store.records();
  for (const record of records.filter((one) => isLost(host, one))) {
    store.forget(record.bdf);
    devices.push({ bdf: record.bdf, operation: 'bound', step: 'done', driver: record.before.driver, outcome: 'gone' });
  }
  const { done, failed } = await oneByOne(
    records.filter((record) => !isLost(host, record)).map(({ bdf }) => bdf),
    options.signal,
    async (bdf) => {
      const { devices } = await unbind(host, census, { bdfs: [bdf], wait: options.wait, signal: options.signal });
      if (devices[0]!.already) store.forget(bdf);
      return devices[0]!;
    },
  );
  for (const { bdf, driver } of done) devices.push({ bdf, operation: 'bound', step: 'done', driver, outcome: 'restored' });
  return { devices, left, failed };
}

/** The error of a restore that left something; undefined for none. */
export function restorationError({ devices, left, failed }: Restoration): VioError | undefined {
  if (left.length > 0) return notRestored('restore failed', left, undefined);
  return failed.length > 0 ? batchError(failed, devices.length + failed.length) : undefined;
}
