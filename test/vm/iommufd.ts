// The 6.12 kernel with iommufd, VFIO character devices and no-IOMMU mode, which Debian leaves out: vfio and iommufd
// rebuilt from Debian's linux-source against its linux-headers, in a module tree of their own in the cache.
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import path from 'node:path';
import { Suite } from './apt.js';
import { cached, must } from './cache.js';
import { type Kernel, kernel } from './kernels.js';

/** What Kconfig would define, as our own Kbuild file says it to every object below. */
const KBUILD = `subdir-ccflags-y += -DCONFIG_IOMMUFD_MODULE=1 -DCONFIG_IOMMUFD_DRIVER=1 -DCONFIG_VFIO_DEVICE_CDEV=1
subdir-ccflags-y += -DCONFIG_INTERVAL_TREE_SPAN_ITER=1 -DCONFIG_VFIO_NOIOMMU=1
obj-m += iommu/iommufd/ vfio/
`;

/** The same for make, which picks objects by it. */
const SETTINGS = [
  ...['CONFIG_IOMMUFD=m', 'CONFIG_VFIO_DEVICE_CDEV=y', 'CONFIG_VFIO_MDEV=', 'CONFIG_VFIO_PLATFORM_BASE='],
  // would need pahole
  'CONFIG_DEBUG_INFO_BTF_MODULES=',
];

/** The parts of the source that are unpacked. */
const SOURCES = ['*/drivers/iommu/iommufd/*', '*/drivers/iommu/*.h', '*/drivers/vfio/*', '*/lib/interval_tree.c'];

/**
 * The 6.12 kernel whose `modprobe vfio-pci` loads the rebuilt modules. First use fetches about 170 MB and compiles for
 * about 25 s of CPU time; gcc-12 and make are needed.
 */
export async function iommufdKernel(): Promise<Kernel> {
  const stock = await kernel('6.12');
  const dir = await cached('kernel-6.12-iommufd', async (part) => {
    const work = path.join(part, 'work');
    const headers = path.join(work, 'headers');
    const suite = await Suite.open('bookworm-backports');
    const names = ['amd64', 'common'].map((f) => `linux-headers-${stock.release.replace(/-amd64$/, '')}-${f}`);
    names.push(`linux-kbuild-${stock.release.replace(/-amd64$/, '')}`);
    const source = await suite.version('linux-source-6.12');
    const header = await suite.version(names[0] ?? '');
    if (source !== header) {
      throw new Error(`linux-source-6.12 is ${source}, headers of ${stock.release} are ${header}: remove ${stock.dir}, it is old`);
    }
    await suite.unpack(['linux-source-6.12'], work);
    await suite.unpack(names, headers);
    const ko = await build(work, headers, stock.release);
    await must(['cp', '-al', path.join(stock.dir, 'lib'), path.join(part, 'lib')]);
    const updates = path.join(part, 'lib/modules', stock.release, 'updates');
    await must(['mkdir', updates]);
    await must(['strip', '--strip-debug', ...ko]);
    await must(['cp', ...ko, updates]);
    // the index files are links to the stock kernel's: never write through them
    const index = path.join(part, 'lib/modules', stock.release);
    for (const f of readdirSync(index)) {
      if (!/^modules\./.test(f)) continue;
      const bytes = readFileSync(path.join(index, f));
      rmSync(path.join(index, f));
      writeFileSync(path.join(index, f), bytes);
    }
    await must(['depmod', '-b', part, stock.release]);
    rmSync(work, { recursive: true });
  });
  return { ...stock, dir };
}

/** Compiles the modules; returns their paths. */
async function build(work: string, headers: string, release: string): Promise<string[]> {
  const archive = path.join(work, 'usr/src/linux-source-6.12.tar.xz');
  await must(['tar', '-xJf', archive, '-C', work, '--strip-components=1', '--wildcards', ...SOURCES]);
  const drivers = path.join(work, 'drivers');
  const iommufd = path.join(drivers, 'iommu/iommufd');
  // the kernel has the interval tree built in, but without the span iterator half of the file
  const tree = readFileSync(path.join(work, 'lib/interval_tree.c'), 'utf8');
  const half = /^#ifdef CONFIG_INTERVAL_TREE_SPAN_ITER\n[\s\S]*?^#endif/m.exec(tree)?.[0];
  if (!half) throw new Error('no span iterator in lib/interval_tree.c');
  writeFileSync(path.join(iommufd, 'span_iter.c'), `#include <linux/interval_tree.h>\n#include <linux/module.h>\n${half}\n`);
  writeFileSync(path.join(iommufd, 'Makefile'), 'iommufd-y += iova_bitmap.o span_iter.o\n', { flag: 'a' });
  writeFileSync(path.join(drivers, 'Kbuild'), KBUILD);
  const kernelHeaders = path.join(headers, 'usr/src', `linux-headers-${release.replace(/-amd64$/, '')}`);
  const make = ['make', `-j${cpus().length}`, '-C', `${kernelHeaders}-common`, `O=${kernelHeaders}-amd64`];
  await must([...make, `M=${drivers}`, `KBUILD_EXTMOD=${drivers}`, ...SETTINGS, 'modules']);
  return (await must(['find', drivers, '-name', '*.ko'])).trim().split('\n');
}
