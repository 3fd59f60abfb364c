import { counted, formatSize } from '../../common/units.js';
import { pending } from '../binding/restore.js';
import type { Census } from '../census/census.js';
import { readGroup } from '../devices/group.js';
import { kernelParameter, readIommu } from '../devices/iommu.js';
import type { Host } from '../transaction/move.js';

/** One thing that doctor looked at. */
export interface Diagnosis {
  id: string;
  /** ok; note: worth knowing; warn: something will not work; fail: nothing will */
  level: 'ok' | 'note' | 'warn' | 'fail';
  message: string;
  /** What to do. */
  fix: string | undefined;
}

const entry = (id: string, level: Diagnosis['level'], message: string, fix?: string): Diagnosis => ({ id, level, message, fix });

function iommuPart(census: Census): Diagnosis[] {
  const { root } = census;
  const iommu = readIommu(root);
  if (!iommu.present) {
    const why = `no IOMMU: ${iommu.why ?? 'unknown reason'}`;
    if (iommu.noiommu) return [entry('iommu', 'warn', `${why}; VFIO runs in no-IOMMU mode, where devices reach all memory`, iommu.fix)];
    return [entry('iommu', 'fail', why, iommu.fix)];
  }
  const found = [entry('iommu', 'ok', `IOMMU in use: ${iommu.units.join(', ') || 'unnamed'}, ${iommu.groups} groups`)];
  if (
    kernelParameter(root.attr('/proc/cmdline') ?? '', 'iommu')
      ?.split(',')
      .includes('pt')
  )
    found.push(entry('iommu-pt', 'note', 'iommu=pt: host drivers bypass the IOMMU; devices on VFIO do not'));
  const interrupts = root.attr('/proc/interrupts');
  if (interrupts !== undefined && iommu.units.some((unit) => /^(dmar|ivhd)/.test(unit))) {
    const unsafe = root.attr('/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts') === 'Y';
    // interrupt chips behind a remapping IOMMU are named IR-… (arch/x86, drivers/iommu/*/irq_remapping)
    if (/\bIR-/.test(interrupts)) found.push(entry('interrupts', 'ok', 'interrupt remapping is on'));
    else if (unsafe)
      found.push(
        entry(
          'interrupts',
          'warn',
          'no interrupt remapping, and allow_unsafe_interrupts is set: a device can raise any interrupt',
          'enable interrupt remapping (x2APIC) in the firmware set-up',
        ),
      );
    else
      found.push(
        entry(
          'interrupts',
          'warn',
          'no interrupt remapping: VFIO refuses the IOMMU with EPERM',
          'enable interrupt remapping in the firmware set-up and remove intremap=off, or, at a risk: modprobe vfio_iommu_type1 allow_unsafe_interrupts=1',
        ),
      );
  }
  return found;
}

function modulePart(census: Census): Diagnosis[] {
  const { root, modules } = census;
  const found: Diagnosis[] = [];
  const dir = `/lib/modules/${modules.release}`;
  const known = `${root.attr(`${dir}/modules.dep`) ?? ''}\n${root.attr(`${dir}/modules.builtin`) ?? ''}`;
  for (const [name, what] of [
    ['vfio-pci', 'drives PCI devices for user space'],
    ['vfio_iommu_type1', 'maps memory for /dev/vfio/vfio'],
  ] as const) {
    const loaded = root.exists(`/sys/module/${name.replaceAll('-', '_')}`) || modules.registered(name);
    const installed = new RegExp(`/${name.replace(/[-_]/g, '[-_]')}\\.ko`).test(known);
    const fix = `install the modules of kernel ${modules.release || '?'}, or use one with CONFIG_VFIO_PCI and CONFIG_VFIO_IOMMU_TYPE1`;
    if (loaded) found.push(entry(name, 'ok', `module ${name} is loaded`));
    else if (installed) found.push(entry(name, 'ok', `module ${name} (${what}) is installed; bind loads it`));
    else found.push(entry(name, 'fail', `module ${name} (${what}) is neither loaded nor installed`, fix));
  }
  const variants = modules.vfioModules().filter((name) => name !== 'vfio_pci');
  if (variants.length > 0) found.push(entry('variants', 'note', `VFIO variant drivers of this kernel: ${variants.join(', ')}`));
  if (root.exists('/dev/iommu')) found.push(entry('iommufd', 'note', 'iommufd is there: /dev/iommu'));
  const limit = root.attr('/sys/module/vfio_iommu_type1/parameters/dma_entry_limit');
  if (limit !== undefined)
    found.push(entry('dma-entries', 'note', `at most ${counted(Number(limit), 'mapping')} per container (dma_entry_limit)`));
  return found;
}

function groupPart(census: Census): Diagnosis[] {
  const { root, modules } = census;
  return root.list('/sys/kernel/iommu_groups').flatMap((id): Diagnosis[] => {
    const ends = readGroup(root, modules, Number(id)).members.filter((member) => !member.bridge);
    const bound = ends.filter((member) => member.vfio);
    const blocking = ends.filter((member) => member.blocks);
    if (bound.length === 0 || blocking.length === 0) return [];
    const culprits = blocking.map((member) => `${member.bdf} (${member.driver})`).join(', ');
    const message = `group ${id} is not viable: ${bound.map((member) => member.bdf).join(', ')} on VFIO, but on host drivers: ${culprits}`;
    return [entry(`group-${id}`, 'warn', message, `vioctl vfio bind ${bound[0]!.bdf} --group`)];
  });
}

/** Limits below this many bytes are too small for the memory of any guest. */
const smallMemlock = 64 << 20;

function limitPart(census: Census): Diagnosis[] {
  const { root } = census;
  const found: Diagnosis[] = [];
  const line = /^Max locked memory\s+(\S+)/m.exec(root.attr('/proc/self/limits') ?? '')?.[1];
  if (line === 'unlimited') found.push(entry('memlock', 'ok', 'RLIMIT_MEMLOCK is unlimited'));
  else if (line !== undefined) {
    const bytes = Number(line);
    const text = `RLIMIT_MEMLOCK is ${formatSize(bytes)}: unprivileged processes can map no more for DMA, counted per mapping`;
    found.push(
      entry('memlock', bytes < smallMemlock ? 'warn' : 'note', text, 'LimitMEMLOCK= in the unit, or memlock in /etc/security/limits.conf'),
    );
  }
  const pools = root.list('/sys/kernel/mm/hugepages').flatMap((name) => {
    const kib = Number(/^hugepages-(\d+)kB$/.exec(name)?.[1] ?? 0);
    const total = Number(root.attr(`/sys/kernel/mm/hugepages/${name}/nr_hugepages`) ?? 0);
    const free = root.attr(`/sys/kernel/mm/hugepages/${name}/free_hugepages`) ?? '0';
    return total > 0 ? [`${total} of ${formatSize(kib * 1024)} (${free} free)`] : [];
  });
  if (pools.length > 0) found.push(entry('hugepages', 'ok', `hugepages: ${pools.join(', ')}`));
  else
    found.push(
      entry('hugepages', 'note', 'no hugepages are reserved: large mappings take many IOMMU entries', 'sysctl vm.nr_hugepages=512'),
    );
  return found;
}

function journalPart(host: Host): Diagnosis[] {
  const { replay } = pending(host);
  return replay.map(({ id, operation, devices }) =>
    entry(
      `journal-${id}`,
      'fail',
      `an interrupted ${operation} left ${devices.map(({ bdf }) => bdf).join(', ')} half changed`,
      'vioctl vfio restore',
    ),
  );
}

/** Looks at everything that VFIO needs on this host. */
export const diagnose = (host: Host, census: Census): Diagnosis[] => [
  ...iommuPart(census),
  ...modulePart(census),
  ...groupPart(census),
  ...limitPart(census),
  ...journalPart(host),
];

/** Exit status of a diagnosis: 7 without an IOMMU, 1 when something else fails, else 0. */
export function diagnosisStatus(found: readonly Diagnosis[]): number {
  if (found.some(({ id, level }) => id === 'iommu' && level === 'fail')) return 7;
  return found.some(({ level }) => level === 'fail') ? 1 : 0;
}
