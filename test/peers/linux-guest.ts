// A Linux guest whose init is a few lines of shell: what a kernel really fills, for migration files.
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type CpioEntry, cpio } from '../vm/cpio.js';
import { kernel } from '../vm/kernels.js';
import { qemu } from '../vm/qemu.js';
import { put, TestGuest } from './migration-guest.js';

const serial = (dir: string): string => path.join(dir, 'serial');

/** Arguments that boot Linux 6.12; its init runs `commands` of busybox and waits. `files` are added to its initramfs. */
export async function linuxArgs(dir: string, commands: string, files: readonly CpioEntry[] = []): Promise<string[]> {
  const initrd = cpio([
    { name: 'bin', type: 'dir' },
    { name: 'dev', type: 'dir' },
    { name: 'bin/busybox', type: 'file', data: readFileSync('/bin/busybox'), mode: 0o755 },
    { name: 'init', type: 'file', data: `#!/bin/busybox sh\n${commands}\nexec /bin/busybox sleep 99999\n`, mode: 0o755 },
    ...files,
  ]);
  const { vmlinuz } = await kernel('6.12');
  const boot = ['-kernel', vmlinuz, '-initrd', put(dir, 'initrd', initrd), '-append', 'console=ttyS0 quiet no_timer_check tsc=reliable'];
  return ['-M', 'q35', '-cpu', 'max', '-serial', `file:${serial(dir)}`, ...boot];
}

/** Waits until such a guest has written `text` to its console. */
export async function consoleSays(dir: string, text: string, seconds: number): Promise<void> {
  for (let i = 0; !readFileSync(serial(dir), 'latin1').includes(text); i++) {
    if (i === 2 * seconds) throw new Error(`the guest did not boot: ${readFileSync(serial(dir), 'latin1').slice(-1000)}`);
    await sleep(500);
  }
}

/** Boots a guest with `mib` of memory and `devices` in `dir`, waits until it idles, and saves it with QEMU 10.0 into `out`. */
export async function saveIdleGuest(dir: string, out: string, mib: number, devices: readonly string[]): Promise<void> {
  const args = [...(await linuxArgs(dir, 'echo GUEST IS IDLE')), '-m', String(mib), ...devices.flatMap((d) => ['-device', d])];
  const guest = await TestGuest.start(await qemu('10'), dir, args);
  try {
    await guest.qmp.run('cont');
    await consoleSays(dir, 'GUEST IS IDLE', 180);
    await sleep(2000);
    await guest.migrate({ uri: `file:${out}` });
  } finally {
    await guest.stop();
  }
}
