import type { Census } from '../census/census.js';
import { type Journal, Store } from './journal.js';
import type { Host } from './move.js';
import { type Leftover, notRestored, rollBack } from './transaction.js';
import { unbind } from './unbind.js';

/** What restore did with one device. */
export interface Restored {
  bdf: string;
  /** The journal's operation, or `bound` for a completed bind that --all gave back. */
  operation: 'bind' | 'unbind' | 'bound';
  /** The step that the interrupted run had begun. */
  step: string;
  driver: string | undefined;
  outcome: 'restored' | 'running' | 'other boot';
}

/** The journals that a restore would replay, and those it leaves alone. */
export function pending(host: Host): { replay: Journal[]; running: Journal[]; stale: Journal[] } {
  const store = new Store(host.root);
  const all = store.journals();
  const stale = all.filter((journal) => journal.boot !== store.boot);
  const current = all.filter((journal) => journal.boot === store.boot);
  return { replay: current.filter((journal) => !store.alive(journal)), running: current.filter((journal) => store.alive(journal)), stale };
}

/**
 * Undoes what interrupted runs left, newest journal first. A journal of a run that is still alive is left alone; one of an
 * earlier boot only goes away, since the kernel probed all devices anew.
 * @param options.all also give back every device that a completed bind holds
 * @throws VioError NOT_RESTORED (8), naming what is left; its journals stay
 */
export async function restore(
  host: Host,
  census: Census,
  options: { all: boolean; wait: number; signal?: AbortSignal | undefined },
): Promise<Restored[]> {
  const store = new Store(host.root);
  const { replay, running, stale } = pending(host);
  const done: Restored[] = [];
  const left: Leftover[] = [];
  const result = (journal: Journal, outcome: Restored['outcome']) => {
    for (const { bdf, step, before } of journal.devices)
      done.push({ bdf, operation: journal.operation, step, driver: before.driver, outcome });
  };
  for (const journal of running) result(journal, 'running');
  for (const journal of stale) {
    store.end(journal);
    result(journal, 'other boot');
  }
  for (const journal of replay) {
    const failed = await rollBack(host, journal.devices, () => {});
    if (failed.length > 0) {
      left.push(...failed);
      continue;
    }
    // a bind that was killed while it committed may have left records of what is now undone
    if (journal.operation === 'bind')
      for (const { bdf, before } of journal.devices) if (!host.modules.isVfio(before.driver)) store.forget(bdf);
    store.end(journal);
    result(journal, 'restored');
  }
  if (left.length > 0) throw notRestored('restore failed', left, undefined);
  if (options.all) {
    const records = store.records();
    const { devices: steps } = await unbind(host, census, {
      bdfs: records.map((record) => record.bdf),
      wait: options.wait,
      signal: options.signal,
    });
    for (const { bdf, driver, already } of steps) {
      if (already) store.forget(bdf);
      done.push({ bdf, operation: 'bound', step: 'done', driver, outcome: 'restored' });
    }
  }
  return done;
}
