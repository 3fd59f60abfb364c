// A Linux guest that has booted and waits: the file of an idle machine, with the memory that a kernel really fills.
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { cpio } from '../vm/cpio.js';
import { kernel } from '../vm/kernels.js';
import { qemu } from '../vm/qemu.js';
import { TestGuest } from './migration-guest.js';

const INIT = '#!/bin/busybox sh\necho GUEST IS IDLE\nexec /bin/busybox sleep 99999\n';

/**
 * Boots Linux 6.12 with `mib` of memory and `devices` (their -device arguments) in `dir`, waits until it idles, and saves it
 * with QEMU 10.0 into `out`.
 */
export async function saveIdleGuest(dir: string, out: string, mib: number, devices: readonly string[]): Promise<void> {
  const { vmlinuz } = await kernel('6.12');
  const initrd = path.join(dir, 'initrd');
  writeFileSync(
    initrd,
    cpio([
      { name: 'bin', type: 'dir' },
      { name: 'dev', type: 'dir' },
      { name: 'bin/busybox', type: 'file', data: readFileSync('/bin/busybox'), mode: 0o755 },
      { name: 'init', type: 'file', data: INIT, mode: 0o755 },
    ]),
  );
  const serial = path.join(dir, 'serial');
  const machine = ['-M', 'q35', '-cpu', 'max', '-m', String(mib), '-kernel', vmlinuz, '-initrd', initrd, '-serial', `file:${serial}`];
  const append = ['-append', 'console=ttyS0 quiet no_timer_check tsc=reliable'];
  const guest = await TestGuest.start(await qemu('10'), dir, [...machine, ...append, ...devices.flatMap((d) => ['-device', d])]);
  try {
    await guest.qmp.run('cont');
    for (let i = 0; !/GUEST IS IDLE/.test(readFileSync(serial, 'latin1')); i++) {
      if (i === 360) throw new Error(`the guest did not boot: ${readFileSync(serial, 'latin1').slice(-1000)}`);
      await sleep(500);
    }
    await sleep(2000);
    await guest.migrate({ uri: `file:${out}` });
  } finally {
    await guest.stop();
  }
}
