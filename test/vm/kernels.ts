// Stock Debian kernels, unpacked into the cache, each with an initramfs that holds just enough to reach the shared root.
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import path from 'node:path';
import { everything } from '../support/effort.js';
import { firstExisting, Suite } from './apt.js';
import { cached, must } from './cache.js';
import { type CpioEntry, cpio } from './cpio.js';

/** The kernels of the lab by the name tests use. */
export const KERNELS = ['6.1', '6.12', '7'] as const;
export type KernelName = (typeof KERNELS)[number];

/**
 * The kernels that a file of the lab runs its tests on: the `usual` ones, chosen for what differs between them. With
 * `npm run soak -- lab` all that `have` what the tests need.
 */
export function kernelsFor(usual: readonly KernelName[], have: readonly KernelName[] = KERNELS): readonly KernelName[] {
  return everything ? have : usual;
}

/** Where each kernel comes from, in order of preference. */
const SUITES: Record<KernelName, readonly string[]> = {
  '6.1': ['bookworm'],
  '6.12': ['bookworm-backports'],
  '7': ['trixie-backports', 'sid'],
};

/**
 * Modules of the initramfs: the 9p root over virtio, and the ports that carry output. Absent ones are built in, but for virtio_iommu,
 * which 6.1 lacks: with such an IOMMU the kernel probes no device before its driver is there.
 */
const BOOT_MODULES = ['virtio_pci', 'virtio_iommu', 'virtio_console', '9pnet_virtio', '9p', 'overlay'];

/** What init.sh calls. */
const APPLETS = 'sh mount insmod mkdir mkfifo ln cp cat chroot sleep usleep sync dd printf ip hostname poweroff uname cpio date'.split(' ');

/** An unpacked kernel. */
export interface Kernel {
  name: KernelName;
  /** `uname -r` of it. */
  release: string;
  /** Folder that holds lib/modules/RELEASE. */
  dir: string;
  vmlinuz: string;
  /** Path of the base initramfs (busybox and modules; /init is appended for each boot). */
  initrd: string;
}

/** The packages that make up a suite's default kernel of the wanted version; undefined when it has another one. */
async function packages(suite: Suite, wanted: KernelName): Promise<string[] | undefined> {
  const all = new Set<string>();
  const walk = async (name: string): Promise<void> => {
    for (const d of await suite.depends(name)) {
      if (all.has(d) || !/^linux-(image|binary|modules|base)-\d/.test(d)) continue;
      all.add(d);
      await walk(d);
    }
  };
  await walk('linux-image-amd64');
  const image = [...all].find((n) => n.startsWith('linux-image-'));
  return image?.startsWith(`linux-image-${wanted}.`) ? [...all] : undefined;
}

/** Unpacks the kernel on first use (about 20 s and 100-400 MB in the cache) and returns it. */
export async function kernel(name: KernelName): Promise<Kernel> {
  const dir = await cached(`kernel-${name}`, async (part) => {
    for (const s of SUITES[name]) {
      const suite = await Suite.open(s);
      const names = await packages(suite, name);
      if (!names) continue;
      await suite.unpack(names, part);
      await finish(part);
      return;
    }
    throw new Error(`no linux-image-amd64 ${name}.x in ${SUITES[name].join(', ')}`);
  });
  const release = readFileSync(path.join(dir, 'release'), 'utf8');
  const vmlinuz = firstExisting(dir, [`boot/vmlinuz-${release}`, `usr/lib/modules/${release}/vmlinuz`]);
  const recipe = createHash('sha256')
    .update(JSON.stringify([release, APPLETS, BOOT_MODULES]))
    .digest('hex')
    .slice(0, 12);
  const initrd = await cached(`initrd-${name}-${recipe}`, async (part) => {
    writeFileSync(path.join(part, 'initrd'), await initramfs(dir, release));
  });
  return { name, release, dir, vmlinuz, initrd: path.join(initrd, 'initrd') };
}

/** Makes an unpacked kernel bootable: module index, release; documentation removed. */
async function finish(dir: string): Promise<void> {
  if (!existsSync(path.join(dir, 'lib'))) symlinkSync('usr/lib', path.join(dir, 'lib'));
  const release = readdirSync(path.join(dir, 'lib/modules'))[0];
  if (!release) throw new Error(`no modules in ${dir}`);
  await rm(path.join(dir, 'usr/share'), { recursive: true, force: true });
  await must(['depmod', '-b', dir, release]);
  writeFileSync(path.join(dir, 'release'), release);
}

async function initramfs(dir: string, release: string): Promise<Buffer> {
  const entries: CpioEntry[] = [];
  for (const d of ['bin', 'sbin', 'dev', 'proc', 'sys', 'mods', 'ro', 'rw', 'job']) entries.push({ name: d, type: 'dir' });
  entries.push({ name: 'bin/busybox', type: 'file', data: readFileSync('/bin/busybox'), mode: 0o755 });
  for (const a of APPLETS) entries.push({ name: `bin/${a}`, type: 'link', target: 'busybox' });
  const order: string[] = [];
  for (const wanted of BOOT_MODULES) {
    if (wanted === 'virtio_iommu' && !(await must(['find', path.join(dir, 'lib/modules', release), '-name', 'virtio-iommu.ko*']))) continue;
    const list = await must(['modprobe', '-d', dir, '-S', release, '--show-depends', wanted]);
    for (const file of [...list.matchAll(/^insmod (\S+)/gm)].map((m) => m[1] as string)) {
      const base = path.basename(file).replace(/\.(xz|zst|gz)$/, '');
      if (order.includes(base)) continue;
      order.push(base);
      entries.push({ name: `mods/${base}`, type: 'file', data: await plain(file) });
    }
  }
  entries.push({ name: 'mods/order', type: 'file', data: order.map((m) => `${m}\n`).join('') });
  return cpio(entries);
}

/** A module's bytes, decompressed: busybox insmod takes only plain ones. */
async function plain(file: string): Promise<Buffer> {
  if (file.endsWith('.ko')) return readFileSync(file);
  const tool = file.endsWith('.xz') ? 'xz' : file.endsWith('.zst') ? 'zstd' : 'gzip';
  const tmp = path.join(path.dirname(file), `.${path.basename(file)}.${process.pid}`);
  try {
    await must(['sh', '-c', `${tool} -dc "$1" >"$2"`, 'sh', file, tmp]);
    return readFileSync(tmp);
  } finally {
    await rm(tmp, { force: true });
  }
}
