// At most so many guests at once on the machine, first come first served: a queue of ticket files in the cache.
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { cacheRoot } from './cache.js';

/** Guests that may run at the same time: emulation uses whole cores. */
const SLOTS = Number(process.env.VIOCTL_LAB_GUESTS || 2);

let serial = 0;
let held = 0;

/** The start time of a process in clock ticks (field 22 of /proc/PID/stat): tells a reused pid from the old one. */
function started(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
  } catch (e) {
    if ((e as NodeJS.ErrnoException).code === 'ENOENT' || (e as NodeJS.ErrnoException).code === 'ESRCH') return undefined;
    throw e;
  }
}

/**
 * Waits for a free slot; the returned function gives it back. Tickets of dead processes are removed by who waits. A
 * process that has a guest gets the next one at once: two that each hold one and want two would wait for ever.
 */
export async function guestSlot(): Promise<() => void> {
  const release = held > 0 ? () => {} : await queue();
  held++;
  let open = true;
  return () => {
    if (!open) return;
    open = false;
    held--;
    release();
  };
}

async function queue(): Promise<() => void> {
  const dir = path.join(cacheRoot(), 'guests');
  mkdirSync(dir, { recursive: true });
  const time = process.hrtime.bigint().toString().padStart(20, '0');
  const mine = `${time}-${process.pid}-${started(process.pid)}-${serial++}`;
  writeFileSync(path.join(dir, mine), '');
  for (;;) {
    const line: string[] = [];
    for (const name of readdirSync(dir).sort()) {
      const [, pid, start] = name.split('-');
      if (started(Number(pid)) === start) line.push(name);
      else rmSync(path.join(dir, name), { force: true });
    }
    const place = line.indexOf(mine);
    if (place < 0) throw new Error(`${path.join(dir, mine)} was removed by someone`);
    if (place < SLOTS) return () => rmSync(path.join(dir, mine), { force: true });
    await sleep(100);
  }
}
