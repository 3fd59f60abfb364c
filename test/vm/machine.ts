// What a guest is made of: the job it gets and the QEMU command line of its machine.
import { createHash } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { checkoutRoot } from './cache.js';
import { type CpioEntry, cpio } from './cpio.js';
import type { DeviceArgs } from './devices.js';
import type { GuestOptions } from './guest.js';
import type { Kernel } from './kernels.js';
import type { QemuBuild } from './qemu.js';

const quote = (s: string) => `'${s.replaceAll("'", "'\\''")}'`;

/** The lab's own part of the initramfs, appended to the kernel's. With `wait` the guest stops and reads its job from a port. */
export function bootstrap(wait: boolean): Buffer {
  const wrapper = '#!/bin/sh\nexec chroot /root2 /sbin/modprobe "$@"\n';
  const entries: CpioEntry[] = [
    { name: 'init', type: 'file', data: readFileSync(path.join(checkoutRoot(), 'test/vm/init.sh')), mode: 0o755 },
    // the kernel's own module requests run here, outside the overlay root
    { name: 'sbin/modprobe', type: 'file', data: wrapper, mode: 0o755 },
  ];
  if (wait) entries.push({ name: 'job/wait', type: 'file', data: '' });
  return cpio(entries);
}

/** What the guest shall do, as an archive that is unpacked over its initramfs. */
export function job(options: GuestOptions, kernelDir: string, net: boolean): Buffer {
  const env: Record<string, string> = {
    HOME: '/root',
    PATH: `${path.dirname(process.execPath)}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin`,
    LANG: 'C.UTF-8',
    ...options.env,
    LAB_CWD: checkoutRoot(),
  };
  const flags = {
    KERNEL_DIR: kernelDir,
    SHARE: options.share ? '1' : '',
    NET: net ? '1' : '',
    NOW: `${Math.round(Date.now() / 1000)}`,
  };
  const assign = (o: Record<string, string>, prefix = '') =>
    Object.entries(o)
      .map(([k, v]) => `${prefix}${k}=${quote(v)}\n`)
      .join('');
  const entries: CpioEntry[] = [
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

/**
 * The processor: without what costs much under emulation. Fast string instructions have the kernel copy byte by byte, vector instructions
 * are called functions, and the others make accesses to memory and changes of privilege dearer.
 */
const CPU = `max,${['erms', 'fsrm', 'avx', 'avx2', 'la57', 'smap', 'smep', 'pku'].map((feature) => `${feature}=off`).join(',')}`;

/** A machine, before it is started. */
export interface Machine {
  options: GuestOptions;
  kernel: Kernel;
  qemu: QemuBuild;
  devices: readonly DeviceArgs[];
}

/**
 * The arguments of qemu-system-x86_64. `dir` holds the run's files: initrd goes in; console, out, err, ctl and the
 * sockets qmp, in and job come out.
 */
export function machineArgs({ options, kernel, qemu, devices }: Machine, dir: string): string[] {
  const memory = options.memory ?? 1024;
  const append = [
    ...['console=ttyS0', 'panic=-1', 'oops=panic', 'quiet', 'loglevel=4', 'no_timer_check', 'tsc=reliable', 'mitigations=off'],
    ...devices.flatMap((m) => m.append ?? []),
    ...(options.append ? [options.append] : []),
  ];
  const port = (name: string, chardev: string) => [
    ...['-chardev', `${chardev},id=c${name}`],
    ...['-device', `virtserialport,bus=labser.0,chardev=c${name},name=lab.${name}`],
  ];
  const at = (name: string) => `path=${path.join(dir, name)}`;
  const folder = (host: string) => `local,path=${path.join(qemu.hostRoot, path.resolve(host))},security_model=none,multidevs=remap`;
  return [
    ...['-M', 'q35', '-accel', 'tcg,thread=multi', '-cpu', CPU, '-m', `${memory}`, '-smp', `${options.smp ?? 1}`],
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot'],
    ...['-kernel', kernel.vmlinuz, '-initrd', path.join(dir, 'initrd'), '-append', append.join(' ')],
    ...['-chardev', `file,id=con,${at('console')}`, '-serial', 'chardev:con'],
    ...['-qmp', `unix:${path.join(dir, 'qmp')},server=on,wait=off`],
    ...(devices.some((m) => m.sharedMemory)
      ? ['-object', `memory-backend-memfd,id=labmem,size=${memory}M,share=on`, '-machine', 'memory-backend=labmem']
      : []),
    ...devices.flatMap((m) => m.args),
    ...(options.args ?? []),
    // the lab's own devices stay at the end of the bus, so that tests find theirs at 00:01.0, 00:02.0, ...
    ...['-device', 'isa-debug-exit,iobase=0xf4,iosize=0x04', '-device', 'virtio-rng-pci,addr=0x1b'],
    ...['-device', 'vmgenid,guid=auto', '-device', 'virtio-serial-pci,id=labser,addr=0x1c'],
    ...port('out', 'stdio,signal=off'),
    ...port('err', `file,${at('err')}`),
    ...port('in', `socket,${at('in')},server=on,wait=off`),
    ...port('job', `socket,${at('job')},server=on,wait=off`),
    ...port('ctl', `file,${at('ctl')}`),
    ...['-fsdev', `${folder('/')},id=root,readonly=on`, '-device', 'virtio-9p-pci,fsdev=root,mount_tag=rootfs,addr=0x1d'],
    ...(options.share
      ? ['-fsdev', `${folder(options.share)},id=share`, '-device', 'virtio-9p-pci,fsdev=share,mount_tag=share,addr=0x1e']
      : []),
  ];
}

/** Names the machine's state before its job: equal for machines that can continue from each other's snapshot. */
export function machineKey(machine: Machine): string {
  const args = machineArgs(machine, '');
  // host ends of devices may differ
  const front = args.filter((_, i) => !['-chardev', '-netdev', '-fsdev', '-qmp'].includes(args[i - 1] ?? ''));
  const argv = machine.qemu.argv('qemu-system-x86_64', front);
  const { ino, mtimeMs } = statSync(machine.qemu.identity);
  const parts = [argv, ino, mtimeMs, machine.kernel.release, machine.kernel.initrd, bootstrap(true).toString('latin1')];
  return createHash('sha256').update(JSON.stringify(parts)).digest('hex').slice(0, 16);
}
