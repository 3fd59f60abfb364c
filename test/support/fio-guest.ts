// A guest of Linux 6.12 with busybox and fio, all in its initramfs: nothing keeps it from being migrated.
import { execFileSync, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { type CpioEntry, cpio } from '../vm/cpio.js';
import { kernel } from '../vm/kernels.js';

/** How an init begins: file systems, the console as its terminal, the disk. */
export const fioPrologue = `#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc p /proc; mount -t sysfs s /sys; mount -t devtmpfs d /dev
mkdir -p /dev/shm /tmp; mount -t tmpfs t /dev/shm
exec </dev/ttyS0 >/dev/ttyS0 2>&1
insmod /virtio_blk.ko
[ -b /dev/vda ] || echo NO DISK
`;

/** The programs and libraries that fio needs, as the entries of an archive. */
function withLibraries(program: string): CpioEntry[] {
  const said = spawnSync('ldd', [program], { encoding: 'utf8' }).stdout;
  const files = [program, ...[...said.matchAll(/(\/\S+) \(0x/g)].map((match) => match[1]!)];
  return files.map((file) => ({ name: file.slice(1), type: 'file', data: fs.readFileSync(file), mode: 0o755 }));
}

/** A guest whose init has fio and the driver of virtio disks. @returns QEMU's arguments */
export async function fioGuest(dir: string, init: string): Promise<string[]> {
  const { dir: tree, release, vmlinuz } = await kernel('6.12');
  const module = path.join(tree, 'lib/modules', release, 'kernel/drivers/block/virtio_blk.ko.xz');
  const files: CpioEntry[] = [
    { name: 'bin/busybox', type: 'file', data: fs.readFileSync('/bin/busybox'), mode: 0o755 },
    { name: 'virtio_blk.ko', type: 'file', data: execFileSync('xz', ['-dc', module], { maxBuffer: 1 << 24 }) },
    ...withLibraries('/usr/bin/fio'),
  ];
  const folders = new Set(['dev', 'proc', 'sys']);
  for (const { name } of files) for (let at = name.indexOf('/'); at > 0; at = name.indexOf('/', at + 1)) folders.add(name.slice(0, at));
  const archive = cpio([
    ...[...folders].map((name) => ({ name, type: 'dir' }) as const),
    ...files,
    { name: 'init', type: 'file', data: init, mode: 0o755 },
  ]);
  const initrd = path.join(dir, 'initrd');
  fs.writeFileSync(initrd, archive);
  return [
    '-kernel',
    vmlinuz,
    '-initrd',
    initrd,
    '-append',
    'console=ttyS0 quiet no_timer_check tsc=reliable panic=0 init_on_alloc=0 init_on_free=0',
  ];
}
